/**
 * The embedded guest's receive queue (device side: toGuest). Buffers are offered in one piece, or in any
 * shape that a test asks for. `receive` gathers whole frames; `take` and `recycle` look at frames in place
 * and allocate nothing, for the demo and the benchmarks. One thread's object.
 */
import { NET_HEADER_BYTES, NET_HEADER_NUM_BUFFERS_OFFSET } from '../../protocol/virtio/net.ts';
import { DESC_F_WRITE } from '../../protocol/virtio/split-ring.ts';
import { DeviceError } from './driver-layout.ts';
import { type DriverOptions, DriverRing, type Shape } from './driver-ring.ts';

export type ReceiveOptions = DriverOptions & {
  /** The shape of each buffer offered; default: one piece of `bufferBytes`. */
  readonly shape?: (() => Shape) | undefined;
};

type ShapedBuffer = { readonly offsets: readonly number[]; readonly pieces: readonly number[] };

export class ReceiveQueue {
  readonly ring: DriverRing;
  /** Frames taken so far. */
  frames = 0;
  /** Bytes of the frame last taken, without the header. */
  frameBytes = 0;
  /** Header of the frame that `receive` took last. */
  header: Uint8Array = new Uint8Array(0);
  /** Whether buffers go back to the device when their frame was taken with `receive`. */
  refills = true;
  readonly #shape: (() => Shape) | null;
  /** Where the pieces of each shaped buffer lie, by its id. */
  readonly #placed = new Map<number, ShapedBuffer>();
  #nextShape: Shape | null = null;

  constructor(options: ReceiveOptions) {
    this.ring = new DriverRing(options);
    this.#shape = options.shape ?? null;
  }

  /** Offers as many buffers as there are free descriptors. */
  fill(): void {
    const { ring } = this;
    if (this.#shape === null) {
      while (ring.freeCount > 0) ring.offer(ring.takeId(), ring.bufferBytes, DESC_F_WRITE);
    } else {
      while (this.#offerShaped(this.#shape));
    }
    ring.publish();
  }

  /** Used buffers that wait; without mergeable buffers each is a frame. */
  usedWaiting(): number {
    return this.ring.usedWaiting();
  }

  /** The next frame, or null when none waits. Allocates. @throws DeviceError: what was used makes no sense */
  receive(): Uint8Array | null {
    const { headerBytes, size } = this.ring;
    let waiting = this.ring.usedWaiting();
    if (waiting === 0) return null;
    if (waiting > size) throw new DeviceError(`${waiting} used entries in a ring of ${size}`);
    const parts = [this.#takeBytes()];
    this.header = parts[0].slice(0, headerBytes);
    if (this.header.length < headerBytes) throw new DeviceError('a used buffer is shorter than the header');
    for (let left = this.#bufferCount() - 1; left > 0; left--) {
      if (--waiting === 0) throw new DeviceError('a frame lacks buffers that its header counts');
      parts.push(this.#takeBytes());
    }
    const frame = Uint8Array.from(Buffer.concat(parts).subarray(headerBytes));
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
      await this.ring.interrupt();
    }
  }

  /**
   * Takes the next frame where it lies, which must be in a single buffer of one piece; call only when
   * `usedWaiting()` says that there is one. Answers its offset in guest memory and sets `frameBytes`.
   * @throws DeviceError: it does not lie in one buffer
   */
  take(): number {
    const { ring } = this;
    const offset = ring.bufferOffsets[ring.takeUsed()];
    const usedBytes = ring.layout.usedIsWhole ? ring.bufferBytes : ring.usedBytes;
    this.frameBytes = usedBytes - ring.headerBytes;
    if (this.frameBytes < 0 || usedBytes > ring.bufferBytes) throw badLength(usedBytes);
    if (ring.mergeable) {
      const count = ring.memory.u8[offset + NET_HEADER_NUM_BUFFERS_OFFSET];
      if (count !== 1) throw new DeviceError(`a frame in ${count} buffers where one was expected`);
    }
    this.frames++;
    return offset + ring.headerBytes;
  }

  /** Offers a buffer for the one last taken, whose bytes may change then; the device sees it after `flush`. */
  recycle(): void {
    const { ring } = this;
    ring.offer(ring.layout.exchange(ring.usedId), ring.bufferBytes, DESC_F_WRITE);
  }

  flush(): void {
    this.ring.publish();
  }

  #offerShaped(makeShape: () => Shape): boolean {
    const shape = this.#nextShape ?? makeShape();
    const placed = this.ring.offerShaped(shape, DESC_F_WRITE);
    this.#nextShape = placed === null ? shape : null;
    if (placed === null) return false;
    this.#placed.set(placed.id, { offsets: placed.pieceOffsets, pieces: shape.pieces });
    return true;
  }

  /** What the device wrote to the next used buffer. */
  #takeBytes(): Uint8Array {
    const { ring } = this;
    const id = ring.takeUsed();
    const { offsets, pieces } = this.#placed.get(id) ?? {
      offsets: [ring.bufferOffsets[id]],
      pieces: [ring.bufferBytes],
    };
    this.#placed.delete(id);
    const sizeBytes = pieces.reduce((sum, bytes) => sum + bytes, 0);
    const usedBytes = ring.layout.usedIsWhole ? sizeBytes : ring.usedBytes >>> 0;
    if (usedBytes > sizeBytes) throw badLength(usedBytes);
    const bytes = new Uint8Array(usedBytes);
    let done = 0;
    for (const [i, offset] of offsets.entries()) {
      const count = Math.min(pieces[i], usedBytes - done);
      bytes.set(ring.memory.u8.subarray(offset, offset + count), done);
      done += count;
    }
    ring.free(id);
    return bytes;
  }

  #bufferCount(): number {
    const { headerBytes, mergeable } = this.ring;
    if (headerBytes < NET_HEADER_BYTES) return 1;
    const at = NET_HEADER_NUM_BUFFERS_OFFSET;
    const count = this.header[at] | (this.header[at + 1] << 8);
    if (count === 0 || (count > 1 && !mergeable)) throw new DeviceError(`a frame in ${count} buffers`);
    return count;
  }
}

function badLength(sizeBytes: number): DeviceError {
  return new DeviceError(`the device claims to have written ${sizeBytes} bytes to a buffer`);
}
