/**
 * Limits of what a port sends and is sent, storm control, and protected ports. Fake queues and a clock that goes on by
 * hand; how exact a limit is by a real clock `bench/limits/main.ts` tells.
 */
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import { type LimitsPolicy, NO_LIMITS, type RatePolicy } from '../../../src/queue/policy.ts';
import { METER_BYTES, Meter } from '../../../switch/l2/meter.ts';
import { Random, seeds } from '../../vring/random.ts';
import type { FakePort } from './fake-switch.ts';
import { FakeSwitch } from './fake-switch.ts';
import { arena, ethernet, type Mac } from './frames.ts';

const ALL: Mac = [255, 255, 255, 255, 255, 255];
const GROUP: Mac = [1, 0, 0x5e, 1, 2, 3];
const BPDU: Mac = [1, 0x80, 0xc2, 0, 0, 0];
/** Nobody's address. */
const NOBODY = 9;
const SECOND_US = 1_000_000;

let world: FakeSwitch;
let ports: FakePort[];

/** Port `n` has the address `n + 1`. */
beforeEach(() => {
  world = new FakeSwitch(1, 1, 1);
  ports = world.ports;
  for (const port of ports) world.send(port, ethernet(NOBODY, port.state.id + 1));
  for (const { to, state } of ports) {
    for (const queue of to) queue.received.length = 0;
    state.counts.fill(0);
  }
  // The books are of what comes from now on.
  for (const { states } of ports) new Uint8Array(states).fill(0);
});
afterAll(() => arena.release());

const limit = (port: FakePort, limits: Partial<LimitsPolicy>): void =>
  world.follow(port, { limits: { ...NO_LIMITS, ...limits } });
const rate = (perSecond: number, burst: number): RatePolicy => ({ perSecond, burst });
const frames = (count: number, dst: Mac = 2, sizeBytes = 60): Uint8Array[] =>
  Array.from({ length: count }, () => ethernet(dst, 1, { sizeBytes }));
const received = (): number[] => ports.map((port) => port.received.length);
const drops = () => ports.map((port) => port.drops);

describe('what a port may send', () => {
  it('in frames: the burst at once, then what comes in with time, and nothing that was saved beyond it', () => {
    limit(ports[0], { framesIn: rate(1000, 10) });
    world.send(ports[0], ...frames(30));
    expect(received()).toEqual([0, 10, 0]);
    expect(drops()).toEqual([{ rateIn: 20 }, {}, {}]);
    world.clock.atUs += 4000;
    world.send(ports[0], ...frames(30));
    expect(received()).toEqual([0, 14, 0]);
    world.clock.atUs += 1500;
    world.send(ports[0], ...frames(1));
    world.clock.atUs += 500;
    world.send(ports[0], ...frames(1));
    expect(received()).toEqual([0, 16, 0]);
    world.clock.atUs += 100 * SECOND_US;
    world.send(ports[0], ...frames(60));
    expect(received()).toEqual([0, 26, 0]);
    expect(ports[0].drops).toEqual({ rateIn: 20 + 26 + 50 });
  });

  it('in bits: a frame larger than what is left passes, and the next ones wait for it', () => {
    // 100 bytes a millisecond.
    limit(ports[0], { bitsIn: rate(800_000, 800) });
    world.send(ports[0], ...frames(2, 2, 1500));
    expect(received()).toEqual([0, 1, 0]);
    world.clock.atUs += 13_900;
    world.send(ports[0], ...frames(1));
    expect(received()).toEqual([0, 1, 0]);
    world.clock.atUs += 200;
    world.send(ports[0], ...frames(2));
    expect(received()).toEqual([0, 2, 0]);
    expect(ports[0].drops).toEqual({ rateIn: 3 });
  });

  it('in both: what passes the one is limited by the other, and what is dropped costs nothing', () => {
    limit(ports[0], { bitsIn: rate(1000, 10 * 480), framesIn: rate(1, 20) });
    world.send(ports[0], ...frames(30));
    expect(received()).toEqual([0, 10, 0]);
    // 10 frames are left.
    limit(ports[0], { framesIn: rate(1, 20) });
    world.send(ports[0], ...frames(30));
    expect(received()).toEqual([0, 20, 0]);
  });

  it('goes for bursts of many flows, in the order in which they came, and nothing is learned of the others', () => {
    limit(ports[0], { framesIn: rate(1000, 3) });
    const burst = [ethernet(2, 1), ethernet(3, 1), ethernet(2, 1), ethernet(ALL, 77), ethernet(2, 1)];
    world.send(ports[0], ...burst);
    expect(ports[1].received).toEqual([burst[0], burst[2]]);
    expect(ports[2].received).toEqual([burst[1]]);
    expect(ports[0].drops).toEqual({ rateIn: 2 });
    expect(world.fdb.size).toBe(3);
  });

  it('is not what others may send, and is nothing once it is taken back', () => {
    limit(ports[0], { framesIn: rate(1000, 1) });
    world.send(ports[1], ...Array.from({ length: 20 }, () => ethernet(1, 2)));
    expect(received()).toEqual([20, 0, 0]);
    world.send(ports[0], ...frames(5));
    limit(ports[0], {});
    world.send(ports[0], ...frames(5));
    expect(received()).toEqual([20, 6, 0]);
  });

  it('begins anew with another rate, and not with the same one', () => {
    limit(ports[0], { framesIn: rate(1000, 5) });
    world.send(ports[0], ...frames(9));
    limit(ports[0], { framesIn: rate(1000, 5) });
    world.send(ports[0], ...frames(9));
    expect(received()).toEqual([0, 5, 0]);
    limit(ports[0], { framesIn: rate(1000, 6) });
    world.send(ports[0], ...frames(9));
    expect(received()).toEqual([0, 11, 0]);
  });

  it('is mirrored whole', () => {
    const mirror = world.addMirror(3, [0]);
    limit(ports[0], { framesIn: rate(1000, 5) });
    world.send(ports[0], ...frames(9));
    expect(mirror.received).toHaveLength(9);
  });
});

describe('what a port may be sent', () => {
  it('is limited whoever sends it, at the books of the receiver', () => {
    limit(ports[1], { framesOut: rate(1000, 10) });
    world.send(ports[0], ...frames(8));
    world.send(ports[2], ...frames(8));
    world.send(ports[0], ethernet(ALL, 1), ethernet(3, 1));
    expect(received()).toEqual([0, 10, 2]);
    expect(drops()).toEqual([{}, { rateOut: 7 }, {}]);
    world.clock.atUs += 3000;
    world.send(ports[0], ...frames(5));
    expect(received()).toEqual([0, 13, 2]);
  });

  it('in bits counts the tags that frames go out with', () => {
    world.follow(ports[0], { vlan: { ...vlan, mode: 'access', tag: 5 } });
    const trunk = { ...vlan, trunks: [5] };
    world.follow(ports[1], { vlan: trunk, limits: { ...NO_LIMITS, bitsOut: rate(1000, 64 * 8 * 4) } });
    world.send(ports[0], ...frames(9, ALL));
    expect(received()).toEqual([0, 4, 9]);
    expect(ports[1].drops).toEqual({ rateOut: 5 });
  });

  it('is what its mirror shows', () => {
    const mirror = world.addMirror(3, [1]);
    limit(ports[1], { framesOut: rate(1000, 4) });
    world.send(ports[0], ...frames(9));
    expect(mirror.received).toHaveLength(4);
  });

  it('goes for a port that gets nothing but copies', () => {
    const mirror = world.addMirror(3, [0]);
    world.follow(mirror, {
      copiesOf: [{ portId: 0, name: 'vm0' }],
      limits: { ...NO_LIMITS, framesOut: rate(1000, 4) },
    });
    world.send(ports[0], ...frames(9));
    expect(received()).toEqual([0, 9, 0, 4]);
    expect(mirror.drops).toEqual({ rateOut: 5 });
  });
});

const vlan = {
  mode: 'trunk',
  tag: 0,
  trunks: null,
  cvlans: null,
  priorityTags: 'never',
  serviceTag: '802.1ad',
} as const;

describe('storm control', () => {
  const STORM = { broadcast: rate(10, 2), multicast: rate(10, 3), unknown: rate(10, 4) };

  it.each([
    ['broadcast', ALL, 2, 'stormBroadcast'],
    ['multicast', GROUP, 3, 'stormMulticast'],
    ['unknown unicast', NOBODY, 4, 'stormUnknown'],
  ] as const)('of %s frames that are all alike', (_, dst, passes, name) => {
    limit(ports[0], STORM);
    world.send(ports[0], ...frames(10, dst));
    expect(received()).toEqual([0, passes, passes]);
    expect(ports[0].drops).toEqual({ [name]: 10 - passes });
    world.clock.atUs += SECOND_US / 5;
    world.send(ports[0], ...frames(10, dst));
    expect(received()).toEqual([0, passes + 2, passes + 2]);
  });

  it('of each kind by itself in one burst; frames to those who are known pass, in order', () => {
    limit(ports[0], STORM);
    const kinds = [ALL, 2, GROUP, NOBODY, 3];
    const burst = Array.from({ length: 50 }, (_, i) => ethernet(kinds[i % 5], 1, { payload: [i] }));
    world.send(ports[0], ...burst);
    expect(ports[0].drops).toEqual({ stormBroadcast: 8, stormMulticast: 7, stormUnknown: 6 });
    expect(received()).toEqual([0, 19, 19]);
    const numbers = ports[1].received.map((frame) => frame[14]);
    expect(numbers).toEqual([...numbers].sort((a, b) => a - b));
  });

  it('leaves alone what its kind is not limited of, and what does not leave its link', () => {
    limit(ports[0], { multicast: rate(10, 2) });
    world.send(ports[0], ...frames(5, ALL), ...frames(5, NOBODY), ...frames(5, BPDU));
    expect(received()).toEqual([0, 10, 10]);
    expect(ports[0].drops).toEqual({ linkLocal: 5 });
    world.follow(ports[0], { forwardsLinkLocal: true, limits: { ...NO_LIMITS, multicast: rate(10, 2) } });
    world.send(ports[0], ...frames(5, BPDU));
    expect(ports[0].drops).toEqual({ linkLocal: 5, stormMulticast: 3 });
  });

  it('goes before the limit of what the port may send, of which it takes nothing', () => {
    limit(ports[0], { broadcast: rate(10, 1), framesIn: rate(10, 5) });
    world.send(ports[0], ...frames(9, ALL));
    world.send(ports[0], ...frames(9));
    expect(ports[0].drops).toEqual({ stormBroadcast: 8, rateIn: 5 });
    expect(received()).toEqual([0, 5, 1]);
  });
});

describe('protected ports', () => {
  beforeEach(() => {
    for (const port of ports.slice(0, 2)) world.follow(port, { isProtected: true });
  });

  it('do not talk to each other, and to all others', () => {
    world.send(ports[0], ...frames(2), ethernet(3, 1), ethernet(ALL, 1));
    expect(received()).toEqual([0, 0, 2]);
    expect(drops()).toEqual([{ protected: 2 }, {}, {}]);
    world.send(ports[2], ethernet(1, 3), ethernet(2, 3), ethernet(ALL, 3));
    expect(received()).toEqual([2, 2, 2]);
  });

  it('are no receivers of what is flooded: with nobody else there is none', () => {
    world.follow(ports[2], { isProtected: true });
    world.send(ports[0], ...frames(3, ALL));
    world.send(ports[0], ...frames(2, NOBODY), ethernet(2, 1));
    expect(received()).toEqual([0, 0, 0]);
    expect(ports[0].drops).toEqual({ noReceiver: 5, protected: 1 });
  });

  it('may be no such ports again', () => {
    world.follow(ports[1], {});
    world.send(ports[0], ...frames(2), ethernet(ALL, 1));
    expect(received()).toEqual([0, 3, 1]);
  });
});

describe('a bucket', () => {
  /** As plain as can be: tokens as a fraction, filled at every look. */
  class NaiveBucket {
    tokens: number;
    readonly #rate: RatePolicy;
    #atUs: number;

    constructor(policy: RatePolicy, atUs: number) {
      this.#rate = policy;
      this.tokens = policy.burst;
      this.#atUs = atUs;
    }

    fill(atUs: number): void {
      const earned = ((atUs - this.#atUs) * this.#rate.perSecond) / SECOND_US;
      this.tokens = Math.min(this.#rate.burst, this.tokens + earned);
      this.#atUs = atUs;
    }
  }

  it.each(seeds(40))('of several workers pays out what a plain one does (seed %i)', (seed) => {
    const random = new Random(seed);
    const perSecond = random.pick([1, 30, 1000, 33_333, 1_000_000, 4_999_999, 10 ** 9, 10 ** 11]);
    const burst = Math.max(1, Math.round(perSecond * random.pick([0.001, 0.05, 0.05, 1])));
    const costMax = random.pick([1, 12_000]);
    let atUs = random.pick([0, 2 ** 31 - 5000, 2 ** 32 - 10_000]);
    const memory = new SharedArrayBuffer(2 * METER_BYTES);
    const workers = Array.from({ length: random.pick([1, 2, 4]) }, () => new Meter(memory, 1));
    for (const worker of workers) worker.follow({ perSecond, burst }, costMax, atUs | 0);
    const naive = new NaiveBucket({ perSecond, burst }, atUs);
    let passed = 0;
    let expected = 0;
    for (let turn = 0; turn < 2000; turn++) {
      // A clock that was read earlier is older.
      const behindUs = random.chance(20) ? random.between(0, 30) : 0;
      if (behindUs === 0) atUs += random.pick([0, 1, 3, 15, 200, random.chance(3) ? 400_000 : 7]);
      const worker = random.pick(workers);
      const level = worker.fill((atUs - behindUs) | 0, random.pick([0, 1, costMax]));
      if (behindUs === 0) naive.fill(atUs);
      const cost = random.between(1, costMax);
      if (level > 0) {
        worker.spend(cost);
        passed += cost;
      }
      if (naive.tokens > 0) {
        naive.tokens -= cost;
        expected += cost;
      }
    }
    // What each of several has spent and not yet told.
    const sharedOff = workers.length === 1 ? 0 : workers.length * (1 + burst / 256);
    // Where a level is all but 0 the two may decide otherwise, and take it back with the next one.
    expect(Math.abs(passed - expected)).toBeLessThanOrEqual(costMax + sharedOff + expected * 0.0005);
    expect(expected).toBeGreaterThan(0);
  });

  it('is full after a time in which the clock wrapped', () => {
    const meter = new Meter(new SharedArrayBuffer(METER_BYTES), 0);
    meter.follow({ perSecond: 1000, burst: 50 }, 1, 5);
    meter.spend(50);
    expect(meter.fill(5, 1)).toBeLessThanOrEqual(0);
    const level = meter.fill((5 + 2 ** 31) | 0, 1);
    expect(meter.fitting(level, 1, 100)).toBe(50);
  });
});
