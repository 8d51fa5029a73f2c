/** Kick, call and error descriptors: what is taken, what is refused, and how a running ring changes them. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, constants, openSync, readFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { closeFds, createEventFd, drainFd, signalFd } from '../../src/host/descriptor.ts';
import { EpollSet } from '../../src/host/epoll.ts';
import { socketPair } from '../../src/host/unix-socket.ts';
import { u64 } from '../vhost-user/scripted-front-end.ts';
import { World } from './world.ts';

const O_NONBLOCK = 0o4000;
const O_PATH = 0o10000000;

let world: World;
beforeEach(() => {
  world = new World();
});
afterEach(() => world.dispose());

describe('kick, call and error descriptors', () => {
  const NAMES = ['SET_VRING_KICK', 'SET_VRING_CALL', 'SET_VRING_ERR'] as const;

  it.each([
    ['a regular file', () => openSync('/etc/hostname', 'r')],
    ['a folder', () => openSync('/', 'r')],
    ['a device', () => openSync('/dev/null', 'r+')],
    ['an epoll set', () => new EpollSet().fd],
  ])('are refused when they are %s', async (_what, open) => {
    await world.negotiate();
    for (const name of NAMES) {
      const fd = open();
      expect(await world.front.ack(name, u64(0), [fd])).toBe(1n);
      closeFds([fd]);
      expect(world.refused.at(-1)).toMatch(/the descriptor is neither an eventfd nor a pipe but/);
    }
  });

  it('are refused when they are a socket or the guest memory', async () => {
    await world.negotiate();
    const [a, b] = socketPair();
    for (const name of NAMES) {
      expect(await world.front.ack(name, u64(0), [a])).toBe(1n);
      expect(await world.front.ack(name, u64(0), [world.guest.fd])).toBe(1n);
    }
    closeFds([a, b]);
  });

  it('are refused, and closed, when they name an eventfd without being open for use (O_PATH)', async () => {
    await world.negotiate();
    const event = createEventFd();
    for (const name of NAMES) {
      const path = openSync(`/proc/self/fd/${event}`, O_PATH);
      expect(await world.front.ack(name, u64(0), [path])).toBe(1n);
      closeSync(path);
    }
    closeFds([event]);
  });

  it('are made non-blocking', async () => {
    await world.run();
    const [reader, writer] = await blockingPipe();
    expect([flagsOf(reader) & O_NONBLOCK, flagsOf(writer) & O_NONBLOCK]).toEqual([0, 0]);
    expect(await world.front.ack('SET_VRING_KICK', u64(1), [reader])).toBe(0n);
    expect(await world.front.ack('SET_VRING_CALL', u64(1), [writer])).toBe(0n);
    expect([flagsOf(reader) & O_NONBLOCK, flagsOf(writer) & O_NONBLOCK]).toEqual([O_NONBLOCK, O_NONBLOCK]);
    // Neither an empty nor a full pipe holds us.
    drainFd(world.ring(1).kickFd);
    while (signalFd(world.ring(1).callFd));
    drainFd(world.ring(1).kickFd);
    expect(signalFd(world.ring(1).callFd)).toBe(true);
    closeSync(reader);
    closeSync(writer);
  });

  it('that cannot be read tell of nothing: nobody waits for a pipe that is broken for ever', async () => {
    await world.run();
    const [reader, writer] = await blockingPipe();
    expect(await world.front.ack('SET_VRING_KICK', u64(1), [writer])).toBe(0n);
    closeSync(reader);
    closeSync(writer);
    const { kickFd } = world.ring(1);
    const epoll = new EpollSet();
    epoll.add(kickFd);
    for (let look = 0; look < 2; look++) {
      expect(epoll.wait(0)).toBe(1);
      expect(drainFd(kickFd)).toBe(false);
    }
    epoll.close();
  });

  it('of a running ring are swapped by order, the old one closed only after the workers let go', async () => {
    await world.run();
    const { front, dataPath } = world;
    const old = dataPath.attached.get(1)!.callFd;
    const hold = dataPath.hold('setCallFd');
    const fd = front.eventFd();
    front.send('SET_VRING_CALL', u64(1), [fd]);
    await hold.called;
    expect(signalFd(old)).toBe(true);
    hold.release();
    await front.settle();
    expect(dataPath.takeLog()).toEqual(['call 1']);
    expect(dataPath.attached.get(1)!.callFd).not.toBe(old);
    expect(signalFd(old)).toBe(false);
  });

  it('of a stopped ring are swapped without an order', async () => {
    await world.negotiate();
    for (let i = 0; i < 30; i++) {
      for (const name of ['SET_VRING_CALL', 'SET_VRING_ERR'] as const) {
        world.front.send(name, u64(3), [world.front.eventFd()]);
      }
    }
    await world.front.settle();
    expect(world.dataPath.log).toEqual([]);
  });

  it('may be swapped while the ring runs: the kick too', async () => {
    await world.run();
    for (let i = 0; i < 10; i++) world.front.send('SET_VRING_KICK', u64(1), [world.front.eventFd()]);
    await world.front.settle();
    expect(world.dataPath.attached.get(1)!.kickFd).toBe(world.ring(1).kickFd);
    world.dataPath.expectSound();
  });
});

/** Both ends of a pipe, as a front-end without eventfds has them; neither is O_NONBLOCK. */
async function blockingPipe(): Promise<[number, number]> {
  const script = 'exec 3> >(exec sleep 1000); echo $!; read';
  const shell = spawn('bash', ['-c', script], { stdio: ['pipe', 'pipe', 'ignore'] });
  const [sleepPid] = (await once(shell.stdout, 'data')).map(Number);
  const path = `/proc/${shell.pid}/fd/3`;
  const ends: [number, number] = [openSync(path, constants.O_RDONLY), openSync(path, constants.O_WRONLY)];
  process.kill(sleepPid!);
  shell.kill();
  await once(shell, 'close');
  return ends;
}

/** Bits of O_… of an open file, as /proc tells them. */
function flagsOf(fd: number): number {
  return Number.parseInt(/^flags:\s*(\d+)/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))![1], 8);
}
