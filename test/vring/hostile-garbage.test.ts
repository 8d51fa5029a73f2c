/**
 * Rings and tables full of garbage, before a burst and in the middle of one, in both layouts: nothing may be thrown,
 * nothing but the guest's own memory may be touched, and no burst may be longer than a batch. And what a guest can
 * make a burst cost: descriptors looked at are counted, which no slow machine changes.
 */
import { afterEach, describe, expect, it, vi } from 'vitest';
import { DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE } from '../../protocol/virtio/split-ring.ts';
import type { DriverRing } from '../../src/frontend/driver-ring.ts';
import type { PackedDriverLayout } from '../../src/frontend/packed-layout.ts';
import { AS_THEY_CAME, BATCH_FRAMES_MAX } from '../../src/queue/batch.ts';
import { readHeads } from '../../src/queue/heads.ts';
import type { RingLayoutKind } from '../../src/vring/attachment.ts';
import { CHAIN_DESCRIPTORS_MAX, DescriptorList } from '../../src/vring/descriptor-list.ts';
import { RING_FAULT } from '../../src/vring/faults.ts';
import {
  FRAME,
  HIGH_BYTES,
  HIGH_GPA,
  HOSTILE_SIZE,
  type HostileGuest,
  Neighbourhood,
  NOTHING,
} from './hostile-guest.ts';
import { Random, seeds } from './random.ts';
import { LAYOUT_KINDS, type RingwayEnd, splitLayout } from './ring-worlds.ts';
import { piecesOfFrame, sharedArenaView } from './scratch.ts';

const GIB = 2 ** 30;

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
      return random.between(0, 7) | (random.between(0, HOSTILE_SIZE) << 16);
    case 5:
      return 1;
    default:
      return -random.between(0, 4096);
  }
}

type Scramble = (random: Random, ring: DriverRing) => void;

const SCRAMBLES: Readonly<Record<RingLayoutKind, Scramble>> = {
  split: (random, ring) => {
    const layout = splitLayout(ring);
    scrambleWords(random, ring, layout.desc);
    if (random.chance(30)) {
      layout.avail[2 + random.between(0, HOSTILE_SIZE - 1)] = random.between(0, HOSTILE_SIZE + 2);
    }
    if (random.chance(20)) layout.avail[1] = random.between(0, 2 * HOSTILE_SIZE);
  },
  packed: (random, ring) => {
    const { desc, driverEvent } = ring.layout as PackedDriverLayout;
    scrambleWords(random, ring, desc);
    // Owner bits as they come, three flags, and ids that are nobody's.
    for (let i = random.between(0, 8); i > 0; i--) {
      const flags = random.between(0, 7) | random.pick([0, 0x80, 0x8000, 0x8080]);
      desc[4 * random.between(0, HOSTILE_SIZE - 1) + 3] = random.between(0, HOSTILE_SIZE + 2) | (flags << 16);
    }
    driverEvent[0] = random.next() | 0;
  },
};

function scrambleWords(random: Random, ring: DriverRing, desc: Int32Array): void {
  const gpaLo = ring.memory.gpaOf(ring.bufferOffsets[0]) | 0;
  for (let i = random.between(1, 24); i > 0; i--) {
    desc[random.between(0, desc.length - 1)] = nastyWord(random, gpaLo);
  }
}

/** Every piece of every frame lies in the guest's own regions. */
function expectInside({ batch, guestMemory }: RingwayEnd): void {
  for (let frame = 0; frame < batch.count; frame++) {
    for (const { place, sizeBytes } of piecesOfFrame(batch, frame)) {
      const start = place.window * GIB + place.index;
      const isInside = guestMemory.regions.some(
        ({ arenaOffset, sizeBytes: regionBytes }) =>
          start >= arenaOffset && start + sizeBytes <= arenaOffset + regionBytes,
      );
      expect(isInside).toBe(true);
    }
  }
}

/** A burst from the guest to itself, whose rings change between all steps. Answers how many chains it took. */
function burst(random: Random, guest: HostileGuest): number {
  const { batch, from, to } = guest.device;
  const rings = [guest.driver.fromGuest.ring, guest.driver.toGuest.ring];
  const scramble = (): void => {
    if (random.chance(30)) SCRAMBLES[guest.layout](random, random.pick(rings));
  };
  const taken = from.gather(batch);
  expect(taken).toBeLessThanOrEqual(BATCH_FRAMES_MAX);
  if (taken === 0) return 0;
  expectInside(guest.device);
  scramble();
  if (batch.count > 0) {
    readHeads(batch, sharedArenaView.windows);
    scramble();
    to.begin();
    to.place(batch, AS_THEY_CAME, batch.count);
    to.end();
  }
  scramble();
  from.finish();
  return taken;
}

let neighbourhood: Neighbourhood | null = null;

afterEach(() => {
  vi.restoreAllMocks();
  neighbourhood?.close();
  neighbourhood = null;
});

describe.each(LAYOUT_KINDS)('garbage in the rings and tables of a %s ring', (layout) => {
  it.each(seeds(40))('does no harm, seed %i', (seed) => {
    const random = new Random(seed);
    const mergeable = random.chance(50);
    let takenSum = 0;
    for (let round = 0; round < 25; round++) {
      const changes = { mergeable, eventIdx: random.chance(50), inOrder: random.chance(30) };
      const area = new Neighbourhood(layout, changes);
      const { guest } = area;
      const { driver, device } = guest;
      driver.toGuest.fill();
      for (let i = 0; i < 8; i++) driver.fromGuest.post(FRAME, { pieces: [random.between(0, 60)] });
      driver.fromGuest.flush();
      for (const { ring } of [driver.fromGuest, driver.toGuest]) SCRAMBLES[layout](random, ring);
      for (let turn = 0; turn < 6; turn++) takenSum += burst(random, guest);
      for (let turn = 0; turn < HOSTILE_SIZE && device.to.fault === 0; turn++) {
        guest.give(random.between(14, 9000));
        if (random.chance(20)) SCRAMBLES[layout](random, driver.toGuest.ring);
      }
      area.close();
    }
    expect(takenSum).toBeGreaterThan(0);
  });
});

describe.each([
  ['packed', 'direct'],
  ['packed', 'indirect'],
  ['split', 'direct'],
  ['split', 'indirect'],
] as const)('a chain of 32,768 descriptors of a %s ring, %s', (layout, kind) => {
  const SIZE = 32_768;

  /** All but the first are empty. */
  function makeGuest(which: 'fromGuest' | 'toGuest', flags: number): HostileGuest {
    const memory = [{ sizeBytes: 2 ** 24, gpa: HIGH_GPA }];
    neighbourhood = new Neighbourhood(layout, { memory, size: SIZE, bufferBytes: 64, mergeable: true });
    const { guest } = neighbourhood;
    const { ring } = guest.driver[which];
    const count = kind === 'direct' ? SIZE - 8 : SIZE;
    const first = kind === 'direct' ? 8 : 0;
    const chain = Array.from({ length: count }, (_, i) => ({
      gpa: HIGH_GPA,
      sizeBytes: i === 0 ? 12 : 0,
      flags: flags | (i + 1 < count ? DESC_F_NEXT : 0),
      next: first + i + 1,
    }));
    if (kind === 'direct') guest.offer(ring, chain);
    else {
      const gpa = guest.table(chain, guest.driver.memory.allocate(16 * SIZE, 16));
      guest.offer(ring, [{ gpa, sizeBytes: 16 * SIZE, flags: DESC_F_INDIRECT }]);
    }
    return guest;
  }

  it('from the guest stops the ring, and is looked at no further than is kept', () => {
    const guest = makeGuest('fromGuest', 0);
    const looked = vi.spyOn(DescriptorList.prototype, 'add');
    for (let turn = 0; turn < 8; turn++) expect(guest.take()).toEqual(NOTHING);
    expect(guest.device.from.fault).toBe(RING_FAULT.CHAIN_TOO_LONG);
    expect(looked).toHaveBeenCalledTimes(CHAIN_DESCRIPTORS_MAX + 1);
  });

  it('to the guest stops the ring, whatever is sent to it afterwards', () => {
    const guest = makeGuest('toGuest', DESC_F_WRITE);
    const looked = vi.spyOn(DescriptorList.prototype, 'add');
    const frames = Array.from({ length: 8 }, () => FRAME);
    for (let turn = 0; turn < 8; turn++) {
      expect(guest.device.give(frames)).toEqual(frames.map(() => 'fault'));
    }
    expect(guest.device.to.fault).toBe(RING_FAULT.CHAIN_TOO_LONG);
    expect(looked).toHaveBeenCalledTimes(CHAIN_DESCRIPTORS_MAX + 1);
  });
});

describe.each(LAYOUT_KINDS)('what a %s ring costs whose chains are as long as may be', (layout) => {
  const SIZE = 1024;
  const TURNS = 100;

  function makeGuest(mergeable: boolean): HostileGuest {
    const memory = [{ sizeBytes: 2 ** 23, gpa: HIGH_GPA }];
    neighbourhood = new Neighbourhood(layout, { mergeable, memory, size: SIZE });
    return neighbourhood.guest;
  }

  /** A table of buffers of which all are empty but the first, named by every descriptor of the ring. */
  function fillWithTables(guest: HostileGuest, ring: DriverRing, firstBytes: number, flags: number): void {
    const gpa = guest.table(
      Array.from({ length: CHAIN_DESCRIPTORS_MAX }, (_, i) => ({
        gpa: guest.bufferGpa(ring),
        sizeBytes: i === 0 ? firstBytes : 0,
        flags: flags | (i + 1 < CHAIN_DESCRIPTORS_MAX ? DESC_F_NEXT : 0),
        next: i + 1,
      })),
    );
    const table = { gpa, sizeBytes: CHAIN_DESCRIPTORS_MAX * 16, flags: DESC_F_INDIRECT };
    for (let i = 0; i < SIZE; i++) guest.offer(ring, [table]);
  }

  it('from the guest is bounded for a turn and in the mean, and all is taken in the end', () => {
    const guest = makeGuest(false);
    fillWithTables(guest, guest.driver.fromGuest.ring, 12 + FRAME.length, 0);
    const looked = vi.spyOn(DescriptorList.prototype, 'add');
    const lookedAfterTurns: number[] = [];
    let taken = 0;
    for (; taken < SIZE; lookedAfterTurns.push(looked.mock.calls.length)) taken += guest.take().frames.length;
    const looks = lookedAfterTurns.map((all, turn) => all - (lookedAfterTurns[turn - 1] ?? 0));
    expect(Math.max(...looks)).toBeLessThanOrEqual(8 * CHAIN_DESCRIPTORS_MAX);
    expect(lookedAfterTurns[TURNS - 1]).toBeLessThanOrEqual((TURNS + 8) * CHAIN_DESCRIPTORS_MAX);
    expect(guest.device.from.fault).toBe(0);
  });

  it('from a guest of sixteen queues is sixteen times as much, and each goes on', () => {
    const guest = makeGuest(false);
    const { batch } = guest.device;
    fillWithTables(guest, guest.driver.fromGuest.ring, 12 + FRAME.length, 0);
    const queues = Array.from({ length: 16 }, () => guest.device.openFrom());
    const looked = vi.spyOn(DescriptorList.prototype, 'add');
    const taken = queues.map(() => 0);
    for (let turn = 0; turn < TURNS; turn++) {
      for (const [i, queue] of queues.entries()) taken[i] += queue.gather(batch);
    }
    expect(looked.mock.calls.length).toBeLessThanOrEqual(16 * (TURNS + 8) * CHAIN_DESCRIPTORS_MAX);
    expect(Math.min(...taken)).toBeGreaterThan(TURNS / 2);
  });

  it.each([false, true])(
    'to the guest is bounded for a burst and in the mean, mergeable: %s',
    (mergeable) => {
      const guest = makeGuest(mergeable);
      fillWithTables(guest, guest.driver.toGuest.ring, 12, DESC_F_WRITE);
      const looked = vi.spyOn(DescriptorList.prototype, 'add');
      const frames = Array.from({ length: BATCH_FRAMES_MAX }, () => FRAME);
      const lookedAfterTurns = Array.from({ length: TURNS }, () => {
        expect(guest.device.give(frames)).toEqual(frames.map(() => 'tooSmall'));
        return looked.mock.calls.length;
      });
      expect(lookedAfterTurns[0]).toBeLessThanOrEqual(20 * CHAIN_DESCRIPTORS_MAX);
      // Eight a frame, one chain after the other.
      expect(lookedAfterTurns[TURNS - 1]).toBeLessThanOrEqual(20 * CHAIN_DESCRIPTORS_MAX + TURNS * 64 * 8);
      expect(guest.device.to.fault).toBe(0);
    },
  );

  it('to the guest is the same for a frame that fits: it costs what its ring is to cost', () => {
    const guest = makeGuest(false);
    fillWithTables(guest, guest.driver.toGuest.ring, 12 + FRAME.length, DESC_F_WRITE);
    const looked = vi.spyOn(DescriptorList.prototype, 'add');
    const results = Array.from({ length: SIZE }, () => guest.give());
    expect(looked.mock.calls.length).toBeLessThanOrEqual(20 * CHAIN_DESCRIPTORS_MAX + SIZE * 20);
    // What it does not take is not lost to the ring: its chains wait for later frames.
    expect(results.filter((result) => result === 'done').length).toBeGreaterThan(SIZE / 16);
    expect(results.every((result) => result === 'done' || result === 'tooSmall')).toBe(true);
  });
});
