/**
 * Guests that break the rules of the split ring: each row must stop exactly that ring with the right reason,
 * after the frames before it went through, without an exception, an endless loop or an access to memory that
 * is not the guest's. One guest more lies next to it in the arena and must never change.
 */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE } from '../../protocol/virtio/split-ring.ts';
import type { DriverRing } from '../../src/frontend/driver-ring.ts';
import { EmbeddedMemory } from '../../src/frontend/guest-memory.ts';
import { duplicateFd } from '../../src/host/descriptor.ts';
import { GuestMemory } from '../../src/memory/guest-memory.ts';
import {
  GIVE_DONE,
  GIVE_FAULT,
  GIVE_TOO_SMALL,
  TAKE_FAULT,
  TAKE_FRAME,
  TAKE_TOO_LONG,
  TAKE_TOO_SCATTERED,
  TAKE_TOO_SHORT,
} from '../../src/queue/contract.ts';
import { faultMessage, RING_FAULT } from '../../src/vring/faults.ts';
import { Random } from './random.ts';
import {
  DriverEnd,
  frameBytes,
  PLAIN_PLAN,
  type RingPlan,
  RingwayEnd,
  sharedArena,
  splitLayout,
} from './ring-worlds.ts';

const GIB = 2 ** 30;
const SIZE = 16;
const LONG_FRAME = new Random(7).bytes(9000);
const FRAME = LONG_FRAME.slice(0, 60);
/** Two regions with a hole between them; the second one is where buffers, rings and tables lie. */
const LOW_GPA = 0;
const HIGH_GPA = 4 * GIB;
const LOW_BYTES = 4096;
/** What the arena places regions at multiples of: the neighbour starts where this one ends. */
const HIGH_BYTES = 2 ** 21;
const END_GPA = HIGH_GPA + HIGH_BYTES;

type Desc = { gpa: number; sizeBytes: number; flags?: number; next?: number };

/** What looking ahead writes to. */
const destination = new Int32Array(2);

/** A guest with tools to do wrong. */
class HostileGuest {
  readonly driver: DriverEnd;
  readonly device: RingwayEnd;
  readonly tableOffset: number;

  constructor(changes: Partial<RingPlan> = {}) {
    const plan: RingPlan = {
      ...PLAIN_PLAN,
      size: SIZE,
      memory: [
        { sizeBytes: LOW_BYTES, gpa: LOW_GPA },
        { sizeBytes: HIGH_BYTES, gpa: HIGH_GPA },
      ],
      ...changes,
    };
    this.driver = new DriverEnd(plan);
    this.device = new RingwayEnd(this.driver, plan);
    this.tableOffset = this.driver.memory.allocate(64 * 16, 16);
  }

  close(): void {
    this.device.close();
    this.driver.memory.close();
  }

  /** Guest address of a good buffer. */
  bufferGpa(ring: DriverRing, slot = 8): number {
    return this.driver.memory.gpaOf(ring.bufferOffsets[slot]);
  }

  /** Writes descriptors from entry 8 on, `next` relative to it, and offers entry 8. */
  offer(ring: DriverRing, descriptors: readonly Desc[]): void {
    for (const [i, { gpa, sizeBytes, flags, next }] of descriptors.entries()) {
      const hi = Math.floor(gpa / 2 ** 32) | 0;
      splitLayout(ring).setDescriptor(8 + i, gpa | 0, hi, sizeBytes | 0, flags ?? 0, next ?? 0);
    }
    splitLayout(ring).offerHead(8);
    ring.publish();
  }

  /** Writes an indirect table and answers its address. */
  table(entries: readonly Desc[]): number {
    const view = new DataView(this.driver.memory.buffer, this.tableOffset, 64 * 16);
    for (const [i, { gpa, sizeBytes, flags, next }] of entries.entries()) {
      view.setBigUint64(i * 16, BigInt(gpa), true);
      view.setUint32(i * 16 + 8, sizeBytes, true);
      view.setUint16(i * 16 + 12, flags ?? 0, true);
      view.setUint16(i * 16 + 14, next ?? 0, true);
    }
    return this.driver.memory.gpaOf(this.tableOffset);
  }

  /** What the transmit queue answers for the next chain. */
  take(): number {
    expect(this.device.from.available()).toBe(1);
    this.device.from.readAhead(1);
    this.device.from.destinationAhead(0, destination);
    const answer = this.device.from.take(this.device.frame);
    if (answer !== TAKE_FAULT) this.device.from.release();
    this.device.from.publish();
    return answer;
  }

  /** What the receive queue answers for FRAME. */
  give(sizeBytes = FRAME.length): number {
    const { to } = this.device;
    this.device.describe(LONG_FRAME.subarray(0, sizeBytes));
    to.begin();
    const answer = to.give(this.device.frame);
    to.end();
    return answer;
  }
}

/** The guest next door, in the arena on both sides of the hostile one. */
const NEIGHBOUR_BYTES = 2 ** 17;
const UNTOUCHED = Buffer.alloc(NEIGHBOUR_BYTES, 0x5a);
let neighbours: { memory: EmbeddedMemory; mapped: GuestMemory }[] = [];
let guest: HostileGuest;

function moveInNeighbour(): void {
  const memory = new EmbeddedMemory(NEIGHBOUR_BYTES);
  memory.u8.fill(0x5a);
  const mapped = new GuestMemory(sharedArena);
  mapped.add(memory.regions[0], duplicateFd(memory.fd));
  neighbours.push({ memory, mapped });
}

function moveNeighboursOut(): void {
  for (const { memory, mapped } of neighbours.splice(0)) {
    expect(UNTOUCHED.equals(memory.u8)).toBe(true);
    mapped.clear();
    memory.close();
  }
}

function makeGuest(changes: Partial<RingPlan> = {}): HostileGuest {
  moveInNeighbour();
  guest = new HostileGuest(changes);
  moveInNeighbour();
  return guest;
}

beforeEach(() => {
  neighbours = [];
});

afterEach(() => {
  moveNeighboursOut();
  guest.close();
});

type Row = {
  what: string;
  fault: keyof typeof RING_FAULT;
  plan?: Partial<RingPlan>;
  /** Breaks a rule on a ring; `write` is the flag that the direction asks for. */
  act(guest: HostileGuest, ring: DriverRing, write: number): void;
  only?: 'ingress' | 'egress';
};

const ROWS: readonly Row[] = [
  {
    what: 'an avail index that jumps by more than the ring has entries',
    fault: 'AVAIL_JUMP',
    act: (_g, ring) => {
      const layout = splitLayout(ring);
      layout.availNext = (layout.availNext + SIZE + 1) & 0xffff;
      ring.publish();
    },
  },
  {
    what: 'an avail index that goes back',
    fault: 'AVAIL_JUMP',
    act: (_g, ring) => {
      const layout = splitLayout(ring);
      layout.availNext = (layout.availNext - 1) & 0xffff;
      ring.publish();
    },
  },
  ...[SIZE, 0xffff].map(
    (head): Row => ({
      what: `head ${head}`,
      fault: 'HEAD_OUT_OF_RANGE',
      act: (_g, ring) => {
        splitLayout(ring).offerHead(head);
        ring.publish();
      },
    }),
  ),
  ...[SIZE, 0xffff].map(
    (next): Row => ({
      what: `a next of ${next}`,
      fault: 'NEXT_OUT_OF_RANGE',
      act: (g, ring, write) =>
        g.offer(ring, [{ gpa: g.bufferGpa(ring), sizeBytes: 64, flags: write | DESC_F_NEXT, next }]),
    }),
  ),
  {
    what: 'a descriptor that is its own next',
    fault: 'CHAIN_LOOP',
    act: (g, ring, write) =>
      g.offer(ring, [{ gpa: g.bufferGpa(ring), sizeBytes: 1, flags: write | DESC_F_NEXT, next: 8 }]),
  },
  {
    what: 'two descriptors in a circle',
    fault: 'CHAIN_LOOP',
    act: (g, ring, write) =>
      g.offer(ring, [
        { gpa: g.bufferGpa(ring), sizeBytes: 1, flags: write | DESC_F_NEXT, next: 9 },
        { gpa: g.bufferGpa(ring), sizeBytes: 0, flags: write | DESC_F_NEXT, next: 8 },
      ]),
  },
  {
    what: 'an indirect descriptor that was not negotiated',
    fault: 'INDIRECT_NOT_NEGOTIATED',
    plan: { indirect: false },
    act: (g, ring, write) => {
      const table = g.table([{ gpa: g.bufferGpa(ring), sizeBytes: 512, flags: write }]);
      g.offer(ring, [{ gpa: table, sizeBytes: 16, flags: DESC_F_INDIRECT }]);
    },
  },
  {
    what: 'an indirect descriptor inside an indirect table',
    fault: 'INDIRECT_NESTED',
    act: (g, ring) => {
      const table = g.table([{ gpa: g.bufferGpa(ring), sizeBytes: 16, flags: DESC_F_INDIRECT }]);
      g.offer(ring, [{ gpa: table, sizeBytes: 16, flags: DESC_F_INDIRECT }]);
    },
  },
  {
    what: 'an indirect descriptor with a next one',
    fault: 'INDIRECT_WITH_NEXT',
    act: (g, ring, write) => {
      const table = g.table([{ gpa: g.bufferGpa(ring), sizeBytes: 512, flags: write }]);
      g.offer(ring, [
        { gpa: table, sizeBytes: 16, flags: DESC_F_INDIRECT | DESC_F_NEXT, next: 9 },
        { gpa: g.bufferGpa(ring), sizeBytes: 512, flags: write },
      ]);
    },
  },
  ...[0, 8, 17, 65_536 * 16, 0xffff_fff0].map(
    (sizeBytes): Row => ({
      what: `an indirect table of ${sizeBytes} bytes`,
      fault: 'INDIRECT_LENGTH',
      act: (g, ring, write) => {
        const table = g.table([{ gpa: g.bufferGpa(ring), sizeBytes: 512, flags: write }]);
        g.offer(ring, [{ gpa: table, sizeBytes, flags: DESC_F_INDIRECT }]);
      },
    }),
  ),
  ...[
    ['that crosses the end of a region', END_GPA - 16, 32],
    ['at the end of a region', END_GPA, 16],
    ['in a hole', LOW_GPA + LOW_BYTES + 4096, 16],
    ['that crosses into a hole', LOW_GPA + LOW_BYTES - 8, 16],
    ['that wraps around the address space', 2 ** 64 - 2048, 4096],
    ['far outside', 2 ** 62, 16],
  ].map(
    ([what, gpa, sizeBytes]): Row => ({
      what: `an indirect table ${what}`,
      fault: 'INDIRECT_ADDRESS',
      act: (g, ring) =>
        g.offer(ring, [{ gpa: Number(gpa), sizeBytes: Number(sizeBytes), flags: DESC_F_INDIRECT }]),
    }),
  ),
  {
    what: 'a next outside the indirect table',
    fault: 'NEXT_OUT_OF_RANGE',
    act: (g, ring, write) => {
      const table = g.table([
        { gpa: g.bufferGpa(ring), sizeBytes: 64, flags: write | DESC_F_NEXT, next: 2 },
        { gpa: g.bufferGpa(ring), sizeBytes: 64, flags: write },
        { gpa: g.bufferGpa(ring), sizeBytes: 64, flags: write },
      ]);
      g.offer(ring, [{ gpa: table, sizeBytes: 32, flags: DESC_F_INDIRECT }]);
    },
  },
  {
    what: 'a circle inside an indirect table',
    fault: 'CHAIN_LOOP',
    act: (g, ring, write) => {
      const table = g.table([
        { gpa: g.bufferGpa(ring), sizeBytes: 1, flags: write | DESC_F_NEXT, next: 1 },
        { gpa: g.bufferGpa(ring), sizeBytes: 1, flags: write | DESC_F_NEXT, next: 0 },
      ]);
      g.offer(ring, [{ gpa: table, sizeBytes: 32, flags: DESC_F_INDIRECT }]);
    },
  },
  ...[
    ['that starts inside a region and crosses its end', END_GPA - 40, 72],
    ['at the end of a region', END_GPA, 72],
    ['in a hole', LOW_GPA + LOW_BYTES, 72],
    ['that crosses into a hole', LOW_GPA + LOW_BYTES - 40, 72],
    ['below a region', HIGH_GPA - 72, 72],
    ['that wraps around the address space', 2 ** 64 - 2048, 4096],
    ['far outside', 2 ** 53, 72],
    ['with length 0 at a bad address', 2 ** 40, 0],
    ['with length 0 in a hole', 2 * GIB, 0],
  ].flatMap(([what, gpa, sizeBytes]): Row[] => [
    {
      what: `a buffer ${what}`,
      fault: 'BUFFER_ADDRESS',
      act: (g, ring, write) =>
        g.offer(ring, [{ gpa: Number(gpa), sizeBytes: Number(sizeBytes), flags: write }]),
    },
    {
      what: `a later buffer ${what}`,
      fault: 'BUFFER_ADDRESS',
      act: (g, ring, write) =>
        g.offer(ring, [
          { gpa: g.bufferGpa(ring), sizeBytes: 12, flags: write | DESC_F_NEXT, next: 9 },
          { gpa: Number(gpa), sizeBytes: Number(sizeBytes), flags: write },
        ]),
    },
    {
      what: `a buffer ${what}, from an indirect table`,
      fault: 'BUFFER_ADDRESS',
      act: (g, ring, write) => {
        const table = g.table([
          { gpa: g.bufferGpa(ring), sizeBytes: 12, flags: write | DESC_F_NEXT, next: 1 },
          { gpa: Number(gpa), sizeBytes: Number(sizeBytes), flags: write },
        ]);
        g.offer(ring, [{ gpa: table, sizeBytes: 32, flags: DESC_F_INDIRECT }]);
      },
    },
  ]),
  ...[0, 1, 11].map(
    (sizeBytes): Row => ({
      what: `a chain of ${sizeBytes} bytes, shorter than the header`,
      fault: 'CHAIN_SHORTER_THAN_HEADER',
      act: (g, ring, write) => g.offer(ring, [{ gpa: g.bufferGpa(ring), sizeBytes, flags: write }]),
    }),
  ),
  {
    what: 'a header in parts that the chain does not complete',
    fault: 'CHAIN_SHORTER_THAN_HEADER',
    act: (g, ring, write) =>
      g.offer(ring, [
        { gpa: g.bufferGpa(ring), sizeBytes: 5, flags: write | DESC_F_NEXT, next: 9 },
        { gpa: g.bufferGpa(ring), sizeBytes: 0, flags: write | DESC_F_NEXT, next: 10 },
        { gpa: g.bufferGpa(ring), sizeBytes: 6, flags: write },
      ]),
  },
  {
    what: 'a buffer that the device may write, in what the guest sends',
    fault: 'WRITABLE_FROM_GUEST',
    only: 'ingress',
    act: (g, ring) => g.offer(ring, [{ gpa: g.bufferGpa(ring), sizeBytes: 72, flags: DESC_F_WRITE }]),
  },
  {
    what: 'a later buffer that the device may write, in what the guest sends',
    fault: 'WRITABLE_FROM_GUEST',
    only: 'ingress',
    act: (g, ring) =>
      g.offer(ring, [
        { gpa: g.bufferGpa(ring), sizeBytes: 72, flags: DESC_F_NEXT, next: 9 },
        { gpa: g.bufferGpa(ring), sizeBytes: 1, flags: DESC_F_WRITE },
      ]),
  },
  {
    what: 'a buffer that the device may not write, to receive with',
    fault: 'READABLE_TO_GUEST',
    only: 'egress',
    act: (g, ring) => g.offer(ring, [{ gpa: g.bufferGpa(ring), sizeBytes: 512 }]),
  },
  {
    what: 'a later buffer that the device may not write, to receive with',
    fault: 'READABLE_TO_GUEST',
    only: 'egress',
    act: (g, ring) =>
      g.offer(ring, [
        { gpa: g.bufferGpa(ring), sizeBytes: 512, flags: DESC_F_WRITE | DESC_F_NEXT, next: 9 },
        { gpa: g.bufferGpa(ring), sizeBytes: 1 },
      ]),
  },
];

describe('what a hostile guest sends stops its transmit queue', () => {
  it.each(ROWS.filter((row) => row.only !== 'egress'))('$what: $fault', ({ plan, act, fault }) => {
    const { driver, device } = makeGuest(plan);
    const { ring } = driver.fromGuest;
    driver.fromGuest.send(FRAME);
    expect(guest.take()).toBe(TAKE_FRAME);
    act(guest, ring, 0);
    // The count is bounded whatever the guest says.
    const waiting = device.from.available();
    expect(waiting).toBeLessThanOrEqual(SIZE);
    device.from.readAhead(waiting);
    if (waiting > 0) expect(device.from.take(device.frame)).toBe(TAKE_FAULT);
    device.from.publish();
    expect(faultMessage(device.from.fault)).toBe(faultMessage(RING_FAULT[fault]));
    // Stopped for good, with what was sent before marked as used, and the other ring goes on.
    driver.fromGuest.send(FRAME);
    expect(device.from.available()).toBe(0);
    expect(splitLayout(ring).used16[1]).toBe(1);
    driver.toGuest.fill();
    expect(guest.give()).toBe(GIVE_DONE);
    expect(driver.toGuest.receive()).toEqual(FRAME);
  });
});

describe('what a hostile guest receives with stops its receive queue', () => {
  it.each(ROWS.filter((row) => row.only !== 'ingress'))('$what: $fault', ({ plan, act, fault }) => {
    const { driver, device } = makeGuest(plan);
    const { ring } = driver.toGuest;
    driver.toGuest.refills = false;
    ring.offer(0, ring.bufferBytes, DESC_F_WRITE);
    ring.publish();
    expect(guest.give()).toBe(GIVE_DONE);
    act(guest, ring, DESC_F_WRITE);
    expect(guest.give()).toBe(GIVE_FAULT);
    expect(faultMessage(device.to.fault)).toBe(faultMessage(RING_FAULT[fault]));
    ring.offer(1, ring.bufferBytes, DESC_F_WRITE);
    ring.publish();
    expect(guest.give()).toBe(GIVE_FAULT);
    expect(splitLayout(ring).used16[1]).toBe(1);
    driver.fromGuest.send(FRAME);
    expect(guest.take()).toBe(TAKE_FRAME);
    expect(frameBytes(device.frame)).toEqual(FRAME);
  });
});

describe('what is odd but no fault', () => {
  it.each([
    ['longer than any frame', [{ gpa: HIGH_GPA, sizeBytes: 65_536 + 100 }], TAKE_TOO_LONG],
    ['4 GiB long', [{ gpa: HIGH_GPA, sizeBytes: 0xffff_ffff }], TAKE_TOO_LONG],
    ['a header and nothing more', [{ gpa: HIGH_GPA, sizeBytes: 12 }], TAKE_TOO_SHORT],
    ['13 bytes long', [{ gpa: HIGH_GPA, sizeBytes: 25 }], TAKE_TOO_SHORT],
  ])('a frame %s is dropped and the ring goes on', (_what, descriptors, answer) => {
    const { driver } = makeGuest();
    guest.offer(driver.fromGuest.ring, descriptors);
    expect(guest.take()).toBe(answer);
    expect(splitLayout(driver.fromGuest.ring).used16[1]).toBe(1);
    splitLayout(driver.fromGuest.ring).usedNext = 1;
    driver.fromGuest.send(FRAME);
    expect(guest.take()).toBe(TAKE_FRAME);
    expect(frameBytes(guest.device.frame)).toEqual(FRAME);
  });

  it('a frame in more pieces than are kept is dropped and the ring goes on', () => {
    const { driver } = makeGuest();
    const { memory } = driver;
    const count = 1100;
    const tableOffset = memory.allocate(count * 16, 16);
    const view = new DataView(memory.buffer, tableOffset, count * 16);
    for (let i = 0; i < count; i++) {
      view.setBigUint64(i * 16, BigInt(HIGH_GPA), true);
      view.setUint32(i * 16 + 8, 1, true);
      view.setUint16(i * 16 + 12, i + 1 < count ? DESC_F_NEXT : 0, true);
      view.setUint16(i * 16 + 14, i + 1, true);
    }
    guest.offer(driver.fromGuest.ring, [
      { gpa: memory.gpaOf(tableOffset), sizeBytes: count * 16, flags: DESC_F_INDIRECT },
    ]);
    expect(guest.take()).toBe(TAKE_TOO_SCATTERED);
    splitLayout(driver.fromGuest.ring).usedNext = 1;
    driver.fromGuest.send(FRAME);
    expect(guest.take()).toBe(TAKE_FRAME);
  });

  it('an indirect table may lie anywhere, also at an odd address', () => {
    const { driver, device } = makeGuest();
    const { memory } = driver;
    driver.fromGuest.post(FRAME);
    const tableOffset = memory.allocate(64, 16) + 3;
    const view = new DataView(memory.buffer, tableOffset, 16);
    view.setBigUint64(0, BigInt(memory.gpaOf(driver.fromGuest.ring.bufferOffsets[0])), true);
    view.setUint32(8, 12 + FRAME.length, true);
    guest.offer(driver.fromGuest.ring, [
      { gpa: memory.gpaOf(tableOffset), sizeBytes: 16, flags: DESC_F_INDIRECT },
    ]);
    expect(device.from.available()).toBe(2);
    for (let i = 0; i < 2; i++) {
      expect(device.from.take(device.frame)).toBe(TAKE_FRAME);
      expect(frameBytes(device.frame)).toEqual(FRAME);
      device.from.release();
    }
  });

  it('a receive buffer that claims 4 GiB is written as far as the frame goes', () => {
    const { driver } = makeGuest();
    const { ring } = driver.toGuest;
    guest.offer(ring, [{ gpa: guest.bufferGpa(ring), sizeBytes: 0xffff_ffff, flags: DESC_F_WRITE }]);
    expect(guest.give()).toBe(GIVE_DONE);
    ring.layout.takeUsed();
    expect(ring.usedBytes).toBe(12 + FRAME.length);
  });

  it('a frame that no buffer is large enough for is refused, and the next smaller one fits', () => {
    const { driver } = makeGuest();
    driver.toGuest.fill();
    expect(guest.give(5000)).toBe(GIVE_TOO_SMALL);
    expect(guest.give(60)).toBe(GIVE_DONE);
    expect(driver.toGuest.receive()?.length).toBe(60);
  });
});

/** Flags and addresses that are likely to get past the first check. */
function nastyWord(random: Random, bufferGpaLo: number): number {
  switch (random.between(0, 6)) {
    case 0:
      return random.next() | 0;
    case 1:
      return random.between(0, 64);
    case 2:
      return bufferGpaLo + random.between(-64, 4096);
    case 3:
      return HIGH_BYTES - random.between(-16, 128);
    case 4:
      return random.between(0, 7) | (random.between(0, SIZE) << 16);
    case 5:
      return 1;
    default:
      return -random.between(0, 4096);
  }
}

describe('garbage in rings and tables', () => {
  it.each(Array.from({ length: 40 }, (_, seed) => seed))('does no harm, seed %i', (seed) => {
    const random = new Random(seed);
    const mergeable = random.chance(50);
    for (let round = 0; round < 25; round++) {
      const { driver, device } = makeGuest({ mergeable, eventIdx: random.chance(50) });
      const { memory } = driver;
      driver.toGuest.fill();
      for (let i = 0; i < 4; i++) driver.fromGuest.post(FRAME, { pieces: [random.between(0, 60)] });
      for (const { ring } of [driver.fromGuest, driver.toGuest]) {
        const layout = splitLayout(ring);
        for (let i = random.between(1, 24); i > 0; i--) {
          const at = random.between(0, layout.desc.length - 1);
          layout.desc[at] = nastyWord(random, memory.gpaOf(ring.bufferOffsets[0]) | 0);
        }
        if (random.chance(30)) layout.avail[2 + random.between(0, SIZE - 1)] = random.between(0, SIZE + 2);
        if (random.chance(20)) layout.availNext = random.between(0, 2 * SIZE);
        layout.availNext = Math.max(layout.availNext, 1);
        ring.publish();
      }
      for (let turn = 0; turn < 2 * SIZE && device.from.available() > 0; turn++) {
        expect(device.from.available()).toBeLessThanOrEqual(SIZE);
        device.from.readAhead(device.from.available());
        device.from.destinationAhead(device.from.available() - 1, destination);
        const taken = device.from.take(device.frame);
        if (taken === TAKE_FAULT) break;
        if (taken === TAKE_FRAME) expectInside(device);
        device.from.release();
      }
      for (let turn = 0; turn < 2 * SIZE; turn++)
        if (guest.give(random.between(14, 9000)) !== GIVE_DONE) break;
      device.from.publish();
      moveNeighboursOut();
      guest.close();
    }
    makeGuest();
  });
});

/** Every piece of the frame lies in the guest's own regions. */
function expectInside(device: RingwayEnd): void {
  const { frame, guestMemory } = device;
  frame.spread();
  for (let piece = 0; piece < frame.pieceCount; piece++) {
    const start = frame.pieceWindow[piece] * GIB + frame.pieceIndex[piece];
    const end = start + frame.pieceBytes[piece];
    const isInside = guestMemory.regions.some(
      (region) => start >= region.arenaOffset && end <= region.arenaOffset + region.sizeBytes,
    );
    expect(isInside).toBe(true);
  }
}
