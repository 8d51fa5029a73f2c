/**
 * A split virtqueue as the driver sees it (VIRTIO 1.3, section 2.7): the three parts in guest memory, which
 * descriptors are free, when to kick the device and when to be interrupted. The two directions build on it
 * (send-queue.ts, receive-queue.ts). One thread's object. Guest memory is ours, but the device writes the
 * used ring: an entry that cannot be right throws, because here the device is what is tested.
 */
import {
  AVAIL_ALIGN,
  AVAIL_F_NO_INTERRUPT,
  availRingBytes,
  DESC_ALIGN,
  DESC_BYTES,
  DESC_F_INDIRECT,
  DESC_F_NEXT,
  descTableBytes,
  isSplitRingSize,
  USED_ALIGN,
  USED_F_NO_NOTIFY,
  usedRingBytes,
} from '../../protocol/virtio/split-ring.ts';
import { drainFd, signalFd } from '../host/descriptor.ts';
import { descriptorLoop, type Watch } from '../host/event-loop.ts';
import type { EmbeddedMemory } from './guest-memory.ts';

/** The device did something that a driver can tell is wrong. */
export class DeviceError extends Error {
  override name = 'DeviceError';
}

export type DriverOptions = {
  readonly memory: EmbeddedMemory;
  /** Entries of the ring: a power of two, 2 to 32,768. */
  readonly size: number;
  /** Bytes of the virtio-net header: 10 or 12. */
  readonly headerBytes: number;
  readonly eventIdx: boolean;
  readonly indirect: boolean;
  readonly mergeable: boolean;
  /** Bytes of the buffer behind each descriptor, the header with them. */
  readonly bufferBytes: number;
};

/** How a buffer is described to the device. */
export type Shape = {
  /** Bytes of each part, in order; a part may be empty. */
  readonly pieces: readonly number[];
  /** All parts in an indirect table behind one descriptor. */
  readonly indirect?: boolean;
};

/** Most parts that an indirect table of this driver describes. */
export const INDIRECT_PIECES_MAX = 64;
/** Between two parts of one buffer lie bytes that neither side may touch; odd, so that parts are unaligned. */
export const PIECE_GAP_BYTES = 5;

const IDX = 1;
const ENTRIES = 2;
const USED_ENTRIES = 1;
const END_OF_CHAIN = -1;

export class SplitDriver {
  readonly memory: EmbeddedMemory;
  readonly size: number;
  readonly headerBytes: number;
  readonly mergeable: boolean;
  readonly bufferBytes: number;
  /** Offsets in guest memory; SET_VRING_ADDR names the same places by front-end-virtual address. */
  readonly descOffset: number;
  readonly availOffset: number;
  readonly usedOffset: number;
  /** Four words a descriptor: address low, address high, length, flags | next << 16. */
  readonly desc: Int32Array;
  /** flags, idx, ring[size], used_event. */
  readonly avail: Uint16Array;
  /** flags, idx, ring[size] of four words, avail_event. */
  readonly used16: Uint16Array;
  /** One word of flags and idx, then id and length of each entry. */
  readonly used32: Int32Array;
  /** Where each descriptor's buffer starts in guest memory. */
  readonly bufferOffsets: Int32Array;
  /** -1: the device polls. Owned by the guest (net-device.ts). */
  kickFd = -1;
  /** -1: never interrupted. */
  callFd = -1;
  /** Times that the device was kicked. */
  kicks = 0;
  /** The used entry last taken. */
  usedHead = 0;
  usedBytes = 0;
  /** Descriptors that neither side has in use; the last one is the next to go. */
  readonly freeStack: Int32Array;
  freeCount: number;
  /** Running 16-bit indices: the next entry to offer, the last published, the next used entry to take. */
  availNext = 0;
  availPublished = 0;
  usedNext = 0;
  readonly #mask: number;
  readonly #eventIdx: boolean;
  readonly #indirect: boolean;
  readonly #gpaLo: Int32Array;
  readonly #gpaHi: Int32Array;
  /** Our own copy of each chain's links: the shared table is only written. */
  readonly #chainNext: Int32Array;
  /** Which heads the device has. */
  readonly #outstanding: Uint8Array;
  #tablesOffset = -1;
  readonly #interrupts = new Interrupts(this);

  constructor(options: DriverOptions) {
    const { memory, size } = options;
    if (!isSplitRingSize(size)) throw new RangeError(`a split ring cannot have ${size} entries`);
    this.memory = memory;
    this.size = size;
    this.headerBytes = options.headerBytes;
    this.mergeable = options.mergeable;
    this.bufferBytes = options.bufferBytes;
    this.#mask = size - 1;
    this.#eventIdx = options.eventIdx;
    this.#indirect = options.indirect;
    this.descOffset = memory.allocate(descTableBytes(size), DESC_ALIGN);
    this.availOffset = memory.allocate(availRingBytes(size), AVAIL_ALIGN);
    this.usedOffset = memory.allocate(usedRingBytes(size), USED_ALIGN);
    this.desc = new Int32Array(memory.buffer, this.descOffset, size * 4);
    this.avail = new Uint16Array(memory.buffer, this.availOffset, 3 + size);
    this.used16 = new Uint16Array(memory.buffer, this.usedOffset, 3 + size * 4);
    this.used32 = new Int32Array(memory.buffer, this.usedOffset, USED_ENTRIES + size * 2);
    this.bufferOffsets = Int32Array.from({ length: size }, () => memory.allocate(options.bufferBytes));
    this.#gpaLo = this.bufferOffsets.map((offset) => memory.gpaOf(offset) | 0);
    this.#gpaHi = this.bufferOffsets.map((offset) => Math.floor(memory.gpaOf(offset) / 2 ** 32));
    this.#chainNext = new Int32Array(size).fill(END_OF_CHAIN);
    this.#outstanding = new Uint8Array(size);
    this.freeStack = Int32Array.from({ length: size }, (_, i) => size - 1 - i);
    this.freeCount = size;
    this.disarm();
  }

  /** Makes a ring that was not used yet start at another index, as after a migration. */
  startAt(index: number): void {
    this.availNext = index;
    this.availPublished = index;
    this.usedNext = index;
    this.avail[IDX] = index;
    this.used16[IDX] = index;
    this.disarm();
  }

  /** Chains that the device has and has not used yet. */
  get outstandingCount(): number {
    return (this.availNext - this.usedNext) & 0xffff;
  }

  /** Writes any descriptor; the address as two int32 halves. */
  setDescriptor(
    index: number,
    gpaLo: number,
    gpaHi: number,
    sizeBytes: number,
    flags: number,
    next: number,
  ): void {
    const at = index << 2;
    const { desc } = this;
    desc[at] = gpaLo;
    desc[at + 1] = gpaHi;
    desc[at + 2] = sizeBytes;
    desc[at + 3] = flags | (next << 16);
  }

  /** Offers a head to the device; it sees it after `publish`. */
  offer(head: number): void {
    this.#outstanding[head] = 1;
    this.avail[ENTRIES + (this.availNext & this.#mask)] = head;
    this.availNext = (this.availNext + 1) & 0xffff;
  }

  /** Offers the first `sizeBytes` of a slot's own buffer as one descriptor. */
  offerSlot(slot: number, sizeBytes: number, flags: number): void {
    this.#chainNext[slot] = END_OF_CHAIN;
    this.setDescriptor(slot, this.#gpaLo[slot], this.#gpaHi[slot], sizeBytes, flags, 0);
    this.offer(slot);
  }

  /** How many descriptors a shape takes from the table. */
  descriptorsFor(shape: Shape): number {
    return shape.indirect === true ? 1 : shape.pieces.length;
  }

  /**
   * Offers a free descriptor's buffer cut in pieces, each with `flags`. Answers where the pieces lie in guest
   * memory, or null when too few descriptors are free. Allocates: for tests.
   * @throws RangeError when the pieces do not fit the buffer or the features do not allow the shape
   */
  offerShaped(shape: Shape, flags: number): { head: number; pieceOffsets: number[] } | null {
    const { pieces } = shape;
    if (pieces.length === 0) throw new RangeError('a chain has at least one piece');
    if (this.descriptorsFor(shape) > this.freeCount) return null;
    const head = this.freeStack[--this.freeCount];
    const pieceOffsets = this.#layOut(head, pieces);
    if (shape.indirect === true) this.#writeTable(head, pieceOffsets, pieces, flags);
    else this.#writeChain(head, pieceOffsets, pieces, flags);
    this.offer(head);
    return { head, pieceOffsets };
  }

  /** Shows the device what was offered and kicks it if it asks for that (section 2.7.10). */
  publish(): void {
    if (this.availNext === this.availPublished) return;
    const before = this.availPublished;
    this.availPublished = this.availNext;
    // An exchange on x86: entries are visible before the index, and the index before the device's wish is read.
    Atomics.store(this.avail, IDX, this.availNext);
    if (this.#wantsKick(before)) this.kick();
  }

  kick(): void {
    this.kicks++;
    if (this.kickFd >= 0) signalFd(this.kickFd);
  }

  /** Used entries that wait. */
  usedWaiting(): number {
    return (Atomics.load(this.used16, IDX) - this.usedNext) & 0xffff;
  }

  /** Takes the next used entry to `usedHead` and `usedBytes`; the descriptors stay taken until `free`. */
  takeUsed(): void {
    const at = USED_ENTRIES + ((this.usedNext & this.#mask) << 1);
    const head = this.used32[at];
    if (head < 0 || head >= this.size || this.#outstanding[head] === 0) throw notOutstanding(head);
    this.#outstanding[head] = 0;
    this.usedHead = head;
    this.usedBytes = this.used32[at + 1];
    this.usedNext = (this.usedNext + 1) & 0xffff;
  }

  /** Gives a chain's descriptors back to the free ones. */
  free(head: number): void {
    for (let index = head; index !== END_OF_CHAIN; index = this.#chainNext[index]) {
      this.freeStack[this.freeCount++] = index;
    }
  }

  /** Asks for an interrupt at the next used entry; false when one waits already. */
  arm(): boolean {
    if (this.#eventIdx) Atomics.store(this.avail, ENTRIES + this.size, this.usedNext);
    else Atomics.store(this.avail, 0, 0);
    return this.usedWaiting() === 0;
  }

  /** Asks for no interrupts; with EVENT_IDX by naming an entry that lies behind. */
  disarm(): void {
    if (this.#eventIdx) this.avail[ENTRIES + this.size] = (this.usedNext - 1) & 0xffff;
    else this.avail[0] = AVAIL_F_NO_INTERRUPT;
  }

  /** Resolves when the device interrupted or has something already. Rejects when the guest is closed. */
  interrupt(): Promise<void> {
    return this.#interrupts.wait();
  }

  /** Ends waits for interrupts; before the call descriptor is closed. */
  abandon(error: Error): void {
    this.#interrupts.abandon(error);
  }

  #wantsKick(before: number): boolean {
    if (!this.#eventIdx) return (this.used16[0] & USED_F_NO_NOTIFY) === 0;
    const availEvent = this.used16[ENTRIES + this.size * 4];
    return ((this.availNext - availEvent - 1) & 0xffff) < ((this.availNext - before) & 0xffff);
  }

  /** Last piece first, gaps between them, so that nothing works only because pieces happen to be neighbours. */
  #layOut(head: number, pieces: readonly number[]): number[] {
    let offset = this.bufferOffsets[head];
    const endOffset = offset + this.bufferBytes;
    const offsets = new Array<number>(pieces.length).fill(offset);
    for (let i = pieces.length - 1; i >= 0; i--) {
      offsets[i] = offset;
      offset += pieces[i] + (i === 0 ? 0 : PIECE_GAP_BYTES);
    }
    if (offset > endOffset) throw new RangeError(`pieces [${pieces}] do not fit ${this.bufferBytes} bytes`);
    return offsets;
  }

  #writeChain(head: number, offsets: readonly number[], pieces: readonly number[], flags: number): void {
    let index = head;
    for (const [i, offset] of offsets.entries()) {
      const isLast = i === offsets.length - 1;
      const next = isLast ? 0 : this.freeStack[--this.freeCount];
      const gpa = this.memory.gpaOf(offset);
      const hi = Math.floor(gpa / 2 ** 32);
      this.setDescriptor(index, gpa | 0, hi, pieces[i], flags | (isLast ? 0 : DESC_F_NEXT), next);
      this.#chainNext[index] = isLast ? END_OF_CHAIN : next;
      index = next;
    }
  }

  #writeTable(head: number, offsets: readonly number[], pieces: readonly number[], flags: number): void {
    const count = offsets.length;
    if (!this.#indirect) throw new RangeError('indirect descriptors were not negotiated');
    if (count > INDIRECT_PIECES_MAX) throw new RangeError(`${count} pieces in an indirect table`);
    const tableBytes = INDIRECT_PIECES_MAX * DESC_BYTES;
    if (this.#tablesOffset < 0) this.#tablesOffset = this.memory.allocate(this.size * tableBytes, DESC_BYTES);
    const tableOffset = this.#tablesOffset + head * tableBytes;
    const view = new DataView(this.memory.buffer, tableOffset, tableBytes);
    // The first entry starts the chain; the others lie in the table from its end.
    const entryOf = (i: number): number => (i === 0 ? 0 : count - i);
    for (const [i, offset] of offsets.entries()) {
      const isLast = i === count - 1;
      const at = entryOf(i) * DESC_BYTES;
      view.setBigUint64(at, BigInt(this.memory.gpaOf(offset)), true);
      view.setUint32(at + 8, pieces[i], true);
      view.setUint16(at + 12, flags | (isLast ? 0 : DESC_F_NEXT), true);
      view.setUint16(at + 14, isLast ? 0 : entryOf(i + 1), true);
    }
    const gpa = this.memory.gpaOf(tableOffset);
    this.setDescriptor(head, gpa | 0, Math.floor(gpa / 2 ** 32), count * DESC_BYTES, DESC_F_INDIRECT, 0);
    this.#chainNext[head] = END_OF_CHAIN;
  }
}

/** Those who wait for one ring's interrupt, behind one watch of its call descriptor. */
class Interrupts {
  readonly #driver: SplitDriver;
  #watch: Watch | null = null;
  #waiters: { resolve(): void; reject(error: Error): void }[] = [];

  constructor(driver: SplitDriver) {
    this.#driver = driver;
  }

  wait(): Promise<void> {
    return new Promise((resolve, reject) => {
      const driver = this.#driver;
      if (driver.callFd < 0) {
        reject(new Error('the ring has no call descriptor to wait for'));
        return;
      }
      this.#waiters.push({ resolve, reject });
      this.#watch ??= descriptorLoop().watch(driver.callFd, () => this.#onCall());
      if (!driver.arm()) this.#finish((waiter) => waiter.resolve());
    });
  }

  abandon(error: Error): void {
    this.#finish((waiter) => waiter.reject(error));
  }

  #onCall(): void {
    drainFd(this.#driver.callFd);
    this.#finish((waiter) => waiter.resolve());
  }

  #finish(finish: (waiter: { resolve(): void; reject(error: Error): void }) => void): void {
    this.#watch?.close();
    this.#watch = null;
    this.#driver.disarm();
    for (const waiter of this.#waiters.splice(0)) finish(waiter);
  }
}

function notOutstanding(head: number): DeviceError {
  return new DeviceError(`the device used descriptor ${head}, which it does not have`);
}
