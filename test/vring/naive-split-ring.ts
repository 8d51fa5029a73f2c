/**
 * The device side of a split virtqueue as plainly as the specification tells it (VIRTIO 1.3, sections 2.7
 * and 5.1.6): every field through a DataView, every address a BigInt, every frame an array of bytes. Slow and
 * independent of src/vring; it is the oracle for that code. Trusts the driver, but in order it checks what the
 * driver promises then: descriptors in the order of the table (section 2.7.5).
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

type Used = { readonly head: number; readonly descCount: number; readonly sizeBytes: number };

export class NaiveSplitRing implements NaiveRing {
  readonly #options: NaiveRingOptions;
  readonly #memory: NaiveMemory;
  /** Counted without wrapping; the ring shows the lower 16 bits. */
  #availTaken: number;
  #usedPublished: number;
  /** In order: the head that comes next; any at the start, which may be in the middle of a ring's life. */
  #nextHead: number | null = null;
  /** Used since the last publication. */
  #used: Used[] = [];
  frames = 0;
  bytes = 0;
  signals = 0;

  constructor(options: NaiveRingOptions) {
    this.#options = options;
    this.#memory = new NaiveMemory(options);
    this.#availTaken = options.base;
    this.#usedPublished = options.base;
    this.disarm();
  }

  waiting(): number {
    return (this.#memory.u16(this.#options.driverGpa + 2n) - this.#availTaken) & 0xffff;
  }

  take(): Uint8Array {
    const { headerBytes } = this.#options;
    const head = this.#head(0);
    const parts = this.#chain(head).map((buffer) => this.#memory.read(buffer.gpa, buffer.sizeBytes));
    const all = parts.flatMap((part) => [...part]);
    this.#use([{ head, descCount: this.#descCount(head), sizeBytes: 0 }]);
    this.frames++;
    this.bytes += all.length - headerBytes;
    return Uint8Array.from(all.slice(headerBytes));
  }

  give(frame: Uint8Array): NaiveGiveResult {
    const { headerBytes, mergeable } = this.#options;
    const neededBytes = headerBytes + frame.length;
    const heads: number[] = [];
    const buffers: NaiveBuffer[][] = [];
    for (let roomBytes = 0; roomBytes < neededBytes; roomBytes += totalBytes(buffers.at(-1)!)) {
      if (heads.length === 1 && !mergeable) return 'tooSmall';
      if (heads.length === this.waiting()) return 'noBuffer';
      const head = this.#head(heads.length);
      heads.push(head);
      buffers.push(this.#chain(head));
    }
    const bytes = new Uint8Array(neededBytes);
    if (headerBytes === 12) new DataView(bytes.buffer).setUint16(10, heads.length, true);
    bytes.set(frame, headerBytes);
    this.#memory.writeAll(buffers.flat(), bytes);
    let leftBytes = neededBytes;
    const used = heads.map((head, i) => {
      const sizeBytes = Math.min(totalBytes(buffers[i]!), leftBytes);
      leftBytes -= sizeBytes;
      return { head, descCount: this.#descCount(head), sizeBytes };
    });
    this.#use(used);
    this.frames++;
    this.bytes += frame.length;
    return 'done';
  }

  publish(): void {
    const used = this.#options.reorder?.(this.#used) ?? this.#used;
    if (used.length === 0) return;
    const before = this.#usedPublished;
    if (this.#isBatch()) this.#putUsed(before, used.at(-1)!);
    else for (const [i, one] of used.entries()) this.#putUsed(before + i, one);
    this.#used = [];
    this.#usedPublished += used.length;
    this.#memory.setU16(this.#options.deviceGpa + 2n, this.#usedPublished & 0xffff);
    if (this.#wantsSignal(before, this.#usedPublished)) this.signals++;
  }

  arm(): void {
    const { eventIdx, deviceGpa, size } = this.#options;
    if (eventIdx) this.#memory.setU16(deviceGpa + 4n + BigInt(8 * size), this.#availTaken & 0xffff);
    else this.#memory.setU16(deviceGpa, 0);
  }

  disarm(): void {
    this.#memory.setU16(this.#options.deviceGpa, this.#options.eventIdx ? 0 : 1);
  }

  base(): number {
    return this.#availTaken & 0xffff;
  }

  /** Section 2.7.7: with EVENT_IDX, one of the entries just published is the one that the driver named. */
  #wantsSignal(before: number, after: number): boolean {
    const { eventIdx, driverGpa, size } = this.#options;
    if (!eventIdx) return (this.#memory.u16(driverGpa) & 1) === 0;
    const usedEvent = this.#memory.u16(driverGpa + 4n + BigInt(2 * size));
    for (let entry = before; entry < after; entry++) if ((entry & 0xffff) === usedEvent) return true;
    return false;
  }

  #head(ahead: number): number {
    const { driverGpa, size } = this.#options;
    return this.#memory.u16(driverGpa + 4n + BigInt(2 * ((this.#availTaken + ahead) % size)));
  }

  #chain(head: number): NaiveBuffer[] {
    const buffers: NaiveBuffer[] = [];
    let table = this.#options.descGpa;
    for (let index = head; ; ) {
      const gpa = table + BigInt(16 * index);
      const addr = this.#memory.u64(gpa);
      const sizeBytes = this.#memory.u32(gpa + 8n);
      const flags = this.#memory.u16(gpa + 12n);
      if ((flags & INDIRECT) !== 0) {
        table = addr;
        index = 0;
        continue;
      }
      buffers.push({ gpa: addr, sizeBytes, writable: (flags & WRITE) !== 0 });
      if ((flags & NEXT) === 0) return buffers;
      const next = this.#memory.u16(gpa + 14n);
      const isTable = table !== this.#options.descGpa;
      this.#checkOrder(next, isTable ? index + 1 : (index + 1) % this.#options.size);
      index = next;
    }
  }

  #checkOrder(index: number, inOrderIndex: number): void {
    if (this.#options.inOrder && index !== inOrderIndex)
      throw new Error(`descriptor ${index} where ${inOrderIndex} is in order`);
  }

  /** Descriptors that a chain has in the table; an indirect one has one. */
  #descCount(head: number): number {
    for (let index = head, count = 1; ; count++) {
      const gpa = this.#options.descGpa + BigInt(16 * index);
      if ((this.#memory.u16(gpa + 12n) & NEXT) === 0) return count;
      index = this.#memory.u16(gpa + 14n);
    }
  }

  #use(used: readonly Used[]): void {
    for (const { head, descCount } of used) {
      this.#checkOrder(head, this.#nextHead ?? head);
      this.#nextHead = (head + descCount) % this.#options.size;
    }
    this.#used.push(...used);
    this.#availTaken += used.length;
  }

  /** Section 2.7.9: only what needs no length of its own; a device that writes to buffers tells each. */
  #isBatch(): boolean {
    const { inOrder, choosesAsRingway } = this.#options;
    return inOrder && choosesAsRingway !== true && this.#used.every(({ sizeBytes }) => sizeBytes === 0);
  }

  #putUsed(entry: number, { head, sizeBytes }: Used): void {
    const { deviceGpa, size } = this.#options;
    const gpa = deviceGpa + 4n + BigInt(8 * (entry % size));
    this.#memory.setU32(gpa, head);
    this.#memory.setU32(gpa + 4n, sizeBytes);
  }
}
