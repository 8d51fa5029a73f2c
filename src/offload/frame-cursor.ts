/**
 * Walks over a frame of a batch from its front to its end, wherever it lies, and gives out slices of it: to be described
 * in another batch, summed, or copied into memory of ours. Hot path; one worker's object.
 */
import type { ArenaView } from '../memory/arena-view.ts';
import type { Window } from '../memory/window.ts';
import { type Batch, IN_PIECES } from '../queue/batch.ts';
import { copyBytes } from '../queue/copy.ts';
import { sumBytes, swapped16 } from './checksum.ts';

export class FrameCursor {
  declare private readonly arena: ArenaView;
  declare private batch: Batch;
  /** The rest of the piece that the cursor stands in. */
  private window = 0;
  private index = 0;
  private leftBytes = 0;
  /** The pieces behind it, in the batch's side table. */
  private piece = 0;
  private pieceEnd = 0;

  constructor(arena: ArenaView, batch: Batch) {
    this.arena = arena;
    this.batch = batch;
  }

  /** Stands at the frame's first byte from now on. */
  begin(batch: Batch, frame: number): void {
    this.batch = batch;
    const window = batch.windowOf(frame);
    if (window !== IN_PIECES) {
      this.window = window;
      this.index = batch.indexOf(frame);
      this.leftBytes = batch.bytesOf(frame);
      this.piece = 0;
      this.pieceEnd = 0;
      return;
    }
    this.leftBytes = 0;
    this.piece = batch.firstPieceOf(frame);
    this.pieceEnd = this.piece + batch.pieceCountOf(frame);
  }

  /** Goes on by so many bytes, which the frame has. */
  skip(sizeBytes: number): void {
    for (let done = 0; done < sizeBytes; ) {
      const count = this.some(sizeBytes - done);
      if (count === 0) return;
      this.advance(count);
      done += count;
    }
  }

  /** Goes on by so many bytes, and copies them to memory of ours. */
  copyTo(to: Window, toIndex: number, sizeBytes: number): void {
    for (let done = 0; done < sizeBytes; ) {
      const count = this.some(sizeBytes - done);
      if (count === 0) return;
      const { windows } = this.arena;
      copyBytes(this.arena, windows[this.window], this.index, to, toIndex + done, count);
      this.advance(count);
      done += count;
    }
  }

  /** Goes on by so many bytes, adds them to the frame that `out` has open, and answers their folded sum. */
  describeAndSum(out: Batch, sizeBytes: number): number {
    let sum = 0;
    for (let done = 0; done < sizeBytes; ) {
      const count = this.some(sizeBytes - done);
      if (count === 0) break;
      out.describePiece(this.window, this.index, count);
      const pieceSum = sumBytes(this.arena.windows[this.window], this.index, count);
      sum += (done & 1) === 0 ? pieceSum : swapped16(pieceSum);
      this.advance(count);
      done += count;
    }
    return sum;
  }

  /** As `describeAndSum`, without the sum. */
  describe(out: Batch, sizeBytes: number): void {
    for (let done = 0; done < sizeBytes; ) {
      const count = this.some(sizeBytes - done);
      if (count === 0) return;
      out.describePiece(this.window, this.index, count);
      this.advance(count);
      done += count;
    }
  }

  /** Goes on by so many bytes and answers their sum, below 2^23. */
  sum(sizeBytes: number): number {
    let sum = 0;
    for (let done = 0; done < sizeBytes; ) {
      const count = this.some(sizeBytes - done);
      if (count === 0) break;
      const pieceSum = sumBytes(this.arena.windows[this.window], this.index, count);
      sum += (done & 1) === 0 ? pieceSum : swapped16(pieceSum);
      this.advance(count);
      done += count;
    }
    return sum;
  }

  /** How many of `wantedBytes` lie in a row here; 0: the frame is at its end. */
  private some(wantedBytes: number): number {
    while (this.leftBytes === 0) {
      if (this.piece === this.pieceEnd) return 0;
      this.window = this.batch.pieceWindow[this.piece];
      this.index = this.batch.pieceIndex[this.piece];
      this.leftBytes = this.batch.pieceBytes[this.piece];
      this.piece++;
    }
    return wantedBytes < this.leftBytes ? wantedBytes : this.leftBytes;
  }

  private advance(sizeBytes: number): void {
    this.index += sizeBytes;
    this.leftBytes -= sizeBytes;
  }
}
