/**
 * What the naive twins of both ring layouts have in common: how they are told about a ring, what they do, and
 * the guest's memory as they read it: by guest-physical address, a BigInt, through the list of regions.
 */
import type { MemRegion } from '../../protocol/vhost-user/codec.ts';

export type NaiveRingOptions = {
  /** The guest's memory file. */
  readonly file: Uint8Array;
  readonly regions: readonly MemRegion[];
  readonly size: number;
  readonly descGpa: bigint;
  readonly driverGpa: bigint;
  readonly deviceGpa: bigint;
  readonly eventIdx: boolean;
  readonly mergeable: boolean;
  readonly headerBytes: number;
  readonly inOrder: boolean;
  /** As SET_VRING_BASE carries it. */
  readonly base: number;
  /** The order in which buffers of one publication are marked used; default: as they were taken. */
  readonly reorder?: <T>(used: readonly T[]) => readonly T[];
  /**
   * Where the specification leaves the device a choice, what Ringway does, so that whole memories can be compared:
   * a split ring in order has an entry for each buffer (section 2.7.9 allows one for all), and a packed ring that is
   * not in order keeps the length of a buffer that was only read (section 2.8.5 gives it no meaning). Default: the
   * other choice.
   */
  readonly choosesAsRingway?: boolean;
};

export type NaiveGiveResult = 'done' | 'noBuffer' | 'tooSmall';

export interface NaiveRing {
  /** Frames taken or given, their bytes, and signals sent. */
  readonly frames: number;
  readonly bytes: number;
  readonly signals: number;
  /** Buffers that the driver offered and that were not taken. */
  waiting(): number;
  /** The next frame that the guest sends; call only when one waits. */
  take(): Uint8Array;
  give(frame: Uint8Array): NaiveGiveResult;
  /** Shows the driver what was used since the last time, and signals it if it asked for that. */
  publish(): void;
  /** Asks for a kick at the next buffer. */
  arm(): void;
  disarm(): void;
  /** Where the device stands, as GET_VRING_BASE answers it. */
  base(): number;
}

export type NaiveBuffer = { readonly gpa: bigint; readonly sizeBytes: number; readonly writable: boolean };

export function totalBytes(buffers: readonly NaiveBuffer[]): number {
  return buffers.reduce((sum, buffer) => sum + buffer.sizeBytes, 0);
}

export class NaiveMemory {
  readonly #file: Uint8Array;
  readonly #regions: readonly MemRegion[];

  constructor({ file, regions }: Pick<NaiveRingOptions, 'file' | 'regions'>) {
    this.#file = file;
    this.#regions = regions;
  }

  read(gpa: bigint, count: number): Uint8Array {
    const bytes = new Uint8Array(count);
    for (let done = 0; done < count; ) {
      const part = this.#at(gpa + BigInt(done), count - done);
      bytes.set(part, done);
      done += part.length;
    }
    return bytes;
  }

  write(gpa: bigint, bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length; ) {
      const part = this.#at(gpa + BigInt(done), bytes.length - done);
      part.set(bytes.subarray(done, done + part.length));
      done += part.length;
    }
  }

  /** Fills the buffers one after the other, as far as the bytes go. */
  writeAll(buffers: readonly NaiveBuffer[], bytes: Uint8Array): void {
    let done = 0;
    for (const { gpa, sizeBytes } of buffers) {
      const count = Math.min(sizeBytes, bytes.length - done);
      this.write(gpa, bytes.subarray(done, done + count));
      done += count;
    }
  }

  u16(gpa: bigint): number {
    return new DataView(this.read(gpa, 2).buffer).getUint16(0, true);
  }

  u32(gpa: bigint): number {
    return new DataView(this.read(gpa, 4).buffer).getUint32(0, true);
  }

  u64(gpa: bigint): bigint {
    return new DataView(this.read(gpa, 8).buffer).getBigUint64(0, true);
  }

  setU16(gpa: bigint, value: number): void {
    this.write(gpa, Uint8Array.of(value & 0xff, value >> 8));
  }

  setU32(gpa: bigint, value: number): void {
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setUint32(0, value, true);
    this.write(gpa, bytes);
  }

  /** The guest's memory from an address on, up to `count` bytes and the region's end. */
  #at(gpa: bigint, count: number): Uint8Array {
    const region = this.#regions.find((r) => gpa >= r.gpa && gpa < r.gpa + r.sizeBytes);
    if (region === undefined) throw new Error(`no region holds ${gpa}`);
    const start = Number(gpa - region.gpa + region.mmapOffset);
    const endOfRegion = Number(region.mmapOffset + region.sizeBytes);
    return this.#file.subarray(start, Math.min(start + count, endOfRegion));
  }
}
