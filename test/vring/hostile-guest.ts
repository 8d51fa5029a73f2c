/**
 * A guest with tools to do wrong with its rings, in both layouts, and guests next door in the arena, on both sides
 * of it, whose memory must never change. For the tests only.
 */
import { expect } from 'vitest';
import type { DriverRing } from '../../src/frontend/driver-ring.ts';
import { EmbeddedMemory } from '../../src/frontend/guest-memory.ts';
import { GuestMemory } from '../../src/memory/guest-memory.ts';
import { readHeads } from '../../src/queue/heads.ts';
import type { RingLayoutKind } from '../../src/vring/attachment.ts';
import { Random } from './random.ts';
import {
  DriverEnd,
  type GiveResult,
  plainPlan,
  type RingPlan,
  RingwayEnd,
  splitLayout,
} from './ring-worlds.ts';
import { bytesOfFrame, sharedArena, sharedArenaView } from './scratch.ts';

export const GIB = 2 ** 30;
export const HOSTILE_SIZE = 16;
const LONG_FRAME = new Random(7).bytes(9000);
export const FRAME = LONG_FRAME.slice(0, 60);
/** Two regions with a hole between them; the second one is where buffers, rings and tables lie. */
export const LOW_GPA = 0;
export const HIGH_GPA = 4 * GIB;
export const LOW_BYTES = 4096;
/** What the arena places regions at multiples of: the neighbour starts where this one ends. */
export const HIGH_BYTES = 2 ** 21;
export const END_GPA = HIGH_GPA + HIGH_BYTES;

const TABLE_ENTRIES_MAX = 1100;

export type Desc = {
  readonly gpa: number;
  readonly sizeBytes: number;
  readonly flags?: number;
  /** Split rings: an entry of the table. */
  readonly next?: number;
};

/** What became of the waiting chains: the frames that were described, and the others by name. */
export type Taken = {
  readonly frames: readonly Uint8Array[];
  readonly tooLong: number;
  readonly tooShort: number;
  readonly tooScattered: number;
};
export const NOTHING: Taken = { frames: [], tooLong: 0, tooShort: 0, tooScattered: 0 };

/** How each layout is written to by a guest that keeps no rule. */
type Writer = {
  /** Offers a chain that starts at the next free place. */
  offer(ring: DriverRing, descriptors: readonly Desc[]): void;
  /** Id or link, and flags, in the last word of an entry of an indirect table. */
  tableWord(flags: number, next: number): number;
};

/** The entry of a split ring's table that hostile chains start at. */
const FIRST_ENTRY = 8;

const WRITERS: Readonly<Record<RingLayoutKind, Writer>> = {
  split: {
    offer: (ring, descriptors) => {
      const layout = splitLayout(ring);
      for (const [i, { gpa, sizeBytes, flags, next }] of descriptors.entries()) {
        const [lo, hi] = halvesOf(gpa);
        layout.setDescriptor(FIRST_ENTRY + i, lo, hi, sizeBytes | 0, flags ?? 0, next ?? 0);
      }
      layout.offerHead(FIRST_ENTRY);
    },
    tableWord: (flags, next) => flags | (next << 16),
  },
  packed: {
    offer: (ring, descriptors) => {
      for (const { gpa, sizeBytes, flags } of descriptors) {
        const [lo, hi] = halvesOf(gpa);
        ring.layout.offer(FIRST_ENTRY, lo, hi, sizeBytes | 0, flags ?? 0);
      }
    },
    tableWord: (flags) => 0xffff | (flags << 16),
  },
};

function halvesOf(gpa: number): [number, number] {
  return [gpa | 0, Math.floor(gpa / 2 ** 32) | 0];
}

export class HostileGuest {
  readonly layout: RingLayoutKind;
  readonly driver: DriverEnd;
  readonly device: RingwayEnd;
  readonly tableOffset: number;

  constructor(layout: RingLayoutKind, changes: Partial<RingPlan> = {}) {
    const plan: RingPlan = {
      ...plainPlan(layout),
      size: HOSTILE_SIZE,
      memory: [
        { sizeBytes: LOW_BYTES, gpa: LOW_GPA },
        { sizeBytes: HIGH_BYTES, gpa: HIGH_GPA },
      ],
      ...changes,
    };
    this.layout = layout;
    this.driver = new DriverEnd(plan);
    this.device = new RingwayEnd(this.driver, plan);
    this.tableOffset = this.driver.memory.allocate(TABLE_ENTRIES_MAX * 16, 16);
  }

  close(): void {
    this.device.close();
    this.driver.memory.close();
  }

  /** Guest address of a good buffer. */
  bufferGpa(ring: DriverRing, slot = 8): number {
    return this.driver.memory.gpaOf(ring.bufferOffsets[slot]);
  }

  /** Offers a chain. In a split ring it lies from entry 8 on, and `next` says which entry, not how far. */
  offer(ring: DriverRing, descriptors: readonly Desc[]): void {
    WRITERS[this.layout].offer(ring, descriptors);
    ring.publish();
  }

  /** Writes an indirect table and answers its address. */
  table(entries: readonly Desc[], offset = this.tableOffset): number {
    const view = new DataView(this.driver.memory.buffer, offset, entries.length * 16);
    const { tableWord } = WRITERS[this.layout];
    for (const [i, { gpa, sizeBytes, flags, next }] of entries.entries()) {
      view.setBigUint64(i * 16, BigInt(gpa), true);
      view.setUint32(i * 16 + 8, sizeBytes, true);
      view.setInt32(i * 16 + 12, tableWord(flags ?? 0, next ?? 0), true);
    }
    return this.driver.memory.gpaOf(offset);
  }

  /** What the transmit queue makes of what waits. */
  take(): Taken {
    const { batch, from } = this.device;
    if (from.gather(batch) === 0) return NOTHING;
    if (batch.count > 0) readHeads(batch, sharedArenaView.windows);
    const frames = Array.from({ length: batch.count }, (_, frame) => bytesOfFrame(batch, frame));
    from.finish();
    const { tooLong, tooShort, tooScattered } = batch;
    return { frames, tooLong, tooShort, tooScattered };
  }

  /** What the receive queue answers for a frame. */
  give(sizeBytes = FRAME.length): GiveResult {
    return this.device.give([LONG_FRAME.subarray(0, sizeBytes)])[0];
  }

  /** Takes a used buffer that the driver's own books do not have. */
  takeUsed(ring: DriverRing): void {
    expect(ring.layout.usedWaiting()).toBeGreaterThan(0);
    ring.layout.takeUsed();
  }
}

const NEIGHBOUR_BYTES = 2 ** 17;
const UNTOUCHED = Buffer.alloc(NEIGHBOUR_BYTES, 0x5a);

/** A hostile guest and the guests next door. */
export class Neighbourhood {
  readonly guest: HostileGuest;
  readonly #neighbours: { memory: EmbeddedMemory; mapped: GuestMemory }[] = [];

  constructor(layout: RingLayoutKind, changes: Partial<RingPlan> = {}) {
    this.#moveIn();
    this.guest = new HostileGuest(layout, changes);
    this.#moveIn();
  }

  /** Sees to it that no neighbour was touched. */
  close(): void {
    for (const { memory, mapped } of this.#neighbours) {
      const isUntouched = UNTOUCHED.equals(memory.u8);
      mapped.clear();
      memory.close();
      expect(isUntouched).toBe(true);
    }
    this.guest.close();
  }

  #moveIn(): void {
    const memory = new EmbeddedMemory(NEIGHBOUR_BYTES);
    memory.u8.fill(0x5a);
    const mapped = new GuestMemory(sharedArena);
    mapped.add(memory.regions[0], memory.fd);
    this.#neighbours.push({ memory, mapped });
  }
}
