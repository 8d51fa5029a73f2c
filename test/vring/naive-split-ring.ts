/**
 * The device side of a split virtqueue as plainly as the specification tells it (VIRTIO 1.3, sections 2.7
 * and 5.1.6): every field through a DataView, every address a BigInt, every frame an array of bytes. Slow and
 * independent of src/vring; it is the oracle for that code. Trusts the driver.
 */
import type { MemRegion } from '../../protocol/vhost-user/codec.ts';

const NEXT = 1;
const WRITE = 2;
const INDIRECT = 4;

export type NaiveRingOptions = {
  /** The guest's memory file. */
  readonly file: Uint8Array;
  readonly regions: readonly MemRegion[];
  readonly size: number;
  readonly descGpa: bigint;
  readonly availGpa: bigint;
  readonly usedGpa: bigint;
  readonly eventIdx: boolean;
  readonly mergeable: boolean;
  readonly headerBytes: number;
  readonly base: number;
};

type Buffer = { gpa: bigint; sizeBytes: number; writable: boolean };
export type NaiveGiveResult = 'done' | 'noBuffer' | 'tooSmall';

export class NaiveSplitRing {
  readonly #options: NaiveRingOptions;
  /** Counted without wrapping; the ring shows the lower 16 bits. */
  #availTaken: number;
  #usedWritten: number;
  #usedPublished: number;
  /** Frames taken or given, and signals sent. */
  frames = 0;
  bytes = 0;
  signals = 0;

  constructor(options: NaiveRingOptions) {
    this.#options = options;
    this.#availTaken = options.base;
    this.#usedWritten = options.base;
    this.#usedPublished = options.base;
    this.disarm();
  }

  waiting(): number {
    return (this.#u16(this.#options.availGpa + 2n) - this.#availTaken) & 0xffff;
  }

  /** The next frame that the guest sends. */
  take(): Uint8Array {
    const { headerBytes } = this.#options;
    const head = this.#head(0);
    const parts = this.#chain(head).map((buffer) => this.#read(buffer.gpa, buffer.sizeBytes));
    const all = parts.flatMap((part) => [...part]);
    this.#availTaken++;
    this.#putUsed(head, 0);
    this.frames++;
    this.bytes += all.length - headerBytes;
    return Uint8Array.from(all.slice(headerBytes));
  }

  give(frame: Uint8Array): NaiveGiveResult {
    const { headerBytes, mergeable } = this.#options;
    const neededBytes = headerBytes + frame.length;
    const chains: { head: number; buffers: Buffer[]; sizeBytes: number }[] = [];
    for (let roomBytes = 0; roomBytes < neededBytes; ) {
      if (chains.length === 1 && !mergeable) return 'tooSmall';
      if (chains.length === this.waiting()) return 'noBuffer';
      const head = this.#head(chains.length);
      const buffers = this.#chain(head);
      const sizeBytes = buffers.reduce((sum, buffer) => sum + buffer.sizeBytes, 0);
      chains.push({ head, buffers, sizeBytes });
      roomBytes += sizeBytes;
    }
    const bytes = new Uint8Array(neededBytes);
    if (headerBytes === 12) new DataView(bytes.buffer).setUint16(10, chains.length, true);
    bytes.set(frame, headerBytes);
    let done = 0;
    for (const { head, buffers, sizeBytes } of chains) {
      const chainBytes = Math.min(sizeBytes, neededBytes - done);
      let chainDone = 0;
      for (const buffer of buffers) {
        const count = Math.min(buffer.sizeBytes, chainBytes - chainDone);
        this.#write(buffer.gpa, bytes.subarray(done + chainDone, done + chainDone + count));
        chainDone += count;
      }
      this.#availTaken++;
      this.#putUsed(head, chainBytes);
      done += chainBytes;
    }
    this.frames++;
    this.bytes += frame.length;
    return 'done';
  }

  publish(): void {
    const before = this.#usedPublished;
    if (this.#usedWritten === before) return;
    this.#usedPublished = this.#usedWritten;
    this.#setU16(this.#options.usedGpa + 2n, this.#usedWritten & 0xffff);
    if (this.#wantsSignal(before, this.#usedWritten)) this.signals++;
  }

  /** Asks for a kick at the next chain. */
  arm(): void {
    const { eventIdx, usedGpa, size } = this.#options;
    if (eventIdx) this.#setU16(usedGpa + 4n + BigInt(8 * size), this.#availTaken & 0xffff);
    else this.#setU16(usedGpa, 0);
  }

  disarm(): void {
    this.#setU16(this.#options.usedGpa, this.#options.eventIdx ? 0 : 1);
  }

  /** Section 2.7.7: with EVENT_IDX, one of the entries just published is the one that the driver named. */
  #wantsSignal(before: number, after: number): boolean {
    const { eventIdx, availGpa, size } = this.#options;
    if (!eventIdx) return (this.#u16(availGpa) & 1) === 0;
    const usedEvent = this.#u16(availGpa + 4n + BigInt(2 * size));
    for (let entry = before; entry < after; entry++) if ((entry & 0xffff) === usedEvent) return true;
    return false;
  }

  #head(ahead: number): number {
    const { availGpa, size } = this.#options;
    return this.#u16(availGpa + 4n + BigInt(2 * ((this.#availTaken + ahead) % size)));
  }

  #chain(head: number): Buffer[] {
    const buffers: Buffer[] = [];
    let table = this.#options.descGpa;
    for (let index = head; ; ) {
      const gpa = table + BigInt(16 * index);
      const addr = this.#u64(gpa);
      const sizeBytes = this.#u32(gpa + 8n);
      const flags = this.#u16(gpa + 12n);
      if ((flags & INDIRECT) !== 0) {
        table = addr;
        index = 0;
        continue;
      }
      buffers.push({ gpa: addr, sizeBytes, writable: (flags & WRITE) !== 0 });
      if ((flags & NEXT) === 0) return buffers;
      index = this.#u16(gpa + 14n);
    }
  }

  #putUsed(head: number, sizeBytes: number): void {
    const { usedGpa, size } = this.#options;
    const gpa = usedGpa + 4n + BigInt(8 * (this.#usedWritten % size));
    this.#setU32(gpa, head);
    this.#setU32(gpa + 4n, sizeBytes);
    this.#usedWritten++;
  }

  #read(gpa: bigint, count: number): Uint8Array {
    const bytes = new Uint8Array(count);
    for (let done = 0; done < count; ) {
      const part = this.#memoryAt(gpa + BigInt(done), count - done);
      bytes.set(part, done);
      done += part.length;
    }
    return bytes;
  }

  #write(gpa: bigint, bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length; ) {
      const part = this.#memoryAt(gpa + BigInt(done), bytes.length - done);
      part.set(bytes.subarray(done, done + part.length));
      done += part.length;
    }
  }

  /** The guest's memory from an address on, up to `count` bytes and the region's end. */
  #memoryAt(gpa: bigint, count: number): Uint8Array {
    const region = this.#options.regions.find((r) => gpa >= r.gpa && gpa < r.gpa + r.sizeBytes);
    if (region === undefined) throw new Error(`no region holds ${gpa}`);
    const start = Number(gpa - region.gpa + region.mmapOffset);
    const endOfRegion = Number(region.mmapOffset + region.sizeBytes);
    return this.#options.file.subarray(start, Math.min(start + count, endOfRegion));
  }

  #u16(gpa: bigint): number {
    return new DataView(this.#read(gpa, 2).buffer).getUint16(0, true);
  }

  #u32(gpa: bigint): number {
    return new DataView(this.#read(gpa, 4).buffer).getUint32(0, true);
  }

  #u64(gpa: bigint): bigint {
    return new DataView(this.#read(gpa, 8).buffer).getBigUint64(0, true);
  }

  #setU16(gpa: bigint, value: number): void {
    this.#write(gpa, Uint8Array.of(value & 0xff, value >> 8));
  }

  #setU32(gpa: bigint, value: number): void {
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setUint32(0, value, true);
    this.#write(gpa, bytes);
  }
}
