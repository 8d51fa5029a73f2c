/**
 * Descriptors sent along with frames: the kernel is asked to take none, where it can (Linux 6.16), and before anybody can
 * send some: from then on closing them would be ours, and their owner's to make long.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { closeFd, createEventFd, setSocketOption } from '../../src/host/descriptor.ts';
import { libc } from '../../src/host/libc.ts';
import {
  acceptUnix,
  bindDatagram,
  connectUnix,
  listenUnix,
  send,
  socketAddress,
  socketPair,
} from '../../src/host/unix-socket.ts';
import { UnixDatagramPort } from '../../src/port/unix/dgram.ts';
import { UnixStreamPort } from '../../src/port/unix/stream.ts';
import { UnixWorld } from './unix-world.ts';

const SO_PASSRIGHTS = 83;
const canRefuse = ((): boolean => {
  const pair = socketPair();
  const can = setSocketOption(pair[0], SO_PASSRIGHTS, 0);
  for (const fd of pair) closeFd(fd);
  return can;
})();

let folder: string;
let path: string;
let world: UnixWorld;
let fds: number[];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'ringway-unix-fds-'));
  path = join(folder, 'a.sock');
  world = new UnixWorld();
  fds = [createEventFd()];
});
afterEach(async () => {
  await world.stop();
  for (const fd of fds) closeFd(fd);
  rmSync(folder, { recursive: true });
});

/** Kept until the end of the test. */
function held(fd: number): number {
  fds.push(fd);
  return fd;
}

function sendsFd(fd: number): () => number {
  return () => send(fd, Uint8Array.of(1), [fds[0]]);
}

describe.skipIf(!canRefuse)('descriptors sent to a unix port are refused (needs Linux 6.16)', () => {
  const options = (): { socketPath: string; listen: object; mtu: number } => ({
    socketPath: path,
    listen: {},
    mtu: 1500,
  });

  it('by a listening stream port, also before it accepts', async () => {
    world.port = new UnixStreamPort({ ...options(), role: 'server' }, world.context);
    await world.port.start();
    const peer = held(connectUnix(path));
    expect(sendsFd(peer)).toThrow('EPERM');
    expect(send(peer, Uint8Array.of(2))).toBe(1);
  });

  it('by a connecting stream port, as soon as it is accepted', async () => {
    const listenFd = held(listenUnix(path));
    world.port = new UnixStreamPort({ ...options(), role: 'client' }, world.context);
    await world.port.start();
    expect(sendsFd(held(acceptUnix(listenFd)!))).toThrow('EPERM');
  });

  it('by a datagram port', async () => {
    const peerPath = join(folder, 'b.sock');
    world.port = new UnixDatagramPort({ ...options(), peerPath }, world.context);
    await world.port.start();
    const peer = held(bindDatagram(peerPath));
    const address = socketAddress(path);
    libc.connect(peer, address, address.length);
    expect(sendsFd(peer)).toThrow('EPERM');
    expect(send(peer, Uint8Array.of(2))).toBe(1);
  });
});
