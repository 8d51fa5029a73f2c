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
import { isSplitRingSize, RING_SIZE_MAX } from '../../protocol/virtio/split-ring.ts';
import type { GuestMemory } from '../memory/guest-memory.ts';
import type { RingLayoutKind } from '../vring/attachment.ts';
import type { Ring } from './ring.ts';
import { placeRing, type RingPlaces } from './ring-places.ts';

/** What the front-end said about the ring. */
export type RingFacts = Pick<
  Ring,
  'size' | 'addresses' | 'addressesAreOld' | 'base' | 'ranAs' | 'goesOn' | 'started' | 'enabled'
>;

export type RingSurroundings = {
  readonly layout: RingLayoutKind;
  /** The driver uses this ring: it is the control queue, or belongs to one of the pairs that the driver chose. */
  readonly isActive: boolean;
  readonly memory: Pick<GuestMemory, 'sizeBytes' | 'offsetOfUva'>;
  /** The little-endian word at an offset in the arena. */
  readonly word16At: (offset: number) => number;
};

/** STATE_AVAIL_NEXT and STATE_USED_NEXT of QueueState. */
export type RingIndices = { readonly availNext: number; readonly usedNext: number };

export type RingStart =
  /** `reason` is null where nobody expects the ring to run. */
  | { readonly runs: false; readonly reason: string | null }
  /** `indices` is null where the ring goes on as its QueueState says. */
  | { readonly runs: true; readonly places: RingPlaces; readonly indices: RingIndices | null };

/** Entries that a ring may have in any layout (VIRTIO 1.3, section 2.8.10); a split ring's are a power of two too. */
export const RING_ENTRIES_MAX = RING_SIZE_MAX;

/** Packed: bits 0 to 14 are a position in the ring, bit 15 is the wrap counter; twice: avail, then used. */
const POSITION_MASK = 0x7fff;
const HALF_MASK = 0xffff;
/** Position 0, wrap counter 1, for avail and used: where a packed ring begins (section 2.8.1). */
const PACKED_BASE_INITIAL = 0x8000_8000;
/** Of a split ring: flags, then idx. */
const USED_IDX_OFFSET = 2;

export function layoutOf(features: bigint): RingLayoutKind {
  return hasBit(features, VIRTIO_FEATURE.RING_PACKED) ? 'packed' : 'split';
}

export function decideStart(ring: RingFacts, surroundings: RingSurroundings): RingStart {
  // A ring that is disabled, or not among the driver's, is left alone: its driver may have freed it.
  if (!ring.started || !ring.enabled || !surroundings.isActive) return { runs: false, reason: null };
  if (ring.size === 0 || ring.addresses === null) {
    return { runs: false, reason: 'started before its size and addresses were set' };
  }
  if (ring.addressesAreOld) {
    return { runs: false, reason: 'its base was set anew, but not its addresses' };
  }
  const { layout, memory, word16At } = surroundings;
  const fault = sizeFault(layout, ring.size) ?? baseFault(layout, baseOf(ring, layout), ring.size);
  if (fault !== null) return { runs: false, reason: fault };
  const places = placeRing(layout, ring.size, ring.addresses, memory);
  if (typeof places === 'string') return { runs: false, reason: places };
  if (hasIndices(ring, layout)) return { runs: true, places, indices: null };
  const usedIdx = (): number => word16At(places.deviceOffset + USED_IDX_OFFSET);
  return { runs: true, places, indices: INDICES[layout](baseOf(ring, layout), usedIdx) };
}

/** What GET_VRING_BASE answers. `indices` are those in the ring's QueueState; also for a ring never heard of. */
export function baseToAnswer(ring: RingFacts, layout: RingLayoutKind, indices: RingIndices): number {
  return hasIndices(ring, layout) ? BASES[layout](indices) : baseOf(ring, layout);
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
  return layout === 'packed' ? PACKED_BASE_INITIAL : 0;
}

function sizeFault(layout: RingLayoutKind, size: number): string | null {
  if (layout === 'packed' || isSplitRingSize(size)) return null;
  return `ring size ${size} is no power of two from 2 to 32,768`;
}

function baseFault(layout: RingLayoutKind, base: number, size: number): string | null {
  if (layout === 'split') {
    return base > HALF_MASK ? `base ${base} of a split ring is above 65,535` : null;
  }
  const { availNext, usedNext } = packedIndices(base);
  const position = Math.max(availNext & POSITION_MASK, usedNext & POSITION_MASK);
  return position < size ? null : `its base names position ${position} of a packed ring of ${size}`;
}

/** From a base to indices; `usedIdx` reads the index of the used ring, which only split rings have. */
const INDICES: {
  readonly [Layout in RingLayoutKind]: (base: number, usedIdx: () => number) => RingIndices;
} = {
  // The base names the avail index alone; how much was used stands in memory.
  split: (base, usedIdx) => ({ availNext: base, usedNext: usedIdx() }),
  packed: packedIndices,
};

const BASES: { readonly [Layout in RingLayoutKind]: (indices: RingIndices) => number } = {
  split: ({ availNext }) => availNext,
  packed: ({ availNext, usedNext }) => (availNext | (usedNext << 16)) >>> 0,
};

/** DPDK's virtio-user leaves the used half zero. We use in order and rest with nothing in flight: it is the same. */
function packedIndices(base: number): RingIndices {
  const availNext = base & HALF_MASK;
  const usedHalf = base >>> 16;
  return { availNext, usedNext: usedHalf === 0 ? availNext : usedHalf };
}
