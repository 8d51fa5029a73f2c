/**
 * Seeded random bursts through the forwarder, between queues without guests, against the naive switch: who gets which
 * frames, in which order, and what is dropped by which name. The books must balance after each burst.
 */
import { afterAll, describe, expect, it } from 'vitest';
import { DEFAULT_VLAN, type PortPolicy } from '../../../src/queue/policy.ts';
import { DROP_REASONS, type DropReason } from '../../../switch/l2/drop-reasons.ts';
import { Random, seeds } from '../../vring/random.ts';
import { booksOfPort } from './conservation.ts';
import type { FakeEgressQueue, Untaken, Waiting } from './fake-queues.ts';
import { type FakePort, FakeSwitch } from './fake-switch.ts';
import { arena, ethernet, type Flow, ipPacket, type Mac } from './frames.ts';
import { type NaivePorts, NaiveSwitch } from './naive-switch.ts';
import { bytesBesideTags } from './naive-vlan.ts';
import { randomTagged, randomVlan } from './random-vlans.ts';

const BROADCAST: Mac = [255, 255, 255, 255, 255, 255];
const MULTICAST: Mac = [1, 0, 0x5e, 0, 0, 1];
/** Those that bridges do not pass on, and their neighbours on each side. */
const NEAR_LINK_LOCAL: readonly Mac[] = [0, 1, 15, 16, 255].map((last) => [1, 0x80, 0xc2, 0, 0, last]);
const BURSTS = 120;
/**
 * `noReceiver` happens only to a port that is alone, see forwarder.test.ts; here it is by chance. What headers ask for is
 * known to a guest's queue, see test/switch/offloads.test.ts; so is what an IOMMU translates, see test/switch/iommu.test.ts.
 * Limits are a matter of time, see limits.test.ts; what is seen of loops, see loops.test.ts;
 * groups have a fuzz of their own, ../snooping/snooping-fuzz.test.ts.
 */
const NOT_HERE: readonly DropReason[] = [
  'noMember',
  'noReceiver',
  'badChecksumRequest',
  'badSegmentRequest',
  'tooManySegments',
  'heldBack',
  'notTranslated',
  'plugin',
  'pluginFailed',
  'rateIn',
  'rateOut',
  'stormBroadcast',
  'stormMulticast',
  'stormUnknown',
  'loopProbe',
  // Guards are tested in guard/.
  'macNotAllowed',
  'macsExceeded',
  'ipNotAllowed',
  'arpNotAllowed',
  'ndNotAllowed',
  'dhcpServer',
  'routerAdvertisement',
  'guardUnreadable',
];

afterAll(() => arena.release());

/** What the queue of a port can take in the burst to come. */
class Room {
  bufferCount = Number.POSITIVE_INFINITY;
  bufferBytes = Number.POSITIVE_INFINITY;
  isStopped = false;
  losesPerBurst = 0;

  draw(random: Random): void {
    this.bufferCount = random.chance(50) ? random.between(0, 70) : Number.POSITIVE_INFINITY;
    this.bufferBytes = random.pick([100, 300, 9999]);
    this.isStopped = random.chance(5);
    this.losesPerBurst = random.chance(20) ? random.between(1, 20) : 0;
  }

  apply(queue: FakeEgressQueue): void {
    queue.bufferCount = this.bufferCount;
    queue.bufferBytes = this.bufferBytes;
    queue.fault = this.isStopped ? 7 : 0;
    queue.losesPerBurst = this.losesPerBurst;
  }
}

/**
 * What each port of the twin has and gets. A port of several queues, and one for copies, always has room: which queue
 * a flow is on, and whose copies come first, is not the twin's business.
 */
class TwinPorts implements NaivePorts {
  readonly rooms: Room[];
  readonly received: Uint8Array[][];
  readonly copies = new Map<string, Uint8Array[]>();
  /** Frames that were placed in this burst. */
  readonly #placed: Uint8Array[][];
  readonly #ports: readonly FakePort[];

  constructor(ports: readonly FakePort[]) {
    this.#ports = ports;
    this.rooms = ports.map(() => new Room());
    this.received = ports.map(() => []);
    this.#placed = ports.map(() => []);
  }

  place(port: number, frame: Uint8Array): DropReason | null {
    const { state } = this.#ports[port];
    const room = this.rooms[port];
    if (state.queueCount === 0) return 'notReady';
    if (bytesBesideTags(frame) > state.frameBytesMax) return 'overMtu';
    if (room.isStopped) return 'queueStopped';
    if (room.bufferCount === 0) return 'noBuffer';
    if (frame.length > room.bufferBytes) return 'bufferTooSmall';
    room.bufferCount--;
    this.#placed[port].push(frame);
    return null;
  }

  placeCopy(port: number, frame: Uint8Array, source: number, isIngress: boolean): DropReason | null {
    const name = `${port}: vm${source}${isIngress ? '>' : '<'}`;
    const frames = this.copies.get(name);
    if (frames === undefined) this.copies.set(name, [frame]);
    else frames.push(frame);
    return null;
  }

  /** Answers how many frames each port lost at the burst's end after all. */
  endBurst(): number[] {
    return this.#placed.map((frames, port) => {
      const lostCount = Math.min(frames.length, this.rooms[port].losesPerBurst);
      this.received[port].push(...frames.slice(0, frames.length - lostCount));
      frames.length = 0;
      return lostCount;
    });
  }
}

/** Frames, each with a number of its own behind its type, tagged or not. */
class Frames {
  readonly #random: Random;
  readonly #hasVlans: boolean;
  readonly #macs: Mac[];
  #sequence = 0;

  constructor(random: Random, hasVlans: boolean) {
    this.#random = random;
    this.#hasVlans = hasVlans;
    this.#macs = [...Array.from({ length: 12 }, (_, i) => i + 1), BROADCAST, MULTICAST, [0, 0, 0, 0, 0, 0]];
    if (random.chance(50))
      this.#macs.push(...NEAR_LINK_LOCAL, [1, 0x80, 0xc2, 0, 1, 0], [1, 0x80, 0xc3, 0, 0, 0]);
  }

  /** All alike, of some flows, or of anyone to anyone. */
  burst(count: number): Uint8Array[] {
    const random = this.#random;
    const some = Array.from({ length: random.pick([1, 1, 3, 60]) }, () => [
      random.pick(this.#macs),
      random.pick(this.#macs),
    ]);
    // Often all of a burst have the same.
    const same = random.chance(50) ? randomTagged(random, 0) : null;
    return Array.from({ length: count }, () => {
      const [dst, src] = random.pick(some);
      const tags = this.#hasVlans ? (same ?? randomTagged(random, 5)) : random.pick([[], [0x81, 0, 0, 5]]);
      return this.#frame(dst, src, tags);
    });
  }

  #frame(dst: Mac, src: Mac, tags: readonly number[]): Uint8Array {
    const random = this.#random;
    const flow: Flow = {
      version: 4,
      src: [10, 0, 0, 1],
      dst: [10, 0, 0, 2],
      protocol: 17,
      srcPort: random.between(0, 5),
      dstPort: 9,
    };
    const number = this.#sequence++;
    const payload = [...ipPacket(flow), 0, 0, 0, 0, number & 255, number >> 8];
    const sizeBytes = random.pick([60, 64, 199, 200, 201, 401, 1514]);
    const plain = ethernet(dst, src, { type: random.chance(90) ? 0x0800 : 0x86dd, payload, sizeBytes });
    const frame = Uint8Array.from([...plain.subarray(0, 12), ...tags, ...plain.subarray(12)]);
    return this.#hasVlans && random.chance(10) ? frame.slice(0, random.between(14, 26)) : frame;
  }
}

function laid(random: Random, bytes: Uint8Array): Waiting {
  if (random.chance(20)) return { bytes, pieces: [random.between(1, 30), random.between(1, 30)] };
  return { bytes, misalignment: random.chance(50) ? 0 : random.between(0, 3) };
}

const UNTAKEN: readonly Untaken[] = ['tooLong', 'tooShort', 'tooScattered'];

describe('random bursts', () => {
  const seen = new Set<string>();

  it.each(seeds(60))('go where the naive switch sends them (seed %i)', (seed) => {
    const random = new Random(seed);
    // Frames of a few bytes have no number: as only one queue keeps their order, there are no others.
    const hasVlans = seed % 2 === 1;
    FakeSwitch.vlanLimit = hasVlans ? random.pick([1, 2]) : 1;
    const queueCounts = Array.from({ length: random.pick([2, 3, 6, 9]) }, () =>
      random.pick(hasVlans ? [1, 1, 0] : [0, 1, 1, 1, 2, 4]),
    );
    const world = new FakeSwitch(...queueCounts);
    const copiesOf = new Map<number, readonly number[]>();
    for (const { to } of world.ports) for (const queue of to) queue.shared = random.chance(20);
    for (const port of world.ports) port.state.frameBytesMax = random.pick([200, 400, 100_000]);
    for (let mirrors = random.pick([0, 0, 1, 2]); mirrors > 0; mirrors--) {
      const sources = queueCounts.map((_, id) => id).filter(() => random.chance(40));
      const { state } = world.addMirror(world.ports.length, sources);
      copiesOf.set(state.id, sources);
    }
    const { ports } = world;
    const twinPorts = new TwinPorts(ports);
    const twin = new NaiveSwitch(ports.length, twinPorts, copiesOf);
    const policies = new Map<FakePort, Partial<PortPolicy>>();
    for (const [id, port] of ports.entries()) {
      if (copiesOf.has(id)) continue;
      const [receives, floods, forwardsLinkLocal, isProtected] = [90, 85, 20, 30].map((percent) =>
        random.chance(percent),
      );
      const vlan = hasVlans && random.chance(80) ? randomVlan(random) : DEFAULT_VLAN;
      const policy = { receives, floods, forwardsLinkLocal, isProtected, vlan };
      policies.set(port, policy);
      world.follow(port, policy);
      twin.vlans.set(id, vlan);
      if (forwardsLinkLocal) twin.forwardsBpdu.add(id);
      if (isProtected) twin.protectedPorts.add(id);
      if (!receives) twin.muted.add(id);
      if (!floods) twin.unflooded.add(id);
    }
    twin.vlanLimit = FakeSwitch.vlanLimit;
    const frames = new Frames(random, hasVlans);
    const [[loopy, policyOfLoopy] = []] = random.chance(50) ? [...policies] : [];

    for (let burst = 0; burst < BURSTS; burst++) {
      // What was learned behind it is still there, as it is for a moment.
      if (loopy !== undefined && burst === BURSTS / 2) {
        world.follow(loopy, { ...policyOfLoopy, isShut: true });
        twin.shut.add(loopy.state.id);
      }
      for (const [id, port] of ports.entries()) {
        if (port.to.length === 1 && !copiesOf.has(id)) twinPorts.rooms[id].draw(random);
        for (const queue of port.to) {
          twinPorts.rooms[id].apply(queue);
          queue.isBusy = random.chance(20);
        }
      }
      const senders = ports.filter(() => random.chance(30));
      // What a queue does not take when it ends depends on when that is, which is the worker's business.
      const endsOnce = senders.length === 1 && copiesOf.size === 0;
      if (!endsOnce) for (const { to } of ports) for (const queue of to) queue.losesPerBurst = 0;
      if (!endsOnce) for (const room of twinPorts.rooms) room.losesPerBurst = 0;
      const bursts = senders.map((sender) => {
        const bytes = frames.burst(random.pick([0, 1, 2, 30, 60]));
        const untaken = Array.from({ length: random.pick([0, 0, 1, 4]) }, () => random.pick(UNTAKEN));
        const waiting: Waiting[] = bytes.map((each) => laid(random, each));
        for (const each of untaken) waiting.splice(random.between(0, waiting.length), 0, { untaken: each });
        sender.from.fill(...waiting);
        return { sender, bytes, untaken };
      });
      expect(world.turn()).toBe(
        bursts.reduce((sum, { bytes, untaken }) => sum + bytes.length + untaken.length, 0),
      );
      for (const { sender, bytes, untaken } of bursts) twin.burst(sender.state.id, bytes, untaken);
      for (const [id, lostCount] of twinPorts.endBurst().entries()) {
        for (let i = 0; i < lostCount; i++) twin.count(id, 'notTaken');
      }
    }

    for (const [id, port] of ports.entries()) {
      const drops = Object.entries(booksOfPort(port).drops).filter(([, count]) => count !== 0);
      expect(Object.fromEntries(drops), `drops of port ${id}`).toEqual(twin.drops[id]);
      for (const [name] of drops) seen.add(name);
      if (copiesOf.has(id)) expectCopies(port, twinPorts);
      else if (hasVlans) expect(port.received.map(textOf)).toEqual(twinPorts.received[id].map(textOf));
      else expectFrames(port, twinPorts.received[id]);
    }
  });

  it('had drops of every name', () => {
    const names = DROP_REASONS.map(({ name }) => name).filter((name) => !NOT_HERE.includes(name));
    expect([...seen].filter((name) => !NOT_HERE.includes(name as DropReason)).sort()).toEqual(names.sort());
  });
});

/** For comparing many frames fast. */
const textOf = (frame: Uint8Array): string => Buffer.from(frame).toString('latin1');

/** On one queue exactly what the twin says; on several each frame once, in order on each. */
function expectFrames(port: FakePort, expected: readonly Uint8Array[]): void {
  const placeOf = new Map(expected.map((frame, at) => [textOf(frame), at]));
  const perQueue = port.to.map(({ received }) => received.map((frame) => placeOf.get(textOf(frame)) ?? -1));
  const ascending = (places: readonly number[]): number[] => [...places].sort((a, b) => a - b);
  for (const places of perQueue) expect(places).toEqual(ascending(places));
  expect(ascending(perQueue.flat())).toEqual(expected.map((_, at) => at));
}

/** The copies of each port, each way, in order. */
function expectCopies({ state, to: [queue] }: FakePort, { copies }: TwinPorts): void {
  const mine = [...copies].filter(([name]) => name.startsWith(`${state.id}: `));
  expect(queue.received).toHaveLength(mine.reduce((sum, [, frames]) => sum + frames.length, 0));
  for (const [name, frames] of mine) {
    const seen = queue.received.filter((_, i) => `${state.id}: ${queue.ways[i]}` === name);
    expect(seen.map(textOf), name).toEqual(frames.map(textOf));
  }
}
