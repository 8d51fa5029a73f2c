/**
 * Guests that break the rules of their rings: each row must stop exactly that ring with the right reason, after
 * the frames before it went through, without an exception, an endless loop or an access to memory that is not the
 * guest's. Guests next to it in the arena must never change.
 */
import { afterEach, describe, expect, it } from 'vitest';
import { DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE } from '../../protocol/virtio/split-ring.ts';
import type { PackedDriverLayout } from '../../src/frontend/packed-layout.ts';
import type { Direction } from '../../src/queue/contract.ts';
import type { RingLayoutKind } from '../../src/vring/attachment.ts';
import { CHAIN_DESCRIPTORS_MAX } from '../../src/vring/descriptor-list.ts';
import { faultMessage, RING_FAULT } from '../../src/vring/faults.ts';
import {
  type Desc,
  FRAME,
  HIGH_GPA,
  HOSTILE_SIZE,
  type HostileGuest,
  Neighbourhood,
  NOTHING,
} from './hostile-guest.ts';
import { HOSTILE_ROWS, type HostileRow } from './hostile-rows.ts';
import { LAYOUT_KINDS, type RingPlan } from './ring-worlds.ts';

let neighbourhood: Neighbourhood | null = null;

function makeGuest(layout: RingLayoutKind, changes?: Partial<RingPlan>): HostileGuest {
  neighbourhood = new Neighbourhood(layout, changes);
  return neighbourhood.guest;
}

afterEach(() => {
  neighbourhood?.close();
  neighbourhood = null;
});

const rowsFor = (layout: RingLayoutKind, direction: Direction): HostileRow[] =>
  HOSTILE_ROWS[layout].filter(({ only }) => only === undefined || only === direction);

describe.each(LAYOUT_KINDS)('in a %s ring, what a hostile guest sends stops its transmit queue', (layout) => {
  it.each(rowsFor(layout, 'ingress'))('$what: $fault', ({ plan, act, fault }) => {
    const guest = makeGuest(layout, plan);
    const { driver, device } = guest;
    const { ring } = driver.fromGuest;
    driver.fromGuest.send(FRAME);
    expect(guest.take().frames).toEqual([FRAME]);
    // A driver that looks now has it even where the guest then writes all over the ring.
    expect(ring.usedWaiting()).toBe(1);
    act(guest, ring, 0);
    expect(guest.take()).toEqual(NOTHING);
    expect(faultMessage(device.from.fault)).toBe(faultMessage(RING_FAULT[fault]));
    // Stopped for good, with what was sent before marked as used, and the other ring goes on.
    expect(ring.usedWaiting()).toBe(1);
    driver.fromGuest.send(FRAME);
    expect(guest.take()).toEqual(NOTHING);
    expect(ring.usedWaiting()).toBe(0);
    driver.toGuest.fill();
    expect(guest.give()).toBe('done');
    expect(driver.toGuest.receive()).toEqual(FRAME);
  });

  it('after the frames before it in the same burst', () => {
    const guest = makeGuest(layout);
    const { ring } = guest.driver.fromGuest;
    guest.driver.fromGuest.post(FRAME);
    guest.driver.fromGuest.post(FRAME);
    guest.offer(ring, [{ gpa: 2 ** 53, sizeBytes: 72 }]);
    expect(guest.take().frames).toEqual([FRAME, FRAME]);
    expect(guest.device.from.fault).toBe(RING_FAULT.BUFFER_ADDRESS);
    expect(ring.usedWaiting()).toBe(2);
    expect(guest.device.counts()).toMatchObject({ fromFrames: 2, fromBytes: 120 });
  });
});

describe.each(LAYOUT_KINDS)(
  'in a %s ring, what a hostile guest receives with stops its receive queue',
  (layout) => {
    it.each(rowsFor(layout, 'egress'))('$what: $fault', ({ plan, act, fault }) => {
      const guest = makeGuest(layout, plan);
      const { driver, device } = guest;
      const { ring } = driver.toGuest;
      driver.toGuest.refills = false;
      ring.offer(0, ring.bufferBytes, DESC_F_WRITE);
      ring.publish();
      expect(guest.give()).toBe('done');
      expect(ring.usedWaiting()).toBe(1);
      act(guest, ring, DESC_F_WRITE);
      expect(guest.give()).toBe('fault');
      expect(faultMessage(device.to.fault)).toBe(faultMessage(RING_FAULT[fault]));
      ring.offer(1, ring.bufferBytes, DESC_F_WRITE);
      ring.publish();
      expect(guest.give()).toBe('fault');
      expect(ring.usedWaiting()).toBe(1);
      driver.fromGuest.send(FRAME);
      expect(guest.take().frames).toEqual([FRAME]);
    });

    it("in the middle of a burst: what was placed before it is the guest's, the rest is refused", () => {
      const guest = makeGuest(layout);
      const { ring } = guest.driver.toGuest;
      guest.driver.toGuest.refills = false;
      for (const id of [0, 1]) ring.offer(id, ring.bufferBytes, DESC_F_WRITE);
      guest.offer(ring, [{ gpa: 2 ** 53, sizeBytes: 2048, flags: DESC_F_WRITE }]);
      expect(guest.device.give([FRAME, FRAME, FRAME, FRAME])).toEqual(['done', 'done', 'fault', 'fault']);
      for (let i = 0; i < 2; i++) expect(guest.driver.toGuest.receive()).toEqual(FRAME);
      expect(ring.usedWaiting()).toBe(0);
    });
  },
);

describe.each(LAYOUT_KINDS)('in a %s ring, what is odd but no fault', (layout) => {
  it.each<[string, Desc, Partial<typeof NOTHING>]>([
    ['longer than any frame', { gpa: HIGH_GPA, sizeBytes: 65_536 + 100 }, { tooLong: 1 }],
    ['4 GiB long', { gpa: HIGH_GPA, sizeBytes: 0xffff_ffff }, { tooLong: 1 }],
    ['a header and nothing more', { gpa: HIGH_GPA, sizeBytes: 12 }, { tooShort: 1 }],
    ['13 bytes long', { gpa: HIGH_GPA, sizeBytes: 25 }, { tooShort: 1 }],
  ])('a frame %s is dropped and the ring goes on', (_what, descriptor, dropped) => {
    const guest = makeGuest(layout);
    const { fromGuest } = guest.driver;
    guest.offer(fromGuest.ring, [descriptor]);
    expect(guest.take()).toEqual({ ...NOTHING, ...dropped });
    guest.takeUsed(fromGuest.ring);
    fromGuest.send(FRAME);
    expect(guest.take().frames).toEqual([FRAME]);
    expect(guest.device.counts()).toMatchObject({ fromFrames: 2, fromBytes: 60 });
  });

  it('a chain of as many descriptors as are taken is a frame like any other', () => {
    const guest = makeGuest(layout);
    const { fromGuest, toGuest } = guest.driver;
    const table = (write: number): number =>
      guest.table(
        Array.from({ length: CHAIN_DESCRIPTORS_MAX }, (_, i) => ({
          gpa: HIGH_GPA,
          sizeBytes: 1,
          flags: write | (i + 1 < CHAIN_DESCRIPTORS_MAX ? DESC_F_NEXT : 0),
          next: i + 1,
        })),
      );
    const sizeBytes = CHAIN_DESCRIPTORS_MAX * 16;
    guest.offer(fromGuest.ring, [{ gpa: table(0), sizeBytes, flags: DESC_F_INDIRECT }]);
    expect(guest.take().frames.map(({ length }) => length)).toEqual([CHAIN_DESCRIPTORS_MAX - 12]);
    guest.offer(toGuest.ring, [{ gpa: table(DESC_F_WRITE), sizeBytes, flags: DESC_F_INDIRECT }]);
    expect(guest.give(CHAIN_DESCRIPTORS_MAX - 12)).toBe('done');
  });

  it('an indirect table may lie anywhere, also at an odd address', () => {
    const guest = makeGuest(layout);
    const { fromGuest } = guest.driver;
    fromGuest.post(FRAME);
    const gpa = guest.bufferGpa(fromGuest.ring, 0);
    const table = guest.table([{ gpa, sizeBytes: 12 + FRAME.length }], guest.tableOffset + 3);
    guest.offer(fromGuest.ring, [{ gpa: table, sizeBytes: 16, flags: DESC_F_INDIRECT }]);
    expect(guest.take().frames).toEqual([FRAME, FRAME]);
  });

  it('a receive buffer that claims 4 GiB is written as far as the frame goes', () => {
    const guest = makeGuest(layout);
    const { ring } = guest.driver.toGuest;
    guest.offer(ring, [{ gpa: guest.bufferGpa(ring), sizeBytes: 0xffff_ffff, flags: DESC_F_WRITE }]);
    expect(guest.give()).toBe('done');
    guest.takeUsed(ring);
    expect(ring.usedBytes).toBe(12 + FRAME.length);
  });

  it('a frame that no buffer is large enough for is refused, and the next smaller one fits', () => {
    const guest = makeGuest(layout);
    guest.driver.toGuest.fill();
    expect(guest.give(5000)).toBe('tooSmall');
    expect(guest.give(60)).toBe('done');
    expect(guest.driver.toGuest.receive()?.length).toBe(60);
  });
});

describe('in a packed ring', () => {
  it('chains of one burst that have more descriptors than the ring are given back, and the ring goes on', () => {
    const guest = makeGuest('packed', { inOrder: true });
    const { driver, device } = guest;
    const { ring } = driver.fromGuest;
    const { desc } = ring.layout as PackedDriverLayout;
    driver.fromGuest.send(FRAME);
    expect(guest.take().frames).toEqual([FRAME]);
    const chainOf = (count: number): Desc[] =>
      Array.from({ length: count }, (_, i) => ({
        gpa: guest.bufferGpa(ring),
        sizeBytes: 8,
        flags: i === count - 1 ? 0 : DESC_F_NEXT,
      }));
    // One to the end of the ring; then one as long as the whole ring, that leaves the first one's head as it was.
    guest.offer(ring, chainOf(HOSTILE_SIZE - 1));
    const head = desc[1 * 4 + 3];
    guest.offer(ring, chainOf(HOSTILE_SIZE));
    desc[1 * 4 + 3] = head;
    expect(guest.take().frames.map(({ length }) => length)).toEqual([108, 116]);
    const [availNext, usedNext] = [device.bases()[1] & 0xffff, device.bases()[1] >>> 16];
    expect(usedNext).toBe(availNext);
    guest.offer(ring, chainOf(4));
    expect(guest.take().frames.map(({ length }) => length)).toEqual([20]);
  });

  it.each([HOSTILE_SIZE, 0x7fff, 0xffff])("id %i is nobody's and comes back as it was", (id) => {
    const guest = makeGuest('packed');
    const { fromGuest, toGuest } = guest.driver;
    for (const [ring, flags, size] of [
      [fromGuest.ring, 0, 12 + FRAME.length],
      [toGuest.ring, DESC_F_WRITE, 2048],
    ] as const) {
      const gpa = guest.bufferGpa(ring, 0);
      for (let i = 0; i < 3; i++) ring.layout.offer(id, gpa | 0, Math.floor(gpa / 2 ** 32), size, flags);
      ring.publish();
    }
    expect(guest.take().frames.length).toBe(3);
    expect(guest.device.give([FRAME, FRAME, FRAME])).toEqual(['done', 'done', 'done']);
    for (const { ring } of [fromGuest, toGuest]) {
      const { desc } = ring.layout as PackedDriverLayout;
      for (const at of [0, 1, 2]) expect(desc[4 * at + 3] & 0xffff).toBe(id);
    }
    expect([guest.device.from.fault, guest.device.to.fault]).toEqual([0, 0]);
  });

  it("a table entry's flags mean nothing but WRITE", () => {
    const guest = makeGuest('packed');
    const { ring } = guest.driver.toGuest;
    const flags = DESC_F_INDIRECT | DESC_F_NEXT | DESC_F_WRITE;
    const table = guest.table([{ gpa: guest.bufferGpa(ring), sizeBytes: 2048, flags }]);
    guest.offer(ring, [{ gpa: table, sizeBytes: 16, flags: DESC_F_INDIRECT }]);
    expect(guest.give()).toBe('done');
  });
});
