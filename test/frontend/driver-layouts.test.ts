/**
 * The driver's ring layouts where one case matters more than random ones: what lies in memory, batches whose
 * buffers have no length of their own, and devices that do what none may.
 */
import { afterEach, describe, expect, it } from 'vitest';
import { DESC_F_AVAIL, DESC_F_USED, DESC_F_WRITE } from '../../protocol/virtio/packed-ring.ts';
import { DeviceError } from '../../src/frontend/driver-layout.ts';
import { DRIVER_LAYOUTS } from '../../src/frontend/driver-layouts.ts';
import { DriverRing } from '../../src/frontend/driver-ring.ts';
import { EmbeddedMemory } from '../../src/frontend/guest-memory.ts';
import { ReceiveQueue } from '../../src/frontend/receive-queue.ts';
import { SendQueue } from '../../src/frontend/send-queue.ts';
import type { RingLayoutKind } from '../../src/vring/attachment.ts';

const LAYOUTS = ['split', 'packed'] as const;
const SIZE = 4;
const BUFFER_BYTES = 64;
const HEADER_BYTES = 12;

/** Of a descriptor. */
const FLAGS_AT = { split: 12, packed: 14 } as const;

const memories: EmbeddedMemory[] = [];

afterEach(() => {
  for (const memory of memories.splice(0)) memory.close();
});

function options(layout: RingLayoutKind, inOrder: boolean, size = SIZE) {
  const memory = new EmbeddedMemory(2 ** 20);
  memories.push(memory);
  const rest = { eventIdx: false, indirect: true, mergeable: true, bufferBytes: BUFFER_BYTES };
  return { memory, layout, inOrder, size, headerBytes: HEADER_BYTES, ...rest };
}

/** Writes one used mark as a device does, `entry` descriptors after the start of a new ring, and `idx` after it. */
type Mark = (ring: DriverRing, entry: number, id: number, sizeBytes: number, usedIdx: number) => void;

const MARKS: Readonly<Record<RingLayoutKind, Mark>> = {
  split: ({ memory, layout }, entry, id, sizeBytes, usedIdx) => {
    const view = new DataView(memory.buffer, layout.deviceOffset);
    view.setUint32(4 + 8 * entry, id, true);
    view.setUint32(8 + 8 * entry, sizeBytes, true);
    view.setUint16(2, usedIdx, true);
  },
  packed: ({ memory, layout }, entry, id, sizeBytes) => {
    const view = new DataView(memory.buffer, layout.descOffset + 16 * entry);
    view.setUint32(8, sizeBytes, true);
    view.setUint16(12, id, true);
    view.setUint16(14, DESC_F_AVAIL | DESC_F_USED | DESC_F_WRITE, true);
  },
};

/** Ids in the order in which a queue offered them. */
const OFFERED_IDS: Readonly<Record<RingLayoutKind, (ring: DriverRing) => number[]>> = {
  split: ({ memory, layout, size }) =>
    Array.from(new Uint16Array(memory.buffer, layout.driverOffset + 4, size)),
  packed: ({ memory, layout, size }) => {
    const view = new DataView(memory.buffer, layout.descOffset, 16 * size);
    return Array.from({ length: size }, (_, i) => view.getUint16(16 * i + 12, true));
  },
};

describe.each(LAYOUTS)('a %s ring in order', (layout) => {
  const mark = MARKS[layout];

  it('takes a batch of sent frames back by one mark', () => {
    const queue = new SendQueue(options(layout, true));
    for (let i = 0; i < SIZE; i++) queue.post(new Uint8Array(20), { pieces: [5], indirect: true });
    queue.flush();
    const ids = OFFERED_IDS[layout](queue.ring);
    mark(queue.ring, 0, ids[2]!, 0, 3);
    expect(queue.reclaim()).toBe(3);
    mark(queue.ring, 3, ids[3]!, 0, 4);
    expect(queue.reclaim()).toBe(SIZE);
  });

  it('counts what a batch skips as written completely', () => {
    const queue = new ReceiveQueue(options(layout, true));
    queue.fill();
    const ids = OFFERED_IDS[layout](queue.ring);
    // A frame in three buffers, the first two of which are full.
    const { memory, bufferOffsets } = queue.ring;
    for (const [i, id] of ids.entries())
      memory.u8.fill(i + 1, bufferOffsets[id], bufferOffsets[id]! + BUFFER_BYTES);
    memory.u8[bufferOffsets[ids[0]!]! + 10] = 3;
    memory.u8[bufferOffsets[ids[0]!]! + 11] = 0;
    mark(queue.ring, 0, ids[2]!, 7, 3);
    const frame = queue.receive();
    expect(frame?.length).toBe(2 * BUFFER_BYTES - HEADER_BYTES + 7);
    expect([frame?.[0], frame?.[BUFFER_BYTES], frame?.at(-1)]).toEqual([1, 2, 3]);
  });

  it('does not take a batch that ends with a buffer that the device has not', () => {
    const queue = new SendQueue(options(layout, true));
    for (let i = 0; i < 3; i++) queue.post(new Uint8Array(20));
    queue.flush();
    const free = queue.ring.layout.takeId();
    mark(queue.ring, 0, free, 0, 3);
    expect(() => queue.reclaim()).toThrow(DeviceError);
  });
});

it('a split ring in order goes round the table from descriptor 0 on', () => {
  const queue = new SendQueue(options('split', true));
  const offered: number[] = [];
  for (let i = 0; i < 3 * SIZE; i++) {
    queue.send(new Uint8Array(20));
    offered.push(OFFERED_IDS.split(queue.ring)[i % SIZE]!);
    MARKS.split(queue.ring, i % SIZE, offered.at(-1)!, 0, i + 1);
  }
  expect(offered).toEqual([0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3]);
});

describe.each(LAYOUTS)('a %s ring', (layout) => {
  const mark = MARKS[layout];

  it.each([
    ['a buffer that the device never had', 3],
    ['an id that no buffer has', SIZE],
    ['an id far outside', 0xffff],
  ])('does not take back %s', (_what, id) => {
    const queue = new SendQueue(options(layout, false));
    queue.send(new Uint8Array(20));
    mark(queue.ring, 0, id, 0, 1);
    expect(() => queue.reclaim()).toThrow(DeviceError);
  });

  it('does not take the same buffer back twice', () => {
    const queue = new SendQueue(options(layout, false));
    for (let i = 0; i < 3; i++) queue.post(new Uint8Array(20));
    queue.flush();
    const ids = OFFERED_IDS[layout](queue.ring);
    mark(queue.ring, 0, ids[0]!, 0, 1);
    mark(queue.ring, 1, ids[0]!, 0, 2);
    expect(() => queue.reclaim()).toThrow(DeviceError);
  });

  it('takes a frame for bad that is longer than its buffer', () => {
    const queue = new ReceiveQueue(options(layout, false));
    queue.fill();
    const [id] = OFFERED_IDS[layout](queue.ring);
    queue.ring.memory.u8[queue.ring.bufferOffsets[id!]! + 10] = 1;
    mark(queue.ring, 0, id!, BUFFER_BYTES + 1, 1);
    expect(() => queue.receive()).toThrow(/written 65 bytes/);
  });

  it('shows nothing of what was offered before it is published', () => {
    const queue = new SendQueue(options(layout, false));
    const { memory, layout: parts } = queue.ring;
    const shown = (): number =>
      layout === 'split'
        ? new DataView(memory.buffer).getUint16(parts.driverOffset + 2, true)
        : new DataView(memory.buffer).getUint16(parts.descOffset + 14, true) & DESC_F_AVAIL;
    queue.post(new Uint8Array(20), { pieces: [5, 5] });
    expect(shown()).toBe(0);
    queue.flush();
    expect(shown()).not.toBe(0);
  });

  it('needs as much memory as it says', () => {
    const memory = new EmbeddedMemory(2 ** 20);
    memories.push(memory);
    DRIVER_LAYOUTS[layout].make({ memory, size: SIZE, eventIdx: true, inOrder: false });
    const usedBytes = memory.allocate(1, 1);
    // Alignment wastes less than one descriptor between two parts.
    expect(usedBytes).toBeGreaterThanOrEqual(DRIVER_LAYOUTS[layout].bytes(SIZE));
    expect(usedBytes).toBeLessThan(DRIVER_LAYOUTS[layout].bytes(SIZE) + 16);
  });
});

describe.each(LAYOUTS)('a buffer of several pieces in a %s ring', (layout) => {
  /** Flags of the first descriptors. */
  const flagsOf = (view: DataView): number[] =>
    [0, 1].map((i) => view.getUint16(16 * i + FLAGS_AT[layout], true));

  function made(idInAll: boolean) {
    const { memory } = options(layout, false);
    const ring = DRIVER_LAYOUTS[layout].make({
      memory,
      size: SIZE,
      eventIdx: false,
      inOrder: false,
      idInAll,
    });
    return { memory, ring, view: new DataView(memory.buffer, ring.descOffset, 16 * SIZE) };
  }

  const PIECES = [
    { gpa: 2 ** 32, sizeBytes: 2 },
    { gpa: 2 ** 32 + 64, sizeBytes: 1, flags: DESC_F_WRITE },
  ];

  it('has flags of its pieces beside those of all', () => {
    const { memory, ring, view } = made(false);
    ring.offerChain(ring.takeId(), PIECES, 0);
    ring.publish();
    const written =
      layout === 'split' ? [0, 1].map((i) => view.getUint16(16 * splitPlace(i) + 12, true)) : flagsOf(view);
    expect(written.map((flags) => flags & DESC_F_WRITE)).toEqual([0, DESC_F_WRITE]);
    const table = new DataView(memory.buffer, memory.allocate(32), 32);
    ring.writeTable(table, PIECES, 0);
    expect(flagsOf(table).map((flags) => flags & DESC_F_WRITE)).toEqual([0, DESC_F_WRITE]);

    function splitPlace(i: number): number {
      const head = new Uint16Array(memory.buffer, ring.driverOffset + 4, 1)[0];
      return i === 0 ? head : view.getUint16(16 * head + 14, true);
    }
  });

  it('names its id in each descriptor where that is asked for and there is room', () => {
    // A split ring's descriptors have no ids.
    for (const idInAll of layout === 'packed' ? [false, true] : []) {
      const { ring, view } = made(idInAll);
      const id = ring.takeId();
      ring.offerChain(id, PIECES, 0);
      ring.publish();
      expect([view.getUint16(12, true) === id, view.getUint16(28, true)]).toEqual([idInAll, id]);
    }
  });
});

describe.each(LAYOUTS)('a %s ring with a doorbell', (layout) => {
  it('rings it as often as it would kick', () => {
    const queue = new SendQueue(options(layout, false));
    let rings = 0;
    queue.ring.doorbell = { send: () => rings++ };
    for (let i = 0; i < SIZE; i++) queue.send(new Uint8Array(20));
    expect(rings).toBe(SIZE);
    expect(queue.ring.kicks).toBe(SIZE);
  });
});

describe('sizes', () => {
  it.each([
    ['split', 0],
    ['split', 1],
    ['split', 3],
    ['split', 65_536],
    ['packed', 0],
    ['packed', 1.5],
    ['packed', 32_769],
  ] as const)('a %s ring cannot have %d descriptors', (layout, size) => {
    expect(() => new DriverRing(options(layout, false, size))).toThrow(RangeError);
  });

  it.each([
    ['split', 2],
    ['packed', 1],
    ['packed', 3],
    ['packed', 1000],
  ] as const)('a %s ring can have %d', (layout, size) => {
    expect(new DriverRing(options(layout, false, size)).freeCount).toBe(size);
  });
});
