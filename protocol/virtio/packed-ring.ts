/**
 * Layout of the packed virtqueue (VIRTIO 1.3, section 2.8): sizes, flags and the words that say a position in
 * the ring together with its wrap counter. Everything is little endian.
 */

/**
 * struct pvirtq_desc { le64 addr; le32 len; le16 id; le16 flags; }: size and first three flags are the split
 * ring's.
 */
export { DESC_ALIGN, DESC_BYTES, DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE } from './split-ring.ts';

/** Differs from DESC_F_USED: available. Equal to it and to the wrap counter: used. */
export const DESC_F_AVAIL = 1 << 7;
export const DESC_F_USED = 1 << 15;

/** struct pvirtq_event_suppress { le16 off_wrap; le16 flags; }, one for the driver and one for the device. */
export const EVENT_SUPPRESS_BYTES = 4;
export const EVENT_SUPPRESS_ALIGN = 4;

/** Values of the two lower bits of `flags`; the others are reserved. */
export const EVENT_FLAGS_MASK = 3;
export const EVENT_ENABLE = 0;
export const EVENT_DISABLE = 1;
/** At the descriptor that `off_wrap` names; only with EVENT_IDX. */
export const EVENT_DESC = 2;

/** A position in 15 bits with its wrap counter above: in `off_wrap`, and in each half of a ring's base. */
export const POSITION_MASK = 0x7fff;
export const WRAP_COUNTER = 1 << 15;
/** Where a new ring starts: position 0, wrap counter 1. */
export const FIRST_POSITION = WRAP_COUNTER;

export const PACKED_RING_SIZE_MIN = 1;
export const PACKED_RING_SIZE_MAX = 32_768;

/** Whether `size` may be the number of descriptors of a packed ring: 1 to 32,768, any of them. */
export function isPackedRingSize(size: number): boolean {
  return Number.isInteger(size) && size >= PACKED_RING_SIZE_MIN && size <= PACKED_RING_SIZE_MAX;
}

/**
 * The base of a packed ring as SET_VRING_BASE and GET_VRING_BASE carry it: the next descriptor to take in bits
 * 0 to 15, the next to mark used in bits 16 to 31, each with its wrap counter. A uint32.
 */
export function packedBase(availNext: number, usedNext: number): number {
  return (availNext | (usedNext << 16)) >>> 0;
}
