/** What a service manager is told and what it tells, against a socket of the test's own. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { closeFds, createEventFd, openFileKey } from '../../src/host/descriptor.ts';
import { libc } from '../../src/host/libc.ts';
import { NotifySocket, takeServiceEnvironment } from '../../src/host/notify.ts';
import { bindDatagram, receive } from '../../src/host/unix-socket.ts';

const AF_UNIX = 1;
const closing: (() => unknown)[] = [];
afterEach(() => {
  for (const close of closing.splice(0).reverse()) close();
});

type Receiver = { readonly address: string; readonly fd: number };

function receiverAtPath(): Receiver {
  const folder = mkdtempSync(join(tmpdir(), 'ringway-test-'));
  const address = join(folder, 'notify');
  const fd = bindDatagram(address);
  closing.push(() => {
    closeFds([fd]);
    rmSync(folder, { recursive: true });
  });
  return { address, fd };
}

function abstractReceiver(): Receiver {
  const name = `ringway-test-${process.pid}`;
  const fd = libc.socket(AF_UNIX, 2 | 0o4000 | 0o2000000, 0);
  const address = Uint8Array.of(AF_UNIX, 0, 0, ...Buffer.from(name));
  expect(libc.bind(fd, address, address.length)).toBe(0);
  closing.push(() => closeFds([fd]));
  return { address: `@${name}`, fd };
}

function socketTo(address: string, onCaughtUp?: () => void): NotifySocket {
  const socket = new NotifySocket(address, onCaughtUp);
  closing.push(() => socket.close());
  return socket;
}

/** All that waits. */
function received(fd: number): { text: string; fds: number[] }[] {
  const messages = [];
  for (;;) {
    const { bytes, fds } = receive(fd, 4096);
    if (bytes.length === 0) return messages;
    closing.push(() => closeFds(fds));
    messages.push({ text: Buffer.from(bytes).toString(), fds });
  }
}

describe('a notify socket', () => {
  it.each([
    ['at a path', receiverAtPath],
    ['with an abstract name', abstractReceiver],
  ])('%s gets lines, and descriptors with them', (_, make) => {
    const { address, fd } = make();
    const event = createEventFd();
    const socket = socketTo(address);
    socket.send(['READY=1', 'STATUS=1 of 2 ports running']);
    socket.send(['FDSTORE=1', 'FDNAME=x'], [event]);
    const [ready, stored] = received(fd);
    expect(ready).toEqual({ text: 'READY=1\nSTATUS=1 of 2 ports running', fds: [] });
    expect(stored.text).toBe('FDSTORE=1\nFDNAME=x');
    expect(stored.fds.map(openFileKey)).toEqual([openFileKey(event)]);
    closeFds([event]);
  });

  it('keeps what its receiver does not take, in order, and waits for nobody', async () => {
    const { address, fd } = receiverAtPath();
    const caughtUp = Promise.withResolvers<void>();
    const socket = socketTo(address, () => caughtUp.resolve());
    const texts: string[] = [];
    for (let i = 0; !socket.isBehind || i % 10 !== 0; i++) {
      texts.push(`STATUS=${i}`);
      socket.send([`STATUS=${i}`]);
    }
    const event = createEventFd();
    socket.send(['FDSTORE=1'], [event]);
    const key = openFileKey(event);
    closeFds([event]);
    const messages = received(fd);
    expect(messages.length).toBeLessThan(texts.length);
    let isCaughtUp = false;
    void caughtUp.promise.then(() => {
      isCaughtUp = true;
    });
    while (!isCaughtUp) {
      await new Promise(setImmediate);
      messages.push(...received(fd));
    }
    messages.push(...received(fd));
    expect(messages.map(({ text }) => text)).toEqual([...texts, 'FDSTORE=1']);
    expect(messages.at(-1)?.fds.map(openFileKey)).toEqual([key]);
    expect(socket.isBehind).toBe(false);
  });

  it('is of no trouble where nobody listens, or nobody listens any more', () => {
    socketTo('/nowhere/notify').send(['READY=1']);
    const folder = mkdtempSync(join(tmpdir(), 'ringway-test-'));
    closing.push(() => rmSync(folder, { recursive: true }));
    const address = join(folder, 'notify');
    const socket = socketTo(address);
    closeFds([bindDatagram(address)]);
    socket.send(['READY=1']);
    expect(socket.isBehind).toBe(false);
    rmSync(address);
    // Somebody else listens there, as after a restart of the manager.
    const fd = bindDatagram(address);
    closing.push(() => closeFds([fd]));
    socket.send(['WATCHDOG=1']);
    expect(received(fd).map(({ text }) => text)).toEqual(['WATCHDOG=1']);
  });
});

describe('the environment of a service', () => {
  const given = (pid: number): NodeJS.ProcessEnv => ({
    NOTIFY_SOCKET: '@/org/notify',
    WATCHDOG_USEC: '30000000',
    WATCHDOG_PID: String(pid),
    FDSTORE: '512',
    LISTEN_PID: String(pid),
    LISTEN_FDS: '1',
    LISTEN_FDNAMES: 'ringway-note-1',
    PATH: '/bin',
  });

  it('is taken, so that no child inherits it', () => {
    const environment = given(7);
    const { kept: _, ...rest } = takeServiceEnvironment(environment, 7);
    expect(rest).toEqual({ notifyAddress: '@/org/notify', watchdogUs: 30_000_000, storeMax: 512 });
    expect(environment).toEqual({ PATH: '/bin' });
  });

  it('of another process says nothing of watchdog and descriptors', () => {
    const environment = given(7);
    expect(takeServiceEnvironment(environment, 8)).toEqual({
      notifyAddress: '@/org/notify',
      watchdogUs: null,
      storeMax: 512,
      kept: [],
    });
    expect(environment).toEqual({ PATH: '/bin' });
  });

  it('may be missing, or make no sense', () => {
    const nothing = { notifyAddress: null, watchdogUs: null, storeMax: 0, kept: [] };
    expect(takeServiceEnvironment({}, 7)).toEqual(nothing);
    const senseless = { NOTIFY_SOCKET: 'vsock:2:1', WATCHDOG_USEC: 'x', FDSTORE: '-1', LISTEN_FDS: '3' };
    expect(takeServiceEnvironment(senseless, 7)).toEqual(nothing);
  });
});
