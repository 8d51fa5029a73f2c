/**
 * The two ends of a trace: a queue that has one frame, and queues that keep what they are given. Nothing of them is
 * counted, nobody is told of anything. Main thread.
 */
import type { ArenaView } from '../../src/memory/arena-view.ts';
import { WINDOW_BYTES } from '../../src/memory/window.ts';
import { REQUEST_TAKEN, takeRequest } from '../../src/offload/request.ts';
import type { Batch } from '../../src/queue/batch.ts';
import type { EgressQueue, IngressQueue } from '../../src/queue/contract.ts';
import { copyFrame } from '../../src/queue/copy.ts';
import { OFFLOAD_ALL, OFFLOAD_UNCOMMON } from '../../src/queue/requests.ts';

/** A virtio-net header's first three words; null: it asks for nothing. */
export type TraceRequest = readonly [number, number, number] | null;

export class TraceIngress implements IngressQueue {
  readonly portId: number;
  readonly queueIndex = 1;
  readonly wakeFd = -1;
  readonly wakesBySignal = false;
  readonly held = null;
  fault = 0;
  readonly #arena: ArenaView;
  readonly #offset: number;
  readonly #sizeBytes: number;
  readonly #request: TraceRequest;

  /** A frame of so many bytes that lies at an offset of the arena. */
  constructor(portId: number, arena: ArenaView, offset: number, sizeBytes: number, request: TraceRequest) {
    this.portId = portId;
    this.#arena = arena;
    this.#offset = offset;
    this.#sizeBytes = sizeBytes;
    this.#request = request;
  }

  gather(batch: Batch): number {
    batch.clear();
    const window = Math.floor(this.#offset / WINDOW_BYTES);
    batch.add(window, this.#offset % WINDOW_BYTES, this.#sizeBytes);
    if (this.#request === null) return 1;
    const [word0, word1, word2] = this.#request;
    const agreed = OFFLOAD_ALL | OFFLOAD_UNCOMMON;
    const why = takeRequest(batch, 0, this.#arena.windows, word0, word1, word2, agreed);
    if (why === REQUEST_TAKEN) return 1;
    batch.clear();
    batch.refuseRequest(why);
    return 1;
  }

  charge(): void {}
  finish(): void {}

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

/** A frame that was given to a port. */
export type PlacedFrame = {
  readonly portId: number;
  readonly queueIndex: number;
  readonly sizeBytes: number;
  /** Its first bytes. */
  readonly head: Uint8Array;
  /** OFFLOAD_* bits: what it asks of the receiver. */
  readonly needs: number;
  /** Frames that the receiver makes of it: 1, or its segments. */
  readonly segments: number;
  /** A copy of a frame of that port; null: it was switched here. */
  readonly copyOf: { readonly portId: number; readonly isIngress: boolean } | null;
};

/** Of a frame, so much is kept. */
export const PLACED_HEAD_BYTES = 256;

export class TraceEgress implements EgressQueue {
  readonly portId: number;
  readonly queueIndex: number;
  readonly shared = false;
  readonly framesPlaced = -1;
  fault = 0;
  open = false;
  readonly #arena: ArenaView;
  readonly #offset: number;
  readonly #placed: PlacedFrame[];

  /** `offset`: of PLACED_HEAD_BYTES in the arena, a multiple of 8; `placed`: where the frames are noted. */
  constructor(portId: number, queueIndex: number, arena: ArenaView, offset: number, placed: PlacedFrame[]) {
    this.portId = portId;
    this.queueIndex = queueIndex;
    this.#arena = arena;
    this.#offset = offset;
    this.#placed = placed;
  }

  tryBegin(): boolean {
    this.open = true;
    return true;
  }

  begin(): void {
    this.open = true;
  }

  place(batch: Batch, order: Int32Array, count: number): void {
    for (let k = 0; k < count; k++) this.#note(batch, order[k], null);
  }

  placeCopies(batch: Batch, order: Int32Array, count: number, portId: number, isIngress: boolean): void {
    for (let k = 0; k < count; k++) this.#note(batch, order[k], { portId, isIngress });
  }

  #note(batch: Batch, frame: number, copyOf: PlacedFrame['copyOf']): void {
    const { portId, queueIndex } = this;
    const sizeBytes = batch.bytesOf(frame);
    const headBytes = Math.min(sizeBytes, PLACED_HEAD_BYTES);
    const window = this.#arena.windows[Math.floor(this.#offset / WINDOW_BYTES)];
    copyFrame(this.#arena, batch, frame, headBytes, window, this.#offset % WINDOW_BYTES);
    this.#placed.push({
      portId,
      queueIndex,
      sizeBytes,
      head: this.#arena.bytesAt(this.#offset, headBytes),
      needs: batch.needsOf(frame),
      segments: batch.segmentCountOf(frame),
      copyOf,
    });
  }

  nameSources(): void {}

  end(): void {
    this.open = false;
  }

  setCallFd(): void {}
  setMemory(): void {}
  setLog(): void {}
}
