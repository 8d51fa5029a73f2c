/**
 * Queues whose frames come and go by system calls or a foreign driver: the frames pass through slots in the
 * arena, so that they are copied to and from guests' memory like any other. A kind of port adds how slots are
 * filled (`fill`) and emptied (`flush`), a burst at a time. Hot path of one worker at a time.
 *
 * Slot `i` begins `i * slotBytes` after the first; its frame begins `headerBytes` into it.
 */
import assert from 'node:assert/strict';
import { FRAME_BYTES_MAX, FRAME_BYTES_MIN } from '../../../protocol/ethernet.ts';
import type { ArenaView } from '../../memory/arena-view.ts';
import type { Window } from '../../memory/window.ts';
import { WINDOW_BYTES } from '../../memory/window.ts';
import { BATCH_FRAMES_MAX, type Batch, REFUSED_FAULT, REFUSED_TOO_SMALL } from '../../queue/batch.ts';
import type { EgressQueue, IngressQueue, QueueAttachmentBase } from '../../queue/contract.ts';
import { copyFrame } from '../../queue/copy.ts';
import { COUNT_BYTES, COUNT_FRAMES, COUNT_LOST, QueueState, STATE_FAULT } from '../../queue/state.ts';

/** Slots in the arena, made by the port on the main thread (src/port/staged/pairs.ts). */
export type SlotLayout = {
  /** Arena offset and address in this process of slot 0. */
  readonly offset: number;
  readonly address: number;
  /** A multiple of 64; the largest header and frame that fit. */
  readonly slotBytes: number;
  readonly slotCount: number;
};

export type StagedAttachment = QueueAttachmentBase & {
  readonly slots: SlotLayout;
  /** What stands before the frame in its slot, for example a virtio-net header. */
  readonly headerBytes: number;
};

/** An empty look at the other side costs a system call; so many turns at most are left out between two. */
const TURNS_SKIPPED_MAX = 32;

/** What both directions have in common. */
abstract class StagedQueue {
  declare readonly portId: number;
  declare readonly queueIndex: number;
  declare fault: number;
  declare protected readonly arena: ArenaView;
  declare protected readonly state: QueueState;
  declare protected readonly slots: SlotLayout;
  declare protected readonly headerBytes: number;
  declare protected readonly window: Window;
  declare protected readonly windowNumber: number;
  /** Index in the window of slot 0. */
  declare protected readonly slotIndex0: number;
  /** Bytes of the frame in each slot, without header. */
  declare protected readonly frameBytes: Int32Array;
  protected burstFrames = 0;
  protected burstBytes = 0;

  constructor(arena: ArenaView, attachment: StagedAttachment) {
    const { slots } = attachment;
    this.portId = attachment.portId;
    this.queueIndex = attachment.queueIndex;
    this.arena = arena;
    this.slots = slots;
    this.headerBytes = attachment.headerBytes;
    this.state = new QueueState(attachment.states, attachment.queueIndex);
    this.fault = this.state.words[STATE_FAULT];
    this.windowNumber = Math.floor(slots.offset / WINDOW_BYTES);
    this.window = arena.windows[this.windowNumber];
    this.slotIndex0 = slots.offset % WINDOW_BYTES;
    this.frameBytes = new Int32Array(slots.slotCount);
    assert(slots.slotCount <= BATCH_FRAMES_MAX, 'a burst of slots is described in one batch');
  }

  /** Nobody is signalled by a descriptor. */
  setCallFd(): void {}

  setMemory(): void {}

  setLog(): void {}

  /** Stops the queue with an errno, or another code that the port understands. Not 0. */
  protected fail(fault: number): void {
    this.fault = fault;
    this.state.words[STATE_FAULT] = fault;
  }

  protected countBurst(): void {
    if (this.burstFrames === 0) return;
    const { counts } = this.state;
    counts[COUNT_FRAMES] += this.burstFrames;
    counts[COUNT_BYTES] += this.burstBytes;
    this.burstFrames = 0;
    this.burstBytes = 0;
  }
}

export abstract class StagedIngress extends StagedQueue implements IngressQueue {
  abstract readonly wakeFd: number;
  readonly wakesBySignal = false;
  readonly held = null;
  /** Frames that `fill` put into slots before the worker could sleep, for the next burst. */
  #filled = 0;
  #turnsToSkip = 0;
  #turnsSkipped = 1;

  /**
   * Puts waiting frames into slots from 0 on, at most `slots.slotCount`, their lengths into `frameBytes`.
   * Answers how many, 0 when none wait; calls `fail` when there can be none any more.
   */
  protected abstract fill(): number;

  gather(batch: Batch): number {
    batch.clear();
    const count = this.#look();
    for (let slot = 0; slot < count; slot++) {
      const bytes = this.frameBytes[slot];
      if (bytes < FRAME_BYTES_MIN) batch.tooShort++;
      else if (bytes > FRAME_BYTES_MAX) batch.tooLong++;
      else {
        batch.add(this.windowNumber, this.placeOf(slot), bytes);
        this.burstBytes += bytes;
      }
    }
    this.burstFrames += count;
    this.#filled = 0;
    return count;
  }

  /** Index in the window of the frame in a slot. */
  protected placeOf(slot: number): number {
    return this.slotIndex0 + slot * this.slots.slotBytes + this.headerBytes;
  }

  charge(): void {}

  finish(): void {
    this.countBurst();
  }

  armWake(): boolean {
    this.#turnsToSkip = 0;
    const isEmpty = this.#look() === 0;
    // The first look after the sleep is not left out.
    this.#turnsToSkip = 0;
    return isEmpty;
  }

  disarmWake(): void {}

  acknowledgeWake(): boolean {
    this.#turnsToSkip = 0;
    return this.fault === 0;
  }

  /** Answers how many frames the slots hold; looks at the other side when they hold none. */
  #look(): number {
    if (this.fault !== 0 || this.#filled !== 0) return this.#filled;
    if (this.#turnsToSkip > 0) {
      this.#turnsToSkip--;
      return 0;
    }
    this.#filled = this.fill();
    if (this.#filled === 0) {
      this.#turnsSkipped = Math.min(this.#turnsSkipped * 2, TURNS_SKIPPED_MAX);
      this.#turnsToSkip = this.#turnsSkipped;
    } else this.#turnsSkipped = 1;
    return this.#filled;
  }
}

export abstract class StagedEgress extends StagedQueue implements EgressQueue {
  open = false;
  /** Slots that hold frames not yet flushed. */
  #filled = 0;
  /** Whether other workers use this queue too, so that every burst takes the lock. */
  declare readonly shared: boolean;

  constructor(arena: ArenaView, attachment: StagedAttachment, shared: boolean) {
    super(arena, attachment);
    this.shared = shared;
  }

  /**
   * Sends the frames of slots 0 to `count - 1`. Answers how many the other side took; the others are lost.
   * Calls `fail` when it will take none any more.
   */
  protected abstract flush(count: number): number;

  /** What stands before a frame in its slot; nothing, unless the kind says otherwise. */
  protected putHeader(_batch: Batch, _frame: number, _headerIndex: number): void {}

  get framesPlaced(): number {
    return -1;
  }

  tryBegin(): boolean {
    if (this.shared && !this.state.tryLock()) return false;
    this.#begun();
    return true;
  }

  begin(): void {
    if (this.shared) this.state.lock();
    this.#begun();
  }

  place(batch: Batch, order: Int32Array, count: number): void {
    const { slotBytes, slotCount } = this.slots;
    for (let k = 0; k < count; k++) {
      const frame = order[k];
      const bytes = batch.bytesOf(frame);
      if (this.#filled === slotCount) this.#flushAll();
      if (this.fault !== 0) batch.refuse(frame, REFUSED_FAULT);
      else if (this.headerBytes + bytes > slotBytes) batch.refuse(frame, REFUSED_TOO_SMALL);
      else {
        const slot = this.#filled++;
        this.frameBytes[slot] = bytes;
        const at = this.slotIndex0 + slot * slotBytes + this.headerBytes;
        this.putHeader(batch, frame, at - this.headerBytes);
        copyFrame(this.arena, batch, frame, bytes, this.window, at);
      }
    }
  }

  placeCopies(batch: Batch, order: Int32Array, count: number): void {
    this.place(batch, order, count);
  }

  nameSources(): void {}

  end(): void {
    this.#flushAll();
    this.countBurst();
    this.open = false;
    if (this.shared) this.state.unlock();
  }

  #begun(): void {
    this.fault = this.state.words[STATE_FAULT];
    this.open = true;
  }

  #flushAll(): void {
    const count = this.#filled;
    if (count === 0) return;
    this.#filled = 0;
    const sent = this.flush(count);
    for (let slot = 0; slot < sent; slot++) this.burstBytes += this.frameBytes[slot];
    this.burstFrames += sent;
    if (sent < count) this.state.counts[COUNT_LOST] += count - sent;
  }
}
