/** Kick, call and error descriptors: what is taken, what is refused, and how a running ring changes them. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, constants, existsSync, openSync, readFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { closeFds, createEventFd } from '../../src/host/descriptor.ts';
import { EpollSet } from '../../src/host/epoll.ts';
import { receive, socketPair } from '../../src/host/unix-socket.ts';
import { STATE_FAULT } from '../../src/queue/state.ts';
import { RING_FAULT } from '../../src/vring/faults.ts';
import { fillAndBlock, makeBlocking } from '../host/shared-descriptors.ts';
import { bit, none, P, u64 } from '../vhost-user/scripted-front-end.ts';
import { FEATURES, PROTOCOL_FEATURES, World } from './world.ts';

const O_NONBLOCK = 0o4000;
const O_PATH = 0o10000000;

let world: World;
beforeEach(() => {
  world = new World();
});
afterEach(() => world.dispose());

const NAMES = ['SET_VRING_KICK', 'SET_VRING_CALL', 'SET_VRING_ERR'] as const;

describe('kick, call and error descriptors', () => {
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
      expect(world.refused.at(-1)).toMatch(/the descriptor is neither an eventfd nor a .*UNIX socket but /);
    }
  });

  it('are refused when they are the guest memory', async () => {
    await world.negotiate();
    for (const name of NAMES) expect(await world.front.ack(name, u64(0), [world.guest.fd])).toBe(1n);
  });

  it('are refused, and closed, when they name an eventfd without being open for use (O_PATH)', async () => {
    await world.negotiate();
    const event = createEventFd();
    for (const name of NAMES) {
      const path = openSync(`/proc/self/fd/${event}`, O_PATH);
      expect(await world.front.ack(name, u64(0), [path])).toBe(1n);
      closeSync(path);
      expect(world.refused.at(-1)).toMatch(/anon_inode:\[eventfd\], but only its name \(O_PATH\)/);
    }
    closeFds([event]);
  });

  it('are signalled without waiting, full and blocking as they may be', async () => {
    await world.run();
    const fds = [createEventFd(), createEventFd()];
    for (const fd of fds) fillAndBlock(fd);
    expect(await world.front.ack('SET_VRING_CALL', u64(1), [fds[0]])).toBe(0n);
    expect(await world.front.ack('SET_VRING_ERR', u64(1), [fds[1]])).toBe(0n);
    // As the fault of a ring is told.
    world.ring(1).state.words[STATE_FAULT] = RING_FAULT.AVAIL_JUMP;
    world.device.queueFailed(1);
    expect(world.ring(1).reason).toMatch(/the avail index moved/);
    closeFds(fds);
  });

  it('may be one end of a pair of sockets where we signal (User-Mode Linux)', async () => {
    await world.run();
    for (const name of ['SET_VRING_CALL', 'SET_VRING_ERR'] as const) {
      const [ours, theirs] = socketPair();
      expect(await world.front.ack(name, u64(1), [theirs])).toBe(0n);
      closeFds([ours, theirs]);
    }
    world.dataPath.expectSound();
  });

  it('may not be a pipe where we signal: whoever writes to it can make us wait', async () => {
    await world.negotiate();
    const [reader, writer] = await blockingPipe();
    for (const name of ['SET_VRING_CALL', 'SET_VRING_ERR'] as const) {
      expect(await world.front.ack(name, u64(1), [writer])).toBe(1n);
      expect(world.refused.at(-1)).toBe(
        `${name}: the descriptor is a pipe, and a write to it may wait for whoever else uses it; an eventfd cannot`,
      );
    }
    for (const end of [reader, writer]) closeSync(end);
  });

  it('that are the kick, and a pipe or a socket, are left alone: the ring is polled, which is said', async () => {
    await world.run();
    const [reader, writer] = await blockingPipe();
    const [ours, theirs] = socketPair();
    for (const [fd, what] of [
      [reader, 'a pipe'],
      [writer, 'a pipe'],
      [theirs, 'a socket'],
    ] as const) {
      expect(await world.front.ack('SET_VRING_KICK', u64(1), [fd])).toBe(0n);
      expect(world.dataPath.attached.get(1)!.kickFd).toBe(-1);
      expect(world.device.kickWarning).toBe(`queue 1 is polled: its kick descriptor is ${what}`);
    }
    world.front.send('SET_VRING_KICK', u64(1), [world.front.eventFd()]);
    await world.front.settle();
    expect(world.device.kickWarning).toBeNull();
    for (const end of [reader, writer, ours, theirs]) closeSync(end);
  });

  it("are not changed: what flags an open file has is the front-end's business", async () => {
    await world.run();
    const fd = createEventFd();
    makeBlocking(fd);
    for (const name of NAMES) expect(await world.front.ack(name, u64(1), [fd])).toBe(0n);
    expect(flagsOf(fd) & O_NONBLOCK).toBe(0);
    closeFds([fd]);
  });

  it('of a running ring are swapped by order, the old one closed only after the workers let go', async () => {
    await world.run();
    const { front, dataPath } = world;
    const old = dataPath.attached.get(1)!.callFd;
    const hold = dataPath.hold('setCallFd');
    const fd = front.eventFd();
    front.send('SET_VRING_CALL', u64(1), [fd]);
    await hold.called;
    expect(isOpen(old)).toBe(true);
    hold.release();
    await front.settle();
    expect(dataPath.takeLog()).toEqual(['call 1']);
    expect(dataPath.attached.get(1)!.callFd).not.toBe(old);
    await vi.waitUntil(() => !isOpen(old));
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
    expect(world.dataPath.attached.get(1)!.kickFd).toBe(world.ring(1).watchedKickFd);
    world.dataPath.expectSound();
  });
});

describe('the connection by which a back-end may ask (SET_BACKEND_REQ_FD)', () => {
  const ALL = PROTOCOL_FEATURES | bit(P.BACKEND_REQ);

  it('is kept until another one comes or the front-end goes, and nothing is sent there', async () => {
    await world.negotiate(FEATURES, ALL);
    const pairs = [socketPair(), socketPair()];
    for (const [, theirs] of pairs) {
      expect(await world.front.ack('SET_BACKEND_REQ_FD', none(), [theirs])).toBe(0n);
      closeFds([theirs]);
    }
    await vi.waitUntil(() => receive(pairs[0][0], 1).closed);
    const second = receive(pairs[1][0], 1);
    expect([second.closed, second.bytes.length]).toEqual([false, 0]);
    closeFds(pairs.map(([ours]) => ours));
  });

  it('is refused where it is no UNIX socket', async () => {
    await world.negotiate(FEATURES, ALL);
    const event = createEventFd();
    expect(await world.front.ack('SET_BACKEND_REQ_FD', none(), [event])).toBe(1n);
    expect(world.refused).toEqual([
      'SET_BACKEND_REQ_FD: the descriptor is not a UNIX socket but anon_inode:[eventfd]',
    ]);
    closeFds([event]);
  });
});

function isOpen(fd: number): boolean {
  return existsSync(`/proc/self/fd/${fd}`);
}

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
