/**
 * The embedded driver against the naive twins, in both layouts, in any order and in order: random shapes, sizes
 * and laps round the ring, in both directions. Every frame must come once, intact and in order, every descriptor
 * must come back, and whoever asked to be told must be told.
 */
import { describe, expect, it } from 'vitest';
import { PIECE_GAP_BYTES } from '../../src/frontend/driver-ring.ts';
import type { RingLayoutKind } from '../../src/vring/attachment.ts';
import type { NaiveRing } from '../vring/naive-ring.ts';
import { Random, seeds } from '../vring/random.ts';
import { randomPieces, randomPlan, randomReceiveShape } from '../vring/random-rings.ts';
import { DriverEnd, naiveRing, type RingPlan } from '../vring/ring-worlds.ts';

const SEEDS = 32;
const TURNS = 400;
const SIZE_MAX = 64;
const BUFFER_BYTES = 2048;
const FRAME_BYTES_MAX = 1800;

/** A driver and its device; `isShaped`: frames and buffers in any pieces, otherwise in place. */
class World {
  readonly random: Random;
  readonly plan: RingPlan;
  readonly isShaped: boolean;
  readonly driver: DriverEnd;
  readonly from: NaiveRing;
  readonly to: NaiveRing;
  /** Frames that were sent and not taken yet, and given and not received yet. */
  readonly sent: Uint8Array[] = [];
  readonly given: Uint8Array[] = [];
  received = 0;

  constructor(seed: number, layout: RingLayoutKind, inOrder: boolean) {
    const random = new Random(seed);
    this.random = random;
    this.isShaped = random.chance(60);
    const drawn = { ...randomPlan(random, layout, BUFFER_BYTES, SIZE_MAX), inOrder };
    // Without shapes every buffer is longer than any frame, so that frames can be taken in place.
    this.plan = this.isShaped ? { ...drawn, receiveShape: randomReceiveShape(random, drawn) } : drawn;
    this.driver = new DriverEnd(this.plan);
    const reorder = <T>(used: readonly T[]): readonly T[] =>
      random.chance(50) ? used : [...used].sort(() => random.between(0, 2) - 1);
    this.from = naiveRing(this.driver.fromGuest.ring, this.plan, inOrder ? {} : { reorder });
    this.to = naiveRing(this.driver.toGuest.ring, this.plan);
    this.driver.toGuest.fill();
  }

  frame(): Uint8Array {
    return this.random.bytes(this.random.between(14, this.random.pick([60, FRAME_BYTES_MAX])));
  }

  /** Puts frames into the ring; the device sees them after `flush`. Answers how many. */
  send(): number {
    const { fromGuest, memory } = this.driver;
    for (let count = 0, left = this.random.pick([1, 8, 100]); ; count++, left--) {
      const frame = this.frame();
      if (left === 0) return count;
      if (this.isShaped) {
        if (!fromGuest.post(frame, this.#shape(frame))) return count;
      } else {
        const offset = fromGuest.reserve();
        if (offset < 0) return count;
        memory.u8.set(frame, offset);
        fromGuest.commit(frame.length);
      }
      this.sent.push(frame);
    }
  }

  /** Frames that the device takes; the driver sees it after `publish`. */
  take(countMax: number): number {
    const count = Math.min(countMax, this.from.waiting());
    for (let i = 0; i < count; i++) {
      if (Buffer.compare(this.from.take(), this.sent.shift()!) !== 0)
        throw new Error('another frame was sent');
    }
    return count;
  }

  give(): number {
    for (let count = 0, left = this.random.pick([1, 5, 50]); ; left--) {
      const frame = this.frame();
      if (left === 0) return count;
      const result = this.to.give(frame);
      if (result === 'noBuffer') return count;
      if (result !== 'done') continue;
      this.given.push(frame);
      count++;
    }
  }

  receive(countMax: number): number {
    let count = 0;
    for (; count < countMax; count++) {
      const frame = this.isShaped ? this.driver.toGuest.receive() : this.#receiveInPlace();
      if (frame === null) break;
      if (Buffer.compare(frame, this.given.shift()!) !== 0) throw new Error('another frame was given');
    }
    if (!this.isShaped) this.driver.toGuest.flush();
    this.received += count;
    return count;
  }

  #receiveInPlace(): Uint8Array | null {
    const { toGuest, memory } = this.driver;
    if (toGuest.usedWaiting() === 0) return null;
    const offset = toGuest.take();
    const frame = memory.u8.slice(offset, offset + toGuest.frameBytes);
    toGuest.recycle();
    return frame;
  }

  #shape(frame: Uint8Array): { pieces: number[]; indirect: boolean } {
    const { random, plan } = this;
    const totalBytes = plan.headerBytes + frame.length;
    const roomBytes = plan.bufferBytes - totalBytes;
    const piecesMax = Math.max(1, Math.min(20, plan.size, Math.floor(roomBytes / PIECE_GAP_BYTES)));
    return {
      pieces: randomPieces(random, totalBytes, random.pick([1, 3, piecesMax].filter((n) => n <= piecesMax))),
      indirect: plan.indirect && random.chance(40),
    };
  }

  /** The driver shows what it sent. A device that waits for it must be kicked. */
  flush(count: number): void {
    const { fromGuest } = this.driver;
    const before = fromGuest.ring.kicks;
    const isAwaited = this.random.chance(50) && this.from.waiting() === 0;
    if (isAwaited) this.from.arm();
    fromGuest.flush();
    if (isAwaited && count > 0) expect(fromGuest.ring.kicks).toBe(before + 1);
    if (!isAwaited) return;
    this.from.disarm();
    if (this.#isDisarmSure()) this.#expectNoKick();
  }

  /** With EVENT_IDX a split ring cannot say never; a packed one can. */
  #isDisarmSure(): boolean {
    return this.plan.layout === 'packed' || !this.plan.eventIdx;
  }

  #expectNoKick(): void {
    const { fromGuest } = this.driver;
    const before = fromGuest.ring.kicks;
    this.send();
    fromGuest.flush();
    expect(fromGuest.ring.kicks).toBe(before);
  }

  /** The device shows what it used. A driver that waits for it must be signalled. */
  publish(which: 'from' | 'to', count: number): void {
    const { ring } = which === 'from' ? this.driver.fromGuest : this.driver.toGuest;
    const device = this[which];
    const before = device.signals;
    const isAwaited = this.random.chance(50) && ring.arm();
    device.publish();
    if (isAwaited && count > 0) expect(device.signals).toBe(before + 1);
    ring.disarm();
  }

  turn(): void {
    switch (this.random.pick(['send', 'take', 'give', 'receive'] as const)) {
      case 'send':
        this.flush(this.send());
        break;
      case 'take':
        this.publish('from', this.take(this.random.pick([1, 4, 100])));
        break;
      case 'give':
        this.publish('to', this.give());
        break;
      case 'receive':
        this.receive(this.random.pick([1, 3, 100]));
        break;
    }
  }

  /** Everything comes to its end. */
  finish(): void {
    const { fromGuest, toGuest } = this.driver;
    fromGuest.flush();
    this.take(Number.POSITIVE_INFINITY);
    this.from.publish();
    expect(this.sent).toEqual([]);
    expect(fromGuest.reclaim()).toBe(this.plan.size);
    expect(fromGuest.ring.layout.outstandingCount).toBe(0);
    this.receive(Number.POSITIVE_INFINITY);
    expect(this.given).toEqual([]);
    expect(toGuest.frames).toBe(this.to.frames);
    expect(toGuest.ring.layout.outstandingCount).toBe(this.to.waiting());
    expect(this.from.frames).toBe(fromGuest.frames);
  }
}

const KINDS = [
  ['split', false],
  ['split', true],
  ['packed', false],
  ['packed', true],
] as const;

describe.each(KINDS)('the driver of a %s ring, in order: %s', (layout, inOrder) => {
  it.each(seeds(SEEDS))('and the naive twin, seed %i', (seed) => {
    const world = new World(seed, layout, inOrder);
    try {
      for (let turn = 0; turn < TURNS; turn++) world.turn();
      world.finish();
      expect(world.from.frames).toBeGreaterThan(world.plan.size);
      expect(world.received).toBeGreaterThan(0);
    } finally {
      world.driver.memory.close();
    }
  });
});
