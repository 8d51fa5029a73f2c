/**
 * The egress queues that a burst has open, and placing frames on a port: which of its queues, whether they may be so
 * long, and what is counted when one is refused. One worker's object; allocates nothing.
 *
 * Deadlock cannot occur between two workers that each hold a queue and want the other's: a worker that cannot
 * have a queue at once first closes all it has open, and only then waits.
 */
import { ETHERNET_HEADER_BYTES } from '../../protocol/ethernet.ts';
import type { ArenaView } from '../../src/memory/arena-view.ts';
import { COMPLETION_SCRATCH_BYTES, Completion } from '../../src/offload/completion.ts';
import {
  AS_THEY_CAME,
  BATCH_FRAMES_MAX,
  type Batch,
  NEVER_WAITS,
  REFUSED_FAULT,
  REFUSED_NO_BUFFER,
} from '../../src/queue/batch.ts';
import type { EgressQueue, IngressQueue } from '../../src/queue/contract.ts';
import { FrameHead } from '../../src/queue/frame-head.ts';
import { isTag, PUSH_BYTES_MAX, TAG_BYTES } from '../../src/queue/frame-tags.ts';
import { OFFLOAD_CHECKSUM } from '../../src/queue/requests.ts';
import { BACKLOGS_BYTES, type Backlog, Backlogs, dropOfWaiting, LONG_FRAME_BYTES } from './backlog.ts';
import { DROP } from './drop-reasons.ts';
import { flowHash, queueOfHash } from './flow-hash.ts';
import { type ForwardingPort, STAGE_LIMIT_OUT } from './forwarding-port.ts';
import type { Limits } from './limits.ts';
import { COUNT_OFFERED } from './port-counts.ts';

/** Of these in the arena, where headers are made and frames wait. */
export const OUTLETS_SCRATCH_BYTES = COMPLETION_SCRATCH_BYTES + BACKLOGS_BYTES;

/** Called when a queue is stopped because of a fault; again each time it is met. */
export type FaultListener = (queue: IngressQueue | EgressQueue) => void;

export class Outlets {
  declare private readonly arena: ArenaView;
  declare private readonly onFault: FaultListener;
  declare private readonly limits: Limits;
  readonly #open: EgressQueue[] = [];
  private openCount = 0;
  private holdsShared = false;
  /** Frames that a port takes, in order, after those too long for it were left out. */
  declare private readonly fitting: Int32Array;
  /** For a port of several queues: the queue of each frame of the list, and the frames of one queue. */
  declare private readonly queueOf: Int32Array;
  declare private readonly ofQueue: Int32Array;
  declare private readonly head: FrameHead;
  /** After `deliver`: the frames that were placed, in order. Filled only on demand. */
  declare readonly placed: Int32Array;
  /** Of copies, which are made while other frames are being completed. */
  declare private readonly completion: Completion;
  declare private readonly backlogs: Backlogs;
  /** After `placeWaiting`. */
  private gone = 0;

  /** `scratchOffset`: of OUTLETS_SCRATCH_BYTES in the arena, within one window. */
  constructor(arena: ArenaView, onFault: FaultListener, scratchOffset: number, limits: Limits) {
    this.limits = limits;
    this.arena = arena;
    this.onFault = onFault;
    this.completion = new Completion(arena, scratchOffset);
    this.backlogs = new Backlogs(arena, scratchOffset + COMPLETION_SCRATCH_BYTES);
    this.fitting = new Int32Array(BATCH_FRAMES_MAX);
    this.queueOf = new Int32Array(BATCH_FRAMES_MAX);
    this.ofQueue = new Int32Array(BATCH_FRAMES_MAX);
    this.placed = new Int32Array(BATCH_FRAMES_MAX);
    this.head = new FrameHead();
  }

  /**
   * Places `order[0]` to `order[count - 1]` on a port, in order within each of its queues. They ask for nothing that it
   * does not take.
   */
  deliver(port: ForwardingPort, batch: Batch, order: Int32Array, count: number): void {
    const { counts } = port;
    counts[COUNT_OFFERED] += count;
    batch.refusedCount = 0;
    if (port.queueCount === 0) {
      counts[DROP.notReady] += count;
      this.refuseAll(batch, order, count);
      return;
    }
    if (batch.bytesMax - batch.tags.pushBytes > port.frameBytesMax) {
      count = this.leaveOutLong(port, batch, order, count);
      order = this.fitting;
      if (count === 0) return;
    }
    if ((port.stages & STAGE_LIMIT_OUT) !== 0) {
      count = this.limit(port, batch, order, count);
      if (count === 0) return;
    }
    if (batch.asks) batch.tellsValid = (port.takes & OFFLOAD_CHECKSUM) !== 0;
    if (port.queueCount === 1) {
      this.put(port, port.queues[0], batch, order, count);
    } else this.spread(port, batch, order, count);
  }

  /** As `deliver`, of frames without tags that ask for nothing, on a port whose `stages` have none of a receiver's. */
  deliverPlain(port: ForwardingPort, batch: Batch, order: Int32Array, count: number): void {
    if (port.queueCount !== 1 || batch.bytesMax > port.frameBytesMax) {
      this.deliver(port, batch, order, count);
      return;
    }
    port.counts[COUNT_OFFERED] += count;
    batch.refusedCount = 0;
    this.put(port, port.queues[0], batch, order, count);
  }

  /** Places copies on a port that gets nothing else, or on one that is a mirror besides. Answers how many. */
  deliverCopies(
    port: ForwardingPort,
    batch: Batch,
    order: Int32Array,
    count: number,
    portId: number,
    isIngress: boolean,
  ): number {
    if (missingOffloads(batch, order, count, port.takes) === 0) {
      this.placeCopies(port, batch, order, count, portId, isIngress);
      return count;
    }
    const { completion } = this;
    const { pushBytes } = batch.tags;
    let made = 0;
    // Tags are pushed into what is made, and not into what it is made of.
    for (let k = 0; k < count; k++) batch.makeRoom(order[k], -pushBytes);
    completion.begin(batch, order, count, port.takes);
    while (completion.next()) {
      const copies = completion.batch;
      if (pushBytes !== 0) pushAsOf(batch, copies, completion.sourceOf);
      this.placeCopies(port, copies, AS_THEY_CAME, copies.count, portId, isIngress);
      made += copies.count;
    }
    for (let k = 0; k < count; k++) batch.makeRoom(order[k], pushBytes);
    return made;
  }

  private placeCopies(
    port: ForwardingPort,
    batch: Batch,
    order: Int32Array,
    count: number,
    portId: number,
    isIngress: boolean,
  ): void {
    const { counts } = port;
    counts[COUNT_OFFERED] += count;
    if (port.queueCount === 0) {
      counts[DROP.notReady] += count;
      return;
    }
    batch.refusedCount = 0;
    if (batch.bytesMax - batch.tags.pushBytes > port.frameBytesMax) {
      count = this.leaveOutLong(port, batch, order, count);
      order = this.fitting;
      if (count === 0) return;
    }
    if ((port.stages & STAGE_LIMIT_OUT) !== 0) {
      count = this.limit(port, batch, order, count);
      if (count === 0) return;
    }
    batch.tellsValid = (port.takes & OFFLOAD_CHECKSUM) !== 0;
    const queue = this.opened(port.queues[0]);
    const refusedBefore = batch.refusedCount;
    queue.placeCopies(batch, order, count, portId, isIngress);
    if (batch.refusedCount !== refusedBefore) this.countRefused(port, queue, batch, refusedBefore);
  }

  /** After `deliver`: writes those of `order` that were placed to `placed` and answers how many. */
  listPlaced(batch: Batch, order: Int32Array, count: number): number {
    const { placed } = this;
    const { refused, refusedCount } = batch;
    let placedCount = 0;
    for (let k = 0; k < count; k++) {
      let isRefused = false;
      for (let r = 0; r < refusedCount && !isRefused; r++) isRefused = refused[r] === order[k];
      if (!isRefused) placed[placedCount++] = order[k];
    }
    return placedCount;
  }

  /** Ends every queue that was opened. */
  close(): void {
    for (let i = 0; i < this.openCount; i++) this.#open[i].end();
    this.openCount = 0;
    this.holdsShared = false;
  }

  /**
   * Whether what is open should stay so until the worker's turn ends. Closing a queue costs two cache lines from the
   * guest's processor however little was placed: a burst that went to one queue has made up for it, and waiting
   * would only delay it (7 % with two ports, measured); scattered ones share it (10 % with eight). Nobody waits for a turn
   * to have a queue that several workers fill.
   */
  get areWorthHolding(): boolean {
    return this.openCount > 1 && !this.holdsShared;
  }

  /** Waiting for another worker's burst is allowed only while holding nothing that it could wait for. */
  private opened(queue: EgressQueue): EgressQueue {
    if (queue.open) return queue;
    if (!queue.tryBegin()) {
      this.close();
      queue.begin();
    }
    this.#open[this.openCount++] = queue;
    if (queue.shared) this.holdsShared = true;
    return queue;
  }

  /** Places frames on a queue, or behind those that wait for its buffers. */
  private put(
    port: ForwardingPort,
    target: EgressQueue,
    batch: Batch,
    order: Int32Array,
    count: number,
  ): void {
    const { backlogs } = this;
    const refusedBefore = batch.refusedCount;
    const backlog = backlogs.usedCount === 0 ? null : backlogs.find(target);
    if (backlog !== null) backlogs.keep(backlog, batch, order, 0, count);
    else {
      const queue = this.opened(target);
      const mayWait = batch.bytesMax > LONG_FRAME_BYTES && backlogs.mayBegin(port, queue);
      batch.waitsBeyondBytes = mayWait ? LONG_FRAME_BYTES : NEVER_WAITS;
      queue.place(batch, order, count);
      const refused = batch.refusedCount - refusedBefore;
      if (backlogs.stuckCount !== 0 && refused < count) backlogs.noteTaken(queue);
      if (refused === 0) return;
      if (mayWait || (queue.fault < 0 && backlogs.mayBegin(port, queue)))
        this.keepWaiting(port, queue, batch, refusedBefore, order, count);
    }
    if (batch.refusedCount !== refusedBefore) this.countRefused(port, target, batch, refusedBefore);
  }

  /**
   * Has the frames wait that came last and found no buffers, from the first long one on; all of them where the queue will go on
   * by itself soon.
   */
  private keepWaiting(
    port: ForwardingPort,
    queue: EgressQueue,
    batch: Batch,
    refusedBefore: number,
    order: Int32Array,
    count: number,
  ): void {
    const { backlogs } = this;
    const waiting = waitingOf(batch, refusedBefore, order, count);
    let first = count - waiting;
    if (queue.fault >= 0) while (first < count && batch.bytesOf(order[first]) <= LONG_FRAME_BYTES) first++;
    if (first === count) return;
    // Those before it stay refused.
    batch.refusedCount -= count - first;
    backlogs.keep(backlogs.begin(port, queue), batch, order, first, count);
  }

  /**
   * Places what waits on the queues that have buffers again; call between bursts, while `hasBacklogs`. Answers how many
   * frames.
   */
  placeBacklogs(nowTick: number): number {
    const { backlogs } = this;
    let placed = 0;
    // Backwards, for one that is emptied gives its place to the last one.
    for (let i = backlogs.usedCount - 1; i >= 0; i--) {
      const backlog = backlogs.at(i);
      if (!backlog.isDue()) continue;
      placed += this.placeBacklog(backlog, nowTick);
      if (this.holdsShared) this.close();
    }
    this.close();
    return placed;
  }

  get hasBacklogs(): boolean {
    return this.backlogs.usedCount !== 0;
  }

  private placeBacklog(backlog: Backlog, nowTick: number): number {
    const { backlogs } = this;
    let placed = this.placeWaiting(backlog);
    if (backlog.noteGone(this.gone, nowTick)) {
      // One that needs more than its guest offers holds up the others no longer.
      const hasMoved = backlog.skip(nowTick);
      backlog.port.counts[dropOfWaiting(backlog.queue)] += 1;
      const more = this.placeWaiting(backlog);
      backlog.noteGone(this.gone, nowTick);
      placed += more;
      if (!hasMoved && more === 0) {
        backlogs.drop(backlog, true);
        return placed;
      }
    }
    if (backlog.count === 0) backlogs.release(backlog);
    return placed;
  }

  /** As many as came while others were given, at most. Those that need not wait any more are `gone` afterwards. */
  private placeWaiting(backlog: Backlog): number {
    const { ofQueue } = this;
    this.gone = 0;
    const batch = backlog.waiting(this.arena, ofQueue);
    if (batch === null) return 0;
    const count = backlog.leftOfHalf;
    batch.refusedCount = 0;
    batch.tellsValid = true;
    batch.waitsBeyondBytes = 0;
    const queue = this.opened(backlog.queue);
    queue.place(batch, ofQueue, count);
    const waiting = waitingOf(batch, 0, ofQueue, count);
    batch.refusedCount -= waiting;
    this.countRefused(backlog.port, queue, batch, 0);
    this.gone = count - waiting;
    return this.gone - batch.refusedCount;
  }

  /** What waits for the queue may not go there any more. */
  forget(queue: EgressQueue): void {
    this.backlogs.forget(queue);
  }

  /** Each frame on the queue that its flow falls on. */
  private spread(port: ForwardingPort, batch: Batch, order: Int32Array, count: number): void {
    const { queueOf, ofQueue, head } = this;
    const { windows } = this.arena;
    const { queueCount } = port;
    for (let k = 0; k < count; k++) {
      head.show(batch, order[k], windows);
      queueOf[k] = queueOfHash(flowHash(head), queueCount);
    }
    for (let q = 0; q < queueCount; q++) {
      let here = 0;
      for (let k = 0; k < count; k++) if (queueOf[k] === q) ofQueue[here++] = order[k];
      if (here === 0) continue;
      this.put(port, port.queues[q], batch, ofQueue, here);
    }
  }

  private leaveOutLong(port: ForwardingPort, batch: Batch, order: Int32Array, count: number): number {
    const { fitting } = this;
    let fits = 0;
    for (let k = 0; k < count; k++) {
      const frame = order[k];
      if (batch.wireBytesOf(frame) - this.tagBytesOf(batch, frame) <= port.frameBytesMax)
        fitting[fits++] = frame;
      else batch.refuse(frame, REFUSED_OVER_MTU);
    }
    port.counts[DROP.overMtu] += count - fits;
    return fits;
  }

  /** Refuses what is more than the port may be sent. Answers how many of the frames are left, the first ones. */
  private limit(port: ForwardingPort, batch: Batch, order: Int32Array, count: number): number {
    const passes = this.limits.passingTo(port, batch, order, count);
    for (let k = passes; k < count; k++) batch.refuse(order[k], REFUSED_OVER_RATE);
    port.counts[DROP.rateOut] += count - passes;
    return passes;
  }

  /** Bytes of the VLAN tags that a frame, too long without them, goes out with: of two at most, which no MTU counts. */
  private tagBytesOf(batch: Batch, frame: number): number {
    const { pushBytes } = batch.tags;
    if (pushBytes === PUSH_BYTES_MAX || !isTag(batch.word3Of(frame))) return pushBytes;
    if (pushBytes > 0) return pushBytes + TAG_BYTES;
    const { head } = this;
    head.show(batch, frame, this.arena.windows);
    const at = head.start + ETHERNET_HEADER_BYTES + TAG_BYTES;
    return isTag(head.bytes[at - 2] | (head.bytes[at - 1] << 8)) ? PUSH_BYTES_MAX : TAG_BYTES;
  }

  private refuseAll(batch: Batch, order: Int32Array, count: number): void {
    for (let k = 0; k < count; k++) batch.refuse(order[k], REFUSED_NOT_READY);
  }

  private countRefused(port: ForwardingPort, queue: EgressQueue, batch: Batch, from: number): void {
    const { counts } = port;
    for (let r = from; r < batch.refusedCount; r++) {
      const why = batch.refusedWhy[r];
      if (why === REFUSED_FAULT) counts[DROP.queueStopped] += 1;
      else if (why === REFUSED_NO_BUFFER) counts[dropOfWaiting(queue)] += 1;
      else counts[DROP.bufferTooSmall] += 1;
    }
    if (queue.fault !== 0) this.onFault(queue);
  }
}

/** How many of the last frames in `order` the last `place` refused because there were no buffers, without one between them. */
function waitingOf(batch: Batch, refusedBefore: number, order: Int32Array, count: number): number {
  const { refused, refusedWhy, refusedCount } = batch;
  const refusedHere = refusedCount - refusedBefore;
  let waiting = 0;
  while (waiting < refusedHere) {
    const at = refusedCount - 1 - waiting;
    if (refused[at] !== order[count - 1 - waiting] || refusedWhy[at] !== REFUSED_NO_BUFFER) break;
    waiting++;
  }
  return waiting;
}

/** Has each of the copies get the tags that the frame gets which it was made of. */
function pushAsOf(batch: Batch, copies: Batch, sourceOf: Int32Array): void {
  const { tags } = copies;
  for (let frame = 0; frame < copies.count; frame++) {
    tags.pushes0[frame] = batch.tags.push0Of(sourceOf[frame]);
    tags.pushes1[frame] = batch.tags.push1Of(sourceOf[frame]);
  }
  tags.isPushUniform = false;
  copies.makeRoomForAll(batch.tags.pushBytes);
}

/** What frames ask for beyond `takes`, as OFFLOAD_* bits of any of them. */
export function missingOffloads(batch: Batch, order: Int32Array, count: number, takes: number): number {
  if (!batch.asks) return 0;
  let needs = 0;
  for (let k = 0; k < count; k++) needs |= batch.needsOf(order[k]);
  return needs & ~takes;
}

/** Refusals of ours, beside those of queues (src/queue/batch.ts). */
const REFUSED_NOT_READY = -1;
const REFUSED_OVER_MTU = -2;
const REFUSED_OVER_RATE = -3;

/** DROP.* of a frame that was refused on a port, as it was counted there. */
export function dropOfRefusal(port: ForwardingPort, why: number): number {
  switch (why) {
    case REFUSED_NOT_READY:
      return DROP.notReady;
    case REFUSED_OVER_MTU:
      return DROP.overMtu;
    case REFUSED_OVER_RATE:
      return DROP.rateOut;
    case REFUSED_FAULT:
      return DROP.queueStopped;
    case REFUSED_NO_BUFFER:
      return port.queues.some(({ fault }) => fault < 0) ? DROP.notTranslated : DROP.noBuffer;
    default:
      return DROP.bufferTooSmall;
  }
}
