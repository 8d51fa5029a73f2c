/**
 * Layout of the split virtqueue (VIRTIO 1.3, section 2.7): sizes, flags and where each part's fields lie.
 * Offsets inside a part are in bytes from its start; everything is little endian.
 */

/** struct virtq_desc { le64 addr; le32 len; le16 flags; le16 next; } */
export const DESC_BYTES = 16;
export const DESC_ALIGN = 16;
export const AVAIL_ALIGN = 2;
export const USED_ALIGN = 4;

export const DESC_F_NEXT = 1;
export const DESC_F_WRITE = 2;
export const DESC_F_INDIRECT = 4;

/** avail.flags: the driver does not want to be interrupted. */
export const AVAIL_F_NO_INTERRUPT = 1;
/** used.flags: the device does not want to be kicked. */
export const USED_F_NO_NOTIFY = 1;

/** Index of `idx` in the avail and used rings seen as 16-bit words; their entries follow. */
export const RING_IDX = 1;
export const AVAIL_ENTRIES = 2;
/** First entry of the used ring seen as 32-bit words; two words each: id and length. */
export const USED_ENTRIES = 1;

export const RING_SIZE_MIN = 2;
export const RING_SIZE_MAX = 32_768;

/** Bytes of the descriptor table for `size` descriptors. */
export const descTableBytes = (size: number): number => size * DESC_BYTES;
/** Bytes of the available ring: flags, idx, ring[size], used_event. */
export const availRingBytes = (size: number): number => 6 + 2 * size;
/** Bytes of the used ring: flags, idx, ring[size] of {id, len}, avail_event. */
export const usedRingBytes = (size: number): number => 6 + 8 * size;

/** Whether `size` may be the number of entries of a split ring: a power of two, 2 to 32,768. */
export function isSplitRingSize(size: number): boolean {
  return size >= RING_SIZE_MIN && size <= RING_SIZE_MAX && (size & (size - 1)) === 0;
}
