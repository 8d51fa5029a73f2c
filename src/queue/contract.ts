/**
 * What a port's queue is to the code that moves frames, whatever lies behind it: a guest's virtqueue, a TAP
 * interface, a socket, a network card, a file. A queue object belongs to one worker thread; `QueueState` is
 * what several share. Directions are named from the switch: frames come in by an ingress queue (a guest's
 * transmit queue, for one) and leave by an egress queue (its receive queue).
 *
 * A burst: `from.gather(batch)`; the stages decide; for each queue that gets frames `to.tryBegin()` and then
 * `to.place(...)`; `to.end()` for every queue that was begun; `from.finish()` last, when the copies are handed over.
 * Bursts of several ingress queues may share the last two steps.
 */
import type { AddressMap } from '../memory/gpa-translator.ts';
import type { AddressMiss } from '../memory/iotlb.ts';
import type { RingLog } from '../vring/dirty-log.ts';
import type { Batch } from './batch.ts';
import type { HeldFrames } from './held-frames.ts';
import type { MirrorSource } from './policy.ts';

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

export interface IngressQueue {
  readonly portId: number;
  readonly queueIndex: number;
  /** Readable when frames may have come while the worker sleeps; -1: none, the queue must be looked at. */
  readonly wakeFd: number;
  /** `wakeFd` is an eventfd that a peer shares: each signal of it tells once, and nobody reads it. */
  readonly wakesBySignal: boolean;
  /**
   * A code of the queue's kind; not 0: it is stopped and answers as if empty. Below 0 it goes on by itself when the main thread
   * has done what `misses` asks for.
   */
  fault: number;
  /** Virtqueues that wait: what is to be translated for them. */
  readonly misses?: readonly AddressMiss[];
  /**
   * Clears the batch, takes up to BATCH_FRAMES_MAX waiting frames and describes them there. Answers how many it
   * took, those with them that cannot be forwarded.
   */
  gather(batch: Batch): number;
  /** What the last burst cost beyond a copy of each frame, in copies of short frames; its queue may sit out turns for it. */
  charge(work: number): void;
  /**
   * Taken frames that `gather` did not describe yet, where the queue may have such: those that it did were dear enough for
   * one turn. While there are any, `finish` gives nothing back; before the queue is closed, or loses memory, they must go.
   */
  readonly held: HeldFrames | null;
  /** Gives back what `gather` took, counts it, and tells the other side if it asked for it. */
  finish(): void;
  /** Before the worker sleeps: has `wakeFd` tell of the next frame. False when frames came meanwhile. */
  armWake(): boolean;
  disarmWake(): void;
  /** After a sleep that `wakeFd` ended. False: the descriptor tells of nothing any more; do not watch it. */
  acknowledgeWake(): boolean;
  /** Virtqueues: the driver is signalled by another descriptor from now on, and once at once. */
  setCallFd(callFd: number): void;
  /**
   * Virtqueues: the guest has more memory from now on, or less; where the rest lies has not changed. `isPaused`: the queue
   * itself lies nowhere for now, and is not touched until this is called again.
   */
  setMemory(map: AddressMap, isPaused?: boolean): void;
  /** Virtqueues: what is written to the guest from now on is marked there; null: nowhere. */
  setLog(log: RingLog | null): void;
}

export interface EgressQueue {
  readonly portId: number;
  readonly queueIndex: number;
  /** As of an ingress queue. */
  fault: number;
  /** As of an ingress queue. */
  readonly misses?: readonly AddressMiss[];
  /** Whether other workers fill it too, so that it must not stay open for longer than a burst. */
  readonly shared: boolean;
  /**
   * Frames placed so far, by all workers, of a queue whose other side offers buffers: those for which it has none may be placed
   * later, and this tells whether it goes on. -1: nothing waits for such a queue.
   */
  readonly framesPlaced: number;
  /** Whether `begin` was called and `end` was not. */
  open: boolean;
  /** Opens the queue for a burst if no other worker has it. */
  tryBegin(): boolean;
  /** Opens the queue, waiting for the other worker; call only while no other queue is open (deadlock). */
  begin(): void;
  /**
   * Copies the frames `order[0]` to `order[count - 1]` of the batch, whose addresses are read, to where the other
   * side finds them after `end`. Those that it cannot place it refuses (`batch.refuse`), in order.
   */
  place(batch: Batch, order: Int32Array, count: number): void;
  /** As `place`, for copies of frames that came in from another port (`isIngress`) or were placed there. */
  placeCopies(batch: Batch, order: Int32Array, count: number, portId: number, isIngress: boolean): void;
  /** The ports whose copies will come, from now on; never during a burst. */
  nameSources(sources: readonly MirrorSource[]): void;
  /** Hands over what was placed, tells the other side if it asked for it, and closes the queue. */
  end(): void;
  /** As of an ingress queue; never during a burst. */
  setCallFd(callFd: number): void;
  /** As of an ingress queue; never during a burst. */
  setMemory(map: AddressMap, isPaused?: boolean): void;
  /** As of an ingress queue; never during a burst. */
  setLog(log: RingLog | null): void;
}
