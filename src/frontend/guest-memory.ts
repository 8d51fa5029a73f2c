/**
 * The memory of an embedded guest: one memory file, mapped here and shown to the back-end as one region or
 * several at chosen guest-physical and front-end-virtual addresses. Hands out parts of it and never takes
 * them back. A place is an offset in the file, a small integer (at most 1 GiB), so that typed arrays are fast.
 * The thread that plays the guest.
 */
import type { MemRegion } from '../../protocol/vhost-user/codec.ts';
import { closeFd } from '../host/descriptor.ts';
import { createMemoryFile, mapFile, mapFileAt, mapZeroPagesAt, viewMemory } from '../host/mapping.ts';

export const GUEST_MEMORY_BYTES_MAX = 2 ** 30;
/** Above 4 GiB, so that both halves of each address matter. */
const GPA_DEFAULT = 0x1_0000_0000;
const PAGE_BYTES = 4096;

/** A part of the file, in the order of the file; all fields in bytes, multiples of the page size. */
export type RegionPlan = {
  readonly sizeBytes: number;
  readonly gpa: number;
  /** Front-end-virtual address for SET_VRING_ADDR; default: where this process maps it. */
  readonly uva?: number;
};

/** Answers the descriptor of a file of that many bytes, all zeros. */
export type MakeFile = (sizeBytes: number) => number;

const makeMemoryFile: MakeFile = (sizeBytes) => createMemoryFile('ringway-embedded-guest', sizeBytes);

type PlacedRegion = {
  readonly offset: number;
  readonly endOffset: number;
  readonly gpa: number;
  readonly uva: number;
};

/** What a driver needs of its memory: places are offsets in `buffer`. */
export interface DriverMemory {
  readonly buffer: ArrayBuffer;
  readonly u8: Uint8Array;
  readonly u16: Uint16Array;
  readonly regions: readonly MemRegion[];
  /** Offset of `sizeBytes` zeroed bytes that the device finds in one piece. @throws RangeError: it is used up */
  allocate(sizeBytes: number, alignBytes?: number): number;
  gpaOf(offset: number): number;
  uvaOf(offset: number): bigint;
}

export class EmbeddedMemory implements DriverMemory {
  /** The memory file; every region is a part of it. Closed by `close`. */
  readonly fd: number;
  readonly sizeBytes: number;
  readonly buffer: ArrayBuffer;
  readonly u8: Uint8Array;
  readonly u16: Uint16Array;
  readonly i32: Int32Array;
  readonly #address: number;
  readonly #regions: readonly PlacedRegion[];
  #nextOffset = 0;
  #isClosed = false;

  /**
   * `sizeBytes` as one region, or the regions of a plan. `makeFile` makes the file, which this object then owns.
   * @throws RangeError, HostError
   */
  constructor(plan: number | readonly RegionPlan[], makeFile: MakeFile = makeMemoryFile) {
    const regions =
      typeof plan === 'number' ? [{ sizeBytes: roundUp(plan, PAGE_BYTES), gpa: GPA_DEFAULT }] : plan;
    this.sizeBytes = regions.reduce((sum, region) => sum + region.sizeBytes, 0);
    if (this.sizeBytes === 0 || this.sizeBytes > GUEST_MEMORY_BYTES_MAX) {
      throw new RangeError(
        `guest memory of ${this.sizeBytes} bytes; 1 to ${GUEST_MEMORY_BYTES_MAX} are possible`,
      );
    }
    this.fd = makeFile(this.sizeBytes);
    this.#address = mapFile(this.sizeBytes, this.fd, 'mapping the embedded guest memory');
    this.buffer = viewMemory(this.#address, this.sizeBytes);
    this.u8 = new Uint8Array(this.buffer);
    this.u16 = new Uint16Array(this.buffer);
    this.i32 = new Int32Array(this.buffer);
    this.#regions = placedRegions(regions, this.#address);
  }

  /** The regions as messages describe them; `fd` goes with each. */
  get regions(): MemRegion[] {
    return this.#regions.map((region) => ({
      gpa: BigInt(region.gpa),
      sizeBytes: BigInt(region.endOffset - region.offset),
      uva: BigInt(region.uva),
      mmapOffset: BigInt(region.offset),
    }));
  }

  /** Offset of `sizeBytes` zeroed bytes that lie in one region. @throws RangeError when the memory is used up */
  allocate(sizeBytes: number, alignBytes = 64): number {
    for (let offset = roundUp(this.#nextOffset, alignBytes); offset + sizeBytes <= this.sizeBytes; ) {
      const region = this.#regionAt(offset);
      if (offset + sizeBytes <= region.endOffset) {
        this.#nextOffset = offset + sizeBytes;
        return offset;
      }
      offset = roundUp(region.endOffset, alignBytes);
    }
    throw new RangeError(`the embedded guest's ${this.sizeBytes} bytes of memory are used up`);
  }

  /**
   * A piece of this memory that is handed out anew as often as its owner likes, each time at multiples of `alignBytes`.
   * @throws RangeError
   */
  part(sizeBytes: number, alignBytes = 1): MemoryPart {
    return new MemoryPart(this, this.allocate(sizeBytes, PAGE_BYTES), sizeBytes, alignBytes);
  }

  gpaOf(offset: number): number {
    const region = this.#regionAt(offset);
    return region.gpa + (offset - region.offset);
  }

  uvaOf(offset: number): bigint {
    const region = this.#regionAt(offset);
    return BigInt(region.uva + (offset - region.offset));
  }

  /** Offset of a guest-physical address, or null when it is none of this guest's. */
  offsetOfGpa(gpa: number): number | null {
    const region = this.#regions.find((r) => gpa >= r.gpa && gpa < r.gpa + r.endOffset - r.offset);
    return region === undefined ? null : region.offset + (gpa - region.gpa);
  }

  /**
   * Puts another memory's file, of the same size, in this one's place, as for a guest that was migrated: whoever holds
   * offsets and typed arrays of this memory goes on in that one. The file that `fd` names stays as it is. @throws HostError
   */
  moveInto(other: EmbeddedMemory): void {
    if (other.sizeBytes !== this.sizeBytes) {
      throw new RangeError(`memory of ${this.sizeBytes} bytes cannot move into ${other.sizeBytes}`);
    }
    mapFileAt(this.#address, this.sizeBytes, other.fd, 0, 'mapping the memory that a guest moved to');
  }

  /** Gives the memory back. Typed arrays over it stay usable and read zeros; the addresses are not reused. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    mapZeroPagesAt(this.#address, this.sizeBytes);
    closeFd(this.fd);
  }

  #regionAt(offset: number): PlacedRegion {
    const region = this.#regions.find((r) => offset >= r.offset && offset < r.endOffset);
    if (region === undefined) throw new RangeError(`offset ${offset} is outside the guest's memory`);
    return region;
  }
}

/** Memory of one device's driver: all of it is free again at once, when that device was reset. */
export class MemoryPart implements DriverMemory {
  readonly buffer: ArrayBuffer;
  readonly u8: Uint8Array;
  readonly u16: Uint16Array;
  readonly startOffset: number;
  readonly endOffset: number;
  readonly #whole: EmbeddedMemory;
  readonly #alignBytes: number;
  #nextOffset: number;

  constructor(whole: EmbeddedMemory, startOffset: number, sizeBytes: number, alignBytes: number) {
    this.buffer = whole.buffer;
    this.u8 = whole.u8;
    this.u16 = whole.u16;
    this.startOffset = startOffset;
    this.endOffset = startOffset + sizeBytes;
    this.#whole = whole;
    this.#alignBytes = alignBytes;
    this.#nextOffset = startOffset;
  }

  allocate(sizeBytes: number, alignBytes = 64): number {
    const offset = roundUp(this.#nextOffset, Math.max(alignBytes, this.#alignBytes));
    if (offset + sizeBytes > this.endOffset) {
      throw new RangeError(`the driver's ${this.endOffset - this.startOffset} bytes of memory are used up`);
    }
    this.#nextOffset = offset + sizeBytes;
    return offset;
  }

  gpaOf(offset: number): number {
    return this.#whole.gpaOf(offset);
  }

  uvaOf(offset: number): bigint {
    return this.#whole.uvaOf(offset);
  }

  /** Those of the whole memory. */
  get regions(): readonly MemRegion[] {
    return this.#whole.regions;
  }

  /** Takes everything back and zeroes it. No device may use it any more. */
  clear(): void {
    this.u8.fill(0, this.startOffset, this.#nextOffset);
    this.#nextOffset = this.startOffset;
  }
}

function placedRegions(plan: readonly RegionPlan[], address: number): PlacedRegion[] {
  let offset = 0;
  return plan.map(({ sizeBytes, gpa, uva }) => {
    if (sizeBytes % PAGE_BYTES !== 0)
      throw new RangeError(`a region of ${sizeBytes} bytes is no whole pages`);
    const placed = { offset, endOffset: offset + sizeBytes, gpa, uva: uva ?? address + offset };
    offset += sizeBytes;
    return placed;
  });
}

export function roundUp(value: number, multiple: number): number {
  return Math.ceil(value / multiple) * multiple;
}
