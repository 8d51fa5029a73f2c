/**
 * The one place where it is decided whether a ring runs, and from where it goes on: from what the front-end said
 * (size, addresses, base, kick, enable), what was negotiated (the layout) and what lies in the shared memory.
 * Pure: device.ts asks, and attaches or detaches accordingly. Front-ends send all of this in any order, also
 * before SET_FEATURES; so nothing that hangs on the layout is judged when it comes, but here.
 * vhost-user.rst, "Ring states", and the base's form under SET_VRING_BASE. Main thread.
 */
import assert from 'node:assert/strict';
import { hasBit } from '../../protocol/bits.ts';
import { VIRTIO_FEATURE } from '../../protocol/virtio/features.ts';
import {
  DESC_BYTES,
  DESC_F_AVAIL,
  DESC_F_USED,
  FIRST_POSITION,
  isPackedRingSize,
  PACKED_RING_SIZE_MAX,
  POSITION_MASK,
  WRAP_COUNTER,
} from '../../protocol/virtio/packed-ring.ts';
import { isSplitRingSize, RING_SIZE_MAX } from '../../protocol/virtio/split-ring.ts';
import type { AddressMiss } from '../memory/iotlb.ts';
import type { RingLayoutKind } from '../vring/attachment.ts';
import { type DescriptorsAt, type Interrupted, type Recovery, recover } from '../vring/packed/recovery.ts';
import type { InflightReport } from './inflight.ts';
import type { Ring } from './ring.ts';
import { hasMisses, placeRing, type RingMemory, type RingPlaces } from './ring-places.ts';

/** What the front-end said about the ring. */
export type RingFacts = Pick<
  Ring,
  'size' | 'addresses' | 'addressesAreOld' | 'base' | 'ranAs' | 'goesOn' | 'indices' | 'started' | 'enabled'
>;

/**
 * Where a ring stood when its connection ended without an orderly stop, or its process. A port keeps it for the next
 * connection, and records of rings (ring-records.ts) for the next process.
 */
export type LastRun = {
  readonly layout: RingLayoutKind;
  readonly size: number;
  /** Which byte of which file its descriptors began at. */
  readonly place: string | null;
  /** As the front-end sent it, or null. */
  readonly base: number | null;
  /** Null: its user came to a sudden end, and the record tells. */
  readonly indices: RingIndices | null;
  readonly interrupted: Interrupted | null;
};

export type RingSurroundings = {
  readonly layout: RingLayoutKind;
  /** The driver uses this ring: it is the control queue, or belongs to one of the pairs that the driver chose. */
  readonly isActive: boolean;
  readonly memory: RingMemory;
  /** Of the same ring on the connection before, if there was one; `place` is that of the ring now. */
  readonly lastRun: LastRun | null;
  readonly place: string | null;
  /** What the front-end's in-flight region tells of the ring; left out, or null: nothing. */
  readonly inflight?: (places: RingPlaces) => InflightReport | null;
  /** The little-endian word at an offset in the arena. */
  readonly word16At: (offset: number) => number;
};

/** STATE_AVAIL_NEXT and STATE_USED_NEXT of QueueState. */
export type RingIndices = { readonly availNext: number; readonly usedNext: number };

export type RingStart =
  /** `reason` is null where nobody expects the ring to run, or it waits for what `misses` of translations. */
  | { readonly runs: false; readonly reason: string | null; readonly misses?: readonly AddressMiss[] }
  /** `indices` is null where the ring goes on as its QueueState says; `remark`: for the log, null: nothing to say. */
  | {
      readonly runs: true;
      readonly places: RingPlaces;
      readonly indices: RingIndices | null;
      readonly remark: string | null;
      /** What is to be done in the ring before it is used; null: nothing. */
      readonly recovery: Recovery | null;
    };

/** Entries that a ring may have in some layout; which one it has is known only when it starts. */
export const RING_ENTRIES_MAX = Math.max(RING_SIZE_MAX, PACKED_RING_SIZE_MAX);

/** A packed ring's base is twice 16 bits: bits 0 to 14 are a position, bit 15 the wrap counter; avail, then used. */
const HALF_MASK = 0xffff;

/** What each layout makes of sizes and bases. */
type Layout = {
  /** Where rings begin that no base was set for. */
  readonly baseInitial: number;
  /** Null, or why a ring of so many entries cannot run. */
  sizeFault(size: number): string | null;
  baseFault(base: number, size: number): string | null;
  /** `usedIdx` reads the index of the used ring, which only split rings have, and which is believed before the base. */
  indicesAt(base: number, usedIdx: () => number): RingIndices;
  baseAt(indices: RingIndices): number;
  /** Null, or what in the descriptors says that the ring cannot stand there. */
  disbelief(indices: RingIndices, size: number, flagsAt: FlagsAt): string | null;
  /** Nothing was used of the ring since its driver made it. */
  looksNew(size: number, flagsAt: FlagsAt): boolean;
};

/** The flags of the descriptor at a position. */
type FlagsAt = (position: number) => number;

const LAYOUTS: { readonly [Kind in RingLayoutKind]: Layout } = {
  split: {
    baseInitial: 0,
    sizeFault: (size) =>
      isSplitRingSize(size) ? null : `ring size ${size} is no power of two from 2 to 32,768`,
    baseFault: (base) => (base > HALF_MASK ? `base ${base} of a split ring is above 65,535` : null),
    // What was used stands in memory, and it was used in order: so what comes after it was not. A base that says
    // otherwise is a front-end's guess after its back-end's sudden end: 0 (virtio-user), or all that the driver made
    // available (cloud-hypervisor). In a new ring both are 0, after an orderly stop both are what was answered.
    indicesAt: (_base, usedIdx) => {
      const used = usedIdx();
      return { availNext: used, usedNext: used };
    },
    baseAt: ({ availNext }) => availNext,
    disbelief: () => null,
    // What was used stands in memory.
    looksNew: () => true,
  },
  packed: {
    baseInitial: (FIRST_POSITION | (FIRST_POSITION << 16)) >>> 0,
    sizeFault: (size) => (isPackedRingSize(size) ? null : `ring size ${size} is not from 1 to 32,768`),
    baseFault: (base, size) => {
      const { availNext, usedNext } = packedIndices(base);
      const position = Math.max(availNext & POSITION_MASK, usedNext & POSITION_MASK);
      return position < size ? null : `its base names position ${position} of a packed ring of ${size}`;
    },
    indicesAt: packedIndices,
    baseAt: ({ availNext, usedNext }) => (availNext | (usedNext << 16)) >>> 0,
    disbelief: packedDisbelief,
    looksNew: packedLooksNew,
  },
};

/** Of a packed descriptor. */
const FLAGS_OFFSET = 14;
const ID_OFFSET = 12;
const LENGTH_OFFSET = 8;

/** Of a split ring: flags, then idx. */
const USED_IDX_OFFSET = 2;

export function layoutOf(features: bigint): RingLayoutKind {
  return hasBit(features, VIRTIO_FEATURE.RING_PACKED) ? 'packed' : 'split';
}

/**
 * Whether a ring is expected to run, as far as front-end and driver want it to. One that is disabled, or not among
 * those that the driver uses (`isActive`), is left alone: its driver may have freed it.
 */
export function shouldRun(ring: Pick<RingFacts, 'started' | 'enabled'>, isActive: boolean): boolean {
  return ring.started && ring.enabled && isActive;
}

/** Whether the front-end has said all that makes a ring; until then nothing is wrong with it. */
export function isDescribed({ size, addresses, addressesAreOld }: RingFacts): boolean {
  return size > 0 && addresses !== null && !addressesAreOld;
}

/** Whether the ring runs, where it lies and from where it goes on; or what is missing. */
export function decideStart(ring: RingFacts, surroundings: RingSurroundings): RingStart {
  if (!shouldRun(ring, surroundings.isActive)) return { runs: false, reason: null };
  if (ring.size === 0 || ring.addresses === null) {
    return { runs: false, reason: 'started before its size and addresses were set' };
  }
  if (ring.addressesAreOld) {
    return { runs: false, reason: 'its base was set anew, but not its addresses' };
  }
  const { layout, memory, word16At } = surroundings;
  // Also of a ring that goes on: its size may be another one than when it came to where it stands.
  const base = baseToAnswer(ring, layout);
  const fault = LAYOUTS[layout].sizeFault(ring.size) ?? LAYOUTS[layout].baseFault(base, ring.size);
  if (fault !== null) return { runs: false, reason: fault };
  const places = placeRing(layout, ring.size, ring.addresses, memory);
  if (typeof places === 'string') return { runs: false, reason: places };
  if (hasMisses(places)) return { runs: false, reason: null, misses: places.misses };
  if (hasIndices(ring, layout)) return { runs: true, places, indices: null, remark: null, recovery: null };
  const usedIdx = (): number => word16At(places.deviceOffset + USED_IDX_OFFSET);
  const descriptors = descriptorsAt(places, word16At);
  const flagsAt = descriptors.flags;
  // User-Mode Linux names 0 whatever the layout. Of a packed ring that would be the beginning of its second round.
  const isNamedZero = layout === 'packed' && base === 0 && packedLooksNew(ring.size, flagsAt);
  const begin = isNamedZero ? LAYOUTS.packed.baseInitial : base;
  const inflight = surroundings.inflight?.(places) ?? NO_REPORT;
  if (inflight.fault !== null) return { runs: false, reason: inflight.fault };
  const stood =
    whereItStood(ring, base, surroundings, descriptors) ??
    whereRegionSays(inflight.position, ring, base, layout, flagsAt);
  if (stood !== null) return { runs: true, places, ...stood, remark: remarkOn(begin, stood.indices) };
  const indices = LAYOUTS[layout].indicesAt(begin, usedIdx);
  const disbelief = LAYOUTS[layout].disbelief(indices, ring.size, flagsAt);
  if (disbelief !== null) return { runs: false, reason: disbelief };
  return { runs: true, places, indices, remark: remarkOn(begin, indices), recovery: null };
}

/**
 * Where a ring stands whose process came to a sudden end while its front-end stayed connected; or why nobody knows, which is
 * the end of that connection. No base is believed: none was said since.
 */
export function whereItWasLeft(
  ring: RingFacts,
  { layout, memory, lastRun, place, word16At }: RingSurroundings,
): (Stood & { readonly places: RingPlaces }) | string {
  if (ring.addresses === null || !isDescribed(ring)) return 'its size and addresses are not known';
  const places = placeRing(layout, ring.size, ring.addresses, memory);
  if (typeof places === 'string') return places;
  if (hasMisses(places)) return 'its addresses are not translated any more';
  const { indicesAt, disbelief } = LAYOUTS[layout];
  if (layout === 'split') {
    const indices = indicesAt(0, () => word16At(places.deviceOffset + USED_IDX_OFFSET));
    return { places, indices, recovery: null };
  }
  const isOfIt =
    lastRun?.layout === layout &&
    lastRun.size === ring.size &&
    lastRun.base === ring.base &&
    lastRun.place !== null &&
    lastRun.place === place;
  if (!isOfIt || lastRun.interrupted === null) return 'nobody noted where it stands';
  const descriptors = descriptorsAt(places, word16At);
  const recovery = recover(lastRun.interrupted, descriptors);
  if (recovery === null) return 'it cannot stand where it was noted';
  const indices = indicesOf(recovery.position);
  return disbelief(indices, ring.size, descriptors.flags) ?? { places, indices, recovery };
}

const NO_REPORT: InflightReport = { fault: null, position: null };

type Stood = { readonly indices: RingIndices; readonly recovery: Recovery | null };

function descriptorsAt({ descOffset }: RingPlaces, word16At: RingSurroundings['word16At']): DescriptorsAt {
  return {
    flags: (at) => word16At(descOffset + at * DESC_BYTES + FLAGS_OFFSET),
    id: (at) => word16At(descOffset + at * DESC_BYTES + ID_OFFSET),
    bytes: (at) => {
      const offset = descOffset + at * DESC_BYTES + LENGTH_OFFSET;
      return word16At(offset) | (word16At(offset + 2) << 16);
    },
  };
}

/**
 * Nothing in memory tells where a packed ring stands. If its connection was lost, we know, and if this process is not the
 * one that used it, its record does. QEMU then sends the base once more with which it began, whereas the driver goes on,
 * unless it was reset meanwhile. A front-end that names where its driver sees the ring stand is right too; but what was
 * marked beyond that, and is not visible yet, only the record knows.
 */
function whereItStood(
  ring: RingFacts,
  base: number,
  { layout, lastRun, place }: RingSurroundings,
  descriptors: DescriptorsAt,
): Stood | null {
  const { flags: flagsAt } = descriptors;
  if (lastRun === null || lastRun.layout !== layout || lastRun.size !== ring.size) return null;
  if (lastRun.place === null || lastRun.place !== place) return null;
  const { baseInitial, looksNew, disbelief } = LAYOUTS[layout];
  if (looksNew(ring.size, flagsAt)) return null;
  const recovery = lastRun.interrupted === null ? null : recover(lastRun.interrupted, descriptors);
  const indices = recovery === null ? lastRun.indices : indicesOf(recovery.position);
  if (indices === null || disbelief(indices, ring.size, flagsAt) !== null) return null;
  const { availNext, usedNext } = packedIndices(base);
  const isSeen = recovery !== null && availNext === recovery.seen && usedNext === recovery.seen;
  // 0 is what some name whatever the layout.
  const isGuess = base === baseInitial || base === lastRun.base || base === 0;
  return isGuess || isSeen ? { indices, recovery } : null;
}

/** As `whereItStood`, of a ring whose front-end kept its in-flight region. */
function whereRegionSays(
  position: number | null,
  { size }: RingFacts,
  base: number,
  layout: RingLayoutKind,
  flagsAt: FlagsAt,
): Stood | null {
  const { baseInitial, looksNew, disbelief } = LAYOUTS[layout];
  if (position === null || (base !== baseInitial && base !== 0) || looksNew(size, flagsAt)) return null;
  const indices = indicesOf(position);
  return disbelief(indices, size, flagsAt) === null ? { indices, recovery: null } : null;
}

/** Nothing is in hand between two bursts. */
const indicesOf = (position: number): RingIndices => ({ availNext: position, usedNext: position });

function remarkOn(base: number, { availNext }: RingIndices): string | null {
  const named = base & HALF_MASK;
  if (named === availNext) return null;
  return `its base named ${named}, but it was used up to ${availNext}: it goes on from there`;
}

/** What GET_VRING_BASE answers: where the ring stands, or would begin; also of a ring never heard of. */
export function baseToAnswer(ring: RingFacts, layout: RingLayoutKind): number {
  return hasIndices(ring, layout) ? LAYOUTS[layout].baseAt(ring.indices) : baseOf(ring, layout);
}

/** Whether nothing was used of the ring yet. */
export function isAtBeginning(indices: RingIndices, layout: RingLayoutKind): boolean {
  return LAYOUTS[layout].baseAt(indices) === LAYOUTS[layout].baseInitial;
}

/** Whether the indices in QueueState are those of this run, and of this layout. */
function hasIndices(ring: RingFacts, layout: RingLayoutKind): boolean {
  assert(!ring.goesOn || ring.ranAs !== null, 'only a ring that ran can go on');
  return ring.goesOn && ring.ranAs === layout;
}

/** The base that was set or answered last, unless it was reached in the other layout; else where rings begin. */
function baseOf(ring: RingFacts, layout: RingLayoutKind): number {
  const isOfOtherLayout = ring.ranAs !== null && ring.ranAs !== layout;
  if (ring.base !== null && !isOfOtherLayout) return ring.base;
  return LAYOUTS[layout].baseInitial;
}

/** DPDK's virtio-user leaves the used half zero. We use in order and rest with nothing in flight: it is the same. */
function packedIndices(base: number): RingIndices {
  const availNext = base & HALF_MASK;
  const usedHalf = base >>> 16;
  return { availNext, usedNext: usedHalf === 0 ? availNext : usedHalf };
}

/**
 * After a back-end's sudden end QEMU names the first position again, whereas the driver goes on where it was, and the
 * two would wait for each other for ever. Where the ring stands cannot be told from memory, but that it cannot stand
 * where the base says often can: in a round with wrap counter 1 no descriptor that is still to come has both
 * flags set, for that is how this round marks what was used. (With wrap counter 0 it is both clear, as in new memory.)
 */
function packedDisbelief({ availNext }: RingIndices, size: number, flagsAt: FlagsAt): string | null {
  if ((availNext & WRAP_COUNTER) === 0) return null;
  const first = availNext & POSITION_MASK;
  const used = DESC_F_AVAIL | DESC_F_USED;
  for (let position = first; position < size; position++) {
    if ((flagsAt(position) & used) !== used) continue;
    return `its base names position ${first}, but it was used beyond that; its driver must start it anew (reboot the guest)`;
  }
  return null;
}

/** In the first round no descriptor has the flag USED; later at least one has, from this round or the one before. */
function packedLooksNew(size: number, flagsAt: FlagsAt): boolean {
  for (let position = 0; position < size; position++) {
    if ((flagsAt(position) & DESC_F_USED) !== 0) return false;
  }
  return true;
}
