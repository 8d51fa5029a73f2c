/**
 * The embedded guest's receive queue (device side: toGuest). Buffers are offered in one piece, or in any
 * shape that a test asks for. `receive` gathers whole frames; `take` and `recycle` look at frames in place
 * and allocate nothing, for the demo and the benchmarks. One thread's object.
 */
import { NET_HEADER_BYTES, NET_HEADER_NUM_BUFFERS_OFFSET } from '../../protocol/virtio/net.ts';
import { DESC_F_WRITE } from '../../protocol/virtio/split-ring.ts';
import { DeviceError, type DriverOptions, type Shape, SplitDriver } from './split-driver.ts';

export type ReceiveOptions = DriverOptions & {
  /** The shape of each buffer offered; default: one piece of `bufferBytes`. */
  readonly shape?: (() => Shape) | undefined;
};

type PlacedBuffer = { readonly offsets: readonly number[]; readonly pieces: readonly number[] };

export class ReceiveQueue extends SplitDriver {
  /** Frames taken so far. */
  frames = 0;
  /** Bytes of the frame last taken, without the header. */
  frameBytes = 0;
  /** Header of the frame that `receive` took last. */
  header: Uint8Array = new Uint8Array(0);
  /** Whether buffers go back to the device when their frame was taken with `receive`. */
  refills = true;
  readonly #shape: (() => Shape) | null;
  /** Where the pieces of each shaped buffer lie, by head. */
  readonly #placed = new Map<number, PlacedBuffer>();
  #nextShape: Shape | null = null;

  constructor(options: ReceiveOptions) {
    super(options);
    this.#shape = options.shape ?? null;
  }

  /** Offers as many buffers as there are free descriptors. */
  fill(): void {
    if (this.#shape === null) {
      while (this.freeCount > 0)
        this.offerSlot(this.freeStack[--this.freeCount], this.bufferBytes, DESC_F_WRITE);
    } else {
      while (this.#offerShaped(this.#shape));
    }
    this.publish();
  }

  /** The next frame, or null when none waits. Allocates. @throws DeviceError: the used ring makes no sense */
  receive(): Uint8Array | null {
    let waiting = this.usedWaiting();
    if (waiting === 0) return null;
    if (waiting > this.size) throw new DeviceError(`${waiting} used entries in a ring of ${this.size}`);
    const parts = [this.#takeBytes()];
    this.header = parts[0].slice(0, this.headerBytes);
    if (this.header.length < this.headerBytes)
      throw new DeviceError('a used buffer is shorter than the header');
    for (let left = this.#bufferCount() - 1; left > 0; left--) {
      if (--waiting === 0) throw new DeviceError('a frame lacks buffers that its header counts');
      parts.push(this.#takeBytes());
    }
    const frame = Uint8Array.from(Buffer.concat(parts).subarray(this.headerBytes));
    this.frames++;
    this.frameBytes = frame.length;
    if (this.refills) this.fill();
    return frame;
  }

  /** The next frame, awaited with the call descriptor. */
  async received(): Promise<Uint8Array> {
    for (;;) {
      const frame = this.receive();
      if (frame !== null) return frame;
      await this.interrupt();
    }
  }

  /**
   * Takes the next frame where it lies, which must be in a single buffer of one piece; call only when
   * `usedWaiting()` says that there is one. Answers its offset in guest memory and sets `frameBytes`.
   * @throws DeviceError: it does not lie in one buffer
   */
  take(): number {
    this.takeUsed();
    const offset = this.bufferOffsets[this.usedHead];
    this.frameBytes = this.usedBytes - this.headerBytes;
    if (this.frameBytes < 0 || this.usedBytes > this.bufferBytes) throw badLength(this.usedBytes);
    if (this.mergeable) {
      const count = this.memory.u8[offset + NET_HEADER_NUM_BUFFERS_OFFSET];
      if (count !== 1) throw new DeviceError(`a frame in ${count} buffers where one was expected`);
    }
    this.frames++;
    return offset + this.headerBytes;
  }

  /** Offers the buffer last taken again; the device sees it after `flush`. */
  recycle(): void {
    this.offerSlot(this.usedHead, this.bufferBytes, DESC_F_WRITE);
  }

  flush(): void {
    this.publish();
  }

  #offerShaped(makeShape: () => Shape): boolean {
    const shape = this.#nextShape ?? makeShape();
    const placed = this.offerShaped(shape, DESC_F_WRITE);
    this.#nextShape = placed === null ? shape : null;
    if (placed === null) return false;
    this.#placed.set(placed.head, { offsets: placed.pieceOffsets, pieces: shape.pieces });
    return true;
  }

  /** What the device wrote to the next used chain. */
  #takeBytes(): Uint8Array {
    this.takeUsed();
    const placed = this.#placed.get(this.usedHead) ?? {
      offsets: [this.bufferOffsets[this.usedHead]],
      pieces: [this.bufferBytes],
    };
    this.#placed.delete(this.usedHead);
    const bytes = new Uint8Array(this.usedBytes >>> 0);
    let done = 0;
    for (const [i, offset] of placed.offsets.entries()) {
      const count = Math.min(placed.pieces[i], bytes.length - done);
      bytes.set(this.memory.u8.subarray(offset, offset + count), done);
      done += count;
    }
    if (done < bytes.length) throw badLength(bytes.length);
    this.free(this.usedHead);
    return bytes;
  }

  #bufferCount(): number {
    if (this.headerBytes < NET_HEADER_BYTES) return 1;
    const at = NET_HEADER_NUM_BUFFERS_OFFSET;
    const count = this.header[at] | (this.header[at + 1] << 8);
    if (count === 0 || (count > 1 && !this.mergeable)) throw new DeviceError(`a frame in ${count} buffers`);
    return count;
  }
}

function badLength(sizeBytes: number): DeviceError {
  return new DeviceError(`the device claims to have written ${sizeBytes} bytes to a buffer`);
}
