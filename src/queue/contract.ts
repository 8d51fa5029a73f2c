/**
 * What a port's queue is to the code that moves frames, whatever lies behind it: a guest's virtqueue, a TAP
 * interface, a socket, a network card, a file. A queue object belongs to one worker thread; `QueueState` is
 * what several share. Directions are named from the switch: frames come in by an ingress queue (a guest's
 * transmit queue, for one) and leave by an egress queue (its receive queue).
 *
 * A burst:  n = from.available(); n times { from.take(frame); to.give(frame); from.release() };
 * then `to.end()` for every queue given to, and `from.publish()` last, when the copies are done.
 */
import type { Frame } from './frame.ts';

export type Direction = 'ingress' | 'egress';

/** What every kind of queue is told when a worker opens it; plain data that can be posted. */
export type QueueAttachmentBase = {
  readonly portId: number;
  /** Of pair `n`: `2n` is the egress queue, `2n + 1` the ingress queue, as VIRTIO numbers them. */
  readonly queueIndex: number;
  readonly direction: Direction;
  /** QueueState blocks of all queues of the port. */
  readonly states: SharedArrayBuffer;
};

/** Answers of `take`. */
export const TAKE_FRAME = 0;
/** Nothing wrong with the queue, but no frame to forward; `release` it all the same. */
export const TAKE_TOO_LONG = 1;
export const TAKE_TOO_SHORT = 2;
export const TAKE_TOO_SCATTERED = 3;
/** The queue is stopped, see `fault`. */
export const TAKE_FAULT = 4;

/** Answers of `give`. */
export const GIVE_DONE = 0;
/** There is no room now: the guest offers no buffer, the interface's queue is full. */
export const GIVE_NO_BUFFER = 1;
/** The frame is longer than what the other side takes. */
export const GIVE_TOO_SMALL = 2;
export const GIVE_FAULT = 3;

export interface IngressQueue {
  readonly portId: number;
  readonly queueIndex: number;
  /** Readable when frames may have come while the worker sleeps; -1: none, the queue must be looked at. */
  readonly wakeFd: number;
  /** A code of the queue's kind; not 0: it is stopped and answers as if empty. */
  fault: number;
  /** Frames that wait; looks at the other side only when none were known. */
  available(): number;
  /**
   * Before a burst of `count` waiting frames: reads the beginnings of all of them, so that the processor fetches
   * them together and not one after the other as they are looked at. Changes nothing.
   */
  readAhead(count: number): void;
  /** Describes the next waiting frame in `frame`. Call only when `available()` said that there is one. */
  take(frame: Frame): number;
  /**
   * Reads the destination of the `ahead`-th waiting frame (0: the next one to take) into two words: its first
   * four bytes, and the two after them in the low half. False where that is not quickly done; a hint only, which
   * may be wrong by the time the frame is taken.
   */
  destinationAhead(ahead: number, words: Int32Array): boolean;
  /** Done with the frame last taken; its place is free after `publish`. */
  release(): void;
  /** Gives back what was released, and tells the other side if it asked for it. */
  publish(): void;
  /** Before the worker sleeps: has `wakeFd` tell of the next frame. False when frames came meanwhile. */
  armWake(): boolean;
  disarmWake(): void;
  /** After a sleep that `wakeFd` ended. False: the descriptor tells of nothing any more; do not watch it. */
  acknowledgeWake(): boolean;
}

export interface EgressQueue {
  readonly portId: number;
  readonly queueIndex: number;
  /** As of an ingress queue. */
  fault: number;
  /** Whether `begin` was called and `end` was not. */
  open: boolean;
  /** Opens the queue for a burst if no other worker has it. */
  tryBegin(): boolean;
  /** Opens the queue, waiting for the other worker; call only while no other queue is open (deadlock). */
  begin(): void;
  /** Copies the frame to where the other side finds it after `end`. */
  give(frame: Frame): number;
  /**
   * Moves waiting frames of `from` straight here, as many as are alike: `framesMax` at most, whose two addresses
   * are the given words (of the first two only the bits of their masks count), of at most `frameBytesMax` bytes,
   * plain on both sides. They are taken, given and released. Answers how many; 0 says only that the next frame must take the general path.
   */
  giveRun(
    from: IngressQueue,
    framesMax: number,
    word0: number,
    word1: number,
    word2: number,
    mask0: number,
    mask1: number,
    frameBytesMax: number,
  ): number;
  /** Hands over what was given, tells the other side if it asked for it, and closes the queue. */
  end(): void;
}
