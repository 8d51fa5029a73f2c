/** The socket that a port's peers connect to: who gets in, who waits, who is refused, and whose file is removed. */
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { closeFd } from '../../src/host/descriptor.ts';
import { descriptorLoop } from '../../src/host/event-loop.ts';
import { PeerFds } from '../../src/host/peer-fds.ts';
import { PortFds } from '../../src/host/port-fds.ts';
import {
  acceptUnix,
  connectUnix,
  type ListenOptions,
  listenUnix,
  receive,
  SocketPathError,
  send,
} from '../../src/host/unix-socket.ts';
import { Listener } from '../../src/port/listener.ts';
import { type OpenFds, openedSince, openFds } from '../host/open-fds.ts';

let before: OpenFds;
let folder: string;
let path: string;
let listeners: Listener[];
let fds: number[];
let warnings: string[];
let infos: string[];
let abort: AbortController;

beforeEach(() => {
  descriptorLoop();
  before = openFds();
  folder = mkdtempSync(join(tmpdir(), 'ringway-listener-'));
  path = join(folder, 'l.sock');
  listeners = [];
  fds = [];
  warnings = [];
  infos = [];
  abort = new AbortController();
});

afterEach(() => {
  for (const listener of listeners) listener.close();
  for (const fd of fds) closeFd(fd);
  rmSync(folder, { recursive: true, force: true });
  vi.useRealTimers();
  expect(openedSince(before)).toEqual([]);
});

function open(options: ListenOptions = {}, peerFds?: PeerFds): Listener {
  const events = {
    info: (message: string) => infos.push(message),
    warn: (message: string) => warnings.push(message),
  };
  const listener = new Listener(path, options, events, peerFds);
  listeners.push(listener);
  listener.open();
  return listener;
}

function connect(): number {
  const fd = connectUnix(path);
  fds.push(fd);
  return fd;
}

async function next(listener: Listener): Promise<number> {
  const fd = await listener.next(abort.signal);
  expect(fd).not.toBeNull();
  fds.push(Number(fd));
  return Number(fd);
}

const turns = async (count: number): Promise<void> => {
  for (let turn = 0; turn < count; turn++) await new Promise(setImmediate);
};

/** Longer than the two looks that a socket that is gone takes. */
const NOTICED = { timeout: 10_000, interval: 10 };

describe('a listener whose second peers send what is kept', () => {
  afterEach(() => {
    vi.useRealTimers();
  });

  it('counts it for the port, and lets no more of them in when it is too much', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    const pass = async (): Promise<void> => {
      for (let passedMs = 0; passedMs < 3000; passedMs += 50) {
        vi.advanceTimersByTime(50);
        await turns(5);
      }
    };
    const kept = new PortFds();
    const listener = open({}, new PeerFds(null, kept));
    connect();
    await next(listener);
    const device = openSync('/dev/ptmx', 'r+');
    fds.push(device);
    const second = connect();
    const third = connect();
    send(second, Uint8Array.of(1), new Array<number>(16).fill(device));
    const settled = openFds();
    await pass();
    // What it sent, and its connection.
    expect(kept.keptCount).toBe(17);
    expect([receive(second, 1).closed, receive(third, 1).closed]).toEqual([true, false]);
    const strays = openedSince(settled);
    expect(strays).toHaveLength(17);
    for (const what of strays) closeFd(Number.parseInt(what, 10));
  });
});

describe('a listener whose file was removed', () => {
  it('listens again at its path, with its mode, also for who waits already', async () => {
    const listener = open({ mode: 0o620 });
    const waiting = next(listener);
    rmSync(path);
    await vi.waitUntil(() => infos.length > 0, NOTICED);
    expect(statSync(path).mode & 0o777).toBe(0o620);
    expect(infos).toEqual([`the file of socket ${path} was gone and was made anew`]);
    connect();
    await waiting;
    expect([listener.trouble, warnings]).toEqual([null, []]);
    listener.close();
    expect(existsSync(path)).toBe(false);
  });

  it('keeps the peer that it has, and refuses a second one at the new socket', async () => {
    const listener = open();
    const first = connect();
    await next(listener);
    rmSync(path);
    await vi.waitUntil(() => existsSync(path), NOTICED);
    const second = connect();
    await vi.waitUntil(() => receive(second, 1).closed);
    expect(receive(first, 1)).toMatchObject({ closed: false });
  });

  it('says that its folder is gone, and listens again in one made anew', async () => {
    const inner = join(folder, 'f');
    path = join(inner, 'l.sock');
    mkdirSync(inner);
    const listener = open();
    rmSync(inner, { recursive: true });
    await vi.waitUntil(() => listener.trouble !== null, NOTICED);
    expect(listener.trouble).toBe(`its file is gone: folder ${inner} of socket ${path} does not exist`);
    expect(warnings).toEqual([`nobody can reach the socket: ${listener.trouble}`]);
    mkdirSync(inner);
    await vi.waitUntil(() => existsSync(path), NOTICED);
    expect([listener.trouble, warnings.length]).toEqual([null, 1]);
    connect();
    await next(listener);
  });

  it('leaves a successor alone, says so, and comes back when that is gone', async () => {
    const listener = open();
    rmSync(path);
    const successor = listenUnix(path);
    try {
      await vi.waitUntil(() => listener.trouble !== null, NOTICED);
      expect(listener.trouble).toBe(
        `at ${path} stands what another program made: remove it, or end that program`,
      );
      // It was not even asked whether it is there.
      expect(acceptUnix(successor)).toBe(null);
    } finally {
      closeFd(successor);
    }
    rmSync(path);
    await vi.waitUntil(() => listener.trouble === null, NOTICED);
    connect();
    await next(listener);
  });
});

describe('a listener', () => {
  it('makes its socket with the mode that it is told, and removes it', () => {
    const listener = open({ mode: 0o620 });
    expect(statSync(path).mode & 0o777).toBe(0o620);
    listener.close();
    expect(existsSync(path)).toBe(false);
    listener.close();
  });

  it('removes its socket also after its owner changed the mode', () => {
    const listener = open();
    chmodSync(path, 0o600);
    listener.close();
    expect(existsSync(path)).toBe(false);
  });

  it('leaves the socket of a successor alone', () => {
    const listener = open();
    rmSync(path);
    const successor = listenUnix(path);
    fds.push(successor);
    listener.close();
    expect(existsSync(path)).toBe(true);
    closeFd(connectUnix(path));
  });

  it.each<[string, () => void]>([
    ['a file', () => writeFileSync(path, 'theirs')],
    ['a link', () => symlinkSync('/dev/null', path)],
    ['a folder', () => mkdirSync(path)],
    ['nothing', () => {}],
  ])('is closed when %s stands at its path, and leaves that there', (what, place) => {
    const listener = open();
    rmSync(path);
    place();
    listener.close();
    expect(lstatSync(path, { throwIfNoEntry: false }) === undefined).toBe(what === 'nothing');
  });

  it('has whoever comes early wait, and hands over one at a time', async () => {
    const listener = open();
    const first = connect();
    await turns(5);
    expect(receive(first, 1)).toMatchObject({ closed: false });
    await next(listener);
    listener.hold();
    const second = connect();
    await turns(5);
    expect(receive(second, 1)).toMatchObject({ closed: false });
    await next(listener);
    expect(warnings).toEqual([]);
  });

  it('refuses a second one while the first is in use, and says so', async () => {
    const listener = open();
    connect();
    await next(listener);
    // So that the pause after the refusal, which is a second, does not end of itself.
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    const second = connect();
    while (!receive(second, 1).closed) {
      vi.advanceTimersByTime(20);
      await turns(1);
    }
    expect(warnings).toEqual(['refused a second connection: one is in use already']);
    listener.hold();
    const third = connect();
    await next(listener);
    expect(receive(third, 1)).toMatchObject({ closed: false });
  });

  it('says nothing of a second one that has gone again, which only asked whether somebody listens', async () => {
    const listener = open();
    connect();
    await next(listener);
    closeFd(connectUnix(path));
    const second = connect();
    await vi.waitUntil(() => receive(second, 1).closed, { timeout: 5000 });
    expect(warnings).toEqual(['refused a second connection: one is in use already']);
  });

  it('takes a second one that came just before the first was let go of', async () => {
    const listener = open();
    connect();
    await next(listener);
    // So that a turn of the event loop that takes long is not taken for a second one that waits for long.
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    const second = connect();
    await turns(3);
    listener.hold();
    await next(listener);
    expect(receive(second, 1)).toMatchObject({ closed: false });
    expect(warnings).toEqual([]);
  });

  it('never refuses the next one of a peer that has hung up, however late that is seen', async () => {
    const listener = open();
    const first = connect();
    await next(listener);
    // Something unread lies before the end, as when the messages of a front-end are still being worked on.
    send(first, Uint8Array.of(1));
    closeFd(fds.splice(fds.indexOf(first), 1)[0]);
    const second = connect();
    // Longer than any pause after which the second could be refused; nothing tells of what must not happen.
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(receive(second, 1)).toMatchObject({ closed: false });
    expect(warnings).toEqual([]);
    listener.hold();
    await next(listener);
    expect(receive(second, 1)).toMatchObject({ closed: false });
  });

  it('ends the wait when told to, and can be waited for again', async () => {
    const listener = open();
    const waiting = listener.next(abort.signal);
    abort.abort();
    expect(await waiting).toBeNull();
    expect(await listener.next(abort.signal)).toBeNull();
    abort = new AbortController();
    connect();
    await next(listener);
  });

  it('is not opened twice, and waited for by one only', async () => {
    const listener = open();
    expect(() => listener.open()).toThrow('a socket is opened once');
    const waiting = listener.next(abort.signal);
    expect(() => listener.next(abort.signal)).toThrow('one waits at a time');
    abort.abort();
    await waiting;
  });

  it('refuses a path in use, and leaves it in use', () => {
    open();
    expect(() => open()).toThrow(SocketPathError);
    listeners[1].close();
    expect(existsSync(path)).toBe(true);
    closeFd(connectUnix(path));
  });
});
