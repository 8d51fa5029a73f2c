/**
 * The embedded guest's transmit queue (device side: fromGuest). `send` takes whole frames in any shape, for
 * tests; `reserve`, `commit` and `flush` fill buffers in place and allocate nothing, for the demo and the
 * benchmarks. One thread's object.
 */
import assert from 'node:assert';
import { type DriverOptions, DriverRing } from './driver-ring.ts';

export type SendOptions = {
  /** Sizes of the first parts of header and frame taken together; what is left is the last part. */
  readonly pieces?: readonly number[];
  /** Describe the parts in an indirect table. */
  readonly indirect?: boolean;
  /** The virtio-net header; default: zeros. */
  readonly header?: Uint8Array;
};

const ID_NONE = -1;

export class SendQueue {
  readonly ring: DriverRing;
  /** Frames offered to the device so far. */
  frames = 0;
  #reserved = ID_NONE;

  constructor(options: DriverOptions) {
    this.ring = new DriverRing(options);
    // The device never writes here, so plain headers are written once.
    this.clearHeaders();
  }

  /** Sends one frame; false when no buffer is free. Allocates. @throws RangeError: it does not fit a buffer */
  send(frame: Uint8Array, options: SendOptions = {}): boolean {
    const sent = this.post(frame, options);
    this.ring.publish();
    return sent;
  }

  /** As `send`, but the device sees it only after `flush`. What was reserved must have been committed. */
  post(frame: Uint8Array, options: SendOptions = {}): boolean {
    assert(this.#reserved === ID_NONE, 'buffers are offered in the order in which they were taken');
    const { ring } = this;
    this.reclaim();
    const bytes = new Uint8Array(ring.headerBytes + frame.length);
    if (options.header !== undefined) bytes.set(options.header);
    bytes.set(frame, ring.headerBytes);
    const pieces = fullPieces(bytes.length, options.pieces ?? []);
    const placed = ring.offerShaped({ pieces, indirect: options.indirect ?? false }, 0);
    if (placed === null) return false;
    let done = 0;
    for (const [i, offset] of placed.pieceOffsets.entries()) {
      ring.memory.u8.set(bytes.subarray(done, done + pieces[i]), offset);
      done += pieces[i];
    }
    this.frames++;
    return true;
  }

  /** Takes back what the device has used; answers how many descriptors are free. */
  reclaim(): number {
    const { ring } = this;
    for (let waiting = ring.usedWaiting(); waiting > 0; waiting--) {
      ring.free(ring.takeUsed());
    }
    return ring.freeCount;
  }

  /** Offset in guest memory where a frame may be written now, `bufferBytes` less the header long; -1: none. */
  reserve(): number {
    const { ring } = this;
    if (this.#reserved === ID_NONE) {
      if (ring.freeCount === 0 && this.reclaim() === 0) return -1;
      this.#reserved = ring.takeId();
    }
    return ring.bufferOffsets[this.#reserved] + ring.headerBytes;
  }

  /** Offers the frame written where `reserve` said. The header there must be as `clearHeaders` left it. */
  commit(frameBytes: number): void {
    this.ring.offer(this.#reserved, this.ring.headerBytes + frameBytes, 0);
    this.#reserved = ID_NONE;
    this.frames++;
  }

  flush(): void {
    this.ring.publish();
  }

  /** Zeroes the header of every buffer that the device has not: once before `reserve`, and again after `send`. */
  clearHeaders(): void {
    const { bufferOffsets, headerBytes, memory } = this.ring;
    for (const [id, offset] of bufferOffsets.entries()) {
      if (!this.ring.isOutstanding(id)) memory.u8.fill(0, offset, offset + headerBytes);
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
