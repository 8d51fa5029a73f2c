/**
 * The part of a ring's state that outlives a burst and is seen by more than one thread: it lies in a
 * SharedArrayBuffer of the port, one block a ring. A `toGuest` ring may be filled by several workers, each
 * under the block's lock; a `fromGuest` ring has one worker. The main thread reads it for GET_VRING_BASE
 * (after the workers let go) and for the user.
 */

/** Words (int32) at the start of a block. */
export const STATE_LOCK = 0;
/** Next entry of the avail ring to take; 16 bits, running. */
export const STATE_AVAIL_NEXT = 1;
/** Next entry of the used ring to fill; 16 bits, running. */
export const STATE_USED_NEXT = 2;
/** A RING_FAULT; not NONE: the ring is stopped. */
export const STATE_FAULT = 3;

/** Doubles in the second half of a block; exact up to 2^53. */
export const COUNT_FRAMES = 0;
export const COUNT_BYTES = 1;
/** Times the driver was signalled. */
export const COUNT_CALLS = 2;

export const RING_STATE_BYTES = 128;
const COUNTERS_OFFSET_BYTES = 64;

export class RingState {
  readonly words: Int32Array;
  readonly counts: Float64Array;

  /** Block `ringIndex` of a port's buffer. */
  constructor(shared: SharedArrayBuffer, ringIndex: number) {
    const start = ringIndex * RING_STATE_BYTES;
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

export function ringStates(ringCount: number): SharedArrayBuffer {
  return new SharedArrayBuffer(ringCount * RING_STATE_BYTES);
}
