/**
 * Ringway's rings against the naive twins, in both layouts, in order and not: two guests with the same memory are
 * driven by the same random choices, one served by src/vring and one by the twin. After every step both guests'
 * whole memories, counters, signals and bases must be equal, and every frame must have come once, intact and in
 * order. Where the specification leaves a choice the twins choose as Ringway does (naive-ring.ts).
 */
import { isDeepStrictEqual } from 'node:util';
import { describe, expect, it } from 'vitest';
import { PIECE_GAP_BYTES } from '../../src/frontend/driver-ring.ts';
import { BATCH_FRAMES_MAX } from '../../src/queue/batch.ts';
import type { RingLayoutKind } from '../../src/vring/attachment.ts';
import { Random, seeds } from './random.ts';
import { FRAME_BYTES_MAX, randomPieces, randomPlan, randomReceiveShape } from './random-rings.ts';
import {
  type DeviceEnd,
  DriverEnd,
  NaiveEnd,
  type Offered,
  type PlaceLists,
  type RingPlan,
  RingwayEnd,
} from './ring-worlds.ts';

const SEEDS = 28;
const TURNS = 150;

const KINDS = [
  ['split', false],
  ['split', true],
  ['packed', false],
  ['packed', true],
] as const;

/** Frames of a burst in lists: all in one go, in two, mixed up, or with copies of some. */
function randomLists(random: Random, count: number): PlaceLists {
  const all = Array.from({ length: count }, (_, i) => i);
  const rest = all.filter(() => random.chance(30));
  switch (random.between(0, 4)) {
    case 0:
    case 1:
      return [all];
    case 2:
      return [all.filter((i) => !rest.includes(i)), rest].filter((list) => list.length > 0);
    case 3:
      return [all.sort(() => random.between(0, 2) - 1)];
    default:
      return [all, rest].filter((list) => list.length > 0);
  }
}

/** Moves buffers off their alignment; shapes leave so much of each buffer's end free (PIECE_GAP_BYTES). */
function misalign(random: Random, { toGuest, fromGuest }: DriverEnd): void {
  for (const { bufferOffsets } of [toGuest.ring, fromGuest.ring]) {
    for (let id = 0; id < bufferOffsets.length; id++) bufferOffsets[id] += random.between(0, 4);
  }
}

/** The same driver twice, one with Ringway and one with the twin behind it. */
class Worlds {
  readonly random: Random;
  readonly plan: RingPlan;
  readonly ringway: RingwayEnd;
  readonly naive: NaiveEnd;
  readonly drivers: readonly [DriverEnd, DriverEnd];
  /** What the guest must receive, later. */
  readonly expected: Uint8Array[] = [];
  readonly refused: Offered[] = [];

  constructor(seed: number, layout: RingLayoutKind, inOrder: boolean) {
    const random = new Random(seed);
    this.random = new Random(seed + 1000);
    const bufferBytes = random.pick([FRAME_BYTES_MAX + 512, 4096, 16_384]);
    const sizeMax = random.pick([8, 64, 128, 512]);
    this.plan = { ...randomPlan(random, layout, bufferBytes, sizeMax), inOrder };
    const shapeSeed = random.next();
    const isShaped = random.chance(60);
    const makeDriver = (): DriverEnd => {
      if (!isShaped) return new DriverEnd(this.plan);
      const shapeRandom = new Random(shapeSeed);
      const receiveShape = randomReceiveShape(shapeRandom, this.plan);
      const driver = new DriverEnd({ ...this.plan, receiveShape });
      if (shapeRandom.chance(50)) misalign(shapeRandom, driver);
      return driver;
    };
    this.drivers = [makeDriver(), makeDriver()];
    const mapping = random.pick(['inOrder', 'lastFirst', 'overWindows'] as const);
    this.ringway = new RingwayEnd(this.drivers[0], this.plan, mapping);
    this.naive = new NaiveEnd(this.drivers[1], this.plan);
  }

  close(): void {
    this.ringway.close();
    for (const { memory } of this.drivers) memory.close();
  }

  bothDrivers<T>(action: (driver: DriverEnd) => T): T {
    return equal(action(this.drivers[0]), action(this.drivers[1]));
  }

  bothDevices<T>(action: (device: DeviceEnd) => T): T {
    return equal(action(this.ringway), action(this.naive));
  }

  /** One random step, done alike in both worlds. Answers what it was. */
  step(): string {
    const { random } = this;
    const action = random.pick([...STEPS.keys()]);
    STEPS.get(action)!(this);
    return action;
  }

  frame(bytesMax: number): Uint8Array {
    const { random } = this;
    const bytes = random.bytes(random.between(14, random.pick([60, bytesMax])));
    // Of a few flows, so that bursts are alike now and then.
    if (random.chance(80)) bytes.fill(random.between(1, 2), 0, 12);
    return bytes;
  }

  send(): void {
    const { random, plan } = this;
    const isPlain = random.chance(40);
    for (let left = random.pick([1, 8, 70]); left > 0; left--) {
      const maxPieces = isPlain ? 1 : random.pick([1, 3, Math.min(20, plan.size)]);
      const roomBytes = plan.bufferBytes - plan.headerBytes - PIECE_GAP_BYTES * maxPieces;
      const frame = this.frame(Math.min(FRAME_BYTES_MAX, roomBytes));
      const pieces = randomPieces(random, frame.length + plan.headerBytes, maxPieces);
      const indirect = !isPlain && plan.indirect && random.chance(40);
      if (!this.bothDrivers(({ fromGuest }) => fromGuest.post(frame, { pieces, indirect }))) break;
    }
    this.bothDrivers(({ fromGuest }) => fromGuest.flush());
  }

  loop(): void {
    const waiting = this.naive.waiting();
    const { taken, lists, offered } = this.ringway.loop((count) => randomLists(this.random, count));
    // A split ring may know of fewer than there are by now, but not of none.
    expect(taken).toBeLessThanOrEqual(Math.min(waiting, BATCH_FRAMES_MAX));
    expect(taken > 0).toBe(waiting > 0);
    this.#note(equal(offered, this.naive.loop(taken, lists)));
  }

  give(): void {
    const { random } = this;
    const frames = Array.from({ length: random.pick([1, 5, 64]) }, () => this.frame(FRAME_BYTES_MAX));
    const lists = randomLists(random, frames.length);
    const scatter = new Random(random.next());
    const ours = this.ringway.give(frames, lists, random.chance(30) ? null : scatter);
    const given = equal(ours, this.naive.give(frames, lists));
    this.#note(lists.flat().map((at, i) => ({ frame: frames[at], given: given[i] })));
  }

  receive(): void {
    for (let left = this.random.pick([1, 8, 100]); left > 0; left--) {
      const frame = this.bothDrivers(({ toGuest }) => toGuest.receive());
      if (frame === null) {
        expect(this.expected).toEqual([]);
        return;
      }
      if (Buffer.compare(frame, this.expected.shift()!) !== 0) throw new Error('another frame was given');
    }
  }

  expectSame(step: string): void {
    const [ours, twins] = this.drivers.map(({ memory }) => Buffer.from(memory.buffer));
    if (!ours.equals(twins)) {
      const at = ours.findIndex((byte, i) => byte !== twins[i]);
      expect.fail(`${step}: memories differ first at offset ${at}`);
    }
    this.bothDevices((device) => [device.counts(), device.bases()]);
    this.bothDrivers(({ toGuest, fromGuest }) => [toGuest.ring.kicks, fromGuest.ring.kicks]);
  }

  #note(offered: readonly Offered[]): void {
    for (const one of offered) {
      if (one.given === 'done') this.expected.push(one.frame);
      else this.refused.push(one);
    }
  }
}

const STEPS: ReadonlyMap<string, (worlds: Worlds) => void> = new Map([
  ['send', (worlds) => worlds.send()],
  ['send more', (worlds) => worlds.send()],
  ['loop', (worlds) => worlds.loop()],
  ['loop again', (worlds) => worlds.loop()],
  ['give', (worlds) => worlds.give()],
  ['receive', (worlds) => worlds.receive()],
  ['receive more', (worlds) => worlds.receive()],
  [
    'arm',
    (worlds) => {
      const isArmed = worlds.random.chance(50);
      worlds.bothDevices((device) => device.setArmed(isArmed));
    },
  ],
  [
    'notify',
    (worlds) => {
      const isWanted = worlds.random.chance(50);
      worlds.bothDrivers(({ toGuest, fromGuest }) => {
        for (const { ring } of [toGuest, fromGuest]) isWanted ? ring.arm() : ring.disarm();
      });
    },
  ],
]);

function equal<T>(ours: T, twins: T): T {
  // Much faster than `toEqual` on frames, which then says what differs.
  if (!isDeepStrictEqual(ours, twins)) expect(ours).toEqual(twins);
  return ours;
}

describe.each(KINDS)('%s rings, in order: %s, and their naive twin', (layout, inOrder) => {
  const refusals = new Set<string>();

  it.each(seeds(SEEDS))('agree byte for byte, seed %i', (seed) => {
    const worlds = new Worlds(seed, layout, inOrder);
    try {
      worlds.bothDrivers(({ toGuest }) => toGuest.fill());
      for (let turn = 0; turn < TURNS; turn++) worlds.expectSame(`step ${turn} (${worlds.step()})`);
      while (worlds.expected.length > 0) worlds.receive();
      expect(worlds.bothDrivers(({ toGuest }) => toGuest.receive())).toBeNull();
      const counts = worlds.ringway.counts();
      expect(counts.fromFrames).toBeGreaterThan(0);
      expect(counts.toFrames).toBe(worlds.drivers[0].toGuest.frames);
      for (const { given } of worlds.refused) refusals.add(given);
    } finally {
      worlds.close();
    }
  });

  it('had refusals of both kinds among them', () => {
    expect([...refusals].sort()).toEqual(['noBuffer', 'tooSmall']);
  });
});
