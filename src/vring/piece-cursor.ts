/** Pieces of guest memory that are written one after the other, as one stream of bytes. One thread's object. */
import type { ArenaView } from '../memory/arena-view.ts';
import { WINDOW_BYTES } from '../memory/window.ts';
import { requestWord0, requestWord1, requestWord2 } from '../offload/net-header.ts';
import { ADDRESSES_BYTES, type Batch, HEAD_BYTES, IN_PIECES } from '../queue/batch.ts';
import { TAG_BYTES } from '../queue/frame-tags.ts';
import type { DirtyLog } from './dirty-log.ts';
import { netHeaderByte, writeByte, writeBytes } from './guest-writes.ts';

/**
 * More pieces than that are read once before they are copied. Each may lie in a page and a line of its own that no cache
 * has, and where nothing else is done the processor waits for many of them at once, not for one after the other.
 */
const PIECES_UNREAD_MAX = 8;

export class PieceCursor {
  declare private readonly arena: ArenaView;
  declare private readonly window: Int32Array;
  declare private readonly index: Int32Array;
  declare private readonly sizeBytes: Int32Array;
  private count = 0;
  private piece = 0;
  private doneBytes = 0;
  /** Nobody needs it; V8 would leave out reads that come to nothing. */
  firstBytesSum = 0;

  constructor(arena: ArenaView, piecesMax: number) {
    this.arena = arena;
    this.window = new Int32Array(piecesMax);
    this.index = new Int32Array(piecesMax);
    this.sizeBytes = new Int32Array(piecesMax);
  }

  clear(): void {
    this.count = 0;
    this.piece = 0;
    this.doneBytes = 0;
  }

  /** False when there is no room for another piece. */
  add(window: number, index: number, sizeBytes: number): boolean {
    const at = this.count;
    if (at === this.window.length) return false;
    this.window[at] = window;
    this.index[at] = index;
    this.sizeBytes[at] = sizeBytes;
    this.count = at + 1;
    return true;
  }

  /** All pieces are written, or may be. */
  markIn(log: DirtyLog): void {
    for (let at = 0; at < this.count; at++)
      log.markPlace(this.window[at] * WINDOW_BYTES + this.index[at], this.sizeBytes[at]);
  }

  writeNetHeader(headerBytes: number, bufferCount: number): void {
    for (let at = 0; at < headerBytes; at++) this.#writeByte(netHeaderByte(at, bufferCount));
  }

  /** The header of a frame that is handed over with what it asks for. */
  writeRequestHeader(headerBytes: number, bufferCount: number, batch: Batch, frame: number): void {
    const { pushBytes } = batch.tags;
    this.#writeWord(requestWord0(batch, frame, pushBytes));
    this.#writeWord(requestWord1(batch, frame, pushBytes));
    const word2 = requestWord2(batch, frame, bufferCount);
    for (let at = 8; at < headerBytes; at++) this.#writeByte((word2 >>> (8 * (at - 8))) & 0xff);
  }

  /** A frame: addresses, tags and EtherType as they stand in the batch, then the rest from wherever it lies. */
  writeFrame(batch: Batch, frame: number): void {
    if (this.count > PIECES_UNREAD_MAX) this.#readFirstBytes(this.window, this.index, 0, this.count);
    let skipBytes = this.#writeHead(batch, frame);
    const window = batch.windowOf(frame);
    if (window !== IN_PIECES) {
      this.#write(window, batch.indexOf(frame) + skipBytes, batch.bytesOf(frame) - skipBytes);
      return;
    }
    const first = batch.firstPieceOf(frame);
    const end = first + batch.pieceCountOf(frame);
    if (end - first > PIECES_UNREAD_MAX) {
      this.#readFirstBytes(batch.pieceWindow, batch.pieceIndex, first, end);
    }
    for (let at = first; at < end; at++) {
      const skipped = Math.min(skipBytes, batch.pieceBytes[at]);
      skipBytes -= skipped;
      this.#write(batch.pieceWindow[at], batch.pieceIndex[at] + skipped, batch.pieceBytes[at] - skipped);
    }
  }

  #readFirstBytes(window: Int32Array, index: Int32Array, first: number, end: number): void {
    const { windows } = this.arena;
    let sum = 0;
    for (let at = first; at < end; at++) sum += windows[window[at]].u8[index[at]];
    this.firstBytesSum = sum;
  }

  /** Answers how many bytes of the frame that was. */
  #writeHead(batch: Batch, frame: number): number {
    const { tags } = batch;
    const { pushBytes } = tags;
    for (let word = 0; word < 3; word++) this.#writeWord(batch.headWordOf(frame, word));
    if (pushBytes > 0) this.#writeWord(tags.push0Of(frame));
    if (pushBytes > TAG_BYTES) this.#writeWord(tags.push1Of(frame));
    const doneBytes = ADDRESSES_BYTES + pushBytes;
    const leftBytes = Math.min(HEAD_BYTES - ADDRESSES_BYTES, batch.bytesOf(frame) - doneBytes);
    const word3 = batch.word3Of(frame);
    for (let at = 0; at < leftBytes; at++) this.#writeByte((word3 >>> (8 * at)) & 0xff);
    return doneBytes + leftBytes;
  }

  /** Copies from the arena to where the cursor stands. */
  #write(fromWindow: number, fromIndex: number, sizeBytes: number): void {
    const { windows } = this.arena;
    const from = windows[fromWindow];
    for (let done = 0; done < sizeBytes; ) {
      const roomBytes = this.sizeBytes[this.piece] - this.doneBytes;
      const count = Math.min(roomBytes, sizeBytes - done);
      // Windows overlap by WINDOW_OVERLAP_BYTES, more than a frame, so `fromIndex + done` stays inside.
      const to = windows[this.window[this.piece]];
      writeBytes(this.arena, from, fromIndex + done, to, this.index[this.piece] + this.doneBytes, count);
      done += count;
      this.#advance(count);
    }
  }

  #writeWord(word: number): void {
    for (let shift = 0; shift < 32; shift += 8) this.#writeByte((word >>> shift) & 0xff);
  }

  #writeByte(value: number): void {
    const to = this.arena.windows[this.window[this.piece]];
    writeByte(to, this.index[this.piece] + this.doneBytes, value);
    this.#advance(1);
  }

  #advance(sizeBytes: number): void {
    this.doneBytes += sizeBytes;
    if (this.doneBytes === this.sizeBytes[this.piece]) {
      this.piece++;
      this.doneBytes = 0;
    }
  }
}
