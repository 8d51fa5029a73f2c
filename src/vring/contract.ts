/**
 * What a virtqueue is to the code that moves frames, whatever its layout (split now). A queue object belongs
 * to one worker thread; `RingState` is what several share. Directions are named from the guest:
 * `fromGuest` is its transmit queue, `toGuest` its receive queue.
 *
 * A burst:  n = from.available(); n times { from.take(frame); to.give(frame); from.release() };
 * then `to.end()` for every queue given to, and `from.publish()` last, when the copies are done.
 */
import type { GpaMap } from '../memory/gpa-translator.ts';
import type { Frame } from './frame.ts';

export type Direction = 'fromGuest' | 'toGuest' | 'control';

/** Everything that a worker needs to use a ring; plain data that can be posted. Offsets are in the arena. */
export type RingAttachment = {
  readonly portId: number;
  readonly ringIndex: number;
  readonly direction: Direction;
  readonly size: number;
  readonly descOffset: number;
  readonly availOffset: number;
  readonly usedOffset: number;
  readonly eventIdx: boolean;
  readonly indirect: boolean;
  readonly mergeable: boolean;
  readonly headerBytes: number;
  readonly enabled: boolean;
  /** -1: none; the ring is polled, or never signalled. */
  readonly kickFd: number;
  readonly callFd: number;
  readonly states: SharedArrayBuffer;
  readonly map: GpaMap;
};

/** Answers of `take`. */
export const TAKE_FRAME = 0;
/** Nothing wrong with the ring, but no frame to forward; `release` it all the same. */
export const TAKE_TOO_LONG = 1;
export const TAKE_TOO_SHORT = 2;
export const TAKE_TOO_SCATTERED = 3;
/** The ring is stopped, see `fault`. */
export const TAKE_FAULT = 4;

/** Answers of `give`. */
export const GIVE_DONE = 0;
/** The guest offers no buffer. */
export const GIVE_NO_BUFFER = 1;
/** The next buffer is too small and the driver did not negotiate MRG_RXBUF. */
export const GIVE_TOO_SMALL = 2;
export const GIVE_FAULT = 3;

export interface FromGuestQueue {
  readonly portId: number;
  readonly ringIndex: number;
  readonly kickFd: number;
  /** False: what the guest sends is consumed and thrown away. */
  enabled: boolean;
  callFd: number;
  /** A RING_FAULT; once set, the queue answers as if empty. */
  fault: number;
  /** Chains that wait; looks at guest memory only when none were known. */
  available(): number;
  /** Describes the next waiting chain in `frame`. Call only when `available()` said that there is one. */
  take(frame: Frame): number;
  /** Marks the chain last taken as used; seen by the guest after `publish`. */
  release(): void;
  /** Publishes what was released and signals the guest if it asked for it. */
  publish(): void;
  /** Asks for kicks; false when chains came meanwhile, so that the caller must not sleep. */
  armKick(): boolean;
  disarmKick(): void;
  /** Signals the guest whatever it asked for; after its call descriptor changed. */
  signal(): void;
}

export interface ToGuestQueue {
  readonly portId: number;
  readonly ringIndex: number;
  enabled: boolean;
  callFd: number;
  fault: number;
  /** Whether `begin` was called and `end` was not. */
  open: boolean;
  /** Opens the queue for a burst if no other worker has it. */
  tryBegin(): boolean;
  /** Opens the queue, waiting for the other worker; call only while no other queue is open (deadlock). */
  begin(): void;
  /** Copies the frame into the guest's next buffer or buffers. */
  give(frame: Frame): number;
  /**
   * Moves waiting frames of `from` straight here, as many as are alike: `framesMax` at most, with the given
   * words as their two addresses, of at most `frameBytesMax` bytes, plain on both sides. They are taken, given
   * and released. Answers how many; 0 says only that the next frame must take the general path.
   */
  giveRun(
    from: FromGuestQueue,
    framesMax: number,
    word0: number,
    word1: number,
    word2: number,
    frameBytesMax: number,
  ): number;
  /** Publishes what was given, signals the guest if it asked for it, and closes the queue. */
  end(): void;
  /** Signals the guest whatever it asked for; after its call descriptor changed. */
  signal(): void;
}
