/**
 * The buffers of a descriptor chain as they were read: each field once, so that later steps use what was checked
 * and not what the guest made of it meanwhile. The layouts' walks fill it.
 */

/** Most descriptors of a chain that are kept; a longer chain is legal but no frame needs it. */
export const CHAIN_DESCRIPTORS_MAX = 1024;

export class DescriptorList {
  count = 0;
  /** Descriptors that were looked at and not kept, because there was no room. */
  skipped = 0;
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
    this.skipped = 0;
  }

  /** The chain has more descriptors than are kept. */
  get overflowed(): boolean {
    return this.skipped !== 0;
  }

  /** False when there is no room: the walk may end. */
  add(gpaLo: number, gpaHi: number, sizeBytes: number, writable: number): boolean {
    const at = this.count;
    if (at === CHAIN_DESCRIPTORS_MAX) {
      this.skipped++;
      return false;
    }
    this.gpaLo[at] = gpaLo;
    this.gpaHi[at] = gpaHi;
    this.sizeBytes[at] = sizeBytes;
    this.writable[at] = writable;
    this.count = at + 1;
    return true;
  }
}
