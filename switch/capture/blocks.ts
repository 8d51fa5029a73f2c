/**
 * From the ring of a capture (switch/l2/capture-ring.ts) to what a reader of pcapng gets: whole blocks are copied as they stand, many
 * at once, and one of a frame that was dropped gets the reason as its comment. Main thread.
 */
import {
  BLOCK_BYTES_MIN,
  encodeOption,
  OPTION_COMMENT,
  PACKET_HEAD_BYTES,
  PACKET_TAIL_BYTES,
} from '../../protocol/pcapng-blocks.ts';
import {
  CAPTURE_RING_BYTES,
  FLAGS_FROM_END_BYTES,
  REASON_SHIFT,
  RING_HEAD,
  RING_TAIL,
} from '../l2/capture-ring.ts';
import { DROP_REASONS } from '../l2/drop-reasons.ts';

/** Longest comment of a reason, with its option's head. */
const COMMENT_BYTES_MAX = 256;
const FLAGS_BITS = 2 ** REASON_SHIFT - 1;
const NEVER = Number.POSITIVE_INFINITY;

/** By 1 + the index of a reason: the comment of its frames as an option. */
const COMMENTS = [new Uint8Array(0), ...DROP_REASONS.map(({ name, text }) => commentOf(name, text))];

function commentOf(name: string, text: string): Uint8Array {
  const option = encodeOption(OPTION_COMMENT, `dropped: ${name} (${text})`);
  if (option.length > COMMENT_BYTES_MAX) throw new Error(`the text of ${name} is too long for a comment`);
  return option;
}

/** Of a worker's ring. */
export class RingReader {
  readonly #bytes: Uint8Array;
  readonly #words: Int32Array;
  readonly #indices: Int32Array;
  /** Taken so far, running. */
  #tail: number;
  /** Of the last `take`. */
  packets = 0;

  /** `bytes`: the ring, in memory that the worker writes. */
  constructor(bytes: Uint8Array, indices: Int32Array) {
    this.#bytes = bytes;
    this.#words = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length >> 2);
    this.#indices = indices;
    this.#tail = Atomics.load(indices, RING_TAIL);
  }

  /** When the next frame was copied, in nanoseconds as well as a double tells them; Infinity: there is none. */
  get nextTime(): number {
    const at = this.#next();
    return at < 0 ? NEVER : this.#timeAt(at);
  }

  #timeAt(at: number): number {
    return (this.#words[at + 3] >>> 0) * 2 ** 32 + (this.#words[at + 4] >>> 0);
  }

  /**
   * Copies blocks to `to` from `offset` on, `packetsMax` at most and none of after `endTime`, and gives their place back to
   * the worker. Answers where in `to` they end; `packets` are how many.
   */
  take(to: Uint8Array, offset: number, packetsMax: number, endTime: number): number {
    let end = offset;
    // Blocks that follow one another and need no comment are copied at once.
    let runStart = 0;
    let runBytes = 0;
    const copyRun = (): void => {
      to.set(this.#bytes.subarray(runStart, runStart + runBytes), end);
      end += runBytes;
      runBytes = 0;
    };
    this.packets = 0;
    for (; this.packets < packetsMax; this.packets++) {
      const next = this.#next();
      if (next < 0 || this.#timeAt(next) > endTime) break;
      const start = next << 2;
      const blockBytes = this.#words[next + 1];
      if (end + runBytes + blockBytes + COMMENT_BYTES_MAX > to.length) break;
      if (start !== runStart + runBytes) copyRun();
      if (runBytes === 0) runStart = start;
      runBytes += blockBytes;
      this.#tail = (this.#tail + blockBytes) | 0;
      const flags = this.#words[(start + blockBytes - FLAGS_FROM_END_BYTES) >> 2];
      if (flags >>> REASON_SHIFT === 0) continue;
      copyRun();
      end = withComment(to, end - blockBytes, blockBytes, flags);
    }
    copyRun();
    Atomics.store(this.#indices, RING_TAIL, this.#tail);
    return end;
  }

  /** Word in the ring of the next block; -1: there is none. */
  #next(): number {
    const head = Atomics.load(this.#indices, RING_HEAD);
    if (head === this.#tail) return -1;
    let place = this.#tail & (CAPTURE_RING_BYTES - 1);
    if (this.#words[place >> 2] === 0) {
      this.#tail = (this.#tail + CAPTURE_RING_BYTES - place) | 0;
      if (head === this.#tail) return -1;
      place = 0;
    }
    return place >> 2;
  }
}

/** Makes a comment of the reason in the flags of a block that ends at `start + blockBytes`; answers where it ends then. */
function withComment(to: Uint8Array, start: number, blockBytes: number, flags: number): number {
  const reason = flags >>> REASON_SHIFT;
  if (reason === 0) return start + blockBytes;
  const option = COMMENTS[reason];
  const view = new DataView(to.buffer, to.byteOffset + start);
  const tailAt = blockBytes - PACKET_TAIL_BYTES;
  view.setUint32(blockBytes - FLAGS_FROM_END_BYTES, flags & FLAGS_BITS, true);
  to.copyWithin(start + tailAt + option.length, start + tailAt, start + blockBytes);
  to.set(option, start + tailAt);
  const commentedBytes = blockBytes + option.length;
  view.setUint32(4, commentedBytes, true);
  view.setUint32(commentedBytes - 4, commentedBytes, true);
  return start + commentedBytes;
}

/** Bytes of a chunk in which any block has room. */
export const CHUNK_BYTES_MIN = 2 ** 17 + PACKET_HEAD_BYTES + BLOCK_BYTES_MIN + COMMENT_BYTES_MAX;
