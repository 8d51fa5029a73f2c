/**
 * A guest's two rings with a device on the other end, without a connection: Ringway's rings over an arena,
 * or the naive twin. Both are told the same things by the tests, so that their memories can be compared.
 */
import assert from 'node:assert/strict';
import { packedBase } from '../../protocol/virtio/packed-ring.ts';
import { ringLogOf } from '../../src/device/ring-log.ts';
import { placeRing, type RingPlaces } from '../../src/device/ring-places.ts';
import type { DriverRing, Shape } from '../../src/frontend/driver-ring.ts';
import { EmbeddedMemory, type RegionPlan } from '../../src/frontend/guest-memory.ts';
import { IOVA_BASE, IommuMemory } from '../../src/frontend/iommu.ts';
import { ReceiveQueue } from '../../src/frontend/receive-queue.ts';
import { SendQueue } from '../../src/frontend/send-queue.ts';
import type { SplitDriverLayout } from '../../src/frontend/split-layout.ts';
import { closeFd, createEventFd, drainFd } from '../../src/host/descriptor.ts';
import { createMemoryFile } from '../../src/host/mapping.ts';
import type { AddressMap } from '../../src/memory/gpa-translator.ts';
import { GuestMemory } from '../../src/memory/guest-memory.ts';
import { type Access, type AddressMiss, IOMMU_PAGE_BYTES, Iotlb } from '../../src/memory/iotlb.ts';
import type { LogMemory } from '../../src/memory/log-memory.ts';
import {
  AS_THEY_CAME,
  Batch,
  REFUSED_FAULT,
  REFUSED_NO_BUFFER,
  REFUSED_TOO_SMALL,
} from '../../src/queue/batch.ts';
import type { Direction } from '../../src/queue/contract.ts';
import { readHeads } from '../../src/queue/heads.ts';
import {
  COUNT_BYTES,
  COUNT_CALLS,
  COUNT_FRAMES,
  queueStates,
  STATE_AVAIL_NEXT,
  STATE_USED_NEXT,
} from '../../src/queue/state.ts';
import type { RingAttachment, RingLayoutKind } from '../../src/vring/attachment.ts';
import type { RingLog } from '../../src/vring/dirty-log.ts';
import { FromGuest } from '../../src/vring/from-guest.ts';
import type { Ring } from '../../src/vring/ring.ts';
import { ToGuest } from '../../src/vring/to-guest.ts';
import { NaivePackedRing } from './naive-packed-ring.ts';
import type { NaiveGiveResult, NaiveRing, NaiveRingOptions } from './naive-ring.ts';
import { NaiveSplitRing } from './naive-split-ring.ts';
import type { Random } from './random.ts';
import { bytesOfFrame, describeFrames, sharedArena, sharedArenaView, spoilHeads } from './scratch.ts';

export type RingPlan = {
  /** Default 0. */
  readonly portId?: number;
  readonly layout: RingLayoutKind;
  readonly inOrder: boolean;
  readonly size: number;
  readonly eventIdx: boolean;
  readonly indirect: boolean;
  readonly mergeable: boolean;
  readonly headerBytes: number;
  readonly bufferBytes: number;
  /** Base that both rings start at, as SET_VRING_BASE carries it. */
  readonly base: number;
  readonly memory: number | readonly RegionPlan[];
  readonly receiveShape?: () => Shape;
  /** OFFLOAD_* bits of what the guest's headers may ask for; default 0. */
  readonly asks?: number;
  /** Where in the arena the rings have records, that to the guest first; default: they have none. */
  readonly recordOffsets?: readonly [number, number];
  /** The same of regions that a front-end keeps. */
  readonly inflightOffsets?: readonly [number, number];
  /** The device is behind an IOMMU, of which it knows nothing at first. */
  readonly iommu?: boolean;
};

/** Where a ring of each layout begins. */
export const FIRST_BASES: Readonly<Record<RingLayoutKind, number>> = { split: 0, packed: 0x8000_8000 };
export const LAYOUT_KINDS: readonly RingLayoutKind[] = ['split', 'packed'];

export function plainPlan(layout: RingLayoutKind): RingPlan {
  return {
    layout,
    inOrder: false,
    size: 16,
    eventIdx: false,
    indirect: true,
    mergeable: false,
    headerBytes: 12,
    bufferBytes: 2048,
    base: FIRST_BASES[layout],
    memory: 2 ** 20,
  };
}

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
    const memory = plan.iommu === true ? new IommuMemory(this.memory) : this.memory;
    const options = { ...plan, memory };
    this.toGuest = new ReceiveQueue({ ...options, shape: plan.receiveShape });
    this.fromGuest = new SendQueue(options);
    for (const { ring } of [this.toGuest, this.fromGuest]) ring.layout.startAt(plan.base);
  }
}

export type GiveResult = NaiveGiveResult | 'fault';
/** A frame that was offered to a ring, and what became of it. */
export type Offered = { readonly frame: Uint8Array; readonly given: GiveResult };
/** What `place` is called with, once for each list: frames of the burst, by number. */
export type PlaceLists = readonly (readonly number[])[];

export function asTheyCame(count: number): PlaceLists {
  return [Array.from({ length: count }, (_, i) => i)];
}

export type DeviceCounts = {
  readonly fromFrames: number;
  readonly fromBytes: number;
  readonly fromCalls: number;
  readonly toFrames: number;
  readonly toBytes: number;
  readonly toCalls: number;
};

/** What the tests tell a device to do; Ringway and the twin do it each in its way. */
export interface DeviceEnd {
  /** Offers frames that come from elsewhere to the guest, as one burst; answers for them in the lists' order. */
  give(frames: readonly Uint8Array[], lists?: PlaceLists): GiveResult[];
  /** Whether the ring asks to be kicked. */
  setArmed(armed: boolean): void;
  counts(): DeviceCounts;
  /** Where the rings stand, as GET_VRING_BASE answers it: to the guest, from the guest. */
  bases(): number[];
}

const REFUSED_NAMES: Readonly<Record<number, GiveResult>> = {
  [REFUSED_NO_BUFFER]: 'noBuffer',
  [REFUSED_TOO_SMALL]: 'tooSmall',
  [REFUSED_FAULT]: 'fault',
};

/** How the guest's regions come to lie in the arena. */
export type Mapping =
  /** One after the other. */
  | 'inOrder'
  /** Neighbours by guest address are none in the arena. */
  | 'lastFirst'
  /** The last region lies over the border of two windows. */
  | 'overWindows';

/** QueueState's words for a base, available and used. */
const STATE_WORDS: Readonly<Record<RingLayoutKind, (base: number) => [number, number]>> = {
  split: (base) => [base, base],
  packed: (base) => [base & 0xffff, base >>> 16],
};
const BASE_OF_WORDS: Readonly<Record<RingLayoutKind, (avail: number, used: number) => number>> = {
  split: (avail) => avail,
  packed: (avail, used) => packedBase(avail, used),
};

/** Ringway's own rings, attached as the back-end does it. */
export class RingwayEnd implements DeviceEnd {
  from: FromGuest;
  to: ToGuest;
  readonly batch = new Batch();
  readonly guestMemory = new GuestMemory(sharedArena);
  readonly states = queueStates(2);
  readonly callFd = createEventFd();
  /** Where the device is behind an IOMMU. */
  readonly iotlb = new Iotlb();
  readonly #driver: DriverEnd;
  readonly #plan: RingPlan;
  #log: LogMemory | null = null;

  constructor(driver: DriverEnd, plan: RingPlan, mapping: Mapping = 'inOrder') {
    this.#driver = driver;
    this.#plan = plan;
    mapRegions(this.guestMemory, driver.memory, mapping);
    for (const index of [0, 1]) {
      const [avail, used] = STATE_WORDS[plan.layout](plan.base);
      const words = new Int32Array(this.states, index * 128, 16);
      words[STATE_AVAIL_NEXT] = avail;
      words[STATE_USED_NEXT] = used;
    }
    this.to = this.openTo(false);
    this.from = this.openFrom();
  }

  /** The same rings once more, as another worker opens them, or the same one after a stop. */
  openTo(shared: boolean): ToGuest {
    return new ToGuest(sharedArenaView, this.attachment('egress'), shared);
  }

  openFrom(): FromGuest {
    return new FromGuest(sharedArenaView, this.attachment('ingress'));
  }

  /** As a worker gets it. */
  attachment(direction: Direction): RingAttachment {
    const { ring } = direction === 'egress' ? this.#driver.toGuest : this.#driver.fromGuest;
    const plan = this.#plan;
    return {
      ...this.#placesOf(ring),
      kind: 'ring',
      layout: plan.layout,
      portId: plan.portId ?? 0,
      queueIndex: direction === 'egress' ? 0 : 1,
      direction,
      size: plan.size,
      eventIdx: plan.eventIdx,
      indirect: plan.indirect,
      inOrder: plan.inOrder,
      mergeable: plan.mergeable,
      headerBytes: plan.headerBytes,
      asks: direction === 'ingress' ? (plan.asks ?? 0) : 0,
      kickFd: -1,
      callFd: this.callFd,
      states: this.states,
      map: this.map,
      ...(plan.recordOffsets !== undefined && {
        recordOffset: plan.recordOffsets[direction === 'egress' ? 0 : 1],
      }),
      ...(plan.inflightOffsets !== undefined && {
        inflightOffset: plan.inflightOffsets[direction === 'egress' ? 0 : 1],
      }),
      log: this.#logOf(ring),
    };
  }

  /** What is written to the guest from now on is marked there; null: nowhere. */
  logIn(log: LogMemory | null): void {
    this.#log = log;
    this.to.setLog(this.#logOf(this.#driver.toGuest.ring));
    this.from.setLog(this.#logOf(this.#driver.fromGuest.ring));
  }

  /** What both rings translate by. */
  get map(): AddressMap {
    return this.#plan.iommu === true ? this.iotlb.mapIn(this.guestMemory.uvaMap) : this.guestMemory.gpaMap();
  }

  /** Both rings are told what is known. */
  follow(): void {
    const { map } = this;
    this.to.setMemory(map);
    this.from.setMemory(map);
  }

  /** The page of a miss becomes known. */
  translate({ iova }: AddressMiss, access: Access): void {
    const page = Math.floor((Number(iova) - IOVA_BASE) / IOMMU_PAGE_BYTES) * IOMMU_PAGE_BYTES;
    this.iotlb.update(IOVA_BASE + page, IOMMU_PAGE_BYTES, Number(this.#driver.memory.uvaOf(page)), access);
  }

  /** Both rings are stopped and started again. */
  reopen(): void {
    this.to = this.openTo(false);
    this.from = this.openFrom();
  }

  /**
   * Takes a burst and offers its frames to the same guest, in the order that `listsFor` says for so many frames;
   * publishes both rings afterwards. `taken`: chains.
   */
  loop(listsFor = asTheyCame): { taken: number; lists: PlaceLists; offered: Offered[] } {
    const { batch, from, to } = this;
    const taken = from.gather(batch);
    assert.equal(from.fault, 0);
    assert.equal(batch.count, taken);
    const lists = listsFor(taken);
    if (taken === 0) return { taken, lists, offered: [] };
    readHeads(batch, sharedArenaView.windows);
    const frames = Array.from({ length: taken }, (_, frame) => bytesOfFrame(batch, frame));
    to.begin();
    const results = placeLists(to, batch, lists);
    to.end();
    from.finish();
    return { taken, lists, offered: lists.flat().map((at, i) => ({ frame: frames[at], given: results[i] })) };
  }

  /** `scatter`: the frames lie in any way, and their addresses change when they have been read. */
  give(
    frames: readonly Uint8Array[],
    lists = asTheyCame(frames.length),
    scatter: Random | null = null,
  ): GiveResult[] {
    const { batch, to } = this;
    describeFrames(batch, frames, scatter);
    readHeads(batch, sharedArenaView.windows);
    if (scatter !== null) spoilHeads(batch);
    to.begin();
    const results = placeLists(to, batch, lists);
    to.end();
    return results;
  }

  setArmed(armed: boolean): void {
    if (armed) this.from.armWake();
    else this.from.disarmWake();
  }

  counts(): DeviceCounts {
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

  bases(): number[] {
    const baseOf = ({ state: { words } }: Ring): number =>
      BASE_OF_WORDS[this.#plan.layout](words[STATE_AVAIL_NEXT], words[STATE_USED_NEXT]);
    return [baseOf(this.to), baseOf(this.from)];
  }

  close(): void {
    this.guestMemory.clear();
    drainFd(this.callFd);
    closeFd(this.callFd);
  }

  #placesOf({ layout }: DriverRing): RingPlaces {
    const plan = this.#plan;
    const { memory } = this.#driver;
    const addresses = {
      descUva: memory.uvaOf(layout.descOffset),
      availUva: memory.uvaOf(layout.driverOffset),
      usedUva: memory.uvaOf(layout.deviceOffset),
    };
    const places = placeRing(plan.layout, plan.size, addresses, this.guestMemory);
    if (typeof places === 'string') throw new Error(places);
    assert(!('misses' in places), 'the memory is there');
    return places;
  }

  #logOf(ring: DriverRing): RingLog | null {
    if (this.#log === null) return null;
    const { offset, sizeBytes } = this.#log;
    const { layout, size } = this.#plan;
    const logGpa = BigInt(ring.memory.gpaOf(ring.layout.deviceOffset));
    const map = this.guestMemory.gpaMap();
    const isTranslated = this.#plan.iommu === true;
    const places = this.#placesOf(ring);
    const ownPages = ringLogOf(layout, size, { flags: 1, logGpa }, places, map, isTranslated);
    return { offset, sizeBytes, ownPages, signalFd: -1, ...(isTranslated && { regions: map }) };
  }
}

/** Places each list by a call of its own; the ring is open. */
export function placeLists(to: ToGuest, batch: Batch, lists: PlaceLists): GiveResult[] {
  return lists.flatMap((list) => {
    batch.refusedCount = 0;
    // The order of the batch itself has a way of its own in the hot loops.
    const isAll = list.every((frame, i) => frame === i);
    to.place(batch, isAll ? AS_THEY_CAME : Int32Array.from(list), list.length);
    let refusedSeen = 0;
    const results = list.map((frame): GiveResult => {
      const isRefused = refusedSeen < batch.refusedCount && batch.refused[refusedSeen] === frame;
      return isRefused ? REFUSED_NAMES[batch.refusedWhy[refusedSeen++]] : 'done';
    });
    assert.equal(refusedSeen, batch.refusedCount, 'frames are refused in order');
    return results;
  });
}

const GIB = 2 ** 30;
const MIB = 2 ** 20;

function mapRegions(guestMemory: GuestMemory, memory: EmbeddedMemory, mapping: Mapping): void {
  const regions = memory.regions;
  if (mapping === 'lastFirst') regions.reverse();
  const last = regions.pop();
  for (const region of regions) guestMemory.add(region, memory.fd);
  const ends = guestMemory.regions.map((region) => region.arenaOffset + region.sizeBytes);
  const fillerOffset = mapping === 'overWindows' ? fillFirstWindow(Math.max(0, ...ends)) : null;
  if (last !== undefined) guestMemory.add(last, memory.fd);
  if (fillerOffset !== null) sharedArena.unmap(fillerOffset);
}

/** Takes what is free in the arena's first window from an offset on, but for two MiB at its end. */
function fillFirstWindow(fromOffset: number): number {
  const startOffset = Math.ceil(fromOffset / (2 * MIB)) * 2 * MIB;
  const sizeBytes = GIB - 2 * MIB - startOffset;
  const fd = createMemoryFile('ringway-filler', sizeBytes);
  try {
    return sharedArena.map({ fd, fileOffset: 0, sizeBytes, pageBytes: 4096, preferredOffset: startOffset });
  } finally {
    closeFd(fd);
  }
}

/** The twin does what Ringway did: as many frames, and the same lists. */
export class NaiveEnd implements DeviceEnd {
  readonly #from: NaiveRing;
  readonly #to: NaiveRing;

  constructor(driver: DriverEnd, plan: RingPlan) {
    this.#to = naiveRing(driver.toGuest.ring, plan, { choosesAsRingway: true });
    this.#from = naiveRing(driver.fromGuest.ring, plan, { choosesAsRingway: true });
  }

  waiting(): number {
    return this.#from.waiting();
  }

  loop(taken: number, lists: PlaceLists): Offered[] {
    const frames = Array.from({ length: taken }, () => this.#from.take());
    const offered = lists.flat().map((at) => ({ frame: frames[at], given: this.#to.give(frames[at]) }));
    this.#to.publish();
    this.#from.publish();
    return offered;
  }

  give(frames: readonly Uint8Array[], lists = asTheyCame(frames.length)): GiveResult[] {
    const results = lists.flat().map((at) => this.#to.give(frames[at]));
    this.#to.publish();
    return results;
  }

  setArmed(armed: boolean): void {
    if (armed) this.#from.arm();
    else this.#from.disarm();
  }

  counts(): DeviceCounts {
    return {
      fromFrames: this.#from.frames,
      fromBytes: this.#from.bytes,
      fromCalls: this.#from.signals,
      toFrames: this.#to.frames,
      toBytes: this.#to.bytes,
      toCalls: this.#to.signals,
    };
  }

  bases(): number[] {
    return [this.#to.base(), this.#from.base()];
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
  changes: Pick<NaiveRingOptions, 'reorder' | 'choosesAsRingway'> = {},
): NaiveRing {
  const { memory, layout } = ring;
  const gpa = (offset: number): bigint => BigInt(memory.gpaOf(offset));
  const regions = memory.regions.map((region) => ({
    ...region,
    ...(plan.iommu === true && { gpa: BigInt(IOVA_BASE) + region.mmapOffset }),
  }));
  return TWINS[plan.layout]({
    ...plan,
    ...changes,
    file: memory.u8,
    regions,
    descGpa: gpa(layout.descOffset),
    driverGpa: gpa(layout.driverOffset),
    deviceGpa: gpa(layout.deviceOffset),
  });
}
