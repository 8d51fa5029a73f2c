/** The socket that a port's peers connect to: who gets in, who waits, who is refused, and whose file is removed. */
import { chmodSync, existsSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { closeFd } from '../../src/host/descriptor.ts';
import { descriptorLoop } from '../../src/host/event-loop.ts';
import {
  connectUnix,
  type ListenOptions,
  listenUnix,
  receive,
  SocketPathError,
} from '../../src/host/unix-socket.ts';
import { Listener } from '../../src/port/listener.ts';
import { type OpenFds, openedSince, openFds } from '../host/open-fds.ts';

let before: OpenFds;
let folder: string;
let path: string;
let listeners: Listener[];
let fds: number[];
let warnings: string[];
let abort: AbortController;

beforeEach(() => {
  descriptorLoop();
  before = openFds();
  folder = mkdtempSync(join(tmpdir(), 'ringway-listener-'));
  path = join(folder, 'l.sock');
  listeners = [];
  fds = [];
  warnings = [];
  abort = new AbortController();
});

afterEach(() => {
  for (const listener of listeners) listener.close();
  for (const fd of fds) closeFd(fd);
  rmSync(folder, { recursive: true, force: true });
  expect(openedSince(before)).toEqual([]);
});

function open(options: ListenOptions = {}): Listener {
  const listener = new Listener(path, options, (message) => warnings.push(message));
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
    const second = connect();
    await vi.waitUntil(() => receive(second, 1).closed);
    expect(warnings).toEqual(['refused a second connection: one is in use already']);
    listener.hold();
    // Not made to wait for the pause after a refusal.
    const third = connect();
    const began = performance.now();
    await next(listener);
    expect(performance.now() - began).toBeLessThan(500);
    expect(receive(third, 1)).toMatchObject({ closed: false });
  });

  it('takes a second one that came just before the first was let go of', async () => {
    const listener = open();
    connect();
    await next(listener);
    const second = connect();
    await turns(3);
    listener.hold();
    await next(listener);
    expect(receive(second, 1)).toMatchObject({ closed: false });
    expect(warnings).toEqual([]);
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
    expect(() => listener.open()).toThrow('a listener is opened once');
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
