/**
 * A virtqueue as the driver sees it: buffers in guest memory and who has them, in what shape they are offered,
 * when to kick the device and when to be interrupted. It has a layout (driver-layout.ts), which knows how all
 * that is written to the ring; send and receive queue have such a ring. One thread's object.
 */
import assert from 'node:assert';
import { DESC_BYTES, DESC_F_INDIRECT } from '../../protocol/virtio/split-ring.ts';
import { PeerSignal } from '../host/peer-signal.ts';
import type { RingLayoutKind } from '../vring/attachment.ts';
import { type DriverLayout, notOutstanding, type Piece } from './driver-layout.ts';
import { DRIVER_LAYOUTS } from './driver-layouts.ts';
import type { DriverMemory } from './guest-memory.ts';
import { Interrupts } from './interrupts.ts';

export type DriverOptions = {
  readonly memory: DriverMemory;
  readonly layout: RingLayoutKind;
  /** Descriptors of the ring: a power of two from 2 to 32,768 if it is split, any from 1 on if it is packed. */
  readonly size: number;
  /** Bytes of the virtio-net header: 10 or 12. */
  readonly headerBytes: number;
  readonly eventIdx: boolean;
  readonly indirect: boolean;
  readonly inOrder: boolean;
  readonly mergeable: boolean;
  /** Bytes of each buffer, the header with them. */
  readonly bufferBytes: number;
};

/** How a buffer is described to the device. */
export type Shape = {
  /** Bytes of each part, in order; a part may be empty. */
  readonly pieces: readonly number[];
  /** All parts in an indirect table behind one descriptor. */
  readonly indirect?: boolean;
};

export type PlacedBuffer = { readonly id: number; readonly pieceOffsets: readonly number[] };

/** How the device is told that something was offered. */
export type Doorbell = { send(): unknown };

/** Most parts that an indirect table of this driver describes. */
export const INDIRECT_PIECES_MAX = 64;
/** Between two parts of one buffer lie bytes that neither side may touch; odd, so that parts are unaligned. */
export const PIECE_GAP_BYTES = 5;

export class DriverRing {
  readonly memory: DriverMemory;
  readonly layout: DriverLayout;
  readonly size: number;
  readonly headerBytes: number;
  readonly mergeable: boolean;
  readonly bufferBytes: number;
  /** Where each buffer starts in guest memory, by its id. */
  readonly bufferOffsets: Int32Array;
  /** -1: never interrupted. */
  callFd = -1;
  /** Times that the device was kicked. */
  kicks = 0;
  /** The used buffer last taken. */
  usedId = 0;
  readonly #indirect: boolean;
  readonly #gpaLo: Int32Array;
  readonly #gpaHi: Int32Array;
  /** Which buffers the device has. */
  readonly #isOutstanding: Uint8Array;
  #tablesOffset = -1;
  readonly #interrupts = new Interrupts(this);
  #kickFd = -1;
  #doorbell: Doorbell | null = null;

  /** @throws RangeError: the layout has no ring of that size, or the memory is used up */
  constructor(options: DriverOptions) {
    const { memory, size } = options;
    this.memory = memory;
    this.size = size;
    this.headerBytes = options.headerBytes;
    this.mergeable = options.mergeable;
    this.bufferBytes = options.bufferBytes;
    this.#indirect = options.indirect;
    this.layout = DRIVER_LAYOUTS[options.layout].make(options);
    this.bufferOffsets = Int32Array.from({ length: size }, () => memory.allocate(options.bufferBytes));
    this.#gpaLo = this.bufferOffsets.map((offset) => memory.gpaOf(offset) | 0);
    this.#gpaHi = this.bufferOffsets.map((offset) => Math.floor(memory.gpaOf(offset) / 2 ** 32));
    this.#isOutstanding = new Uint8Array(size);
  }

  /** -1: the device polls. Owned by the guest (net-device.ts). */
  get kickFd(): number {
    return this.#kickFd;
  }

  set kickFd(fd: number) {
    this.#kickFd = fd;
    // The device shares the descriptor too.
    this.#doorbell = fd < 0 ? null : new PeerSignal(fd);
  }

  /** Wakes the device otherwise than by a descriptor: by a register, for one. */
  set doorbell(doorbell: Doorbell) {
    this.#doorbell = doorbell;
  }

  /** Bytes that the device wrote to the used buffer last taken. */
  get usedBytes(): number {
    return this.layout.usedBytes;
  }

  /** Where its indirect tables lie, which the driver alone writes; null: none was needed yet. */
  get tables(): { readonly offset: number; readonly sizeBytes: number } | null {
    if (this.#tablesOffset < 0) return null;
    return { offset: this.#tablesOffset, sizeBytes: this.size * INDIRECT_PIECES_MAX * DESC_BYTES };
  }

  /** Descriptors that neither side has in use. */
  get freeCount(): number {
    return this.layout.freeCount;
  }

  /** Whether the device has this buffer now. */
  isOutstanding(id: number): boolean {
    return this.#isOutstanding[id] === 1;
  }

  /** A free buffer's id; call only when `freeCount` is not 0, and offer buffers in the order they were taken. */
  takeId(): number {
    return this.layout.takeId();
  }

  /** Offers the first `sizeBytes` of a buffer as one descriptor; the device sees it after `publish`. */
  offer(id: number, sizeBytes: number, flags: number): void {
    this.#isOutstanding[id] = 1;
    this.layout.offer(id, this.#gpaLo[id], this.#gpaHi[id], sizeBytes, flags);
  }

  /** How many descriptors a shape takes from the ring. */
  descriptorsFor(shape: Shape): number {
    return shape.indirect === true ? 1 : shape.pieces.length;
  }

  /**
   * Offers a free buffer cut in pieces, each with `flags`. Answers where the pieces lie in guest memory, or
   * null when too few descriptors are free. Allocates: for tests.
   * @throws RangeError when the pieces do not fit the buffer or the features do not allow the shape
   */
  offerShaped(shape: Shape, flags: number): PlacedBuffer | null {
    this.#checkShape(shape);
    if (this.descriptorsFor(shape) > this.layout.freeCount) return null;
    const id = this.layout.takeId();
    const pieceOffsets = this.#layOut(id, shape.pieces);
    const pieces = pieceOffsets.map((offset, i) => ({
      gpa: this.memory.gpaOf(offset),
      sizeBytes: shape.pieces[i],
    }));
    this.#isOutstanding[id] = 1;
    if (shape.indirect === true) this.#offerTable(id, pieces, flags);
    else this.layout.offerChain(id, pieces, flags);
    return { id, pieceOffsets };
  }

  /** Shows the device what was offered and kicks it if it asks for that. */
  publish(): void {
    if (this.layout.publish()) this.kick();
  }

  kick(): void {
    this.kicks++;
    this.#doorbell?.send();
  }

  /** Used buffers that wait. @throws DeviceError: what the device wrote makes no sense */
  usedWaiting(): number {
    return this.layout.usedWaiting();
  }

  /**
   * Takes the next used buffer to `usedId`, which it answers too, and `usedBytes`; call only when one waits.
   * Its descriptors stay taken until `free`.
   * @throws DeviceError: the device never had it
   */
  takeUsed(): number {
    const id = this.layout.takeUsed();
    if (this.#isOutstanding[id] !== 1) throw notOutstanding(id);
    this.#isOutstanding[id] = 0;
    this.usedId = id;
    return id;
  }

  /** Gives a buffer's descriptors back to the free ones, in the order of `takeUsed`. */
  free(id: number): void {
    this.layout.free(id);
  }

  /** Asks for an interrupt at the next used buffer; false when one waits already. */
  arm(): boolean {
    this.layout.arm();
    return this.layout.usedWaiting() === 0;
  }

  /** Asks for no interrupts. */
  disarm(): void {
    this.layout.disarm();
  }

  /** Resolves when the device interrupted or has something already. Rejects when the guest is closed. */
  interrupt(): Promise<void> {
    return this.#interrupts.wait();
  }

  /** Ends waits for interrupts; before the call descriptor is closed. */
  abandon(error: Error): void {
    this.#interrupts.abandon(error);
  }

  #checkShape({ pieces, indirect }: Shape): void {
    if (pieces.length === 0) throw new RangeError('a chain has at least one piece');
    const gapBytes = PIECE_GAP_BYTES * (pieces.length - 1);
    const neededBytes = pieces.reduce((sum, bytes) => sum + bytes, gapBytes);
    if (neededBytes > this.bufferBytes)
      throw new RangeError(`pieces [${pieces}] do not fit ${this.bufferBytes} bytes`);
    if (indirect !== true) return;
    if (!this.#indirect) throw new RangeError('indirect descriptors were not negotiated');
    if (pieces.length > INDIRECT_PIECES_MAX)
      throw new RangeError(`${pieces.length} pieces in an indirect table`);
  }

  /** Last piece first, gaps between them, so that nothing works only because pieces happen to be neighbours. */
  #layOut(id: number, pieces: readonly number[]): number[] {
    let offset = this.bufferOffsets[id];
    const endOffset = offset + this.bufferBytes;
    const offsets = new Array<number>(pieces.length).fill(offset);
    for (let i = pieces.length - 1; i >= 0; i--) {
      offsets[i] = offset;
      offset += pieces[i] + (i === 0 ? 0 : PIECE_GAP_BYTES);
    }
    assert(offset <= endOffset, 'the shape was checked');
    return offsets;
  }

  #offerTable(id: number, pieces: readonly Piece[], flags: number): void {
    const tableBytes = INDIRECT_PIECES_MAX * DESC_BYTES;
    if (this.#tablesOffset < 0) this.#tablesOffset = this.memory.allocate(this.size * tableBytes, DESC_BYTES);
    const tableOffset = this.#tablesOffset + id * tableBytes;
    this.layout.writeTable(new DataView(this.memory.buffer, tableOffset, tableBytes), pieces, flags);
    const gpa = this.memory.gpaOf(tableOffset);
    const hi = Math.floor(gpa / 2 ** 32);
    this.layout.offer(id, gpa | 0, hi, pieces.length * DESC_BYTES, DESC_F_INDIRECT);
  }
}
