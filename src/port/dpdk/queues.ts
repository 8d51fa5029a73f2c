/**
 * A DPDK port's queues: bursts from and to the driver, whose mbufs lie in the arena, so that a frame is forwarded
 * from where the device put it and copied to where the device takes it. Hot path of one worker at a time; DPDK is
 * loaded in a worker when its first such queue is opened.
 */
import { BURST_MBUFS, type DpdkQueueLocation, RxBurst, TxBurst } from '../../dpdk/burst.ts';
import { registerThread } from '../../dpdk/threads.ts';
import type { ArenaView } from '../../memory/arena-view.ts';
import { WINDOW_BYTES, type Window } from '../../memory/window.ts';
import { FrameCursor } from '../../offload/frame-cursor.ts';
import { type Batch, REFUSED_NO_BUFFER, REFUSED_TOO_SMALL } from '../../queue/batch.ts';
import type { EgressQueue, IngressQueue, QueueAttachmentBase } from '../../queue/contract.ts';
import { copyFrame } from '../../queue/copy.ts';
import * as REQUESTS from '../../queue/requests.ts';
import { COUNT_BYTES, COUNT_FRAMES, COUNT_LOST, QueueState } from '../../queue/state.ts';
import { TxRequests } from './tx-requests.ts';

const { OFFLOAD_SEGMENTS } = REQUESTS;

export type DpdkAttachment = QueueAttachmentBase & {
  readonly kind: 'dpdk';
  readonly location: DpdkQueueLocation;
};

/** An empty look at the driver costs a foreign call; so many turns at most are left out between two. */
const TURNS_SKIPPED_MAX = 8;

export class DpdkIngress implements IngressQueue {
  declare readonly portId: number;
  declare readonly queueIndex: number;
  fault = 0;
  /** Drivers tell of nothing: the queue is looked at. */
  readonly wakeFd = -1;
  readonly wakesBySignal = false;
  readonly held = null;
  declare private readonly state: QueueState;
  declare private readonly rx: RxBurst;
  /** Frames that were received before the worker could sleep, for the next burst. */
  #received = 0;
  #bytes = 0;
  #turnsToSkip = 0;
  #turnsSkipped = 1;

  constructor(arena: ArenaView, attachment: DpdkAttachment) {
    this.portId = attachment.portId;
    this.queueIndex = attachment.queueIndex;
    this.state = new QueueState(attachment.states, attachment.queueIndex);
    registerThread();
    this.rx = new RxBurst(arena, attachment.location);
  }

  gather(batch: Batch): number {
    batch.clear();
    const count = this.#look();
    for (let slot = 0; slot < count; slot++) this.#bytes += this.rx.describe(slot, batch);
    return count;
  }

  charge(): void {}

  finish(): void {
    const count = this.#received;
    this.#received = 0;
    this.rx.free(0, count);
    const { counts } = this.state;
    counts[COUNT_FRAMES] += count;
    counts[COUNT_BYTES] += this.#bytes;
    this.#bytes = 0;
  }

  armWake(): boolean {
    this.#turnsToSkip = 0;
    return this.#look() === 0;
  }

  disarmWake(): void {}

  acknowledgeWake(): boolean {
    return true;
  }

  setCallFd(): void {}

  setMemory(): void {}

  setLog(): void {}

  /** Answers how many frames of a burst are here; asks the driver when there are none. */
  #look(): number {
    if (this.#received !== 0) return this.#received;
    if (this.#turnsToSkip > 0) {
      this.#turnsToSkip--;
      return 0;
    }
    this.#received = this.rx.receive();
    if (this.#received === 0) {
      this.#turnsSkipped = Math.min(this.#turnsSkipped * 2, TURNS_SKIPPED_MAX);
      this.#turnsToSkip = this.#turnsSkipped;
    } else this.#turnsSkipped = 1;
    return this.#received;
  }
}

export class DpdkEgress implements EgressQueue {
  declare readonly portId: number;
  declare readonly queueIndex: number;
  fault = 0;
  open = false;
  declare private readonly arena: ArenaView;
  declare private readonly state: QueueState;
  declare readonly shared: boolean;
  declare private readonly tx: TxBurst;
  declare private readonly window: Window;
  /** Bytes of each frame that was given and not yet sent. */
  declare private readonly frameBytes: Int32Array;
  declare private readonly requests: TxRequests;
  /** Made for the first frame that needs several mbufs. */
  declare private cursor: FrameCursor | null;
  #frames = 0;
  #bytes = 0;

  constructor(arena: ArenaView, attachment: DpdkAttachment, shared: boolean) {
    this.portId = attachment.portId;
    this.queueIndex = attachment.queueIndex;
    this.arena = arena;
    this.shared = shared;
    this.state = new QueueState(attachment.states, attachment.queueIndex);
    registerThread();
    this.tx = new TxBurst(arena, attachment.location);
    this.window = arena.windows[Math.floor(attachment.location.pool.offset / WINDOW_BYTES)];
    this.frameBytes = new Int32Array(BURST_MBUFS);
    this.requests = new TxRequests(this.tx, this.window);
    this.cursor = null;
  }

  get framesPlaced(): number {
    return -1;
  }

  tryBegin(): boolean {
    if (this.shared && !this.state.tryLock()) return false;
    this.open = true;
    return true;
  }

  begin(): void {
    if (this.shared) this.state.lock();
    this.open = true;
  }

  place(batch: Batch, order: Int32Array, count: number): void {
    if (batch.asks) {
      for (let k = 0; k < count; k++) this.#placeAsking(batch, order[k]);
      return;
    }
    for (let k = 0; k < count; k++) this.#placeOne(batch, order[k]);
  }

  placeCopies(batch: Batch, order: Int32Array, count: number): void {
    this.place(batch, order, count);
  }

  nameSources(): void {}

  setCallFd(): void {}

  setMemory(): void {}

  setLog(): void {}

  end(): void {
    this.#flush();
    if (this.#frames !== 0) {
      const { counts } = this.state;
      counts[COUNT_FRAMES] += this.#frames;
      counts[COUNT_BYTES] += this.#bytes;
      this.#frames = 0;
      this.#bytes = 0;
    }
    this.open = false;
    if (this.shared) this.state.unlock();
  }

  #placeAsking(batch: Batch, frame: number): void {
    const needs = batch.needsOf(frame);
    if ((needs & OFFLOAD_SEGMENTS) !== 0) {
      this.#placeLong(batch, frame);
      return;
    }
    const at = this.#placeOne(batch, frame);
    if (at >= 0 && needs !== 0) this.requests.askChecksum(batch, frame, at, batch.bytesOf(frame));
  }

  /** A frame that the device is to cut into segments. */
  #placeLong(batch: Batch, frame: number): void {
    const { arena, tx, window } = this;
    const bytes = batch.bytesOf(frame);
    let at = tx.placeLong(bytes, batch.indexOf(frame));
    if (at < 0) {
      this.#flush();
      at = tx.placeLong(bytes, batch.indexOf(frame));
      if (at < 0) {
        batch.refuse(frame, REFUSED_NO_BUFFER);
        return;
      }
    }
    const { partCount, partIndex, partBytes } = tx;
    copyFrame(arena, batch, frame, partBytes[0], window, at);
    if (partCount > 1) {
      this.cursor ??= new FrameCursor(arena, batch);
      this.cursor.begin(batch, frame);
      this.cursor.skip(partBytes[0]);
      for (let part = 1; part < partCount; part++) {
        this.cursor.copyTo(window, partIndex[part], partBytes[part]);
      }
    }
    if (this.requests.askSegments(batch, frame, at)) {
      this.frameBytes[tx.placed - 1] = bytes;
      return;
    }
    tx.unplace();
    batch.refuse(frame, REFUSED_TOO_SMALL);
  }

  /** Answers where it was put in the window; -1: it is refused. */
  #placeOne(batch: Batch, frame: number): number {
    const bytes = batch.bytesOf(frame);
    if (bytes > this.tx.frameBytesMax) {
      batch.refuse(frame, REFUSED_TOO_SMALL);
      return -1;
    }
    let slot = this.tx.placed;
    let at = this.tx.place(bytes, batch.indexOf(frame));
    if (at < 0) {
      // The burst is full; or the pool is empty, and sending may make the driver give back what it sent before.
      this.#flush();
      slot = 0;
      at = this.tx.place(bytes, batch.indexOf(frame));
      if (at < 0) {
        batch.refuse(frame, REFUSED_NO_BUFFER);
        return -1;
      }
    }
    this.frameBytes[slot] = bytes;
    copyFrame(this.arena, batch, frame, bytes, this.window, at);
    return at;
  }

  #flush(): void {
    const count = this.tx.placed;
    if (count === 0) return;
    const sent = this.tx.flush();
    for (let slot = 0; slot < sent; slot++) this.#bytes += this.frameBytes[slot];
    this.#frames += sent;
    if (sent < count) this.state.counts[COUNT_LOST] += count - sent;
  }
}
