/**
 * Every page of a guest that Ringway's rings change is in its log: after each of many random steps the guest's memory is
 * compared with a copy from before (test/memory/changed-pages.ts). Both layouts, all shapes of buffers and frames, logs at
 * any alignment, swapped, switched off and on in between. And the same tests are red where one mark is left out.
 */
import { afterEach, describe, expect, it, vi } from 'vitest';
import { DESC_F_WRITE } from '../../protocol/virtio/split-ring.ts';
import { closeFd, createEventFd, drainFd } from '../../src/host/descriptor.ts';
import { REQUEST_TAKEN, SEGMENTS_MAX } from '../../src/offload/request.ts';
import { AS_THEY_CAME } from '../../src/queue/batch.ts';
import { readHeads } from '../../src/queue/heads.ts';
import { DirtyLog } from '../../src/vring/dirty-log.ts';
import { OffloadWorld } from '../offload/offload-world.ts';
import { checksumRequest, segmentRequest } from '../offload/random-requests.ts';
import { LogFile, LoggedGuest } from './logged-guest.ts';
import { Random, seeds } from './random.ts';
import { randomPieces, randomPlan, randomReceiveShape } from './random-rings.ts';
import { DriverEnd, LAYOUT_KINDS, plainPlan, type RingPlan, RingwayEnd } from './ring-worlds.ts';
import { describeFrames, sharedArena, sharedArenaView, spoilHeads } from './scratch.ts';

const SEEDS = 16;
const STEPS = 120;
const FRAME_BYTES_MAX = 9000;

type Layout = (typeof LAYOUT_KINDS)[number];

class World {
  readonly random: Random;
  readonly plan: RingPlan;
  readonly driver: DriverEnd;
  readonly ringway: RingwayEnd;
  readonly guest: LoggedGuest;

  constructor(seed: number, layout: Layout) {
    const random = new Random(seed);
    this.random = random;
    const bufferBytes = random.pick([2048, 4096, FRAME_BYTES_MAX + 512, 16_384]);
    const plan = {
      ...randomPlan(random, layout, bufferBytes, random.pick([8, 64, 128])),
      inOrder: random.chance(30),
    };
    // A guest's pages need not begin where the arena's do.
    const isOdd = typeof plan.memory === 'number' && random.chance(40);
    this.plan = isOdd
      ? { ...plan, memory: [{ sizeBytes: plan.memory as number, gpa: 0x1_0000_0000 + 1024 }] }
      : plan;
    const shape = random.chance(50) ? { receiveShape: randomReceiveShape(random, this.plan) } : {};
    this.driver = new DriverEnd({ ...this.plan, ...shape });
    this.ringway = new RingwayEnd(
      this.driver,
      this.plan,
      random.pick(['inOrder', 'lastFirst', 'overWindows']),
    );
    this.guest = new LoggedGuest(
      sharedArena,
      sharedArenaView.u8,
      this.driver.memory,
      random.pick([0, 1, 2, 3, 8, 4093]),
    );
    this.ringway.logIn(this.guest.log.memory);
    this.driver.toGuest.fill();
  }

  /** One random step of the driver, then one of the device, which is watched. Answers pages that were not marked. */
  step(): number[] {
    const { random, guest, driver } = this;
    while (random.chance(90) && driver.toGuest.receive() !== null);
    if (random.chance(50)) this.#send();
    guest.begin();
    random.pick([
      () => this.#loop(),
      () => this.#loop(),
      () => this.#give(),
      () => this.#give(),
      () => this.#arm(),
      () => this.ringway.reopen(),
    ])();
    return guest.unmarked();
  }

  #send(): void {
    const { random, plan, driver } = this;
    const isPlain = random.chance(40);
    for (let left = random.pick([1, 8, 70]); left > 0; left--) {
      const maxPieces = isPlain ? 1 : random.pick([1, 3, Math.min(20, plan.size)]);
      const roomBytes = plan.bufferBytes - plan.headerBytes - 64 * maxPieces;
      const frame = this.#frame(Math.min(FRAME_BYTES_MAX, Math.max(14, roomBytes)));
      const pieces = randomPieces(random, frame.length + plan.headerBytes, maxPieces);
      if (!driver.fromGuest.post(frame, { pieces, indirect: !isPlain && plan.indirect && random.chance(40) }))
        break;
    }
    driver.fromGuest.flush();
  }

  #loop(): void {
    this.ringway.loop();
  }

  #give(): void {
    const { random, ringway } = this;
    const frames = Array.from({ length: random.pick([1, 5, 64]) }, () => this.#frame(FRAME_BYTES_MAX));
    ringway.give(frames, undefined, random.chance(30) ? null : new Random(random.next()));
  }

  #arm(): void {
    this.ringway.setArmed(this.random.chance(50));
  }

  #frame(bytesMax: number): Uint8Array {
    const { random } = this;
    const bytes = random.bytes(random.between(14, random.pick([60, Math.min(60, bytesMax), bytesMax])));
    if (random.chance(80)) bytes.fill(random.between(1, 2), 0, 12);
    return bytes;
  }

  close(): void {
    this.ringway.close();
    this.guest.close();
    this.driver.memory.close();
  }
}

/** Pages that were changed and not marked, over all steps of a seed. */
function unmarkedOf(layout: Layout, seed: number): number[] {
  const world = new World(seed, layout);
  const unmarked: number[] = [];
  for (let step = 0; step < STEPS; step++) unmarked.push(...world.step());
  expect(world.guest.changedCount).toBeGreaterThan(0);
  world.close();
  return unmarked;
}

afterEach(() => {
  vi.restoreAllMocks();
});

describe.each(LAYOUT_KINDS)('a %s guest that is logged', (layout) => {
  it.each(seeds(SEEDS))('has every page that changes marked, seed %i', (seed) => {
    expect(unmarkedOf(layout, seed)).toEqual([]);
  });

  it.each(['markOwn', 'markPlaced', 'note', 'markNoted'] as const)('would not, but for %s', (name) => {
    vi.spyOn(DirtyLog.prototype, name).mockImplementation(() => {});
    expect(seeds(6).flatMap((seed) => unmarkedOf(layout, seed)).length).toBeGreaterThan(0);
  });

  it('has no more marked than was written, and its rings', () => {
    const plan = { ...plainPlan(layout), memory: 2 ** 20 };
    const driver = new DriverEnd(plan);
    const ringway = new RingwayEnd(driver, plan);
    const guest = new LoggedGuest(sharedArena, sharedArenaView.u8, driver.memory);
    ringway.logIn(guest.log.memory);
    driver.toGuest.fill();
    const ringPages = 3;
    for (let i = 0; i < 8; i++) {
      guest.begin();
      ringway.give([new Random(i).bytes(100)]);
      expect(guest.unmarked()).toEqual([]);
      expect(guest.markedCount).toBeLessThanOrEqual(ringPages + 1);
      guest.markedCount = 0;
      driver.toGuest.receive();
    }
    ringway.close();
    guest.close();
  });

  it('has nothing marked for frames that were refused, and what comes after them', () => {
    const plan = { ...plainPlan(layout), mergeable: true, bufferBytes: 8192 };
    const driver = new DriverEnd(plan);
    const ringway = new RingwayEnd(driver, plan);
    const guest = new LoggedGuest(sharedArena, sharedArenaView.u8, driver.memory);
    ringway.logIn(guest.log.memory);
    const { ring } = driver.toGuest;
    ring.offer(ring.takeId(), 200, DESC_F_WRITE);
    ring.publish();
    guest.begin();
    for (let i = 0; i < 200; i++) expect(ringway.give([new Uint8Array(1500)])).toEqual(['noBuffer']);
    expect(guest.unmarked()).toEqual([]);
    driver.toGuest.fill();
    guest.begin();
    // What is noted is bounded, and here goes on in a buffer that was not there before.
    expect(ringway.give([new Random(1).bytes(1500)])).toEqual(['done']);
    expect(guest.unmarked()).toEqual([]);
    ringway.close();
    guest.close();
  });

  it('goes on in another log, and in none, between two bursts', () => {
    const world = new World(77, layout);
    const { guest, ringway } = world;
    for (let step = 0; step < STEPS; step++) {
      if (step % 5 === 1) guest.swap(step % 7, (log) => ringway.logIn(log));
      if (step % 5 === 3) ringway.logIn(null);
      const unmarked = world.step();
      if (step % 5 === 3) {
        guest.begin();
        expect(guest.log.take()).toEqual(new Set());
        ringway.logIn(guest.log.memory);
      } else expect(unmarked).toEqual([]);
    }
    world.close();
  });

  it('with offloads has segments and headers marked', () => {
    const plan = { ...plainPlan(layout), size: 128, bufferBytes: 2048, mergeable: true, memory: 8 * 2 ** 20 };
    const random = new Random(5);
    const driver = new DriverEnd(plan);
    const ringway = new RingwayEnd(driver, plan);
    const offloads = new OffloadWorld();
    const guest = new LoggedGuest(sharedArena, sharedArenaView.u8, driver.memory);
    ringway.logIn(guest.log.memory);
    const place = (batch: typeof offloads.batch): void => {
      driver.toGuest.fill();
      guest.begin();
      ringway.to.begin();
      ringway.to.place(batch, AS_THEY_CAME, batch.count);
      ringway.to.end();
      expect(guest.unmarked()).toEqual([]);
      while (driver.toGuest.receive() !== null);
    };
    for (let i = 0; i < 30; i++) {
      const request = random.chance(50) ? segmentRequest(random, SEGMENTS_MAX) : checksumRequest(random);
      describeFrames(offloads.batch, [request.frame], random);
      expect(offloads.takeHeader(0, request.header)).toBe(REQUEST_TAKEN);
      readHeads(offloads.batch, sharedArenaView.windows);
      spoilHeads(offloads.batch);
      // Whole, with a header that asks; then completed for who takes nothing.
      place(offloads.batch);
      const { completion } = offloads;
      completion.begin(offloads.batch, AS_THEY_CAME, 1, 0);
      while (completion.next()) place(completion.batch);
    }
    expect(guest.changedCount).toBeGreaterThan(100);
    offloads.release();
    ringway.close();
    guest.close();
  });

  it('whose log is shorter than its memory has what it reaches marked, and nothing beside it', () => {
    const plan = { ...plainPlan(layout), memory: [{ sizeBytes: 2 ** 20, gpa: 0 }] };
    const driver = new DriverEnd(plan);
    const ringway = new RingwayEnd(driver, plan);
    // 13 bytes: 104 of 256 pages; the file's bytes around are looked at when it is closed.
    const log = new LogFile(sharedArena, sharedArenaView.u8, 3, 1);
    ringway.logIn(log.memory);
    driver.toGuest.fill();
    ringway.give(Array.from({ length: 16 }, (_, i) => new Random(i).bytes(1500)));
    const marks = [...log.take()];
    expect(marks.length).toBeGreaterThan(0);
    expect(Math.max(...marks)).toBeLessThan(24);
    ringway.close();
    log.close();
  });

  it('signals who asked to be told of marks', () => {
    const plan = plainPlan(layout);
    const driver = new DriverEnd(plan);
    const ringway = new RingwayEnd(driver, plan);
    const log = new LogFile(sharedArena, sharedArenaView.u8, 2 ** 18);
    const { offset, sizeBytes } = log.memory;
    const signalFd = createEventFd();
    ringway.to.setLog({ offset, sizeBytes, ownPages: [{ firstPage: 7, lastPage: 7 }], signalFd });
    driver.toGuest.fill();
    ringway.give([new Uint8Array(64)]);
    expect(drainFd(signalFd)).toBe(true);
    expect(log.take().has(7)).toBe(true);
    ringway.give([]);
    expect(drainFd(signalFd)).toBe(true);
    ringway.give([]);
    // All of it is marked already.
    expect(drainFd(signalFd)).toBe(false);
    closeFd(signalFd);
    ringway.close();
    log.close();
  });
});

describe('ranges of pages', () => {
  it.each([...seeds(200)])('are marked whole, and no other page, with seed %i', (seed) => {
    const random = new Random(seed);
    const bytes = random.pick([1, 3, 8, 37]);
    const log = new LogFile(sharedArena, sharedArenaView.u8, bytes, random.between(0, 7));
    const { offset, sizeBytes } = log.memory;
    const dirty = new DirtyLog(sharedArenaView, { offset, sizeBytes, ownPages: [], signalFd: -1 });
    const ranges = Array.from({ length: random.between(0, 3) }, () => {
      const firstPage = random.between(0, 8 * bytes + 39);
      return { firstPage, lastPage: firstPage + random.between(0, 89) };
    });
    const expected = new Set<number>();
    for (const { firstPage, lastPage } of ranges)
      for (let page = firstPage; page <= lastPage && page < 8 * bytes; page++) expected.add(page);
    dirty.markRanges(ranges);
    expect([...log.take()].sort((a, b) => a - b)).toEqual([...expected].sort((a, b) => a - b));
    log.close();
  });
});
