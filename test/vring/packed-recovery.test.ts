/**
 * A packed ring whose user is killed: at each single store that it makes to the rings and to their records, in turn. Frames
 * loop from a guest to itself, and after the kill another one takes up the rings: no frame is lost, none comes twice that
 * is not of the burst at work, every buffer comes back, and the driver sees nothing that it never offered.
 */
import { afterAll, describe, expect, it, vi } from 'vitest';
import { DESC_BYTES } from '../../protocol/virtio/packed-ring.ts';
import { createInflight, InflightBuffer } from '../../src/device/inflight.ts';
import { closeFd } from '../../src/host/descriptor.ts';
import { allocateScratch } from '../../src/memory/scratch.ts';
import { STATE_AVAIL_NEXT, STATE_USED_NEXT } from '../../src/queue/state.ts';
import type * as WRITES from '../../src/vring/guest-writes.ts';
import type { InflightWords } from '../../src/vring/packed/inflight-words.ts';
import type { PackedLayout } from '../../src/vring/packed/layout.ts';
import { finish, type Interrupted, recover } from '../../src/vring/packed/recovery.ts';
import type { Ring } from '../../src/vring/ring.ts';
import { OPEN, RECORD_BYTES, RingRecord, STAND, StandingWords } from '../../src/vring/ring-record.ts';
import { Random, seeds } from './random.ts';
import { DriverEnd, FIRST_BASES, plainPlan, type RingPlan, RingwayEnd } from './ring-worlds.ts';
import { sharedArena, sharedArenaView } from './scratch.ts';

class Killed extends Error {}

/** Stores that may still be made. */
const life = vi.hoisted(() => ({ storesLeft: Number.POSITIVE_INFINITY }));

function store(): void {
  if (life.storesLeft-- <= 0) throw new Killed();
}

vi.mock('../../src/vring/guest-writes.ts', async (original) => {
  const real = await original<typeof WRITES>();
  const countStore = (): void => {
    if (life.storesLeft-- <= 0) throw new Killed();
  };
  const counted = <Args extends unknown[], Result>(write: (...args: Args) => Result) => {
    return (...args: Args): Result => {
      countStore();
      return write(...args);
    };
  };
  return {
    ...real,
    writePlainFrame: counted(real.writePlainFrame),
    writeBytes: counted(real.writeBytes),
    writeWord16: counted(real.writeWord16),
    writeWord32: counted(real.writeWord32),
    publishWord16: counted(real.publishWord16),
    publishWord32: counted(real.publishWord32),
    // Two stores.
    writeUsedDescriptor: (desc: Int32Array, at: number, bytes: number, word: number): void => {
      countStore();
      desc[at + 2] = bytes;
      countStore();
      desc[at + 3] = word;
    },
  };
});

const scratch = allocateScratch(sharedArena, { name: 'records', sizeBytes: 2 * RECORD_BYTES });
afterAll(() => scratch.release());
const OFFSETS = [scratch.offset, scratch.offset + RECORD_BYTES] as const;
const RINGS = [0, 1] as const;

/** The words of records that a ring writes to, each store of them counted. */
function countRecordStores(ring: Ring): void {
  const layout = Reflect.get(ring, 'layout') as PackedLayout;
  countStores(layout, ['standing', 'walkedBytes', 'walkedIds', 'walkedSlots', 'takenIds', 'takenSlots']);
  countStores(Reflect.get(layout, 'inflight') as InflightWords, ['region']);
}

function countStores(owner: object, fields: readonly string[]): void {
  for (const field of fields) {
    const words = Reflect.get(owner, field) as Int32Array;
    const proxy = new Proxy(words, {
      get: (target, key) => Reflect.get(target, key),
      set: (target, key, value) => {
        store();
        return Reflect.set(target, key, value);
      },
    });
    Reflect.set(owner, field, proxy);
  }
}

function inflightBuffer(queueSize: number): InflightBuffer {
  const asked = { sizeBytes: 0n, offset: 0n, queueCount: 2, queueSize, paddingBytes: 0 };
  const { body, fd } = createInflight(asked, 'packed', 2);
  try {
    return new InflightBuffer(sharedArena, sharedArenaView, fd, body, 'packed', 2);
  } finally {
    closeFd(fd);
  }
}

function planOf(random: Random): RingPlan {
  const mergeable = random.chance(50);
  const position = random.between(0, 7) | random.pick([0, 0x8000]);
  const shapes = mergeable
    ? [{ pieces: [300] }, { pieces: [60, 240] }, { pieces: [300], indirect: true }]
    : [{ pieces: [2000] }, { pieces: [12, 1500] }, { pieces: [1000, 600], indirect: true }];
  const isPlain = random.chance(40);
  return {
    ...plainPlan('packed'),
    size: random.between(8, 40),
    base: random.chance(30) ? FIRST_BASES.packed : (position | (position << 16)) >>> 0,
    mergeable,
    inOrder: random.chance(40),
    eventIdx: random.chance(50),
    recordOffsets: OFFSETS,
    ...(!isPlain && { receiveShape: () => random.pick(shapes) }),
  };
}

function frameOf(number: number, sizeBytes: number): Uint8Array {
  const frame = new Random(number).bytes(sizeBytes);
  new DataView(frame.buffer).setUint32(12, number);
  return frame;
}

/** One guest, and who serves its rings; a new one after a kill. */
class World {
  readonly driver: DriverEnd;
  readonly plan: RingPlan;
  readonly inflight: InflightBuffer;
  readonly end: RingwayEnd;
  readonly received: number[] = [];
  sent = 0;
  readonly #random: Random;
  #mayBeShort = false;

  constructor(seed: number) {
    this.#random = new Random(seed);
    const plan = planOf(this.#random);
    this.inflight = inflightBuffer(plan.size);
    const regionOf = (ring: 0 | 1): number => this.inflight.regionOffset(ring, 'packed', plan.size) ?? -1;
    this.plan = { ...plan, inflightOffsets: [regionOf(0), regionOf(1)] };
    this.driver = new DriverEnd(this.plan);
    this.end = new RingwayEnd(this.driver, this.plan);
    this.driver.toGuest.fill();
    const position = this.plan.base & 0xffff;
    for (const ring of RINGS) {
      const identity = {
        portName: 'vm0',
        queueIndex: ring,
        layout: 'packed' as const,
        size: this.plan.size,
        place: '1:2:3',
        base: this.plan.base,
        isFromGuest: ring === 1,
        inOrder: this.plan.inOrder,
      };
      new RingRecord(sharedArenaView, OFFSETS[ring]).begin(identity, position, 1);
      this.inflight.begin(ring, 'packed', this.plan.size, position);
    }
    this.#countStores();
  }

  send(): void {
    // Each may need four buffers of two descriptors.
    const count = this.#random.between(1, Math.max(1, this.plan.size >> 3));
    for (let i = 0; i < count; i++) {
      const sizeBytes = this.#random.pick([60, 64, 300, 700]);
      const pieces = this.#random.chance(50) ? [] : [12, this.#random.between(1, 30)];
      const options = { pieces, indirect: pieces.length > 0 && this.#random.chance(50) };
      if (this.driver.fromGuest.post(frameOf(this.sent, sizeBytes), options)) this.sent++;
    }
    this.driver.fromGuest.flush();
  }

  loop(): void {
    this.end.loop();
  }

  receive(): void {
    for (let frame = this.driver.toGuest.receive(); frame !== null; frame = this.driver.toGuest.receive()) {
      const number = new DataView(frame.buffer).getUint32(12);
      expect(frame).toEqual(frameOf(number, frame.length));
      this.received.push(number);
    }
  }

  /** Who comes after takes up the rings; it too may be killed. */
  takeUp(): void {
    for (const ring of RINGS) {
      const { words } = new StandingWords(sharedArenaView, OFFSETS[ring]);
      const interrupted = this.#interrupted(ring);
      const descOffset = this.#descOffset(ring);
      const wordAt = (at: number, offset: number): number =>
        sharedArenaView.word16At(descOffset + at * DESC_BYTES + offset);
      const bytesAt = (at: number): number => wordAt(at, 8) | (wordAt(at, 10) << 16);
      const recovery = recover(interrupted, {
        flags: (at) => wordAt(at, 14),
        id: (at) => wordAt(at, 12),
        bytes: bytesAt,
      });
      if (recovery === null) throw new Error(`ring ${ring}: ${[words[STAND], words[OPEN]]} does not fit`);
      // What the region says is what the driver sees; of what is hidden it knows nothing.
      const places = { descOffset, driverOffset: 0, deviceOffset: 0 };
      const seen = recovery.first === null ? recovery.position : recovery.seen;
      const report = this.inflight.read(ring, 'packed', this.plan.size, places);
      expect(report).toEqual({ fault: null, position: seen });
      finish(sharedArenaView, descOffset, interrupted, recovery);
      this.inflight.begin(ring, 'packed', this.plan.size, recovery.position);
      const nextAt = recovery.position & 0x7fff;
      const isAvailable = (wordAt(nextAt, 14) & 0x8080) === (recovery.position >= 0x8000 ? 0x80 : 0x8000);
      // A burst that came to nothing has given its buffer back as it was; behind another the length may be stored already.
      if (ring === 0 && recovery.first !== null) this.#mayBeShort = true;
      if (ring === 0 && !this.#mayBeShort && isAvailable && this.plan.receiveShape === undefined)
        expect(bytesAt(nextAt)).toBe(this.plan.bufferBytes);
      const state = (ring === 0 ? this.end.to : this.end.from).state.words;
      state[STATE_AVAIL_NEXT] = recovery.position;
      state[STATE_USED_NEXT] = recovery.position;
    }
    this.end.to = this.end.openTo(false);
    this.end.from = this.end.openFrom();
    this.#countStores();
  }

  close(): void {
    this.end.close();
    this.inflight.release();
    this.driver.memory.close();
  }

  #countStores(): void {
    for (const ring of [this.end.to, this.end.from]) countRecordStores(ring);
  }

  #interrupted(ring: 0 | 1): Interrupted {
    const { size, inOrder } = this.plan;
    const standing = new StandingWords(sharedArenaView, OFFSETS[ring]);
    return { size, inOrder, isFromGuest: ring === 1, standing };
  }

  #descOffset(ring: 0 | 1): number {
    const { layout, memory } = (ring === 0 ? this.driver.toGuest : this.driver.fromGuest).ring;
    const offset = this.end.guestMemory.offsetOfUva(memory.uvaOf(layout.descOffset), 16);
    if (offset === null) throw new Error('the ring lies in the memory');
    return offset;
  }
}

/** Runs the same traffic with a kill after so many stores, and with a second one; answers whether there was one. */
function runKilled(seed: number, storesLeft: number, storesLeftThen: number): boolean {
  const world = new World(seed);
  const random = new Random(seed + 1000);
  let kills = 0;
  const orKilled = (work: () => void, left: number): void => {
    life.storesLeft = left;
    try {
      work();
    } catch (error) {
      if (!(error instanceof Killed)) throw error;
      kills++;
    } finally {
      life.storesLeft = Number.POSITIVE_INFINITY;
    }
  };
  try {
    for (let round = random.between(0, 5); round > 0; round--) {
      world.send();
      world.loop();
      world.receive();
    }
    world.send();
    orKilled(() => world.loop(), storesLeft);
    const wasKilled = kills > 0;
    // What the driver sees in between is as good as what it sees later.
    if (random.chance(50)) world.receive();
    orKilled(() => world.takeUp(), storesLeftThen);
    if (kills > 1) world.takeUp();
    const burst = world.sent;
    for (let round = 0; round < 4; round++) {
      world.loop();
      world.receive();
      world.send();
    }
    world.loop();
    world.receive();
    expect([...new Set(world.received)]).toEqual(Array.from({ length: world.sent }, (_, i) => i));
    const twice = world.received.filter((number, i) => world.received.indexOf(number) < i);
    expect(twice.length).toBeLessThanOrEqual(burst);
    expect(new Set(twice).size).toBe(twice.length);
    const { fromGuest, toGuest } = world.driver;
    expect(fromGuest.reclaim()).toBe(world.plan.size);
    expect(toGuest.ring.freeCount).toBeLessThan(2);
    return wasKilled;
  } finally {
    life.storesLeft = Number.POSITIVE_INFINITY;
    world.close();
  }
}

describe('a packed ring whose user is killed', () => {
  it.each(seeds(16))('is taken up as it stood, at whichever store, seed %i', (seed) => {
    const random = new Random(seed);
    let stores = 0;
    while (runKilled(seed, stores, random.chance(50) ? Number.POSITIVE_INFINITY : random.between(0, 12)))
      stores++;
    expect(stores).toBeGreaterThan(8);
  });
});
