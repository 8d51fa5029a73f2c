/**
 * Random front-ends, seeded: streams of good messages, mutated ones and noise, with random descriptors. Each
 * message gets at most one reply, marked as one; the connection goes on or ends with a reason; the data path
 * is never told nonsense; and afterwards nothing is open, mapped or attached. An exception that escapes the
 * session would be an unhandled rejection, which fails the run.
 */
import { openSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { closeFd, createEventFd, duplicateFd } from '../../src/host/descriptor.ts';
import { EpollSet } from '../../src/host/epoll.ts';
import { createMemoryFile } from '../../src/host/mapping.ts';
import { send as sendBytes, socketPair } from '../../src/host/unix-socket.ts';
import { arena, FEATURES, PROTOCOL_FEATURES, ringPlace, World } from '../device/world.ts';
import { UVA_BASE } from '../memory/guest-file.ts';
import { Random, seeds } from '../vring/random.ts';
import {
  bit,
  bytesOf,
  config,
  F,
  ID,
  log,
  message,
  NEED_REPLY,
  none,
  P,
  type Region,
  type Request,
  region,
  ringAddress,
  state,
  table,
  u64,
} from './scripted-front-end.ts';

type Made = { readonly id: number; readonly payload: Uint8Array; readonly fds: number[] };

/** GET_FEATURES tells when all is handled. */
const NAMES = (Object.keys(ID) as Request[]).filter((name) => name !== 'GET_FEATURES');
const ALL_PROTOCOL_FEATURES =
  PROTOCOL_FEATURES |
  bit(P.CONFIG, P.LOG_SHMFD, P.RARP, P.INFLIGHT, P.BACKEND_REQ, P.RESET, P.IN_BAND, P.STATUS, P.SKIP_DRAIN);
const OPTIONS = {
  configSpace: true,
  features: { ringReset: true, iommu: true, inBand: true, skipDrain: true },
};

/** Makes messages that are mostly right for a world. */
class Messages {
  readonly #random: Random;
  readonly #world: World;

  constructor(random: Random, world: World) {
    this.#random = random;
    this.#world = world;
  }

  make(name: Request): Made {
    const random = this.#random;
    const made = (payload: Uint8Array, fds: number[] = []): Made => ({ id: ID[name], payload, fds });
    switch (name) {
      case 'SET_FEATURES':
        return made(
          u64(
            random.pick([
              FEATURES,
              FEATURES | bit(F.LOG_ALL),
              FEATURES | bit(F.RING_RESET),
              FEATURES | bit(F.PACKED, F.LOG_ALL),
              FEATURES | bit(F.CTRL_VQ, F.EVENT_IDX),
              FEATURES | bit(F.PACKED, F.IN_ORDER),
              FEATURES | bit(F.PACKED, F.CTRL_VQ),
              bit(F.VERSION_1),
              0n,
            ]),
          ),
        );
      case 'SET_PROTOCOL_FEATURES':
        return made(u64(random.chance(95) ? ALL_PROTOCOL_FEATURES : bit(P.REPLY_ACK)));
      case 'SET_MEM_TABLE': {
        const regions = Array.from({ length: random.between(0, 4) }, () => this.#region());
        return made(
          table(regions),
          regions.map(() => this.#memoryFd()),
        );
      }
      case 'ADD_MEM_REG':
        return made(region(this.#region()), [this.#memoryFd()]);
      case 'REM_MEM_REG':
        return made(region(this.#region()), random.chance(20) ? [this.#memoryFd()] : []);
      case 'SET_VRING_NUM':
        return made(state(this.#index(), random.pick([2, 64, 256, 256, 0, 3, 65_536, 1])));
      case 'SET_VRING_BASE':
        return made(
          state(this.#index(), random.pick([0, 1, 65_535, 65_536, 0x8000, 0x8001_8001, 0xffff_ffff])),
        );
      case 'SET_VRING_ENABLE':
        return made(state(this.#index(), random.pick([0, 1, 1, 2])));
      case 'GET_VRING_BASE':
      case 'GET_VRING_BASE_SKIP_DRAIN':
        return made(state(this.#index(), 0));
      case 'SET_VRING_ADDR': {
        const index = this.#index();
        return made(
          ringAddress(
            index,
            ringPlace(index % 9, random.pick([UVA_BASE, UVA_BASE, 0n, 2n ** 63n])),
            random.pick([0, 1, 0xffff_ffff]),
            random.pick([0n, 0x10_0000n, 2n ** 42n, 2n ** 64n - 1n]),
          ),
        );
      }
      case 'SET_VRING_KICK':
      case 'SET_VRING_CALL':
      case 'SET_VRING_ERR':
        if (random.chance(15)) return made(u64(this.#index() | 0x100));
        return made(u64(this.#index()), [createEventFd()]);
      case 'VRING_KICK':
        return made(state(this.#index(), random.chance(95) ? 0 : 1));
      case 'SET_STATUS':
        return made(u64(random.pick([0, 1, 3, 11, 15, 15, 128, 255, 256])));
      case 'SET_BACKEND_REQ_FD': {
        // One end is closed at once: whatever is told there finds nobody.
        const [ours, theirs] = socketPair();
        if (random.chance(50)) sendBytes(theirs, random.bytes(40));
        closeFd(theirs);
        return made(none(), [ours]);
      }
      case 'SEND_RARP':
        return made(u64(random.pick([0x5634_1200_5452, 0, 1])));
      case 'NET_SET_MTU':
        return made(u64(random.pick([68, 1500, 9000, 65_535, 0, 70_000])));
      case 'GET_CONFIG':
      case 'SET_CONFIG':
        return made(config(random.pick([0, 6, 300]), new Uint8Array(random.pick([0, 6, 24, 256]))));
      case 'GET_INFLIGHT_FD':
        return made(this.#inflight());
      case 'SET_INFLIGHT_FD':
        return made(this.#inflight(), [this.#memoryFd()]);
      case 'SET_LOG_BASE':
        // One that is refused ends the connection, because a reply of its own is due.
        return random.chance(90)
          ? made(log(random.pick([1, 8, 128]), random.pick([0, 3, 8])), [this.#memoryFd()])
          : made(log(random.pick([0, 8, 2n ** 27n, 2n ** 63n]), random.pick([0, 2n ** 63n])), [this.anyFd()]);
      case 'SET_LOG_FD':
        return made(none(), [createEventFd()]);
      default:
        return made(none());
    }
  }

  /** Descriptors of any kind, open in this process only for the message. */
  anyFd(): number {
    const random = this.#random;
    const kinds: readonly (() => number)[] = [
      createEventFd,
      () => this.#memoryFd(),
      () => openSync('/dev/null', 'r+'),
      () => openSync('/etc/hostname', 'r'),
      () => openSync('/', 'r'),
      () => openSync(`/proc/self/fd/${this.#world.guest.fd}`, 0o10000000),
      () => openSync('/sys/kernel/mm/transparent_hugepage/enabled', 'r+'),
      () => new EpollSet().fd,
      () => {
        const [a, b] = socketPair();
        closeFd(a);
        return b;
      },
    ];
    return random.pick(kinds)();
  }

  #index(): number {
    const random = this.#random;
    return random.chance(97) ? random.between(0, 8) : random.pick([9, 255, 65_536, 0xffff_ffff]) & 0xff;
  }

  #inflight(): Uint8Array {
    const random = this.#random;
    return bytesOf(random.pick([20, 24]), (view) => {
      view.setBigUint64(0, random.chance(90) ? 0x10_0000n : random.pick([0x2000n, 2n ** 64n - 1n]), true);
      view.setBigUint64(8, random.chance(95) ? 0n : random.pick([0x8000n, 8n, 2n ** 64n - 8n]), true);
      view.setUint16(16, random.chance(98) ? random.pick([2, 9]) : random.pick([10, 0, 65_535]), true);
      view.setUint16(18, random.chance(98) ? random.pick([256, 64]) : random.pick([0, 65_535]), true);
    });
  }

  #memoryFd(): number {
    return this.#random.chance(85) ? duplicateFd(this.#world.guest.fd) : createMemoryFile('small', 4096);
  }

  #region(): Region {
    const random = this.#random;
    if (random.chance(50)) return this.#world.guest.region();
    const at = BigInt(random.between(0, 3)) * 0x10_0000n;
    return {
      gpa: random.chance(95) ? at : 2n ** 64n - at,
      sizeBytes: random.pick([0x10_0000n, 0x10_0000n, 0x40_0000n, 0x1000n, 0n, 2n ** 64n - 1n]),
      uva: UVA_BASE + (random.chance(90) ? at : 0n),
      mmapOffset: random.pick([at, at, at, 0n, 1n, 2n ** 64n - 1n]),
    };
  }
}

/** Changes one thing about a message; the stream stays in step. */
function mutate(made: Made, random: Random, messages: Messages): Made {
  switch (random.between(0, 4)) {
    case 0: {
      const payload = Uint8Array.from(made.payload);
      if (payload.length > 0) payload[random.between(0, payload.length - 1)] = random.between(0, 255);
      return { ...made, payload };
    }
    case 1:
      return { ...made, payload: random.bytes(random.between(0, 300)) };
    case 2:
      return { ...made, id: random.pick([0, 6, 19, 22, 28, 31, 32, 34, 35, 40, 45, 200, random.next()]) };
    case 3:
      return {
        ...made,
        fds: [...made.fds, ...Array.from({ length: random.between(1, 9) }, () => messages.anyFd())],
      };
    default: {
      for (const fd of made.fds) closeFd(fd);
      return { ...made, fds: made.fds.map(() => messages.anyFd()) };
    }
  }
}

/** Sends bytes that put the stream out of step, or in pieces. Answers whether it is still in step. */
async function sendOddly(world: World, made: Made, random: Random): Promise<boolean> {
  const bytes = message(made.id, made.payload, random.chance(50) ? NEED_REPLY : 0);
  const cut = random.between(1, bytes.length - 1);
  switch (random.between(0, 3)) {
    case 0: {
      // In two pieces, the descriptors with the first.
      world.front.sendBytes(bytes.subarray(0, cut), made.fds);
      await new Promise(setImmediate);
      world.front.sendBytes(bytes.subarray(cut));
      return true;
    }
    case 1:
      // The descriptors with the second.
      world.front.sendBytes(bytes.subarray(0, cut));
      await new Promise(setImmediate);
      world.front.sendBytes(bytes.subarray(cut), made.fds);
      return true;
    case 2:
      world.front.sendBytes(bytes.subarray(0, cut), made.fds);
      return false;
    default:
      world.front.sendBytes(random.bytes(random.between(1, 200)), made.fds);
      return false;
  }
}

/** One connection's life. Answers whether it outlived all messages, and how many orders it gave. */
async function live(seed: number, messageCount: number): Promise<{ alive: boolean; orders: number }> {
  const random = new Random(seed);
  const world = new World(OPTIONS);
  const messages = new Messages(random, world);
  world.front.receivedFds = [];
  if (random.chance(90)) {
    await world.negotiate(FEATURES, ALL_PROTOCOL_FEATURES);
    await world.shareMemory();
    await world.startRings(0, 1);
  }
  let alive = true;
  for (let i = 0; i < messageCount && alive; i++) {
    let made = messages.make(random.pick(NAMES));
    if (random.chance(4)) made = mutate(made, random, messages);
    // What is refused without NEED_REPLY ends the connection, so most ask.
    const flags = random.chance(98) ? NEED_REPLY : 0;
    const isOdd = random.chance(1);
    const inStep = isOdd ? await sendOddly(world, made, random) : true;
    if (!isOdd) world.front.sendBytes(message(made.id, made.payload, flags), made.fds);
    for (const fd of made.fds) closeFd(fd);
    if (!inStep) break;
    const replies = await world.front.settle();
    alive = replies !== null;
    // Never two replies, never one to another message, never other flags.
    if (replies !== null && made.id !== ID.GET_FEATURES) {
      expect(replies.length).toBeLessThanOrEqual(1);
      for (const reply of replies) expect([reply.request, reply.flags]).toEqual([made.id, 5]);
    }
    world.dataPath.expectSound();
    expect(arena.mappedBytes).toBeGreaterThanOrEqual(world.device.memoryBytes);
  }
  if (alive) expect(world.endReason).toBeNull();
  const orders = world.dataPath.log.length;
  await world.dispose();
  return { alive, orders };
}

describe('random front-ends', () => {
  it.each(seeds(12))('leave nothing behind (batch %i)', async (batch) => {
    const lives: { alive: boolean; orders: number }[] = [];
    for (let run = 0; run < 20; run++) lives.push(await live(batch * 100 + run, 60));
    // Otherwise the messages are so bad, or so good, that little is tested.
    const survivors = lives.filter(({ alive }) => alive).length;
    expect(survivors).toBeGreaterThan(0);
    expect(survivors).toBeLessThan(lives.length);
    expect(lives.reduce((sum, { orders }) => sum + orders, 0)).toBeGreaterThan(100);
  });

  it('that send a burst and hang up leave nothing behind, whatever was being waited for', async () => {
    for (let seed = 5000; seed < 5060; seed++) {
      const random = new Random(seed);
      const world = new World(OPTIONS);
      const messages = new Messages(random, world);
      world.front.receivedFds = [];
      await world.run(FEATURES);
      const hold = world.dataPath.hold(random.pick(['attach', 'detach', 'setCallFd', 'setLog'] as const));
      for (let i = 0; i < 15; i++) {
        const made = messages.make(random.pick(NAMES));
        world.front.sendBytes(message(made.id, made.payload), made.fds);
        for (const fd of made.fds) closeFd(fd);
      }
      if (random.chance(50)) await new Promise(setImmediate);
      if (random.chance(50)) world.front.close();
      if (random.chance(50)) void world.session.end('the port was stopped');
      await new Promise(setImmediate);
      hold.release();
      await world.dispose();
    }
  });
});
