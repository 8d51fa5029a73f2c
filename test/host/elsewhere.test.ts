/** Calls that a peer may make long, and that this thread does not wait for. */
import { once } from 'node:events';
import { createServer, type Server, type Socket } from 'node:net';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { closeFd, createEventFd, describeFd } from '../../src/host/descriptor.ts';
import {
  closeElsewhere,
  closingElsewhere,
  closingElsewhereCount,
  isBusyElsewhere,
  mapZeroPagesElsewhere,
} from '../../src/host/elsewhere.ts';
import { libc } from '../../src/host/libc.ts';
import { reserveAddressSpace } from '../../src/host/mapping.ts';

const AF_INET = 2;
const SOCK_STREAM = 1;
const SOL_SOCKET = 1;
const SO_LINGER = 13;
const MSG_DONTWAIT = 0x40;
const LINGER_S = 3600;
const ZEROS_BYTES = 2 ** 16;
const zeros = reserveAddressSpace(ZEROS_BYTES);

let server: Server;
const peers: Socket[] = [];

beforeEach(async () => {
  server = createServer({ pauseOnConnect: true }, (socket) => peers.push(socket)).listen(0, '127.0.0.1');
  await once(server, 'listening');
});
afterEach(async () => {
  for (const peer of peers.splice(0)) peer.destroy();
  server.close();
  await once(server, 'close');
});

/** A descriptor whose close waits until the other end has read everything, or has gone. */
async function lingering(): Promise<number> {
  const fd = libc.socket(AF_INET, SOCK_STREAM, 0);
  const { port } = server.address() as { port: number };
  const address = new Uint8Array([AF_INET, 0, port >> 8, port & 255, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
  const accepted = once(server, 'connection');
  expect(libc.connect(fd, address, address.length)).toBe(0);
  await accepted;
  const linger = new Uint8Array(new Int32Array([1, LINGER_S]).buffer);
  expect(libc.setsockopt(fd, SOL_SOCKET, SO_LINGER, linger, linger.length)).toBe(0);
  while (libc.sendAt(fd, zeros, ZEROS_BYTES, MSG_DONTWAIT) > 0);
  return fd;
}

describe('closeElsewhere', () => {
  it('closes', async () => {
    const fd = createEventFd();
    const closed = new Promise<void>((resolve) => closeElsewhere(fd, null, resolve));
    expect(closingElsewhere()).toContain(fd);
    await closed;
    expect(describeFd(fd)).toBe(`descriptor ${fd}`);
    expect(closingElsewhere()).toEqual([]);
  });

  it('does not wait for a file that takes its time, nor do others until two do', async () => {
    const first = await lingering();
    const event = createEventFd();
    closeElsewhere(first);
    await new Promise<void>((resolve) => closeElsewhere(event, null, resolve));
    expect(isBusyElsewhere()).toBe(true);
    expect(closingElsewhere()).toEqual([first]);
    const second = await lingering();
    closeElsewhere(second);
    const waiting = createEventFd();
    closeElsewhere(waiting);
    expect(closingElsewhere()).toEqual([first, second, waiting]);
    expect(closingElsewhereCount()).toBe(3);
    // It is as it was, and still a number that nobody else gets.
    expect(describeFd(waiting)).toMatch(/eventfd/);
    const other = createEventFd();
    expect(other).not.toBe(waiting);
    closeFd(other);
    for (const peer of peers) peer.destroy();
    await vi.waitUntil(() => closingElsewhere().length === 0);
    expect(closingElsewhereCount()).toBe(0);
    expect(isBusyElsewhere()).toBe(false);
  });
});

describe('one whose files take their time', () => {
  it('holds up his own, and not those of others', async () => {
    const hostile = {};
    const held = [await lingering(), await lingering(), createEventFd()];
    for (const fd of held) closeElsewhere(fd, hostile);
    const event = createEventFd();
    await new Promise<void>((resolve) => closeElsewhere(event, {}, resolve));
    expect(closingElsewhere()).toEqual(held);
    for (const peer of peers) peer.destroy();
    await vi.waitUntil(() => !isBusyElsewhere());
    expect(closingElsewhere()).toEqual([]);
  });
});

describe('mapZeroPagesElsewhere', () => {
  it('is not held up by files that never close', async () => {
    const fds = [await lingering(), await lingering()];
    for (const fd of fds) closeElsewhere(fd);
    const address = reserveAddressSpace(ZEROS_BYTES);
    await new Promise<void>((resolve) => mapZeroPagesElsewhere(address, ZEROS_BYTES, resolve));
    expect(closingElsewhere()).toEqual(fds);
    for (const peer of peers) peer.destroy();
    await vi.waitUntil(() => !isBusyElsewhere());
  });
});
