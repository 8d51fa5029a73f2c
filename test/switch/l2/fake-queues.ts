/**
 * Queues without guests for the tests of forwarding: one gives the frames that it was filled with, the other
 * keeps what it gets. They check the order of calls that src/queue/contract.ts prescribes.
 */
import {
  type EgressQueue,
  GIVE_DONE,
  GIVE_FAULT,
  GIVE_NO_BUFFER,
  GIVE_TOO_SMALL,
  type IngressQueue,
  TAKE_FAULT,
  TAKE_FRAME,
} from '../../../src/queue/contract.ts';
import type { Frame } from '../../../src/queue/frame.ts';
import { bytesOfFrame, FrameBench } from './frames.ts';

/** What happened between all queues of a test, in order. */
export class QueueLog {
  readonly entries: string[] = [];
  readonly violations: string[] = [];
  /** Queues that are open now. */
  readonly open = new Set<EgressQueue>();

  require(holds: boolean, violation: string): void {
    if (!holds) this.violations.push(violation);
  }
}

/** A frame that lies in one piece (with this misalignment) or in pieces, or an answer of `take`. */
export type Waiting =
  | { readonly bytes: Uint8Array; readonly misalignment?: number; readonly pieces?: readonly number[] }
  | { readonly result: number };

export class FakeIngressQueue implements IngressQueue {
  readonly portId: number;
  readonly queueIndex = 1;
  readonly wakeFd = -1;
  fault = 0;
  readonly waiting: Waiting[] = [];
  releasedCount = 0;
  publishedCount = 0;
  readonly #log: QueueLog;
  readonly #bench: FrameBench;
  #isTaken = false;

  constructor(portId: number, log: QueueLog) {
    this.portId = portId;
    this.#log = log;
    // Each queue has its own part of the arena.
    this.#bench = new FrameBench(portId * 2 ** 20);
  }

  fill(...frames: readonly (Uint8Array | Waiting)[]): void {
    for (const each of frames) this.waiting.push(each instanceof Uint8Array ? { bytes: each } : each);
  }

  available(): number {
    return this.fault === 0 ? this.waiting.length : 0;
  }

  readAhead(count: number): void {
    this.#log.require(count <= this.available(), 'read ahead of what waits');
  }

  take(frame: Frame): number {
    this.#log.require(this.available() > 0, 'take of an empty queue');
    this.#log.require(!this.#isTaken, 'take before the last frame was released');
    const next = this.waiting[0];
    if ('result' in next) {
      if (next.result === TAKE_FAULT) this.fault = 5;
      else this.#isTaken = true;
      return next.result;
    }
    this.#isTaken = true;
    if (next.pieces === undefined) this.#bench.single(frame, next.bytes, next.misalignment);
    else this.#bench.pieces(frame, next.bytes, next.pieces);
    return TAKE_FRAME;
  }

  destinationAhead(): boolean {
    return false;
  }

  release(): void {
    this.#log.require(this.#isTaken, 'release of nothing');
    this.#isTaken = false;
    this.waiting.shift();
    this.releasedCount++;
  }

  publish(): void {
    // The guest may overwrite what is published; every copy must be done and handed over.
    this.#log.require(this.#log.open.size === 0, 'published while a receive queue was open');
    this.#log.entries.push(`publish ${this.portId}`);
    this.publishedCount = this.releasedCount;
  }

  armWake(): boolean {
    return true;
  }
  disarmWake(): void {}

  acknowledgeWake(): boolean {
    return true;
  }
}

export class FakeEgressQueue implements EgressQueue {
  readonly portId: number;
  readonly queueIndex: number;
  fault = 0;
  open = false;
  readonly received: Uint8Array[] = [];
  /** Buffers that the guest offers. */
  bufferCount = Number.POSITIVE_INFINITY;
  bufferBytes = Number.POSITIVE_INFINITY;
  failsNext = false;
  /** Another worker has it: `tryBegin` fails. */
  isBusy = false;
  readonly #log: QueueLog;

  constructor(portId: number, queueIndex: number, log: QueueLog) {
    this.portId = portId;
    this.queueIndex = queueIndex;
    this.#log = log;
  }

  tryBegin(): boolean {
    this.#log.require(!this.open, `${this} was begun twice`);
    if (this.isBusy) return false;
    this.#begun('try');
    return true;
  }

  begin(): void {
    this.#log.require(!this.open, `${this} was begun twice`);
    this.#log.require(this.#log.open.size === 0, `waited for ${this} while another queue was open`);
    this.#begun('wait');
  }

  give(frame: Frame): number {
    this.#log.require(this.open, `a frame was given to ${this}, which is not open`);
    if (this.failsNext) this.fault = 7;
    if (this.fault !== 0) return GIVE_FAULT;
    if (this.bufferCount === 0) return GIVE_NO_BUFFER;
    if (frame.totalBytes > this.bufferBytes) return GIVE_TOO_SMALL;
    this.bufferCount--;
    this.received.push(bytesOfFrame(frame));
    return GIVE_DONE;
  }

  /** Knows no runs: every frame takes the general path. */
  giveRun(): number {
    this.#log.require(this.open, `a run was given to ${this}, which is not open`);
    return 0;
  }

  end(): void {
    this.#log.require(this.open, `end of ${this}, which is not open`);
    this.open = false;
    this.#log.open.delete(this);
    this.#log.entries.push(`end ${this}`);
  }

  toString(): string {
    return `${this.portId}.${this.queueIndex}`;
  }

  #begun(how: string): void {
    this.open = true;
    this.#log.open.add(this);
    this.#log.entries.push(`${how} ${this}`);
  }
}
