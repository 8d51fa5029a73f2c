/**
 * The packed layout as the driver sees it (VIRTIO 1.3, section 2.8): one ring of descriptors that both sides
 * write, two wrap counters, and an event suppression of each side. The driver writes descriptors in ring order
 * under ids that are free in a stack; with IN_ORDER one used descriptor may stand for a batch (section 2.8.9).
 * One thread's object. A used descriptor that cannot be right throws: here the device is what is tested.
 */
import * as PACKED_RING from '../../protocol/virtio/packed-ring.ts';
import * as ORDERED from '../memory/ordered.ts';
import {
  DeviceError,
  type DriverLayout,
  type LayoutOptions,
  notOutstanding,
  type Piece,
} from './driver-layout.ts';

// V8 folds a module's own constants into a loop, and loads imported ones again at each use: some 3 ns a frame.
const { loadOrdered32 } = ORDERED;
const {
  DESC_ALIGN,
  DESC_BYTES,
  DESC_F_AVAIL,
  DESC_F_NEXT,
  DESC_F_USED,
  DESC_F_WRITE,
  EVENT_DESC,
  EVENT_DISABLE,
  EVENT_ENABLE,
  EVENT_FLAGS_MASK,
  EVENT_SUPPRESS_ALIGN,
  EVENT_SUPPRESS_BYTES,
  FIRST_POSITION,
  isPackedRingSize,
  POSITION_MASK,
  packedBase,
  WRAP_COUNTER,
} = PACKED_RING;

/** Flags lie in the upper half of a descriptor's last word. */
const USED_BITS = (DESC_F_AVAIL | DESC_F_USED) << 16;
const WRITE_BIT = DESC_F_WRITE << 16;
const NONE = -1;

/** Bytes of guest memory that the three parts take. */
export function packedLayoutBytes(size: number): number {
  return size * DESC_BYTES + 2 * EVENT_SUPPRESS_BYTES;
}

export class PackedDriverLayout implements DriverLayout {
  readonly descOffset: number;
  readonly driverOffset: number;
  readonly deviceOffset: number;
  /** Four words a descriptor: address low, address high, length, id | flags << 16. */
  readonly desc: Int32Array;
  /** One word each: off_wrap | flags << 16. */
  readonly driverEvent: Int32Array;
  readonly deviceEvent: Int32Array;
  freeCount: number;
  outstandingCount = 0;
  usedBytes = 0;
  usedIsWhole = false;
  /** Where the next descriptor is written, and the flags that say available there. */
  #availAt = 0;
  #availFlags = DESC_F_AVAIL;
  /** Descriptors written since the last `publish`, and the first one's last word, which is held back till then. */
  #unpublishedCount = 0;
  #heldAt = NONE;
  #heldWord = 0;
  /** Where the next used descriptor comes, and what it looks like. */
  #usedAt = 0;
  #usedBits = USED_BITS;
  /** Buffers seen as used and not taken yet: a ring of as many as there can be. */
  readonly #seenId: Uint16Array;
  readonly #seenBytes: Int32Array;
  readonly #seenIsWhole: Uint8Array;
  #seenHead = 0;
  #seenTail = 0;
  #seenCount = 0;
  readonly #size: number;
  readonly #eventIdx: boolean;
  readonly #inOrder: boolean;
  readonly #idInAll: boolean;
  readonly #freeIds: Uint16Array;
  #freeIdCount: number;
  /** Descriptors of each buffer, by id. */
  readonly #descCount: Uint16Array;
  /** In order: the id of the buffer whose first descriptor lies there. */
  readonly #idAt: Uint16Array;

  /** @throws RangeError: no packed ring has so many descriptors, or the memory is used up */
  constructor({ memory, size, eventIdx, inOrder, idInAll = false }: LayoutOptions) {
    if (!isPackedRingSize(size)) throw new RangeError(`a packed ring cannot have ${size} descriptors`);
    this.#size = size;
    this.#eventIdx = eventIdx;
    this.#inOrder = inOrder;
    this.#idInAll = idInAll;
    this.descOffset = memory.allocate(size * DESC_BYTES, DESC_ALIGN);
    this.driverOffset = memory.allocate(EVENT_SUPPRESS_BYTES, EVENT_SUPPRESS_ALIGN);
    this.deviceOffset = memory.allocate(EVENT_SUPPRESS_BYTES, EVENT_SUPPRESS_ALIGN);
    this.desc = new Int32Array(memory.buffer, this.descOffset, size * 4);
    this.driverEvent = new Int32Array(memory.buffer, this.driverOffset, 1);
    this.deviceEvent = new Int32Array(memory.buffer, this.deviceOffset, 1);
    this.#seenId = new Uint16Array(size);
    this.#seenBytes = new Int32Array(size);
    this.#seenIsWhole = new Uint8Array(size);
    this.#freeIds = Uint16Array.from({ length: size }, (_, i) => size - 1 - i);
    this.#freeIdCount = size;
    this.#descCount = new Uint16Array(size);
    this.#idAt = new Uint16Array(size);
    this.freeCount = size;
    this.disarm();
  }

  takeId(): number {
    this.freeCount--;
    return this.#freeIds[--this.#freeIdCount];
  }

  offer(id: number, gpaLo: number, gpaHi: number, sizeBytes: number, flags: number): void {
    this.#descCount[id] = 1;
    if (this.#inOrder) this.#idAt[this.#availAt] = id;
    this.outstandingCount++;
    this.#write(gpaLo, gpaHi, sizeBytes, id, flags);
  }

  offerChain(id: number, pieces: readonly Piece[], flags: number): void {
    const last = pieces.length - 1;
    this.freeCount -= last;
    this.#descCount[id] = pieces.length;
    this.#idAt[this.#availAt] = id;
    this.outstandingCount++;
    for (const [i, { gpa, sizeBytes, flags: ownFlags = 0 }] of pieces.entries()) {
      const allFlags = flags | ownFlags | (i === last ? 0 : DESC_F_NEXT);
      // Only the last descriptor's id counts; the others say what must not be believed.
      const anyId = this.#idInAll || i === last ? id : 0xffff;
      this.#write(gpa | 0, Math.floor(gpa / 2 ** 32), sizeBytes, anyId, allFlags);
    }
  }

  /** Section 2.8.7: entries in order, with no flag but WRITE. */
  writeTable(table: DataView, pieces: readonly Piece[], flags: number): void {
    for (const [i, { gpa, sizeBytes, flags: ownFlags = 0 }] of pieces.entries()) {
      const at = i * DESC_BYTES;
      table.setBigUint64(at, BigInt(gpa), true);
      table.setUint32(at + 8, sizeBytes, true);
      // Reserved; the device has to ignore it.
      table.setUint16(at + 12, 0xffff, true);
      table.setUint16(at + 14, flags | ownFlags, true);
    }
  }

  publish(): boolean {
    const count = this.#unpublishedCount;
    if (count === 0) return false;
    this.#unpublishedCount = 0;
    // The device looks at descriptors in ring order, so the first one shows it all of them. Sequentially
    // consistent: the others are visible before it, and it before the device's wish to be kicked is read.
    Atomics.store(this.desc, this.#heldAt, this.#heldWord);
    this.#heldAt = NONE;
    return this.#wantsKick(count);
  }

  usedWaiting(): number {
    const { desc } = this;
    for (;;) {
      const at = (this.#usedAt << 2) + 3;
      const word = loadOrdered32(desc, at);
      if ((word & USED_BITS) !== this.#usedBits) return this.#seenCount;
      const id = word & 0xffff;
      if (id >= this.#size || this.outstandingCount === this.#seenCount) throw notOutstanding(id);
      // Without WRITE nothing was written, and the length means nothing (section 2.8.5).
      this.#seeUsed(id, (word & WRITE_BIT) === 0 ? 0 : desc[at - 1]);
    }
  }

  takeUsed(): number {
    const at = this.#seenHead;
    this.usedBytes = this.#seenBytes[at];
    if (this.#inOrder) this.usedIsWhole = this.#seenIsWhole[at] === 1;
    this.#seenHead = at + 1 === this.#size ? 0 : at + 1;
    this.#seenCount--;
    this.outstandingCount--;
    return this.#seenId[at];
  }

  free(id: number): void {
    this.freeCount += this.#descCount[id];
    this.#freeIds[this.#freeIdCount++] = id;
  }

  exchange(id: number): number {
    return id;
  }

  /** Section 2.8.10: always, or with EVENT_IDX at the next used descriptor. Both fields in one store. */
  arm(): void {
    const word = this.#eventIdx ? this.#usedPosition() | (EVENT_DESC << 16) : EVENT_ENABLE << 16;
    Atomics.store(this.driverEvent, 0, word);
  }

  disarm(): void {
    this.driverEvent[0] = EVENT_DISABLE << 16;
  }

  /** Nothing in memory says what the device has taken; what it has used is what the driver sees as used. */
  base(): number {
    this.usedWaiting();
    const position = this.#usedPosition();
    return packedBase(position, position);
  }

  /** Only the lower half of the base counts: a ring that starts has nothing in flight. */
  startAt(base: number): void {
    const start = base & POSITION_MASK;
    const isFirst = (base & WRAP_COUNTER) === FIRST_POSITION;
    this.#availAt = start;
    this.#availFlags = isFirst ? DESC_F_AVAIL : DESC_F_USED;
    this.#usedAt = start;
    this.#usedBits = isFirst ? USED_BITS : 0;
    // As the laps before left them: used, up to here in this lap, from here on in the one before.
    const beforeBits = USED_BITS ^ this.#usedBits;
    for (let i = 0; i < this.#size; i++) this.desc[i * 4 + 3] = i < start ? this.#usedBits : beforeBits;
    this.disarm();
  }

  #write(gpaLo: number, gpaHi: number, sizeBytes: number, id: number, flags: number): void {
    const { desc } = this;
    const at = this.#availAt << 2;
    const word = id | ((flags | this.#availFlags) << 16);
    desc[at] = gpaLo;
    desc[at + 1] = gpaHi;
    desc[at + 2] = sizeBytes;
    if (this.#unpublishedCount++ === 0) {
      this.#heldAt = at + 3;
      this.#heldWord = word;
    } else desc[at + 3] = word;
    if (++this.#availAt === this.#size) {
      this.#availAt = 0;
      this.#availFlags ^= DESC_F_AVAIL | DESC_F_USED;
    }
  }

  /** Goes on behind the descriptors of the buffer, or of the batch that it ends. */
  #seeUsed(id: number, sizeBytes: number): void {
    if (!this.#inOrder) {
      this.#see(id, sizeBytes, false);
      return;
    }
    for (;;) {
      const next = this.#idAt[this.#usedAt];
      const isEnd = next === id;
      this.#see(next, isEnd ? sizeBytes : 0, !isEnd);
      if (isEnd) return;
      if (this.#seenCount === this.outstandingCount)
        throw new DeviceError(`the device used buffer ${id} out of order`);
    }
  }

  #see(id: number, sizeBytes: number, isWhole: boolean): void {
    const at = this.#seenTail;
    this.#seenId[at] = id;
    this.#seenBytes[at] = sizeBytes;
    if (this.#inOrder) this.#seenIsWhole[at] = isWhole ? 1 : 0;
    this.#seenTail = at + 1 === this.#size ? 0 : at + 1;
    this.#seenCount++;
    this.#usedAt += this.#descCount[id];
    if (this.#usedAt >= this.#size) {
      this.#usedAt -= this.#size;
      this.#usedBits ^= USED_BITS;
    }
  }

  #usedPosition(): number {
    return this.#usedAt | (this.#usedBits === 0 ? 0 : WRAP_COUNTER);
  }

  /** Whether the device named one of the `count` descriptors just published, or does not name any. */
  #wantsKick(count: number): boolean {
    const { deviceEvent } = this;
    const event = loadOrdered32(deviceEvent, 0);
    const flags = (event >> 16) & EVENT_FLAGS_MASK;
    if (flags === EVENT_DISABLE) return false;
    if (flags !== EVENT_DESC || !this.#eventIdx) return true;
    // In the lap of the next descriptor; what lies in the one before counts from the ring's end backwards.
    const isThisLap = ((event & WRAP_COUNTER) !== 0) === (this.#availFlags === DESC_F_AVAIL);
    const named = (event & POSITION_MASK) - (isThisLap ? 0 : this.#size);
    return named >= this.#availAt - count && named < this.#availAt;
  }
}
