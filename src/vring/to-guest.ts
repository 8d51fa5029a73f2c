/**
 * A guest's receive queue: copies frames into the buffers that the guest offers, each with its virtio-net
 * header. A frame in one piece that fits a plain descriptor is placed by the layout's tight loop; everything else
 * (several descriptors, indirect tables, MRG_RXBUF over several chains, scattered frames) goes through lists of
 * pieces here. Hot path of one worker at a time, see QueueState's lock.
 */
import type { ArenaView } from '../memory/arena-view.ts';
import { type Batch, REFUSED_FAULT, REFUSED_NO_BUFFER, REFUSED_TOO_SMALL } from '../queue/batch.ts';
import type { EgressQueue } from '../queue/contract.ts';
import { COUNT_FRAMES, STATE_AVAIL_NEXT, STATE_WORK_SPENT } from '../queue/state.ts';
import type { RingAttachment } from './attachment.ts';
import { CHAIN_DESCRIPTORS_MAX, DescriptorList } from './descriptor-list.ts';
import { PARKED, RING_FAULT } from './faults.ts';
import { WALKED_CHAINS_MAX } from './layout.ts';
import { PieceCursor } from './piece-cursor.ts';
import { Ring } from './ring.ts';

/** Descriptors that are used for one frame, over all its chains: what a frame costs is bounded by it. */
const FRAME_DESCRIPTORS_MAX = CHAIN_DESCRIPTORS_MAX;
/** Most pieces of guest memory that one frame may be written to. */
const PIECES_MAX = FRAME_DESCRIPTORS_MAX;
/**
 * What the frames to a guest cost in the mean is bounded as well, in descriptors and pieces: so many for each that is
 * offered, and more for one that is placed, also by its length; no driver needs that much. What frames do not need is
 * kept for others up to the reserve. When it is used up, a frame is refused without a look at the ring.
 */
const OFFERED_FRAME_WORK = 8;
const PLACED_FRAME_WORK = 12;
const PLACED_BYTES_SHIFT = 9;
const WORK_RESERVE = 1024;
const PLACED = 0;
/** Answer of `#collectChain` below its count of bytes: a REFUSED_* as a negative number. */
const refusal = (why: number): number => -why;

export class ToGuest extends Ring implements EgressQueue {
  open = false;
  declare private readonly mergeable: boolean;
  /** Whether other workers fill this ring too, so that every burst takes the lock. */
  declare readonly shared: boolean;
  declare private readonly list: DescriptorList;
  /** What each chain of the frame being placed gets. */
  declare private readonly chainBytes: Int32Array;
  private chainCount = 0;
  private descriptorsLeft = 0;
  /** What the next frame may cost; below 1 it is refused. */
  declare private workLeft: number;
  declare private readonly target: PieceCursor;

  constructor(arena: ArenaView, attachment: RingAttachment, shared: boolean) {
    super(arena, attachment);
    this.mergeable = attachment.mergeable;
    this.shared = shared;
    this.list = new DescriptorList();
    this.chainBytes = new Int32Array(WALKED_CHAINS_MAX);
    this.target = new PieceCursor(arena, PIECES_MAX);
    // What the ring cost is owed however often it is stopped and started.
    this.workLeft = WORK_RESERVE - this.state.words[STATE_WORK_SPENT];
  }

  get framesPlaced(): number {
    return this.state.counts[COUNT_FRAMES];
  }

  tryBegin(): boolean {
    if (this.shared) {
      if (!this.state.tryLock()) return false;
      this.loadState();
    }
    this.open = true;
    return true;
  }

  begin(): void {
    if (this.shared) {
      this.state.lock();
      this.loadState();
    }
    this.open = true;
  }

  end(): void {
    this.state.words[STATE_WORK_SPENT] = WORK_RESERVE - this.workLeft;
    this.publish();
    this.open = false;
    if (!this.shared) return;
    this.leftAt = this.state.words[STATE_AVAIL_NEXT];
    this.state.unlock();
  }

  /** Under the lock: another worker may be signalling. */
  override setCallFd(callFd: number): void {
    this.begin();
    super.setCallFd(callFd);
    this.end();
  }

  place(batch: Batch, order: Int32Array, count: number): void {
    let next = 0;
    while (next < count) {
      // A frame whose header says something has one of its own, which the tight loop does not write.
      const plainEnd = batch.asks ? nextAsking(batch, order, next, count) : count;
      if (next < plainEnd) next = this.layout.placePlain(this, batch, order, next, plainEnd);
      if (next === count) return;
      const why = this.#placeAnyhow(batch, order[next]);
      if (why !== PLACED) {
        batch.refuse(order[next], why);
        const waits = why === REFUSED_NO_BUFFER && batch.bytesOf(order[next]) > batch.waitsBeyondBytes;
        // The driver was just looked at: it will not have offered more for the rest of this burst.
        if (waits || !this.hasWaiting()) {
          const whyRest = this.fault > RING_FAULT.NONE ? REFUSED_FAULT : REFUSED_NO_BUFFER;
          for (let left = next + 1; left < count; left++) batch.refuse(order[left], whyRest);
          return;
        }
      }
      next++;
    }
  }

  placeCopies(batch: Batch, order: Int32Array, count: number): void {
    this.place(batch, order, count);
  }

  /** A guest is not told whose copies it gets. */
  nameSources(): void {}

  /** Places one frame by lists of pieces. Answers PLACED or a REFUSED_*. */
  #placeAnyhow(batch: Batch, frame: number): number {
    const frameBytes = batch.bytesOf(frame);
    const { target } = this;
    const waits = frameBytes > batch.waitsBeyondBytes;
    this.workLeft = Math.min(this.workLeft + OFFERED_FRAME_WORK, WORK_RESERVE);
    if (this.workLeft <= 0) return waits ? REFUSED_NO_BUFFER : REFUSED_TOO_SMALL;
    const { workLeft } = this;
    const why = this.#collect(this.headerBytes + frameBytes);
    if (why !== PLACED) {
      if (this.fault === RING_FAULT.NONE) this.layout.forgetWalked();
      if (this.log !== null) this.log.forgetNoted();
      if (!waits || why !== REFUSED_NO_BUFFER) return why;
      // It is looked for again and again, at intervals of its own.
      this.workLeft = workLeft;
      return this.fault !== PARKED && this.#hasWalkedAll() ? REFUSED_TOO_SMALL : REFUSED_NO_BUFFER;
    }
    if (!batch.hasHeader(frame)) target.writeNetHeader(this.headerBytes, this.chainCount);
    else target.writeRequestHeader(this.headerBytes, this.chainCount, batch, frame);
    target.writeFrame(batch, frame);
    if (this.log !== null) {
      if (this.log.isByPlace) target.markIn(this.log);
      else this.log.markNoted();
    }
    this.layout.useFrame(this.chainBytes, this.chainCount);
    this.burstFrames++;
    this.burstBytes += frameBytes;
    this.workLeft += PLACED_FRAME_WORK + (frameBytes >> PLACED_BYTES_SHIFT);
    return PLACED;
  }

  /** Finds room for `neededBytes` in the next chain, or in the next few with MRG_RXBUF. */
  #collect(neededBytes: number): number {
    this.target.clear();
    this.chainCount = 0;
    this.descriptorsLeft = FRAME_DESCRIPTORS_MAX;
    let roomBytes = 0;
    while (roomBytes < neededBytes) {
      if (this.chainCount > 0 && !this.mergeable) return REFUSED_TOO_SMALL;
      if (!this.hasWaiting()) return this.#whyNone();
      if (this.chainCount === WALKED_CHAINS_MAX || this.descriptorsLeft <= 0) return REFUSED_TOO_SMALL;
      const chainBytes = this.#collectChain(neededBytes - roomBytes);
      if (chainBytes < 0) return -chainBytes;
      this.chainBytes[this.chainCount] = chainBytes;
      this.chainCount++;
      roomBytes += chainBytes;
    }
    return PLACED;
  }

  /** Whether the ring can offer no more than `#collect` found, as far as can be told. */
  #hasWalkedAll(): boolean {
    const slots = this.indirect ? this.chainCount : FRAME_DESCRIPTORS_MAX - this.descriptorsLeft;
    return slots >= this.size;
  }

  /** Adds a chain's pieces, up to `wantedBytes`. Answers their bytes or a `refusal`. */
  #collectChain(wantedBytes: number): number {
    const { list, translator, log } = this;
    list.clear();
    const fault = this.walk(list);
    if (fault !== RING_FAULT.NONE) return this.#stopped(fault);
    this.workLeft -= list.count;
    this.descriptorsLeft -= list.count;
    if (this.descriptorsLeft < 0) return refusal(REFUSED_TOO_SMALL);
    let chainBytes = 0;
    let totalBytes = 0;
    for (let i = 0; i < list.count; i++) {
      if (list.writable[i] === 0) return this.#stopped(RING_FAULT.READABLE_TO_GUEST);
      const sizeBytes = list.sizeBytes[i] >>> 0;
      totalBytes += sizeBytes;
      const usedBytes = Math.min(sizeBytes, wantedBytes - chainBytes);
      // An empty buffer must have a good address too. The tight loop will find what is located here.
      const index = translator.locate(list.gpaLo[i], list.gpaHi[i], Math.max(usedBytes, 1));
      if (index < 0) {
        const why = this.#addPieces(list.gpaLo[i], list.gpaHi[i], usedBytes);
        if (why !== PLACED) return refusal(why);
      } else if (usedBytes > 0 && !this.target.add(translator.window, index, usedBytes)) {
        return refusal(REFUSED_TOO_SMALL);
      }
      if (log !== null) log.note(list.gpaLo[i], list.gpaHi[i], usedBytes);
      chainBytes += usedBytes;
    }
    if (totalBytes < this.headerBytes && this.chainCount === 0) {
      return this.#stopped(RING_FAULT.CHAIN_SHORTER_THAN_HEADER);
    }
    return chainBytes;
  }

  /** Adds a buffer that is cut, because the guest's memory is not contiguous here. Answers PLACED or a REFUSED_*. */
  #addPieces(gpaLo: number, gpaHi: number, usedBytes: number): number {
    const { translator } = this;
    for (let done = 0; done < Math.max(usedBytes, 1); ) {
      const index = translator.locateSome(gpaLo, gpaHi, done, usedBytes - done);
      if (index < 0) {
        this.fail(RING_FAULT.BUFFER_ADDRESS);
        return this.#whyNone();
      }
      const pieceBytes = translator.contiguousBytes;
      this.workLeft--;
      if (!this.target.add(translator.window, index, pieceBytes)) return REFUSED_TOO_SMALL;
      done += pieceBytes;
    }
    return PLACED;
  }

  #stopped(fault: number): number {
    this.fail(fault);
    return refusal(this.#whyNone());
  }

  /** Why a frame is refused when nothing waits: a ring that is parked will have buffers, as one that has none. */
  #whyNone(): number {
    return this.fault > RING_FAULT.NONE ? REFUSED_FAULT : REFUSED_NO_BUFFER;
  }
}

/** The place in `order` of the next frame whose header says something, or `count`. */
function nextAsking(batch: Batch, order: Int32Array, from: number, count: number): number {
  let next = from;
  while (next < count && !batch.hasHeader(order[next])) next++;
  return next;
}
