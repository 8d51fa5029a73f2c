/**
 * Queues without guests for the tests of forwarding: one gives the frames that it was filled with, the other
 * keeps what it gets. They check the order of calls that src/queue/contract.ts prescribes, and count as real ones do.
 */
import {
  BATCH_FRAMES_MAX,
  type Batch,
  REFUSED_FAULT,
  REFUSED_NO_BUFFER,
  REFUSED_TOO_SMALL,
} from '../../../src/queue/batch.ts';
import type { EgressQueue, IngressQueue } from '../../../src/queue/contract.ts';
import type { MirrorSource } from '../../../src/queue/policy.ts';
import { COUNT_BYTES, COUNT_FRAMES, COUNT_LOST, QueueState } from '../../../src/queue/state.ts';
import { BENCH_BYTES, FrameBench, placedBytesOfFrame } from './frames.ts';

/** What happened between all queues of a test, in order. */
export class QueueLog {
  readonly entries: string[] = [];
  readonly violations: string[] = [];
  /** Queues that are open now. */
  readonly open = new Set<EgressQueue>();
  /** Called before frames are placed, when their addresses are decided upon. */
  onPlace: (batch: Batch) => void = () => {};

  require(holds: boolean, violation: string): void {
    if (!holds) this.violations.push(violation);
  }
}

/** Frames that are taken and cannot be forwarded. */
export type Untaken = 'tooLong' | 'tooShort' | 'tooScattered';

/** A frame that lies in one piece (with this misalignment) or in pieces, one that is none, or a fault of the queue. */
export type Waiting =
  | { readonly bytes: Uint8Array; readonly misalignment?: number; readonly pieces?: readonly number[] }
  | { readonly untaken: Untaken }
  | { readonly fault: number };

export class FakeIngressQueue implements IngressQueue {
  readonly portId: number;
  readonly queueIndex = 1;
  readonly wakeFd = -1;
  readonly wakesBySignal = false;
  readonly held = null;
  fault = 0;
  readonly waiting: Waiting[] = [];
  finishedCount = 0;
  readonly #log: QueueLog;
  readonly #state: QueueState;
  readonly #bench: FrameBench;
  #takenCount = 0;
  #takenBytes = 0;

  constructor(portId: number, states: SharedArrayBuffer, log: QueueLog) {
    this.portId = portId;
    this.#log = log;
    this.#state = new QueueState(states, this.queueIndex);
    // Each queue has its own part of the arena.
    this.#bench = new FrameBench(portId * BENCH_BYTES);
  }

  fill(...frames: readonly (Uint8Array | Waiting)[]): void {
    for (const each of frames) this.waiting.push(each instanceof Uint8Array ? { bytes: each } : each);
  }

  gather(batch: Batch): number {
    this.#log.require(this.#takenCount === 0, 'gather before the last frames were finished');
    for (const queue of this.#log.open) {
      this.#log.require(!queue.shared, `${queue} was kept from other workers for more than a burst`);
    }
    batch.clear();
    while (this.fault === 0 && this.#takenCount < Math.min(BATCH_FRAMES_MAX, this.waiting.length)) {
      const next = this.waiting[this.#takenCount];
      if ('fault' in next) {
        this.fault = next.fault;
        break;
      }
      this.#takenCount++;
      if ('untaken' in next) batch[next.untaken]++;
      else {
        this.#takenBytes += next.bytes.length;
        if (next.pieces === undefined) this.#bench.single(batch, next.bytes, next.misalignment);
        else this.#bench.pieces(batch, next.bytes, next.pieces);
      }
    }
    return this.#takenCount;
  }

  charge(): void {}

  finish(): void {
    this.#log.require(this.#takenCount > 0, 'finish of nothing');
    // The guest may overwrite what is finished; every copy must be done and handed over.
    this.#log.require(this.#log.open.size === 0, 'finished while a receive queue was open');
    this.#log.entries.push(`finish ${this.portId}`);
    this.waiting.splice(0, this.#takenCount);
    this.finishedCount += this.#takenCount;
    this.#state.counts[COUNT_FRAMES] += this.#takenCount;
    this.#state.counts[COUNT_BYTES] += this.#takenBytes;
    this.#takenCount = 0;
    this.#takenBytes = 0;
  }

  armWake(): boolean {
    return true;
  }
  disarmWake(): void {}

  acknowledgeWake(): boolean {
    return true;
  }

  setCallFd(): void {}

  setMemory(): void {}

  setLog(): void {}
}

export class FakeEgressQueue implements EgressQueue {
  readonly portId: number;
  readonly queueIndex: number;
  fault = 0;
  /** May change between turns. */
  shared = false;
  open = false;
  readonly received: Uint8Array[] = [];
  /** Of each copy received `vm1>` if it came in from port 1, `vm1<` if it was placed there. */
  readonly ways: string[] = [];
  /** Buffers that the guest offers. */
  bufferCount = Number.POSITIVE_INFINITY;
  bufferBytes = Number.POSITIVE_INFINITY;
  failsNext = false;
  /** Of the frames of each burst, so many are not taken when it ends (COUNT_LOST), the last ones. */
  losesPerBurst = 0;
  /** Another worker has it: `tryBegin` fails. */
  isBusy = false;
  readonly #log: QueueLog;
  readonly #state: QueueState;
  #placedCount = 0;

  constructor(portId: number, queueIndex: number, states: SharedArrayBuffer, log: QueueLog) {
    this.portId = portId;
    this.queueIndex = queueIndex;
    this.#log = log;
    this.#state = new QueueState(states, queueIndex);
  }

  get framesPlaced(): number {
    return -1;
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

  place(batch: Batch, order: Int32Array, count: number): void {
    this.#log.require(this.open, `frames were placed on ${this}, which is not open`);
    this.#log.require(count > 0, `nothing was placed on ${this}`);
    this.#log.onPlace(batch);
    for (let k = 0; k < count; k++) {
      const frame = order[k];
      this.#log.require(frame >= 0 && frame < batch.count, `frame ${frame} of ${batch.count}`);
      this.#log.require(k === 0 || frame > order[k - 1], `${this} got frames out of order`);
      const why = this.#whyNot(batch.bytesOf(frame));
      if (why === 0) this.received.push(placedBytesOfFrame(batch, frame));
      else batch.refuse(frame, why);
    }
  }

  placeCopies(batch: Batch, order: Int32Array, count: number, portId: number, isIngress: boolean): void {
    const before = this.received.length;
    this.place(batch, order, count);
    for (let i = before; i < this.received.length; i++) this.ways.push(`vm${portId}${isIngress ? '>' : '<'}`);
  }

  nameSources(_sources: readonly MirrorSource[]): void {}

  setCallFd(): void {}

  setMemory(): void {}

  setLog(): void {}

  end(): void {
    this.#log.require(this.open, `end of ${this}, which is not open`);
    const lostCount = Math.min(this.#placedCount, this.losesPerBurst);
    const taken = this.received.slice(this.received.length - this.#placedCount);
    if (lostCount > 0) taken.splice(-lostCount);
    this.received.length -= lostCount;
    this.#state.counts[COUNT_FRAMES] += taken.length;
    this.#state.counts[COUNT_BYTES] += taken.reduce((sum, { length }) => sum + length, 0);
    this.#state.counts[COUNT_LOST] += lostCount;
    this.#placedCount = 0;
    this.open = false;
    this.#log.open.delete(this);
    this.#log.entries.push(`end ${this}`);
  }

  toString(): string {
    return `${this.portId}.${this.queueIndex}`;
  }

  #whyNot(sizeBytes: number): number {
    if (this.failsNext) this.fault = 7;
    if (this.fault !== 0) return REFUSED_FAULT;
    if (this.bufferCount === 0) return REFUSED_NO_BUFFER;
    if (sizeBytes > this.bufferBytes) return REFUSED_TOO_SMALL;
    this.bufferCount--;
    this.#placedCount++;
    return 0;
  }

  #begun(how: string): void {
    this.open = true;
    this.#log.open.add(this);
    this.#log.entries.push(`${how} ${this}`);
  }
}
