/**
 * The fourth word of a packed descriptor, id | flags << 16, and the two bits in it by which a descriptor says whose it
 * is (VIRTIO 1.3, section 2.8.1).
 */
import { DESC_F_AVAIL, DESC_F_USED } from '../../../protocol/virtio/packed-ring.ts';

export const OWNER_BITS = (DESC_F_AVAIL | DESC_F_USED) << 16;
const AVAIL_BIT = DESC_F_AVAIL << 16;
const USED_BIT = DESC_F_USED << 16;

/** The owner bits of an available descriptor in a round with this wrap counter, 0 or 1. */
export const availableBits = (wrap: number): number => (wrap === 1 ? AVAIL_BIT : USED_BIT);
/** The owner bits of a used descriptor. */
export const usedBits = (wrap: number): number => (wrap === 1 ? OWNER_BITS : 0);
