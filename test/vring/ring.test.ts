/**
 * Rings of src/vring, in both layouts, where one case matters more than random ones: who is told of what, what the
 * driver sees when, positions that are handed on, and buffers across regions.
 */
import { readSync } from 'node:fs';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { EVENT_DESC, WRAP_COUNTER } from '../../protocol/virtio/packed-ring.ts';
import { AVAIL_ENTRIES, DESC_F_WRITE } from '../../protocol/virtio/split-ring.ts';
import type { DriverRing } from '../../src/frontend/driver-ring.ts';
import type { PackedDriverLayout } from '../../src/frontend/packed-layout.ts';
import { closeFds, createEventFd } from '../../src/host/descriptor.ts';
import { AS_THEY_CAME, Batch } from '../../src/queue/batch.ts';
import { readHeads } from '../../src/queue/heads.ts';
import { COUNT_CALLS, COUNT_FRAMES } from '../../src/queue/state.ts';
import type { RingLayoutKind } from '../../src/vring/attachment.ts';
import { RING_FAULT } from '../../src/vring/faults.ts';
import type { ToGuest } from '../../src/vring/to-guest.ts';
import { Random } from './random.ts';
import {
  asTheyCame,
  DriverEnd,
  LAYOUT_KINDS,
  type Mapping,
  placeLists,
  plainPlan,
  type RingPlan,
  RingwayEnd,
  splitLayout,
} from './ring-worlds.ts';
import { bytesOfFrame, describeFrames, sharedArenaView } from './scratch.ts';

const PAGE = 4096;
const SIZE = 16;
const FRAME = new Uint8Array(60).fill(7);
const { windows } = sharedArenaView;
const closing: (() => void)[] = [];

afterEach(() => {
  vi.restoreAllMocks();
  for (const close of closing.splice(0)) close();
});

function connect(
  layout: RingLayoutKind,
  changes: Partial<RingPlan> = {},
  mapping?: Mapping,
): { driver: DriverEnd; device: RingwayEnd } {
  const plan = { ...plainPlan(layout), ...changes };
  const driver = new DriverEnd(plan);
  const device = new RingwayEnd(driver, plan, mapping);
  closing.push(() => {
    device.close();
    driver.memory.close();
  });
  return { driver, device };
}

function packedLayout(ring: DriverRing): PackedDriverLayout {
  return ring.layout as PackedDriverLayout;
}

/** Sends frames, which the device takes in one burst. */
function sendBurst(driver: DriverEnd, device: RingwayEnd, count: number): void {
  for (let i = 0; i < count; i++) expect(driver.fromGuest.post(FRAME)).toBe(true);
  driver.fromGuest.flush();
  expect(device.loop().taken).toBe(count);
}

function sendQuietly(driver: DriverEnd, device: RingwayEnd, count: number): void {
  for (let left = count; left > 0; left -= SIZE) {
    driver.fromGuest.ring.disarm();
    sendBurst(driver, device, Math.min(left, SIZE));
  }
  driver.fromGuest.reclaim();
}

/** With EVENT_IDX: asks for an interrupt when buffer `usedCount`, counted from 0, is used; each has one descriptor. */
const NAME_EVENT: Readonly<Record<RingLayoutKind, (ring: DriverRing, usedCount: number) => void>> = {
  split: (ring, usedCount) => {
    splitLayout(ring).avail[AVAIL_ENTRIES + SIZE] = usedCount & 0xffff;
  },
  packed: (ring, usedCount) => {
    const wrap = Math.floor(usedCount / SIZE) % 2 === 0 ? WRAP_COUNTER : 0;
    packedLayout(ring).driverEvent[0] = (usedCount % SIZE) | wrap | (EVENT_DESC << 16);
  },
};

describe.each(LAYOUT_KINDS)('signals to the driver of a %s ring', (layout) => {
  // Before and behind each lap of the ring, and of the 16 bits that count entries of a split ring.
  const LAPS = [0, 1, 15, 16, 17, 31, 32, 33];
  const QUIET: Readonly<Record<RingLayoutKind, readonly number[]>> = {
    split: [...LAPS, 65_530, 65_536, 65_540],
    packed: LAPS,
  };
  it.each(QUIET[layout])('with EVENT_IDX come after %i quiet frames, once', (quietCount) => {
    const { driver, device } = connect(layout, { eventIdx: true });
    sendQuietly(driver, device, quietCount);
    const before = device.counts().fromCalls;
    expect(driver.fromGuest.ring.arm()).toBe(true);
    sendBurst(driver, device, 1);
    expect(device.counts().fromCalls).toBe(before + 1);
    sendBurst(driver, device, 1);
    expect(device.counts().fromCalls).toBe(before + 1);
  });

  it.each([1, 3, 7, 16])(
    'with EVENT_IDX come with the burst that has the buffer named, bursts of %i',
    (burst) => {
      for (let ahead = 0; ahead < SIZE; ahead++) {
        const { driver, device } = connect(layout, { eventIdx: true });
        for (let used = 0, round = 0; round < 4; round++) {
          const named = used + ahead;
          NAME_EVENT[layout](driver.fromGuest.ring, named);
          while (used <= named) {
            const before = device.counts().fromCalls;
            sendBurst(driver, device, burst);
            used += burst;
            expect(device.counts().fromCalls - before, `${named} named, used up to ${used}`).toBe(
              used > named ? 1 : 0,
            );
          }
        }
      }
    },
  );

  it.each([false, true])('come once for a burst, EVENT_IDX: %s', (eventIdx) => {
    const { driver, device } = connect(layout, { eventIdx });
    driver.fromGuest.ring.arm();
    sendBurst(driver, device, 8);
    expect(device.counts().fromCalls).toBe(1);
  });

  it('by flag come with every burst, or never', () => {
    const { driver, device } = connect(layout);
    driver.fromGuest.ring.arm();
    for (let i = 0; i < 40; i++) sendBurst(driver, device, 3);
    expect(device.counts().fromCalls).toBe(40);
    driver.fromGuest.ring.disarm();
    for (let i = 0; i < 40; i++) sendBurst(driver, device, 3);
    expect(device.counts().fromCalls).toBe(40);
  });

  it('do not come for a burst of which nothing was placed', () => {
    const { driver, device } = connect(layout);
    driver.toGuest.ring.arm();
    expect(device.give([FRAME])).toEqual(['noBuffer']);
    expect(device.counts()).toMatchObject({ toCalls: 0, toFrames: 0 });
  });
});

describe.each(LAYOUT_KINDS)('kicks by the driver of a %s ring', (layout) => {
  it.each([false, true])('come for the next buffer when they were asked for, EVENT_IDX: %s', (eventIdx) => {
    const { driver, device } = connect(layout, { eventIdx });
    const { ring } = driver.fromGuest;
    for (let lap = 0; lap < 3 * SIZE; lap++) {
      const before = ring.kicks;
      expect(device.from.armWake()).toBe(true);
      driver.fromGuest.send(FRAME);
      expect(ring.kicks).toBe(before + 1);
      // What was asked for and came is not waited for a second time.
      expect(device.from.armWake()).toBe(false);
      device.from.disarmWake();
      expect(device.loop().taken).toBe(1);
      sendBurst(driver, device, 2);
      expect(ring.kicks).toBe(before + 1);
    }
  });
});

describe.each(LAYOUT_KINDS)('the driver of a %s ring', (layout) => {
  it('sees nothing of a burst before its end, and then all of it', () => {
    const { driver, device } = connect(layout, { size: 8 });
    const { batch, from, to } = device;
    driver.toGuest.fill();
    for (let i = 0; i < 5; i++) driver.fromGuest.post(FRAME);
    driver.fromGuest.flush();
    expect(from.gather(batch)).toBe(5);
    readHeads(batch, windows);
    to.begin();
    placeLists(to, batch, [
      [0, 1],
      [2, 3, 4],
    ]);
    expect(driver.toGuest.usedWaiting()).toBe(0);
    to.end();
    expect(driver.toGuest.usedWaiting()).toBe(5);
    expect(driver.fromGuest.ring.usedWaiting()).toBe(0);
    from.finish();
    expect(driver.fromGuest.ring.usedWaiting()).toBe(5);
  });

  it.each([false, true])(
    'finds all that a burst used behind the one store that shows it, chains: %s',
    (hasChains) => {
      const { driver, device } = connect(layout, { size: 8 });
      driver.toGuest.fill();
      for (let i = 0; i < 3; i++) driver.fromGuest.post(FRAME, { pieces: hasChains ? [12] : [] });
      driver.fromGuest.flush();
      const rings = [driver.toGuest.ring, driver.fromGuest.ring];
      const seen: (readonly number[])[] = [];
      const store = Atomics.store;
      vi.spyOn(Atomics, 'store').mockImplementation(((words: Int32Array, at: number, value: number) => {
        const before = rings.map((ring) => ring.usedWaiting());
        const result = store(words, at, value);
        seen.push(rings.map((ring, i) => ring.usedWaiting() - before[i]));
        return result;
      }) as typeof Atomics.store);
      device.loop();
      expect(seen.filter(([to]) => to !== 0)).toEqual([[3, 0]]);
      expect(seen.filter(([, from]) => from !== 0)).toEqual([[0, 3]]);
    },
  );
});

describe.each(LAYOUT_KINDS)('a %s ring that another object goes on with', (layout) => {
  const BASES: Readonly<Record<RingLayoutKind, readonly number[]>> = {
    split: [0, 65_530],
    packed: [0x8000_8000, 0x0005_0005, 0x800a_800a],
  };

  it.each(BASES[layout])('continues where the one before stopped, from base %i', (base) => {
    const { driver, device } = connect(layout, { base, size: 11 - (layout === 'split' ? 3 : 0) });
    driver.toGuest.fill();
    const random = new Random(1);
    const batch = new Batch();
    for (let round = 0; round < 40; round++) {
      const frames = Array.from({ length: random.between(1, 4) }, () =>
        random.bytes(random.between(14, 1000)),
      );
      for (const frame of frames) {
        const pieces = random.chance(30) ? [random.between(1, 20)] : [];
        expect(driver.fromGuest.post(frame, { pieces })).toBe(true);
      }
      driver.fromGuest.flush();
      const from = device.openFrom();
      const to = device.openTo(false);
      const taken = from.gather(batch);
      readHeads(batch, windows);
      const came = Array.from({ length: taken }, (_, frame) => bytesOfFrame(batch, frame));
      to.begin();
      to.place(batch, AS_THEY_CAME, taken);
      to.end();
      from.finish();
      expect(came).toEqual(frames);
      for (const frame of frames) expect(driver.toGuest.receive()).toEqual(frame);
      expect(driver.fromGuest.reclaim()).toBe(driver.fromGuest.ring.size);
    }
    expect(driver.toGuest.receive()).toBeNull();
  });

  it('filled by two workers in turn keeps every frame, under the lock', () => {
    const { driver, device } = connect(layout, { mergeable: true, bufferBytes: 512 });
    const workers = [device.openTo(true), device.openTo(true)];
    driver.toGuest.fill();
    const random = new Random(2);
    for (let round = 0; round < 60; round++) {
      const worker = random.between(0, 1);
      const frames = Array.from({ length: random.between(1, 3) }, () =>
        random.bytes(random.between(14, 1400)),
      );
      expect(workers[worker].tryBegin()).toBe(true);
      expect(workers[1 - worker].tryBegin()).toBe(false);
      expect(placeAll(workers[worker], frames)).toEqual(frames.map(() => 'done'));
      workers[worker].end();
      for (const frame of frames) expect(driver.toGuest.receive()).toEqual(frame);
    }
    const counts = workers[0].state.counts;
    expect(counts[COUNT_FRAMES]).toBe(driver.toGuest.frames);
  });

  it('stays stopped for both when one of them stops it', () => {
    const { driver, device } = connect(layout);
    const workers = [device.openTo(true), device.openTo(true)];
    driver.toGuest.ring.layout.offer(3, 0x7000_0000, 0x7000_0000, 2048, DESC_F_WRITE);
    driver.toGuest.ring.publish();
    for (const worker of workers) {
      worker.begin();
      expect(placeAll(worker, [FRAME])).toEqual(['fault']);
      worker.end();
      expect(worker.fault).toBe(RING_FAULT.BUFFER_ADDRESS);
    }
    expect(device.openTo(true).fault).toBe(RING_FAULT.BUFFER_ADDRESS);
  });

  function placeAll(to: ToGuest, frames: readonly Uint8Array[]): string[] {
    const batch = new Batch();
    describeFrames(batch, frames, null);
    readHeads(batch, windows);
    return placeLists(to, batch, asTheyCame(frames.length));
  }
});

describe.each(LAYOUT_KINDS)('a %s ring that is told of other memory', (layout) => {
  it('uses what was added, and nothing of what was taken away, also where it was last', () => {
    const { driver, device } = connect(layout);
    driver.toGuest.fill();
    expect(device.give([FRAME])).toEqual(['done']);
    sendBurst(driver, device, 1);
    for (const queue of [device.from, device.to]) queue.setMemory([]);
    driver.fromGuest.send(FRAME);
    expect(device.from.gather(device.batch)).toBe(0);
    expect(device.from.fault).toBe(RING_FAULT.BUFFER_ADDRESS);
    expect(device.give([FRAME])).toEqual(['fault']);

    const again = connect(layout);
    for (const queue of [again.device.from, again.device.to]) {
      queue.setMemory([]);
      queue.setMemory(again.device.guestMemory.gpaMap());
    }
    again.driver.toGuest.fill();
    expect(again.device.give([FRAME])).toEqual(['done']);
    sendBurst(again.driver, again.device, 3);
  });
});

describe.each(LAYOUT_KINDS)('a new call descriptor of a %s ring', (layout) => {
  it('is signalled once, and then for what comes', () => {
    const { driver, device } = connect(layout);
    const queues = [device.from, device.openTo(false), device.openTo(true)];
    const callFds = queues.map(() => createEventFd());
    closing.push(() => closeFds(callFds));
    for (const [i, queue] of queues.entries()) {
      const callFd = callFds[i];
      const before = queue.state.counts[COUNT_CALLS];
      queue.setCallFd(callFd);
      expect(signalsAt(callFd)).toBe(1);
      expect(queue.state.counts[COUNT_CALLS]).toBe(before + 1);
    }
    // The lock was given back, and signals go to the new descriptor.
    const [, , shared] = queues;
    expect(shared.state.tryLock()).toBe(true);
    driver.fromGuest.ring.arm();
    driver.fromGuest.send(FRAME);
    expect(device.loop().taken).toBe(1);
    expect(signalsAt(callFds[0])).toBe(1);
  });

  /** How often an eventfd was signalled since the last time. */
  function signalsAt(fd: number): number {
    const count = new BigUint64Array(1);
    readSync(fd, count);
    return Number(count[0]);
  }
});

describe.each(LAYOUT_KINDS)('in a %s ring, buffers that continue in the next region', (layout) => {
  /** Neighbours by guest address, but not in the arena: the second is mapped first. */
  const MEMORY = [
    { sizeBytes: 64 * PAGE, gpa: 0x10_0000 },
    { sizeBytes: 64 * PAGE, gpa: 0x10_0000 + 64 * PAGE },
  ];
  const BORDER_GPA = 0x10_0000 + 64 * PAGE;
  const BORDER_OFFSET = 64 * PAGE;
  const PLAN = { size: 4, bufferBytes: 2048, memory: MEMORY };

  /** As the driver's next buffer, but it lies somewhere else. */
  function offerAt(ring: DriverRing, gpa: number, sizeBytes: number, flags: number): void {
    ring.layout.offer(ring.takeId(), gpa, 0, sizeBytes, flags);
    ring.publish();
  }

  // The border in the header, at its end, in the frame, and just before the end.
  it.each([1, 5, 11, 12, 13, 100, 1000, 1011])(
    'are read whole, %i bytes before the border',
    (beforeBytes) => {
      const { driver, device } = connect(layout, PLAN, 'lastFirst');
      expect(device.guestMemory.gpaMap().length).toBe(2);
      const frame = new Random(beforeBytes).bytes(1000);
      driver.memory.u8.set(frame, BORDER_OFFSET - beforeBytes + 12);
      offerAt(driver.fromGuest.ring, BORDER_GPA - beforeBytes, 1012, 0);
      driver.toGuest.fill();
      expect(device.loop().offered).toEqual([{ frame, given: 'done' }]);
      expect(driver.toGuest.receive()).toEqual(frame);
    },
  );

  it.each([1, 5, 11, 12, 13, 100, 1000, 1011])(
    'are written whole, %i bytes before the border',
    (beforeBytes) => {
      const { driver, device } = connect(layout, PLAN, 'lastFirst');
      const frame = new Random(beforeBytes).bytes(1000);
      driver.memory.u8.fill(0xee, BORDER_OFFSET - 1100, BORDER_OFFSET + 1100);
      offerAt(driver.toGuest.ring, BORDER_GPA - beforeBytes, 1012, DESC_F_WRITE);
      expect(device.give([frame])).toEqual(['done']);
      const start = BORDER_OFFSET - beforeBytes;
      const header = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0);
      expect(driver.memory.u8.slice(start, start + 12)).toEqual(header);
      expect(driver.memory.u8.slice(start + 12, start + 1012)).toEqual(frame);
      expect(driver.memory.u8[start - 1]).toBe(0xee);
      expect(driver.memory.u8[start + 1012]).toBe(0xee);
    },
  );
});
