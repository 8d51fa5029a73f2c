/**
 * A guest's two rings with a device on the other end, without a connection: Ringway's rings over an arena,
 * or the naive twin. Both are told the same things by the tests, so that their memories can be compared.
 */

import { DESC_BYTES, EVENT_SUPPRESS_BYTES } from '../../protocol/virtio/packed-ring.ts';
import { availRingBytes, descTableBytes, usedRingBytes } from '../../protocol/virtio/split-ring.ts';
import type { DriverRing, Shape } from '../../src/frontend/driver-ring.ts';
import { EmbeddedMemory, type RegionPlan } from '../../src/frontend/guest-memory.ts';
import { ReceiveQueue } from '../../src/frontend/receive-queue.ts';
import { SendQueue } from '../../src/frontend/send-queue.ts';
import type { SplitDriverLayout } from '../../src/frontend/split-layout.ts';
import { closeFd, createEventFd, drainFd, duplicateFd } from '../../src/host/descriptor.ts';
import { Arena } from '../../src/memory/arena.ts';
import { ArenaView } from '../../src/memory/arena-view.ts';
import { GuestMemory } from '../../src/memory/guest-memory.ts';
import {
  type Direction,
  GIVE_DONE,
  GIVE_NO_BUFFER,
  GIVE_TOO_SMALL,
  TAKE_FRAME,
} from '../../src/queue/contract.ts';
import { Frame } from '../../src/queue/frame.ts';
import {
  COUNT_BYTES,
  COUNT_CALLS,
  COUNT_FRAMES,
  queueStates,
  STATE_AVAIL_NEXT,
  STATE_USED_NEXT,
} from '../../src/queue/state.ts';
import type { RingAttachment, RingLayoutKind } from '../../src/vring/attachment.ts';
import { SplitFromGuest } from '../../src/vring/split-from-guest.ts';
import { SplitToGuest } from '../../src/vring/split-to-guest.ts';
import { NaivePackedRing } from './naive-packed-ring.ts';
import type { NaiveRing, NaiveRingOptions } from './naive-ring.ts';
import { NaiveSplitRing } from './naive-split-ring.ts';

export type RingPlan = {
  readonly layout: RingLayoutKind;
  readonly inOrder: boolean;
  readonly size: number;
  readonly eventIdx: boolean;
  readonly indirect: boolean;
  readonly mergeable: boolean;
  readonly headerBytes: number;
  readonly bufferBytes: number;
  /** Base that both rings start at. */
  readonly base: number;
  readonly memory: number | readonly RegionPlan[];
  readonly receiveShape?: () => Shape;
};

export const PLAIN_PLAN: RingPlan = {
  layout: 'split',
  inOrder: false,
  size: 16,
  eventIdx: false,
  indirect: true,
  mergeable: false,
  headerBytes: 12,
  bufferBytes: 2048,
  base: 0,
  memory: 2 ** 20,
};

/** For tests that write to a split ring what no driver would. */
export function splitLayout(ring: DriverRing): SplitDriverLayout {
  return ring.layout as SplitDriverLayout;
}

/** What the driver of one guest is made of. */
export class DriverEnd {
  readonly memory: EmbeddedMemory;
  readonly toGuest: ReceiveQueue;
  readonly fromGuest: SendQueue;

  constructor(plan: RingPlan) {
    this.memory = new EmbeddedMemory(plan.memory);
    const options = { ...plan, memory: this.memory };
    this.toGuest = new ReceiveQueue({ ...options, shape: plan.receiveShape });
    this.fromGuest = new SendQueue(options);
    for (const { ring } of [this.toGuest, this.fromGuest]) ring.layout.startAt(plan.base);
  }
}

export type GiveResult = 'done' | 'noBuffer' | 'tooSmall';

/** What the tests tell a device to do; Ringway and the twin do it each in its way. */
export interface DeviceEnd {
  /** Takes up to `limit` frames and offers each to the same guest; publishes both rings afterwards. */
  loop(limit: number): { frame: Uint8Array; given: GiveResult }[];
  give(frames: readonly Uint8Array[]): GiveResult[];
  /** Whether the ring asks to be kicked. */
  setArmed(armed: boolean): void;
  counts(): {
    fromFrames: number;
    fromBytes: number;
    fromCalls: number;
    toFrames: number;
    toBytes: number;
    toCalls: number;
  };
}

export const sharedArena = Arena.reserve(2 ** 32);
export const sharedArenaView = new ArenaView(sharedArena.location);

const GIVE_NAMES: Readonly<Record<number, GiveResult>> = {
  [GIVE_DONE]: 'done',
  [GIVE_NO_BUFFER]: 'noBuffer',
  [GIVE_TOO_SMALL]: 'tooSmall',
};

const PART_BYTES: Readonly<
  Record<RingLayoutKind, (size: number) => { desc: number; driver: number; device: number }>
> = {
  split: (size) => ({
    desc: descTableBytes(size),
    driver: availRingBytes(size),
    device: usedRingBytes(size),
  }),
  packed: (size) => ({
    desc: size * DESC_BYTES,
    driver: EVENT_SUPPRESS_BYTES,
    device: EVENT_SUPPRESS_BYTES,
  }),
};

/** Ringway's own rings, attached as the back-end does it. */
export class RingwayEnd implements DeviceEnd {
  readonly from: SplitFromGuest;
  readonly to: SplitToGuest;
  readonly frame = new Frame(sharedArenaView);
  readonly guestMemory = new GuestMemory(sharedArena);
  readonly states = queueStates(2);
  readonly #callFd = createEventFd();

  /** `addLastRegionFirst`: then neighbours by guest address need not be neighbours in the arena. */
  constructor(driver: DriverEnd, plan: RingPlan, addLastRegionFirst = false) {
    const regions = driver.memory.regions;
    if (addLastRegionFirst) regions.reverse();
    for (const region of regions) this.guestMemory.add(region, duplicateFd(driver.memory.fd));
    for (const index of [0, 1]) {
      const words = new Int32Array(this.states, index * 128, 16);
      words[STATE_AVAIL_NEXT] = plan.base;
      words[STATE_USED_NEXT] = plan.base;
    }
    this.to = new SplitToGuest(
      sharedArenaView,
      this.#attachment(driver, driver.toGuest.ring, 'egress', plan),
      false,
    );
    this.from = new SplitFromGuest(
      sharedArenaView,
      this.#attachment(driver, driver.fromGuest.ring, 'ingress', plan),
    );
  }

  loop(limit: number): { frame: Uint8Array; given: GiveResult }[] {
    const done: { frame: Uint8Array; given: GiveResult }[] = [];
    this.to.begin();
    for (let left = limit; left > 0 && this.from.available() > 0; left--) {
      // As often as it can be, and never of any consequence.
      this.from.readAhead(this.from.available());
      const taken = this.from.take(this.frame);
      if (taken !== TAKE_FRAME) throw new Error(`take answered ${taken}, fault ${this.from.fault}`);
      const bytes = frameBytes(this.frame);
      done.push({ frame: bytes, given: this.#give(this.frame) });
      this.from.release();
    }
    this.to.end();
    this.from.publish();
    return done;
  }

  give(frames: readonly Uint8Array[]): GiveResult[] {
    this.to.begin();
    const results = frames.map((bytes) => {
      this.describe(bytes);
      return this.#give(this.frame);
    });
    this.to.end();
    return results;
  }

  /** Makes `frame` a frame that no guest sent. */
  describe(bytes: Uint8Array): void {
    scratch.describe(this.frame, bytes);
  }

  setArmed(armed: boolean): void {
    if (armed) this.from.armWake();
    else this.from.disarmWake();
  }

  counts(): ReturnType<DeviceEnd['counts']> {
    const from = this.from.state.counts;
    const to = this.to.state.counts;
    return {
      fromFrames: from[COUNT_FRAMES],
      fromBytes: from[COUNT_BYTES],
      fromCalls: from[COUNT_CALLS],
      toFrames: to[COUNT_FRAMES],
      toBytes: to[COUNT_BYTES],
      toCalls: to[COUNT_CALLS],
    };
  }

  close(): void {
    this.guestMemory.clear();
    drainFd(this.#callFd);
    closeFd(this.#callFd);
  }

  #give(frame: Frame): GiveResult {
    const result = this.to.give(frame);
    const name = GIVE_NAMES[result];
    if (name === undefined) throw new Error(`give answered ${result}, fault ${this.to.fault}`);
    return name;
  }

  #attachment(end: DriverEnd, ring: DriverRing, direction: Direction, plan: RingPlan): RingAttachment {
    const { layout } = ring;
    const parts = PART_BYTES[plan.layout](plan.size);
    const placed = (offset: number, sizeBytes: number): number => {
      const arenaOffset = this.guestMemory.offsetOfUva(end.memory.uvaOf(offset), sizeBytes);
      if (arenaOffset === null) throw new Error('a ring lies outside the shared memory');
      return arenaOffset;
    };
    return {
      kind: 'ring',
      layout: plan.layout,
      portId: 0,
      queueIndex: direction === 'egress' ? 0 : 1,
      direction,
      size: plan.size,
      descOffset: placed(layout.descOffset, parts.desc),
      driverOffset: placed(layout.driverOffset, parts.driver),
      deviceOffset: placed(layout.deviceOffset, parts.device),
      eventIdx: plan.eventIdx,
      indirect: plan.indirect,
      inOrder: plan.inOrder,
      mergeable: plan.mergeable,
      headerBytes: plan.headerBytes,
      kickFd: -1,
      callFd: this.#callFd,
      states: this.states,
      map: this.guestMemory.gpaMap(),
    };
  }
}

/** A place in the arena for frames that no guest sent. */
class Scratch {
  readonly #memory = new EmbeddedMemory(2 ** 18);
  readonly #guestMemory = new GuestMemory(sharedArena);
  readonly #offset: number;

  constructor() {
    this.#guestMemory.add(this.#memory.regions[0], duplicateFd(this.#memory.fd));
    this.#offset = this.#guestMemory.regions[0].arenaOffset;
  }

  describe(frame: Frame, bytes: Uint8Array): void {
    sharedArenaView.u8.set(bytes, this.#offset);
    frame.setSingle(Math.floor(this.#offset / 2 ** 30), this.#offset % 2 ** 30, bytes.length);
  }
}

/** One for all: made first, so that it lies between no guest and what comes after it. */
const scratch = new Scratch();

export class NaiveEnd implements DeviceEnd {
  readonly #from: NaiveRing;
  readonly #to: NaiveRing;

  constructor(driver: DriverEnd, plan: RingPlan) {
    this.#to = naiveRing(driver.toGuest.ring, plan);
    this.#from = naiveRing(driver.fromGuest.ring, plan);
  }

  loop(limit: number): { frame: Uint8Array; given: GiveResult }[] {
    const done: { frame: Uint8Array; given: GiveResult }[] = [];
    for (let left = Math.min(limit, this.#from.waiting()); left > 0; left--) {
      const frame = this.#from.take();
      done.push({ frame, given: this.#to.give(frame) });
    }
    this.#to.publish();
    this.#from.publish();
    return done;
  }

  give(frames: readonly Uint8Array[]): GiveResult[] {
    const results = frames.map((frame) => this.#to.give(frame));
    this.#to.publish();
    return results;
  }

  setArmed(armed: boolean): void {
    if (armed) this.#from.arm();
    else this.#from.disarm();
  }

  counts(): ReturnType<DeviceEnd['counts']> {
    return {
      fromFrames: this.#from.frames,
      fromBytes: this.#from.bytes,
      fromCalls: this.#from.signals,
      toFrames: this.#to.frames,
      toBytes: this.#to.bytes,
      toCalls: this.#to.signals,
    };
  }
}

const TWINS: Readonly<Record<RingLayoutKind, (options: NaiveRingOptions) => NaiveRing>> = {
  split: (options) => new NaiveSplitRing(options),
  packed: (options) => new NaivePackedRing(options),
};

/** The twin that serves a driver's ring. */
export function naiveRing(
  ring: DriverRing,
  plan: RingPlan,
  changes: Pick<NaiveRingOptions, 'reorder'> = {},
): NaiveRing {
  const { memory, layout } = ring;
  const gpa = (offset: number): bigint => BigInt(memory.gpaOf(offset));
  return TWINS[plan.layout]({
    ...plan,
    ...changes,
    file: memory.u8,
    regions: memory.regions,
    descGpa: gpa(layout.descOffset),
    driverGpa: gpa(layout.driverOffset),
    deviceGpa: gpa(layout.deviceOffset),
  });
}

/** The frame's bytes, gathered from its pieces. */
export function frameBytes(frame: Frame): Uint8Array {
  frame.spread();
  const bytes = new Uint8Array(frame.totalBytes);
  let done = 0;
  for (let piece = 0; piece < frame.pieceCount; piece++) {
    const offset = frame.pieceWindow[piece] * 2 ** 30 + frame.pieceIndex[piece];
    bytes.set(sharedArenaView.bytesAt(offset, frame.pieceBytes[piece]), done);
    done += frame.pieceBytes[piece];
  }
  return bytes;
}
