/**
 * The split layout as the driver sees it (VIRTIO 1.3, section 2.7): descriptor table, avail ring and used ring.
 * Descriptors are free in a stack; with IN_ORDER they go round the table (section 2.7.5), and one used entry
 * may stand for a batch (section 2.7.9). One thread's object. Guest memory is ours, but the device writes the
 * used ring: an entry that cannot be right throws, because here the device is what is tested.
 */
import * as SPLIT_RING from '../../protocol/virtio/split-ring.ts';
import * as ORDERED from '../memory/ordered.ts';
import {
  DeviceError,
  type DriverLayout,
  type LayoutOptions,
  notOutstanding,
  type Piece,
} from './driver-layout.ts';

// V8 folds a module's own constants into a loop, and loads imported ones again at each use: some 3 ns a frame.
const { loadOrdered16 } = ORDERED;
const {
  AVAIL_ALIGN,
  AVAIL_F_NO_INTERRUPT,
  availRingBytes,
  DESC_ALIGN,
  DESC_BYTES,
  DESC_F_NEXT,
  descTableBytes,
  isSplitRingSize,
  USED_ALIGN,
  USED_F_NO_NOTIFY,
  usedRingBytes,
} = SPLIT_RING;

const IDX = 1;
const ENTRIES = 2;
const USED_ENTRIES = 1;
const END_OF_CHAIN = -1;
const NO_BATCH = -1;

/** Bytes of guest memory that the three parts take. */
export function splitLayoutBytes(size: number): number {
  return descTableBytes(size) + availRingBytes(size) + usedRingBytes(size);
}

export class SplitDriverLayout implements DriverLayout {
  readonly descOffset: number;
  readonly driverOffset: number;
  readonly deviceOffset: number;
  /** Four words a descriptor: address low, address high, length, flags | next << 16. */
  readonly desc: Int32Array;
  /** flags, idx, ring[size], used_event. */
  readonly avail: Uint16Array;
  /** flags, idx, ring[size] of four words, avail_event. */
  readonly used16: Uint16Array;
  /** One word of flags and idx, then id and length of each entry. */
  readonly used32: Int32Array;
  freeCount: number;
  /** Running 16-bit indices: the next entry to offer, the last published, the next used entry to take. */
  availNext = 0;
  availPublished = 0;
  usedNext = 0;
  usedBytes = 0;
  usedIsWhole = false;
  readonly #size: number;
  readonly #mask: number;
  readonly #eventIdx: boolean;
  readonly #inOrder: boolean;
  /** Free descriptors; the last one is the next to go. In order it is not used. */
  readonly #freeStack: Int32Array;
  /** Our own copy of each chain's links: the shared table is only written. */
  readonly #chainNext: Int32Array;
  /** In order: the next descriptor to take, and the oldest one that the device has. */
  #nextFree = 0;
  #oldest = 0;
  /** In order: the id that ends the batch that is being taken, and the length that came with it. */
  #batchEnd = NO_BATCH;
  #batchBytes = 0;

  /** @throws RangeError: no split ring has so many entries, or the memory is used up */
  constructor({ memory, size, eventIdx, inOrder }: LayoutOptions) {
    if (!isSplitRingSize(size)) throw new RangeError(`a split ring cannot have ${size} entries`);
    this.#size = size;
    this.#mask = size - 1;
    this.#eventIdx = eventIdx;
    this.#inOrder = inOrder;
    this.descOffset = memory.allocate(descTableBytes(size), DESC_ALIGN);
    this.driverOffset = memory.allocate(availRingBytes(size), AVAIL_ALIGN);
    this.deviceOffset = memory.allocate(usedRingBytes(size), USED_ALIGN);
    this.desc = new Int32Array(memory.buffer, this.descOffset, size * 4);
    this.avail = new Uint16Array(memory.buffer, this.driverOffset, 3 + size);
    this.used16 = new Uint16Array(memory.buffer, this.deviceOffset, 3 + size * 4);
    this.used32 = new Int32Array(memory.buffer, this.deviceOffset, USED_ENTRIES + size * 2);
    this.#chainNext = new Int32Array(size).fill(END_OF_CHAIN);
    this.#freeStack = Int32Array.from({ length: size }, (_, i) => size - 1 - i);
    this.freeCount = size;
    this.disarm();
  }

  get outstandingCount(): number {
    return (this.availNext - this.usedNext) & 0xffff;
  }

  takeId(): number {
    this.freeCount--;
    if (!this.#inOrder) return this.#freeStack[this.freeCount];
    const id = this.#nextFree;
    this.#nextFree = (id + 1) & this.#mask;
    return id;
  }

  offer(id: number, gpaLo: number, gpaHi: number, sizeBytes: number, flags: number): void {
    this.#chainNext[id] = END_OF_CHAIN;
    this.setDescriptor(id, gpaLo, gpaHi, sizeBytes, flags, 0);
    this.offerHead(id);
  }

  offerChain(id: number, pieces: readonly Piece[], flags: number): void {
    let index = id;
    for (const [i, { gpa, sizeBytes, flags: ownFlags = 0 }] of pieces.entries()) {
      const isLast = i === pieces.length - 1;
      // In order these are neighbours, as `next` has to say then.
      const next = isLast ? END_OF_CHAIN : this.takeId();
      const hi = Math.floor(gpa / 2 ** 32);
      const allFlags = flags | ownFlags | (isLast ? 0 : DESC_F_NEXT);
      this.setDescriptor(index, gpa | 0, hi, sizeBytes, allFlags, isLast ? 0 : next);
      this.#chainNext[index] = next;
      index = next;
    }
    this.offerHead(id);
  }

  writeTable(table: DataView, pieces: readonly Piece[], flags: number): void {
    const count = pieces.length;
    // The first entry starts the chain. In order the others follow; otherwise they lie in the table from its
    // end, so that nothing works only because it never looks at `next`.
    const entryOf = (i: number): number => (i === 0 || this.#inOrder ? i : count - i);
    for (const [i, { gpa, sizeBytes, flags: ownFlags = 0 }] of pieces.entries()) {
      const isLast = i === count - 1;
      const at = entryOf(i) * DESC_BYTES;
      table.setBigUint64(at, BigInt(gpa), true);
      table.setUint32(at + 8, sizeBytes, true);
      table.setUint16(at + 12, flags | ownFlags | (isLast ? 0 : DESC_F_NEXT), true);
      table.setUint16(at + 14, isLast ? 0 : entryOf(i + 1), true);
    }
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

  /** Offers a chain that was written with `setDescriptor`. */
  offerHead(head: number): void {
    this.avail[ENTRIES + (this.availNext & this.#mask)] = head;
    this.availNext = (this.availNext + 1) & 0xffff;
  }

  publish(): boolean {
    if (this.availNext === this.availPublished) return false;
    const before = this.availPublished;
    this.availPublished = this.availNext;
    // Sequentially consistent: entries are visible before the index, and the index before the device's wish
    // to be kicked is read.
    Atomics.store(this.avail, IDX, this.availNext);
    return this.#wantsKick(before);
  }

  usedWaiting(): number {
    const idx = loadOrdered16(this.used16, IDX);
    return (idx - this.usedNext) & 0xffff;
  }

  takeUsed(): number {
    if (this.#inOrder) return this.#takeInOrder();
    const { used32, usedNext } = this;
    const at = USED_ENTRIES + ((usedNext & this.#mask) << 1);
    this.usedBytes = used32[at + 1];
    this.usedNext = (usedNext + 1) & 0xffff;
    return used32[at];
  }

  free(id: number): void {
    // In order nobody looks at the stack, only at how many there are.
    for (let index = id; index !== END_OF_CHAIN; index = this.#chainNext[index]) {
      this.#freeStack[this.freeCount++] = index;
    }
  }

  exchange(id: number): number {
    if (!this.#inOrder) return id;
    this.freeCount++;
    return this.takeId();
  }

  /** Section 2.7.7: by flag, or with EVENT_IDX by naming the entry. */
  arm(): void {
    if (this.#eventIdx) Atomics.store(this.avail, ENTRIES + this.#size, this.usedNext);
    else Atomics.store(this.avail, 0, 0);
  }

  /** With EVENT_IDX an entry that lies behind asks for nothing, and flags must stay zero. */
  disarm(): void {
    if (this.#eventIdx) this.avail[ENTRIES + this.#size] = (this.usedNext - 1) & 0xffff;
    else this.avail[0] = AVAIL_F_NO_INTERRUPT;
  }

  base(): number {
    return Atomics.load(this.used16, IDX);
  }

  startAt(base: number): void {
    this.availNext = base;
    this.availPublished = base;
    this.usedNext = base;
    this.avail[IDX] = base;
    this.used16[IDX] = base;
    this.disarm();
  }

  /** The entry that starts a batch names its last buffer; the entries of the others were not written. */
  #takeInOrder(): number {
    if (this.#batchEnd === NO_BATCH) {
      const at = USED_ENTRIES + ((this.usedNext & this.#mask) << 1);
      this.#batchEnd = this.used32[at];
      this.#batchBytes = this.used32[at + 1];
      this.#checkBatch();
    }
    const id = this.#oldest;
    const isEnd = id === this.#batchEnd;
    this.usedBytes = isEnd ? this.#batchBytes : 0;
    this.usedIsWhole = !isEnd;
    if (isEnd) this.#batchEnd = NO_BATCH;
    this.#oldest = this.#behind(id);
    this.usedNext = (this.usedNext + 1) & 0xffff;
    return id;
  }

  /** The batch must end within what the used index counts. */
  #checkBatch(): void {
    const end = this.#batchEnd;
    let id = this.#oldest;
    for (let left = Math.min(this.usedWaiting(), this.outstandingCount); left > 0; left--) {
      if (id === end) return;
      id = this.#behind(id);
    }
    throw end >= 0 && end < this.#size
      ? new DeviceError(`the device used buffer ${end} out of order, or fewer than up to it`)
      : notOutstanding(end);
  }

  /** In order: the descriptor behind a chain's last one. */
  #behind(head: number): number {
    let last = head;
    while (this.#chainNext[last] !== END_OF_CHAIN) last = this.#chainNext[last];
    return (last + 1) & this.#mask;
  }

  /** Section 2.7.10. */
  #wantsKick(before: number): boolean {
    const { used16 } = this;
    const at = this.#eventIdx ? ENTRIES + this.#size * 4 : 0;
    const wish = loadOrdered16(used16, at);
    if (!this.#eventIdx) return (wish & USED_F_NO_NOTIFY) === 0;
    return ((this.availNext - wish - 1) & 0xffff) < ((this.availNext - before) & 0xffff);
  }
}
