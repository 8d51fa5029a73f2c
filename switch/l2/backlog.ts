/**
 * Frames that wait for a guest to offer buffers: copies, in the worker's own part of the arena, so that neither their
 * sender nor frames to others wait with them. Only a long frame (LONG_FRAME_BYTES) begins a backlog: of those a ring of 256 buffers takes
 * seven, and a sender hands over sixty-four at once; of others a ring holds as many as should ever wait. While there is
 * one, all frames to its queue go through it, so they stay in order. One worker's objects; they are made when they are
 * needed first.
 */
import assert from 'node:assert/strict';
import { type ArenaView, WINDOW_BYTES } from '../../src/memory/arena-view.ts';
import { BATCH_FRAMES_MAX, Batch } from '../../src/queue/batch.ts';
import type { EgressQueue } from '../../src/queue/contract.ts';
import { copyFrame } from '../../src/queue/copy.ts';
import { readHeads } from '../../src/queue/heads.ts';
import { DROP } from './drop-reasons.ts';
import type { ForwardingPort } from './forwarding-port.ts';

/** Of one worker; for other queues there is none. */
const BACKLOGS_MAX = 8;
/** Of the frames that come while others are given, and of those. */
const HALF_BYTES = 2 ** 19;
const SLOT_ALIGN_BYTES = 64;
/** Where a frame lies best, as behind the header in most receive buffers: copying goes by words where both are alike. */
const SLOT_ROOM_BYTES = 12;
export const BACKLOGS_BYTES = BACKLOGS_MAX * 2 * HALF_BYTES;
/** A guest that takes nothing for so long has stopped taking. */
const STALE_TICKS = 2;
/** Turns between two looks at a guest that offers nothing: twice as many each time, up to these. */
const PAUSE_TURNS_MAX = 64;

/** One half: frames as they were placed in memory, first to last. */
class Half {
  readonly batch = new Batch();
  declare private readonly window: number;
  declare private readonly start: number;
  private usedBytes = 0;

  constructor(offset: number) {
    this.window = Math.floor(offset / WINDOW_BYTES);
    this.start = offset % WINDOW_BYTES;
    assert(this.start + HALF_BYTES <= WINDOW_BYTES, 'it lies within one window');
  }

  clear(): void {
    this.batch.clear();
    this.usedBytes = 0;
  }

  /** Copies a frame with its tags, and what it asks for. False: there is no room. */
  add(arena: ArenaView, from: Batch, frame: number): boolean {
    const { batch } = this;
    const sizeBytes = from.bytesOf(frame);
    if (batch.count === BATCH_FRAMES_MAX || this.usedBytes + SLOT_ROOM_BYTES + sizeBytes > HALF_BYTES)
      return false;
    const index = this.start + this.usedBytes + SLOT_ROOM_BYTES;
    this.usedBytes += Math.ceil((SLOT_ROOM_BYTES + sizeBytes) / SLOT_ALIGN_BYTES) * SLOT_ALIGN_BYTES;
    copyFrame(arena, from, frame, sizeBytes, arena.windows[this.window], index);
    batch.addRequestOf(from, frame);
    batch.add(this.window, index, sizeBytes);
    return true;
  }
}

/** Of one queue. */
export class Backlog {
  declare queue: EgressQueue;
  declare port: ForwardingPort;
  /** Frames are given from one half and put into the other. */
  private giving: Half;
  private taking: Half;
  /** The first one of `giving` that was not taken. */
  private next = 0;
  /** When the guest took something last; -1: nobody looked yet. */
  private movedTick = -1;
  private pauseTurns = 0;
  private turnsLeft = 0;

  constructor(offset: number) {
    this.giving = new Half(offset);
    this.taking = new Half(offset + HALF_BYTES);
  }

  begin(port: ForwardingPort, queue: EgressQueue): void {
    this.port = port;
    this.queue = queue;
    this.giving.clear();
    this.taking.clear();
    this.next = 0;
    this.movedTick = -1;
    this.pauseTurns = 0;
    this.turnsLeft = 0;
  }

  add(arena: ArenaView, batch: Batch, frame: number): boolean {
    return this.taking.add(arena, batch, frame);
  }

  /** Whether it is this turn that the guest should be looked at. */
  isDue(): boolean {
    if (this.turnsLeft === 0) return true;
    this.turnsLeft--;
    return false;
  }

  /** The frames that come next, of which `order` gets the places; null: there are none. */
  waiting(arena: ArenaView, order: Int32Array): Batch | null {
    if (this.leftOfHalf === 0) {
      if (this.taking.batch.count === 0) return null;
      const { giving } = this;
      this.giving = this.taking;
      this.taking = giving;
      giving.clear();
      this.next = 0;
      readHeads(this.giving.batch, arena.windows);
    }
    for (let k = 0; k < this.leftOfHalf; k++) order[k] = this.next + k;
    return this.giving.batch;
  }

  /** Of the frames that `waiting` answered. */
  get leftOfHalf(): number {
    return this.giving.batch.count - this.next;
  }

  get count(): number {
    return this.leftOfHalf + this.taking.batch.count;
  }

  /** So many of them have gone. Answers whether the guest still takes frames. */
  noteGone(count: number, nowTick: number): boolean {
    this.next += count;
    if (count > 0 || this.movedTick < 0) this.movedTick = nowTick;
    this.pauseTurns = count > 0 ? 0 : Math.min(2 * this.pauseTurns + 1, PAUSE_TURNS_MAX);
    this.turnsLeft = this.pauseTurns;
    return nowTick - this.movedTick < STALE_TICKS;
  }
}

export class Backlogs {
  /** Queues with one. */
  usedCount = 0;
  /** Queues that get none. */
  stuckCount = 0;
  declare private readonly arena: ArenaView;
  declare private readonly offset: number;
  /** The first `usedCount` are in use. */
  readonly #backlogs: Backlog[] = [];
  /** Those of guests that stopped taking, until they take frames again. */
  readonly #stuck = new Set<EgressQueue>();

  /** `offset`: of BACKLOGS_BYTES in the arena, within one window. */
  constructor(arena: ArenaView, offset: number) {
    this.arena = arena;
    this.offset = offset;
  }

  at(place: number): Backlog {
    return this.#backlogs[place];
  }

  find(queue: EgressQueue): Backlog | null {
    for (let i = 0; i < this.usedCount; i++) if (this.#backlogs[i].queue === queue) return this.#backlogs[i];
    return null;
  }

  /**
   * Keeps what it can of `order[from]` to `order[count - 1]`, for which the queue has no buffers: the first so many, as it
   * answers. Begins a backlog if need be and if there may be one.
   */
  keep(
    port: ForwardingPort,
    queue: EgressQueue,
    batch: Batch,
    order: Int32Array,
    from: number,
    count: number,
  ): number {
    const backlog = this.find(queue) ?? this.#begin(port, queue);
    if (backlog === null) return 0;
    let at = from;
    while (at < count && backlog.add(this.arena, batch, order[at])) at++;
    return at - from;
  }

  #begin(port: ForwardingPort, queue: EgressQueue): Backlog | null {
    if (this.usedCount === BACKLOGS_MAX || this.#stuck.has(queue)) return null;
    const place = this.usedCount++;
    if (place === this.#backlogs.length) {
      this.#backlogs.push(new Backlog(this.offset + place * 2 * HALF_BYTES));
    }
    const backlog = this.#backlogs[place];
    backlog.begin(port, queue);
    return backlog;
  }

  /** All of it has gone. */
  release(backlog: Backlog): void {
    const last = --this.usedCount;
    this.#backlogs[this.#backlogs.indexOf(backlog)] = this.#backlogs[last];
    this.#backlogs[last] = backlog;
  }

  /** Gives the frames up: their guest does not take them (`isStuck`), or its queue is gone. */
  drop(backlog: Backlog, isStuck: boolean): void {
    backlog.port.counts[DROP.noBuffer] += backlog.count;
    if (isStuck) this.#stuck.add(backlog.queue);
    this.stuckCount = this.#stuck.size;
    this.release(backlog);
  }

  /** The queue took frames. */
  noteTaken(queue: EgressQueue): void {
    this.#stuck.delete(queue);
    this.stuckCount = this.#stuck.size;
  }

  /** The queue is closed. */
  forget(queue: EgressQueue): void {
    const backlog = this.find(queue);
    if (backlog !== null) this.drop(backlog, false);
    this.noteTaken(queue);
  }
}
