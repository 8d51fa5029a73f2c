/**
 * Frames of a burst that is dear: each is to be cut into many segments, for receivers that do not take it whole. They
 * were taken from their queue and wait for its next turns, so that other queues of the worker have theirs in between.
 * One worker's object.
 */
import { BATCH_FRAMES_MAX, Batch } from './batch.ts';

/** Of one turn: as many frames as come out of any burst. What they cost beyond that is charged, for each receiver. */
const TURN_SEGMENTS = BATCH_FRAMES_MAX;

export class HeldFrames {
  declare private readonly batch: Batch;
  /** The first one that still waits. */
  private next = 0;

  constructor() {
    this.batch = new Batch();
  }

  get isEmpty(): boolean {
    return this.next === this.batch.count;
  }

  /**
   * Leaves frames in the batch until they make enough segments for a turn, at least one, and holds the others; nothing is
   * held yet. Answers how many it holds.
   */
  holdBeyond(batch: Batch): number {
    const { count } = batch;
    const left = framesWithin(batch, 0);
    if (left === count) return 0;
    this.batch.clear();
    this.next = 0;
    for (let frame = left; frame < count; frame++) {
      this.batch.addOf(batch, frame);
      batch.bytesTaken -= batch.bytesOf(frame);
    }
    batch.count = left;
    return count - left;
  }

  /** Puts as many into an empty batch. Answers how many. */
  give(batch: Batch): number {
    const end = framesWithin(this.batch, this.next);
    for (; this.next < end; this.next++) batch.addOf(this.batch, this.next);
    return batch.count;
  }

  /** Forgets them. Answers how many. */
  drop(): number {
    const count = this.batch.count - this.next;
    this.next = this.batch.count;
    return count;
  }
}

/** Where those from `first` on end that make enough segments for a turn; behind the first one at least. */
function framesWithin(batch: Batch, first: number): number {
  const { count } = batch;
  let end = first;
  for (let segments = 0; end < count; end++) {
    segments += batch.segmentCountOf(end);
    if (segments > TURN_SEGMENTS && end > first) break;
  }
  return end;
}
