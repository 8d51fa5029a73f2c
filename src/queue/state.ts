/**
 * The part of a queue's state that outlives a burst and is seen by more than one thread: it lies in a
 * SharedArrayBuffer of the port, one block a queue. An egress queue may be filled by several workers, each
 * under the block's lock; an ingress queue has one worker. The main thread reads it for the user, and for
 * GET_VRING_BASE after the workers let go.
 */

/** Words (int32) at the start of a block. */
export const STATE_LOCK = 0;
/** Virtqueues: next entry of the avail ring to take; 16 bits, running; packed: a position, wrap in bit 15. */
export const STATE_AVAIL_NEXT = 1;
/** Virtqueues: next entry of the used ring to fill; 16 bits, running; packed: as above. */
export const STATE_USED_NEXT = 2;
/** A code of the queue's kind; not 0: the queue is stopped. */
export const STATE_FAULT = 3;
/** Virtqueues: how much of its reserve the queue has used up by dear chains; more than there is when it owes turns. */
export const STATE_WORK_SPENT = 4;

/** Doubles in the second half of a block; exact up to 2^53. */
export const COUNT_FRAMES = 0;
export const COUNT_BYTES = 1;
/** Times the driver was signalled. */
export const COUNT_CALLS = 2;
/** Egress: frames that were placed but that the other side did not take after all (the drop `notTaken`). */
export const COUNT_LOST = 3;
/** Bursts after which the driver was not signalled: it had said that it does not want to be, or not yet. */
export const COUNT_SUPPRESSED = 4;

export const QUEUE_STATE_BYTES = 128;
const COUNTERS_OFFSET_BYTES = 64;

export class QueueState {
  readonly words: Int32Array;
  readonly counts: Float64Array;

  /** Block `queueIndex` of a port's buffer. */
  constructor(shared: SharedArrayBuffer, queueIndex: number) {
    const start = queueIndex * QUEUE_STATE_BYTES;
    this.words = new Int32Array(shared, start, COUNTERS_OFFSET_BYTES / 4);
    this.counts = new Float64Array(shared, start + COUNTERS_OFFSET_BYTES, COUNTERS_OFFSET_BYTES / 8);
  }

  /** Whether this thread took the lock just now. */
  tryLock(): boolean {
    return Atomics.compareExchange(this.words, STATE_LOCK, 0, 1) === 0;
  }

  lock(): void {
    for (let turn = 0; !this.tryLock(); turn++) {
      // The holder is in the middle of a burst; if it was preempted, give it the processor.
      if (turn > 2000) Atomics.wait(this.words, STATE_LOCK, 1, 0.05);
    }
  }

  unlock(): void {
    Atomics.store(this.words, STATE_LOCK, 0);
  }
}

export function queueStates(queueCount: number): SharedArrayBuffer {
  return new SharedArrayBuffer(queueCount * QUEUE_STATE_BYTES);
}

/** Frames and bytes of a port, from the switch's side. */
export type PortCounters = {
  readonly ingressFrames: number;
  readonly ingressBytes: number;
  readonly egressFrames: number;
  readonly egressBytes: number;
};

/** Sums over the queues of `pairCount` pairs. */
export function sumCounters(states: SharedArrayBuffer, pairCount: number): PortCounters {
  const sums = { ingressFrames: 0, ingressBytes: 0, egressFrames: 0, egressBytes: 0 };
  const words = new Float64Array(states);
  for (let index = 0; index < 2 * pairCount; index += 2) {
    sums.egressFrames += words[countAt(index, COUNT_FRAMES)];
    sums.egressBytes += words[countAt(index, COUNT_BYTES)];
    sums.ingressFrames += words[countAt(index + 1, COUNT_FRAMES)];
    sums.ingressBytes += words[countAt(index + 1, COUNT_BYTES)];
  }
  return sums;
}

/** Frames that the other side of a port did not take, of all its queues. `words`: of their states. */
export function sumLost(words: Float64Array): number {
  let sum = 0;
  for (let index = 0; index < words.byteLength / QUEUE_STATE_BYTES; index++)
    sum += words[countAt(index, COUNT_LOST)];
  return sum;
}

/** Where a queue's counter stands among the words of 8 bytes of all blocks: cheaper than a QueueState for each, of many ports. */
function countAt(queueIndex: number, counter: number): number {
  return (queueIndex * QUEUE_STATE_BYTES + COUNTERS_OFFSET_BYTES) / 8 + counter;
}
