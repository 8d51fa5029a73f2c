/**
 * Layout of the packed virtqueue (VIRTIO 1.3, section 2.8): sizes, flags and where fields lie. Everything is
 * little endian. Descriptor flags NEXT, WRITE and INDIRECT are those of the split ring.
 */

/** struct pvirtq_desc { le64 addr; le32 len; le16 id; le16 flags; } */
export const PACKED_DESC_BYTES = 16;
export const PACKED_DESC_ALIGN = 16;

/** Available or used, as compared with the wrap counters (section 2.8.1). */
export const PACKED_F_AVAIL = 1 << 7;
export const PACKED_F_USED = 1 << 15;

/** struct pvirtq_event_suppress { le16 desc; le16 flags; }: the driver area and the device area. */
export const EVENT_SUPPRESS_BYTES = 4;
export const EVENT_SUPPRESS_ALIGN = 4;
/** 16-bit words of it: descriptor offset with the wrap counter in bit 15, and the flags. */
export const EVENT_SUPPRESS_DESC = 0;
export const EVENT_SUPPRESS_FLAGS = 1;
export const EVENT_FLAGS_ENABLE = 0;
export const EVENT_FLAGS_DISABLE = 1;
/** Only with EVENT_IDX: when the descriptor at the offset is made available or used. */
export const EVENT_FLAGS_DESC = 2;

export const PACKED_SIZE_MIN = 1;
export const PACKED_SIZE_MAX = 32_768;

/** A position in the ring and its wrap counter in 16 bits: bits 0 to 14 and bit 15. */
export const PACKED_WRAP_BIT = 0x8000;
/** Where a ring starts that was not used yet: position 0, wrap counter 1. */
export const PACKED_START = PACKED_WRAP_BIT;

export const packedDescBytes = (size: number): number => size * PACKED_DESC_BYTES;

/** Whether `size` may be the number of descriptors of a packed ring; it need be no power of two (section 2.8.10). */
export function isPackedRingSize(size: number): boolean {
  return size >= PACKED_SIZE_MIN && size <= PACKED_SIZE_MAX;
}
