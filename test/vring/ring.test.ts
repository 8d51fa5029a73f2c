/** Split rings of src/vring where one case matters more than random ones: signals, and buffers across regions. */
import { afterEach, describe, expect, it } from 'vitest';
import { DESC_F_WRITE } from '../../protocol/virtio/split-ring.ts';
import type { DriverRing } from '../../src/frontend/driver-ring.ts';
import { Random } from './random.ts';
import { DriverEnd, PLAIN_PLAN, type RingPlan, RingwayEnd, splitLayout } from './ring-worlds.ts';

const PAGE = 4096;
const closing: (() => void)[] = [];

afterEach(() => {
  for (const close of closing.splice(0)) close();
});

function connect(
  changes: Partial<RingPlan>,
  addLastRegionFirst = false,
): { driver: DriverEnd; device: RingwayEnd } {
  const plan = { ...PLAIN_PLAN, ...changes };
  const driver = new DriverEnd(plan);
  const device = new RingwayEnd(driver, plan, addLastRegionFirst);
  closing.push(() => {
    device.close();
    driver.memory.close();
  });
  return { driver, device };
}

describe('signals to the driver', () => {
  /** Frames that the guest sends while it wants no interrupt. */
  function sendQuietly(driver: DriverEnd, device: RingwayEnd, count: number): void {
    const frame = new Uint8Array(60);
    for (let left = count; left > 0; ) {
      const burst = Math.min(left, 16);
      for (let i = 0; i < burst; i++) driver.fromGuest.post(frame);
      driver.fromGuest.flush();
      device.loop(burst);
      driver.fromGuest.ring.disarm();
      left -= burst;
    }
    driver.fromGuest.reclaim();
  }

  it.each([0, 65_530, 65_536, 65_540, 131_072])('with EVENT_IDX come after %i quiet frames', (quietCount) => {
    const { driver, device } = connect({ eventIdx: true });
    sendQuietly(driver, device, quietCount);
    const before = device.counts().fromCalls;
    expect(driver.fromGuest.ring.arm()).toBe(true);
    driver.fromGuest.send(new Uint8Array(60));
    device.loop(1);
    expect(device.counts().fromCalls).toBe(before + 1);
    // Asked for once, given once.
    driver.fromGuest.send(new Uint8Array(60));
    device.loop(1);
    expect(device.counts().fromCalls).toBe(before + 1);
  });

  it('come once for a burst', () => {
    const { driver, device } = connect({ eventIdx: true });
    driver.fromGuest.ring.arm();
    for (let i = 0; i < 8; i++) driver.fromGuest.post(new Uint8Array(60));
    driver.fromGuest.flush();
    device.loop(8);
    expect(device.counts().fromCalls).toBe(1);
  });
});

describe('buffers that continue in the next region', () => {
  /** Neighbours by guest address, but not in the arena: the second is mapped first. */
  const MEMORY = [
    { sizeBytes: 64 * PAGE, gpa: 0x10_0000 },
    { sizeBytes: 64 * PAGE, gpa: 0x10_0000 + 64 * PAGE },
  ];
  const BORDER_GPA = 0x10_0000 + 64 * PAGE;
  const BORDER_OFFSET = 64 * PAGE;
  const PLAN = { size: 4, bufferBytes: 2048, memory: MEMORY };

  function offerAt(ring: DriverRing, gpa: number, sizeBytes: number, flags: number): void {
    splitLayout(ring).setDescriptor(3, gpa, 0, sizeBytes, flags, 0);
    splitLayout(ring).offerHead(3);
    ring.publish();
  }

  // The border in the header, at its end, in the frame, and just before the end.
  it.each([1, 5, 11, 12, 13, 100, 1000, 1011])(
    'are read whole, %i bytes before the border',
    (beforeBytes) => {
      const { driver, device } = connect(PLAN, true);
      expect(device.guestMemory.gpaMap().length).toBe(2);
      const frame = new Random(beforeBytes).bytes(1000);
      driver.memory.u8.set(frame, BORDER_OFFSET - beforeBytes + 12);
      offerAt(driver.fromGuest.ring, BORDER_GPA - beforeBytes, 1012, 0);
      driver.toGuest.fill();
      expect(device.loop(1)).toEqual([{ frame, given: 'done' }]);
      expect(driver.toGuest.receive()).toEqual(frame);
    },
  );

  it.each([1, 5, 11, 12, 13, 100, 1000, 1011])(
    'are written whole, %i bytes before the border',
    (beforeBytes) => {
      const { driver, device } = connect(PLAN, true);
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
