/**
 * The embedded guest's transmit queue (device side: fromGuest). `send` takes whole frames in any shape, for
 * tests; `reserve`, `commit` and `flush` fill buffers in place and allocate nothing, for the demo and the
 * benchmarks. One thread's object.
 */
import { type DriverOptions, SplitDriver } from './split-driver.ts';

export type SendOptions = {
  /** Sizes of the first parts of header and frame taken together; what is left is the last part. */
  readonly pieces?: readonly number[];
  /** Describe the parts in an indirect table. */
  readonly indirect?: boolean;
  /** The virtio-net header; default: zeros. */
  readonly header?: Uint8Array;
};

const SLOT_NONE = -1;

export class SendQueue extends SplitDriver {
  /** Frames offered to the device so far. */
  frames = 0;
  #reserved = SLOT_NONE;

  constructor(options: DriverOptions) {
    super(options);
    // The device never writes here, so plain headers are written once.
    this.clearHeaders();
  }

  /** Sends one frame; false when no buffer is free. Allocates. @throws RangeError: it does not fit a buffer */
  send(frame: Uint8Array, options: SendOptions = {}): boolean {
    const sent = this.post(frame, options);
    this.publish();
    return sent;
  }

  /** As `send`, but the device sees it only after `flush`. */
  post(frame: Uint8Array, options: SendOptions = {}): boolean {
    this.reclaim();
    const bytes = new Uint8Array(this.headerBytes + frame.length);
    if (options.header !== undefined) bytes.set(options.header);
    bytes.set(frame, this.headerBytes);
    const pieces = fullPieces(bytes.length, options.pieces ?? []);
    const placed = this.offerShaped({ pieces, indirect: options.indirect ?? false }, 0);
    if (placed === null) return false;
    let done = 0;
    for (const [i, offset] of placed.pieceOffsets.entries()) {
      this.memory.u8.set(bytes.subarray(done, done + pieces[i]), offset);
      done += pieces[i];
    }
    this.frames++;
    return true;
  }

  /** Takes back what the device has used; answers how many descriptors are free. */
  reclaim(): number {
    for (let waiting = this.usedWaiting(); waiting > 0; waiting--) {
      this.takeUsed();
      this.free(this.usedHead);
    }
    return this.freeCount;
  }

  /** Offset in guest memory where a frame may be written now, `bufferBytes` less the header long; -1: none. */
  reserve(): number {
    if (this.#reserved === SLOT_NONE) {
      if (this.freeCount === 0 && this.reclaim() === 0) return -1;
      this.#reserved = this.freeStack[--this.freeCount];
    }
    return this.bufferOffsets[this.#reserved] + this.headerBytes;
  }

  /** Offers the frame written where `reserve` said. The header there must be as `clearHeaders` left it. */
  commit(frameBytes: number): void {
    this.offerSlot(this.#reserved, this.headerBytes + frameBytes, 0);
    this.#reserved = SLOT_NONE;
    this.frames++;
  }

  flush(): void {
    this.publish();
  }

  /** Zeroes the header of every free buffer: once before `reserve`, and again if `send` was used meanwhile. */
  clearHeaders(): void {
    for (let i = 0; i < this.freeCount; i++) {
      const offset = this.bufferOffsets[this.freeStack[i]];
      this.memory.u8.fill(0, offset, offset + this.headerBytes);
    }
  }
}

function fullPieces(totalBytes: number, firstPieces: readonly number[]): number[] {
  const firstBytes = firstPieces.reduce((sum, bytes) => sum + bytes, 0);
  if (firstBytes > totalBytes) throw new RangeError(`pieces of ${firstBytes} bytes for ${totalBytes} bytes`);
  const pieces = [...firstPieces];
  if (firstBytes < totalBytes || pieces.length === 0) pieces.push(totalBytes - firstBytes);
  return pieces;
}
