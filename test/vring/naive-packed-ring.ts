/**
 * The device side of a packed virtqueue as plainly as the specification tells it (VIRTIO 1.3, sections 2.8 and
 * 5.1.6): every field through a DataView, every address a BigInt, every frame an array of bytes. Positions are
 * counted without wrapping from the first lap on: position p is descriptor p % size, and the wrap counter is 1
 * in even laps. Slow and independent of src/vring; it is the oracle for that code. Trusts the driver.
 */
import {
  type NaiveBuffer,
  type NaiveGiveResult,
  NaiveMemory,
  type NaiveRing,
  type NaiveRingOptions,
  totalBytes,
} from './naive-ring.ts';

const NEXT = 1;
const WRITE = 2;
const INDIRECT = 4;
const AVAIL = 0x80;
const USED = 0x8000;

const EVENT_ENABLE = 0;
const EVENT_DISABLE = 1;
const EVENT_DESC = 2;

type Chain = { readonly id: number; readonly descCount: number; readonly buffers: readonly NaiveBuffer[] };
type Used = { readonly id: number; readonly descCount: number; readonly sizeBytes: number };

export class NaivePackedRing implements NaiveRing {
  readonly #options: NaiveRingOptions;
  readonly #memory: NaiveMemory;
  #availNext: number;
  #usedNext: number;
  /** Used since the last publication. */
  #used: Used[] = [];
  frames = 0;
  bytes = 0;
  signals = 0;

  constructor(options: NaiveRingOptions) {
    this.#options = options;
    this.#memory = new NaiveMemory(options);
    this.#usedNext = this.#counted(options.base >>> 16);
    this.#availNext = this.#counted(options.base & 0xffff);
    if (this.#availNext < this.#usedNext) this.#availNext += 2 * options.size;
    this.disarm();
  }

  waiting(): number {
    let count = 0;
    for (let position = this.#availNext; this.#isAvailable(position); count++) {
      position += this.#chainAt(position).descCount;
    }
    return count;
  }

  take(): Uint8Array {
    const { headerBytes } = this.#options;
    const { id, descCount, buffers } = this.#chainAt(this.#availNext);
    const all = buffers.flatMap(({ gpa, sizeBytes }) => [...this.#memory.read(gpa, sizeBytes)]);
    this.#use([{ id, descCount, sizeBytes: 0 }]);
    this.frames++;
    this.bytes += all.length - headerBytes;
    return Uint8Array.from(all.slice(headerBytes));
  }

  give(frame: Uint8Array): NaiveGiveResult {
    const { headerBytes, mergeable } = this.#options;
    const neededBytes = headerBytes + frame.length;
    const chains: Chain[] = [];
    let position = this.#availNext;
    for (let roomBytes = 0; roomBytes < neededBytes; roomBytes += totalBytes(chains.at(-1)!.buffers)) {
      if (chains.length === 1 && !mergeable) return 'tooSmall';
      if (!this.#isAvailable(position)) return 'noBuffer';
      const chain = this.#chainAt(position);
      chains.push(chain);
      position += chain.descCount;
    }
    const bytes = new Uint8Array(neededBytes);
    if (headerBytes === 12) new DataView(bytes.buffer).setUint16(10, chains.length, true);
    bytes.set(frame, headerBytes);
    this.#memory.writeAll(
      chains.flatMap(({ buffers }) => buffers),
      bytes,
    );
    let leftBytes = neededBytes;
    const used = chains.map(({ id, descCount, buffers }) => {
      const sizeBytes = Math.min(totalBytes(buffers), leftBytes);
      leftBytes -= sizeBytes;
      return { id, descCount, sizeBytes };
    });
    this.#use(used);
    this.frames++;
    this.bytes += frame.length;
    return 'done';
  }

  publish(): void {
    const used = this.#options.reorder?.(this.#used) ?? this.#used;
    if (used.length === 0) return;
    const before = this.#usedNext;
    if (this.#isBatch()) {
      this.#putUsed(before, used.at(-1)!);
    } else {
      // The first one last: the driver must never see a part of a frame.
      const positions = used.map((_, i) => before + descTotal(used.slice(0, i)));
      for (const [i, one] of [...used.entries()].reverse()) this.#putUsed(positions[i]!, one);
    }
    this.#usedNext += descTotal(used);
    this.#used = [];
    if (this.#wantsSignal(before, this.#usedNext)) this.signals++;
  }

  arm(): void {
    const { eventIdx, deviceGpa } = this.#options;
    if (eventIdx) this.#memory.setU16(deviceGpa, this.#offWrap(this.#availNext));
    this.#memory.setU16(deviceGpa + 2n, eventIdx ? EVENT_DESC : EVENT_ENABLE);
  }

  disarm(): void {
    this.#memory.setU16(this.#options.deviceGpa + 2n, EVENT_DISABLE);
  }

  base(): number {
    return (this.#offWrap(this.#availNext) | (this.#offWrap(this.#usedNext) << 16)) >>> 0;
  }

  /** Section 2.8.10: by flags, or when one of the descriptors just passed is the one that the driver named. */
  #wantsSignal(before: number, after: number): boolean {
    const { driverGpa, eventIdx } = this.#options;
    const flags = this.#memory.u16(driverGpa + 2n);
    if (flags === EVENT_DISABLE) return false;
    if (flags === EVENT_ENABLE) return true;
    if (flags !== EVENT_DESC || !eventIdx) throw new Error(`driver event flags ${flags}`);
    const offWrap = this.#memory.u16(driverGpa);
    for (let position = before; position < after; position++) {
      if (this.#offWrap(position) === offWrap) return true;
    }
    return false;
  }

  /** A position with its wrap counter in bit 15, as in a base. */
  #counted(position: number): number {
    const lap = (position & 0x8000) !== 0 ? 0 : 1;
    return lap * this.#options.size + (position & 0x7fff);
  }

  #wrapCounter(position: number): 0 | 1 {
    return Math.floor(position / this.#options.size) % 2 === 0 ? 1 : 0;
  }

  /** The place in the ring, and the wrap counter in bit 15. */
  #offWrap(position: number): number {
    return (position % this.#options.size) | (this.#wrapCounter(position) << 15);
  }

  #descGpa(position: number): bigint {
    return this.#options.descGpa + BigInt(16 * (position % this.#options.size));
  }

  #isAvailable(position: number): boolean {
    // What this device has not marked used yet still looks available, a lap later too.
    if (position >= this.#usedNext + this.#options.size) return false;
    const flags = this.#memory.u16(this.#descGpa(position) + 14n);
    const wrap = this.#wrapCounter(position) === 1;
    return ((flags & AVAIL) !== 0) === wrap && ((flags & USED) !== 0) !== wrap;
  }

  #chainAt(start: number): Chain {
    const buffers: NaiveBuffer[] = [];
    for (let position = start; ; position++) {
      const gpa = this.#descGpa(position);
      const flags = this.#memory.u16(gpa + 14n);
      if ((flags & INDIRECT) !== 0) buffers.push(...this.#table(gpa));
      else buffers.push(this.#buffer(gpa));
      if ((flags & NEXT) !== 0) continue;
      return { id: this.#memory.u16(gpa + 12n), descCount: position + 1 - start, buffers };
    }
  }

  /** Entries lie in order and have no flag but WRITE. */
  #table(gpa: bigint): NaiveBuffer[] {
    const table = this.#memory.u64(gpa);
    const count = this.#memory.u32(gpa + 8n) / 16;
    return Array.from({ length: count }, (_, i) => this.#buffer(table + BigInt(16 * i)));
  }

  #buffer(gpa: bigint): NaiveBuffer {
    return {
      gpa: this.#memory.u64(gpa),
      sizeBytes: this.#memory.u32(gpa + 8n),
      writable: (this.#memory.u16(gpa + 14n) & WRITE) !== 0,
    };
  }

  #use(used: readonly Used[]): void {
    this.#used.push(...used);
    this.#availNext += descTotal(used);
  }

  /** Section 2.8.9: only what needs no length of its own; a device that writes to buffers tells each. */
  #isBatch(): boolean {
    return this.#options.inOrder && this.#used.every(({ sizeBytes }) => sizeBytes === 0);
  }

  #putUsed(position: number, { id, sizeBytes }: Used): void {
    const gpa = this.#descGpa(position);
    const marks = this.#wrapCounter(position) === 1 ? AVAIL | USED : 0;
    const { choosesAsRingway, inOrder } = this.#options;
    if (sizeBytes > 0 || inOrder || choosesAsRingway !== true) this.#memory.setU32(gpa + 8n, sizeBytes);
    this.#memory.setU16(gpa + 12n, id);
    this.#memory.setU16(gpa + 14n, marks | (sizeBytes > 0 ? WRITE : 0));
  }
}

function descTotal(used: readonly Used[]): number {
  return used.reduce((sum, { descCount }) => sum + descCount, 0);
}
