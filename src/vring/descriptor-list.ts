/**
 * The buffers of a descriptor chain as they were read: each field once, so that later steps use what was checked
 * and not what the guest made of it meanwhile. The layouts' walks fill it.
 */

/**
 * Most descriptors of a chain, those of its indirect table with it. What a frame costs hangs on it, so a longer one stops
 * its ring: VIRTIO 1.3, section 2.7.5.3.1, has chains bounded by the length of the ring. Linux makes some twenty at most,
 * FreeBSD some 65; the longest frame in buffers of 1,536 bytes takes 43.
 */
export const CHAIN_DESCRIPTORS_MAX = 96;

export class DescriptorList {
  count = 0;
  declare readonly gpaLo: Int32Array;
  declare readonly gpaHi: Int32Array;
  /** uint32 carried as int32. */
  declare readonly sizeBytes: Int32Array;
  /** DESC_F_WRITE or 0. */
  declare readonly writable: Int32Array;

  constructor() {
    this.gpaLo = new Int32Array(CHAIN_DESCRIPTORS_MAX);
    this.gpaHi = new Int32Array(CHAIN_DESCRIPTORS_MAX);
    this.sizeBytes = new Int32Array(CHAIN_DESCRIPTORS_MAX);
    this.writable = new Int32Array(CHAIN_DESCRIPTORS_MAX);
  }

  clear(): void {
    this.count = 0;
  }

  /** False when the chain has too many. */
  add(gpaLo: number, gpaHi: number, sizeBytes: number, writable: number): boolean {
    const at = this.count;
    if (at === CHAIN_DESCRIPTORS_MAX) return false;
    this.gpaLo[at] = gpaLo;
    this.gpaHi[at] = gpaHi;
    this.sizeBytes[at] = sizeBytes;
    this.writable[at] = writable;
    this.count = at + 1;
    return true;
  }
}
