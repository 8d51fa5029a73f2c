/**
 * Frames that wait for a guest to offer buffers: copies, in the worker's own part of the arena, so that neither their
 * sender nor frames to others wait with them. Only a long frame begins a backlog: of those a ring of 256 buffers takes
 * seven, and a sender hands over sixty-four at once; of others a ring holds as many as should ever wait. While there is
 * one, all frames to its queue go through it, so they stay in order. One worker's objects; they are made when they are
 * needed first.
 */
import assert from 'node:assert/strict';
import type { ArenaView } from '../../src/memory/arena-view.ts';
import { WINDOW_BYTES } from '../../src/memory/window.ts';
import { BATCH_FRAMES_MAX, Batch, REFUSED_NO_BUFFER } from '../../src/queue/batch.ts';
import type { EgressQueue } from '../../src/queue/contract.ts';
import { copyFrame } from '../../src/queue/copy.ts';
import { readHeads } from '../../src/queue/heads.ts';
import { DROP } from './drop-reasons.ts';
import { type ForwardingPort, STAGE_MIRROR } from './forwarding-port.ts';

/** A frame that is longer may begin one. */
export const LONG_FRAME_BYTES = 4096;
/** Of one worker, and of those one port's; for other queues there is none. */
const BACKLOGS_MAX = 8;
const BACKLOGS_OF_PORT_MAX = 2;
/** Of the frames that come while others are given, and of those. */
const HALF_BYTES = 2 ** 19;
const SLOT_ALIGN_BYTES = 64;
/** Where a frame lies best, as behind the header in most receive buffers: copying goes by words where both are alike. */
const SLOT_ROOM_BYTES = 12;
export const BACKLOGS_BYTES = BACKLOGS_MAX * 2 * HALF_BYTES;
/** When the frame that comes next waited for so long, it is given up; seconds, of which the first may be a short one. */
const STALE_TICKS = 2;
/** Turns between two looks at a guest that does not offer enough: twice as many each time, up to these. */
const PAUSE_TURNS_MAX = 64;

/** DROP.* of a frame that waits for the queue and is given up. */
export function dropOfWaiting({ fault }: EgressQueue): number {
  return fault < 0 ? DROP.notTranslated : DROP.noBuffer;
}

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
  /** When a frame went last; -1: nobody looked yet. */
  private movedTick = -1;
  /** The queue's `framesPlaced` then. */
  private placedThen = 0;
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

  /** So many of them have gone. Answers whether the next one waited for too long. */
  noteGone(count: number, nowTick: number): boolean {
    this.next += count;
    this.pauseTurns = count > 0 ? 0 : Math.min(2 * this.pauseTurns + 1, PAUSE_TURNS_MAX);
    this.turnsLeft = this.pauseTurns;
    if (count > 0 || this.movedTick < 0) this.noteMoved(nowTick);
    return nowTick - this.movedTick >= STALE_TICKS;
  }

  private noteMoved(nowTick: number): void {
    this.movedTick = nowTick;
    this.placedThen = this.queue.framesPlaced;
  }

  /** Gives up the next one. Answers whether the guest took anything while it waited, from whomever. */
  skip(nowTick: number): boolean {
    const hasMoved = this.queue.framesPlaced !== this.placedThen;
    this.next++;
    this.noteMoved(nowTick);
    return hasMoved;
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

  /** Whether `begin` may be called for a queue that has none. */
  mayBegin(port: ForwardingPort, queue: EgressQueue): boolean {
    if (queue.framesPlaced < 0 || this.usedCount === BACKLOGS_MAX) return false;
    // A mirror shows what was placed; and nobody has waited for a guest that has taken nothing since.
    if ((port.stages & STAGE_MIRROR) !== 0 || (this.stuckCount !== 0 && this.#stuck.has(queue))) return false;
    let ofPort = 0;
    for (let i = 0; i < this.usedCount; i++) if (this.#backlogs[i].port === port) ofPort++;
    return ofPort < BACKLOGS_OF_PORT_MAX;
  }

  /** Keeps `order[from]` to `order[count - 1]`, for which the queue has no buffers; refuses those for which there is no room. */
  keep(backlog: Backlog, batch: Batch, order: Int32Array, from: number, count: number): void {
    for (let k = from; k < count; k++) {
      if (!backlog.add(this.arena, batch, order[k])) batch.refuse(order[k], REFUSED_NO_BUFFER);
    }
  }

  begin(port: ForwardingPort, queue: EgressQueue): Backlog {
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

  /** Gives the frames up: their guest takes none (`isStuck`), or they may not go there any more. */
  drop(backlog: Backlog, isStuck: boolean): void {
    backlog.port.counts[dropOfWaiting(backlog.queue)] += backlog.count;
    if (isStuck) this.#stuck.add(backlog.queue);
    this.stuckCount = this.#stuck.size;
    this.release(backlog);
  }

  /** The queue took frames. */
  noteTaken(queue: EgressQueue): void {
    this.#stuck.delete(queue);
    this.stuckCount = this.#stuck.size;
  }

  /** What waits for the queue may not go there any more. */
  forget(queue: EgressQueue): void {
    const backlog = this.find(queue);
    if (backlog !== null) this.drop(backlog, false);
    this.noteTaken(queue);
  }
}
