/**
 * Rings behind an IOMMU, in both layouts: what has no translation parks the ring and nothing else of it, wherever in a chain
 * it lies; the chain is taken anew from its beginning; nothing is read or written that may not be. Against the naive twins, which
 * have all of the memory before them, with pages that come and go.
 */
import { describe, expect, it } from 'vitest';
import { PIECE_GAP_BYTES } from '../../src/frontend/driver-ring.ts';
import { IOVA_BASE } from '../../src/frontend/iommu.ts';
import {
  ACCESS_READ,
  ACCESS_WRITE,
  type Access,
  type AddressMiss,
  IOMMU_PAGE_BYTES,
} from '../../src/memory/iotlb.ts';
import { STATE_FAULT } from '../../src/queue/state.ts';
import type { RingLayoutKind } from '../../src/vring/attachment.ts';
import { faultMessage, PARKED, RING_FAULT } from '../../src/vring/faults.ts';
import type { Ring } from '../../src/vring/ring.ts';
import { LoggedGuest } from './logged-guest.ts';
import { Random, seeds } from './random.ts';
import { randomPieces, randomPlan, randomReceiveShape } from './random-rings.ts';
import { DriverEnd, LAYOUT_KINDS, naiveRing, plainPlan, type RingPlan, RingwayEnd } from './ring-worlds.ts';
import { bytesOfFrame, sharedArena, sharedArenaView } from './scratch.ts';

const BOTH = ACCESS_READ | ACCESS_WRITE;
const PAGE = IOMMU_PAGE_BYTES;
const SEEDS = 24;

/** One guest, and Ringway's rings for it. */
class Guest {
  readonly driver: DriverEnd;
  readonly device: RingwayEnd;

  constructor(plan: RingPlan) {
    this.driver = new DriverEnd({ ...plan, iommu: true });
    this.device = new RingwayEnd(this.driver, { ...plan, iommu: true });
  }

  /** Frames of a burst; fewer where the ring parks. */
  take(): Uint8Array[] {
    const { batch, from } = this.device;
    const taken = from.gather(batch);
    const frames = Array.from({ length: batch.count }, (_, frame) => bytesOfFrame(batch, frame));
    expect(batch.count).toBe(taken);
    if (taken > 0) from.finish();
    return frames;
  }

  /** Gives what is asked for as it is asked for, or else with more. */
  answer(
    ring: Ring,
    count = ring.misses.length,
    accessOf = (miss: AddressMiss): Access => miss.access,
  ): void {
    for (const miss of ring.misses.slice(0, count))
      this.device.translate(miss, accessOf(miss) | this.device.iotlb.accessAt(miss.iova));
    this.device.follow();
  }

  close(): void {
    this.device.close();
    this.driver.memory.close();
  }
}

function withGuest(plan: RingPlan, use: (guest: Guest) => void): void {
  const guest = new Guest(plan);
  try {
    use(guest);
  } finally {
    guest.close();
  }
}

const pageOf = (offset: number): bigint => BigInt(IOVA_BASE + Math.floor(offset / PAGE) * PAGE);
const missedPages = (ring: Ring): bigint[] =>
  ring.misses.map(({ iova }) => iova - (iova % BigInt(PAGE))).sort();
const isParked = ({ fault, state }: Ring): boolean => {
  // Nobody else is to see a fault.
  expect(state.words[STATE_FAULT]).toBe(RING_FAULT.NONE);
  return fault === PARKED;
};
const frameOf = (count: number, seed = 1): Uint8Array => new Random(seed).bytes(count);

describe.each(LAYOUT_KINDS)('a %s ring behind an IOMMU', (layout) => {
  const plan: RingPlan = { ...plainPlan(layout), bufferBytes: 3 * PAGE, size: 16, mergeable: true };

  it('parks at a frame whose buffer is not translated, and takes it when it is', () => {
    withGuest(plan, (guest) => {
      const { driver, device } = guest;
      const frame = frameOf(100);
      driver.fromGuest.send(frame);
      const bases = device.bases();
      for (let i = 0; i < 3; i++) {
        expect(guest.take()).toEqual([]);
        expect(isParked(device.from)).toBe(true);
        expect(device.from.hasWaiting()).toBe(false);
        expect(device.bases()).toEqual(bases);
        // What is known now is not what it needs.
        device.follow();
      }
      expect(device.from.misses).toEqual([
        {
          iova: BigInt(driver.fromGuest.ring.memory.gpaOf(driver.fromGuest.ring.bufferOffsets[0])),
          access: ACCESS_READ,
        },
      ]);
      guest.answer(device.from);
      expect(isParked(device.from)).toBe(false);
      expect(device.from.misses).toEqual([]);
      expect(guest.take()).toEqual([frame]);
    });
  });

  it.each([
    ['its first buffer', 0],
    ['a buffer in its middle', 1],
    ['its last buffer', 2],
  ])('takes a chain anew from its beginning when %s was missing', (_, missing) => {
    withGuest(plan, (guest) => {
      const { driver, device } = guest;
      const { ring } = driver.fromGuest;
      const frame = frameOf(3 * PAGE - 100 - 12 - 4 * PIECE_GAP_BYTES);
      const pieces = [PAGE, PAGE, frame.length + 12 - 2 * PAGE];
      driver.fromGuest.post(frame, { pieces });
      driver.fromGuest.flush();
      const first = ring.bufferOffsets[0];
      for (let offset = first - (first % PAGE); offset < first + 3 * PAGE; offset += PAGE)
        device.translate({ iova: pageOf(offset), access: ACCESS_READ }, ACCESS_READ);
      // Pieces are laid out backwards.
      const lacking = pageOf(first + (2 - missing) * (PAGE + PIECE_GAP_BYTES) + 10);
      device.iotlb.invalidate(Number(lacking), Number(lacking) + PAGE);
      device.follow();
      expect(guest.take()).toEqual([]);
      expect(isParked(device.from)).toBe(true);
      expect(missedPages(device.from)).toEqual([lacking]);
      guest.answer(device.from);
      expect(guest.take()).toEqual([frame]);
      expect(guest.take()).toEqual([]);
    });
  });

  it('parks at an indirect table, and then at what that names', () => {
    withGuest(plan, (guest) => {
      const { driver, device } = guest;
      const frame = frameOf(500);
      driver.fromGuest.post(frame, { pieces: [12, 200, 300], indirect: true });
      driver.fromGuest.flush();
      expect(guest.take()).toEqual([]);
      expect(device.from.misses).toHaveLength(1);
      const table = device.from.misses[0].iova;
      guest.answer(device.from);
      expect(guest.take()).toEqual([]);
      expect(isParked(device.from)).toBe(true);
      expect(device.from.misses[0].iova).not.toBe(table);
      guest.answer(device.from);
      expect(guest.take()).toEqual([frame]);
    });
  });

  it('names pages of several chains at once, no more than some, and each once', () => {
    withGuest({ ...plan, size: 64, memory: 2 ** 21 }, (guest) => {
      const { driver, device } = guest;
      for (let i = 0; i < 60; i++) driver.fromGuest.post(frameOf(2 * PAGE, i), {});
      driver.fromGuest.flush();
      guest.take();
      expect(device.from.misses).toHaveLength(32);
      expect(new Set(missedPages(device.from)).size).toBe(32);
      expect(device.from.misses[0].iova).toBe(BigInt(IOVA_BASE + driver.fromGuest.ring.bufferOffsets[0]));
      guest.answer(device.from);
      expect(guest.take().length).toBeGreaterThan(8);
    });
  });

  it('holds frames back from a buffer that is not translated, and from none of another guest', () => {
    withGuest(plan, (guest) => {
      const { driver, device } = guest;
      driver.toGuest.fill();
      const frame = frameOf(200);
      expect(device.give([frame])).toEqual(['noBuffer']);
      expect(isParked(device.to)).toBe(true);
      expect(device.to.misses[0]).toEqual({
        iova: BigInt(IOVA_BASE + driver.toGuest.ring.bufferOffsets[0]),
        access: ACCESS_WRITE,
      });
      // To the other ring of the same guest nothing happened.
      expect(device.from.fault).toBe(0);
      guest.answer(device.to, 1);
      expect(device.give([frame])).toEqual(['done']);
      expect(driver.toGuest.receive()).toEqual(frame);
    });
  });

  it('does not write where it may only read, nor read where it may only write', () => {
    withGuest(plan, (guest) => {
      const { driver, device } = guest;
      driver.toGuest.fill();
      driver.fromGuest.send(frameOf(100));
      const before = Buffer.from(driver.memory.u8);
      expect(device.give([frameOf(200)])).toEqual(['noBuffer']);
      guest.take();
      const refused = (ring: Ring, access: Access): void => {
        for (const miss of ring.misses) device.translate(miss, access);
        device.follow();
        expect(isParked(ring)).toBe(true);
      };
      refused(device.to, ACCESS_READ);
      refused(device.from, ACCESS_WRITE);
      // Where both rings have buffers in one page it may have been for the other one.
      expect(device.give([frameOf(200)])).toEqual(['noBuffer']);
      expect(guest.take()).toEqual([]);
      const buffers = driver.toGuest.ring.bufferOffsets;
      for (const offset of buffers)
        expect(
          Buffer.compare(
            before.subarray(offset, offset + plan.bufferBytes),
            driver.memory.u8.subarray(offset, offset + plan.bufferBytes),
          ),
        ).toBe(0);
      guest.answer(device.to, undefined, () => BOTH);
      guest.answer(device.from, undefined, () => BOTH);
      expect(device.give([frameOf(200)])).toEqual(['done']);
      expect(guest.take()).toHaveLength(1);
    });
  });

  it('uses nothing of a page any more once it was told', () => {
    withGuest(plan, (guest) => {
      const { driver, device } = guest;
      driver.toGuest.fill();
      // Both rings remember where they found their buffers.
      for (let round = 0; round < 3; round++) {
        driver.fromGuest.send(frameOf(100, round));
        guest.take();
        guest.answer(device.from);
        guest.take();
        device.give([frameOf(100)]);
        guest.answer(device.to);
        device.give([frameOf(100)]);
      }
      device.iotlb.clear();
      device.follow();
      driver.fromGuest.send(frameOf(100, 9));
      expect(guest.take()).toEqual([]);
      expect(device.give([frameOf(60)])).toEqual(['noBuffer']);
      expect([isParked(device.from), isParked(device.to)]).toEqual([true, true]);
    });
  });

  it('is parked for each worker that fills it, and goes on for all', () => {
    withGuest(plan, (guest) => {
      const { driver, device } = guest;
      driver.toGuest.fill();
      const workers = [device.openTo(true), device.openTo(true)];
      const give = (at: number): unknown => {
        device.to = workers[at];
        return device.give([frameOf(64, at)])[0];
      };
      expect([give(0), give(1), give(0)]).toEqual(['noBuffer', 'noBuffer', 'noBuffer']);
      guest.answer(workers[0]);
      for (const worker of workers) worker.setMemory(device.map);
      expect([give(0), give(1), give(0)]).toEqual(['done', 'done', 'done']);
      for (const at of [0, 1, 0]) expect(driver.toGuest.receive()).toEqual(frameOf(64, at));
    });
  });

  it('goes on where another worker used the chain that it was parked at', () => {
    withGuest(plan, (guest) => {
      const { driver, device } = guest;
      driver.toGuest.fill();
      const [first, second] = driver.toGuest.ring.bufferOffsets;
      const pages = [first, second, second + PAGE, second + 2 * PAGE];
      for (const offset of pages) device.translate({ iova: pageOf(offset), access: ACCESS_WRITE }, BOTH);
      device.follow();
      const workers = [device.openTo(true), device.openTo(true)];
      const give = (at: number, frame: Uint8Array): unknown => {
        device.to = workers[at];
        return device.give([frame])[0];
      };
      const [long, short] = [frameOf(PAGE + 500), frameOf(64)];
      expect(give(0, long)).toBe('noBuffer');
      expect(missedPages(workers[0])).toContain(pageOf(first + PAGE));
      expect(give(0, long)).toBe('noBuffer');
      // It fits what is translated; nobody will ever tell where the rest of this buffer lies.
      expect(give(1, short)).toBe('done');
      expect(give(0, long)).toBe('done');
      expect(workers[0].misses).toEqual([]);
      for (const frame of [short, long]) expect(driver.toGuest.receive()).toEqual(frame);
    });
  });

  it('has a table refused that lies in pages which are no neighbours', () => {
    withGuest(plan, (guest) => {
      const { driver, device } = guest;
      const { ring } = driver.fromGuest;
      driver.fromGuest.post(frameOf(100), { pieces: [12, 100], indirect: true });
      driver.fromGuest.flush();
      guest.take();
      const table = Number(device.from.misses[0].iova);
      // The first descriptor of the table lies in one page of the file, and the second in another.
      const uva = Number(driver.memory.uvaOf(table - IOVA_BASE));
      device.iotlb.update(table, 16, uva, BOTH);
      device.iotlb.update(table + 16, 16, Number(driver.memory.uvaOf(0)), BOTH);
      device.follow();
      expect(guest.take()).toEqual([]);
      expect(device.from.fault).toBe(RING_FAULT.INDIRECT_SCATTERED);
      expect(faultMessage(device.from.fault)).toMatch(/not contiguous/);
      expect(ring.size).toBe(16);
    });
  });

  it('still has faults', () => {
    withGuest({ ...plan, indirect: false }, (guest) => {
      const { driver, device } = guest;
      driver.toGuest.fill();
      // A chain for writing among those that are read.
      const { ring } = driver.fromGuest;
      ring.offer(ring.takeId(), 100, 2);
      ring.publish();
      device.iotlb.update(IOVA_BASE, driver.memory.sizeBytes, Number(driver.memory.uvaOf(0)), BOTH);
      device.follow();
      expect(guest.take()).toEqual([]);
      expect(device.from.fault).toBe(RING_FAULT.WRITABLE_FROM_GUEST);
      device.follow();
      expect(device.from.fault).toBe(RING_FAULT.WRITABLE_FROM_GUEST);
    });
  });
});

/** The same driver twice: Ringway behind the first one, which is told of pages as it needs them, and the twins. */
class Worlds {
  readonly random: Random;
  readonly plan: RingPlan;
  readonly ours: Guest;
  readonly twin: DriverEnd;
  readonly from: ReturnType<typeof naiveRing>;
  readonly to: ReturnType<typeof naiveRing>;
  readonly log: LoggedGuest | null;
  parks = 0;

  constructor(seed: number, layout: RingLayoutKind) {
    const random = new Random(seed);
    this.random = new Random(seed + 5000);
    const bufferBytes = random.pick([2048, 6000, 10_000]);
    const drawn = randomPlan(random, layout, bufferBytes, 32);
    // Whole pages of the file: where a region ends, so does a page.
    this.plan = { ...drawn, inOrder: random.chance(50), iommu: true };
    const shapeSeed = random.next();
    const isShaped = random.chance(60);
    const shaped = (): RingPlan => ({
      ...this.plan,
      ...(isShaped && { receiveShape: randomReceiveShape(new Random(shapeSeed), this.plan) }),
    });
    this.ours = new Guest(shaped());
    this.twin = new DriverEnd(shaped());
    this.from = naiveRing(this.twin.fromGuest.ring, this.plan, { choosesAsRingway: true });
    this.to = naiveRing(this.twin.toGuest.ring, this.plan, { choosesAsRingway: true });
    this.log = random.chance(40)
      ? new LoggedGuest(sharedArena, sharedArenaView.u8, this.ours.driver.memory)
      : null;
    if (this.log !== null) this.ours.device.logIn(this.log.log.memory);
  }

  both<T>(action: (driver: DriverEnd) => T): T {
    const ours = action(this.ours.driver);
    expect(action(this.twin)).toEqual(ours);
    return ours;
  }

  send(): void {
    const { random, plan } = this;
    for (let left = random.pick([1, 8, 40]); left > 0; left--) {
      const maxPieces = random.pick([1, 1, Math.min(8, plan.size)]);
      const roomBytes = plan.bufferBytes - plan.headerBytes - PIECE_GAP_BYTES * maxPieces;
      const frame = random.bytes(random.between(14, random.pick([60, Math.min(9000, roomBytes)])));
      const pieces = randomPieces(random, frame.length + plan.headerBytes, maxPieces);
      const indirect = plan.indirect && random.chance(40);
      if (!this.both(({ fromGuest }) => fromGuest.post(frame, { pieces, indirect }))) break;
    }
    this.both(({ fromGuest }) => fromGuest.flush());
  }

  take(): void {
    for (;;) {
      this.log?.begin();
      const frames = this.ours.take();
      expect(this.log?.unmarked() ?? []).toEqual([]);
      const theirs = frames.map(() => this.from.take());
      if (frames.length > 0) this.from.publish();
      frames.forEach((frame, i) => {
        expect(Buffer.compare(frame, theirs[i])).toBe(0);
      });
      if (!this.resolve(this.ours.device.from) && this.from.waiting() === 0) return;
    }
  }

  give(): void {
    const { random } = this;
    for (let left = random.pick([1, 5, 20]); left > 0; left--) {
      const frame = random.bytes(random.between(14, random.pick([60, 1500, 9000])));
      const given = this.to.give(frame);
      this.to.publish();
      for (;;) {
        this.log?.begin();
        const [ours] = this.ours.device.give([frame]);
        expect(this.log?.unmarked() ?? []).toEqual([]);
        if (this.resolve(this.ours.device.to)) continue;
        expect(ours).toBe(given);
        break;
      }
    }
  }

  /** Answers whether the ring was parked. Pages are told of one at a time or together, with more or less than is asked for. */
  resolve(ring: Ring): boolean {
    if (ring.fault !== PARKED) {
      expect(ring.fault).toBe(0);
      return false;
    }
    this.parks++;
    const { random } = this;
    const count = random.pick([1, 1, ring.misses.length]);
    if (random.chance(20)) {
      this.ours.answer(ring, count, ({ access }) => BOTH & ~access);
      return true;
    }
    const isMore = random.chance(50);
    this.ours.answer(ring, count, ({ access }) => (isMore ? BOTH : access));
    expect(ring.fault).toBe(0);
    return true;
  }

  /** Some pages go, or may be used less. */
  forget(): void {
    const { random } = this;
    const { iotlb } = this.ours.device;
    const pages = this.ours.driver.memory.sizeBytes / PAGE;
    for (let left = random.pick([1, 10, 100]); left > 0; left--) {
      const start = IOVA_BASE + random.between(0, pages - 1) * PAGE;
      iotlb.invalidate(start, start + random.pick([1, 1, 16]) * PAGE);
    }
    this.ours.device.follow();
  }

  receive(): void {
    for (let left = this.random.pick([1, 8, 50]); left > 0; left--)
      if (this.both(({ toGuest }) => toGuest.receive()) === null) return;
  }

  expectSame(step: string): void {
    const same = Buffer.compare(this.ours.driver.memory.u8, this.twin.memory.u8) === 0;
    if (!same) throw new Error(`the memories differ after ${step}`);
    expect(this.ours.device.bases(), step).toEqual([this.to.base(), this.from.base()]);
  }

  close(): void {
    this.log?.close();
    this.ours.close();
    this.twin.memory.close();
  }
}

const STEPS = ['send', 'send', 'take', 'give', 'receive', 'forget'] as const;

describe.each(LAYOUT_KINDS)('%s rings whose pages come and go, and their naive twin', (layout) => {
  let parks = 0;

  it.each(seeds(SEEDS))('agree byte for byte, seed %i', (seed) => {
    const worlds = new Worlds(seed, layout);
    try {
      worlds.both(({ toGuest }) => toGuest.fill());
      for (let turn = 0; turn < 80; turn++) {
        const step = worlds.random.pick(STEPS);
        worlds[step]();
        worlds.expectSame(`turn ${turn} (${step})`);
      }
      parks += worlds.parks;
    } finally {
      worlds.close();
    }
  });

  it('were parked again and again', () => {
    expect(parks).toBeGreaterThan(20 * SEEDS);
  });
});
