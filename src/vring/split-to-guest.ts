/**
 * A guest's receive queue: copies frames into the buffers that the guest offers, each with its virtio-net
 * header. The one plain descriptor that takes header and frame has a path of its own; everything else
 * (several descriptors, indirect tables, MRG_RXBUF over several chains, scattered frames) goes through
 * lists of pieces. Hot path of one worker at a time, see QueueState's lock.
 */
import { NET_HEADER_BYTES_LEGACY, NET_HEADER_NUM_BUFFERS_OFFSET } from '../../protocol/virtio/net.ts';
import { DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE } from '../../protocol/virtio/split-ring.ts';
import type { ArenaView, Window } from '../memory/arena-view.ts';
import {
  type EgressQueue,
  GIVE_DONE,
  GIVE_FAULT,
  GIVE_NO_BUFFER,
  GIVE_TOO_SMALL,
  type IngressQueue,
} from '../queue/contract.ts';
import { copyBytes } from '../queue/copy.ts';
import type { Frame } from '../queue/frame.ts';
import type { RingAttachment } from './attachment.ts';
import { RING_FAULT } from './faults.ts';
import { CHAIN_DESCRIPTORS_MAX, DescriptorList, walkChain } from './split-chain.ts';
import { SplitFromGuest } from './split-from-guest.ts';
import { ONE_BUFFER, SplitRing } from './split-ring.ts';
import { moveRun } from './split-run.ts';

/** Most chains that one frame may be spread over with MRG_RXBUF. */
const CHAINS_MAX = CHAIN_DESCRIPTORS_MAX;
/** Most pieces of guest memory that one frame may be written to. */
const PIECES_MAX = 2 * CHAIN_DESCRIPTORS_MAX;
/** Answers of `#collectChain` below its count of bytes. */
const STOPPED = -1;
const TOO_SCATTERED = -2;

export class SplitToGuest extends SplitRing implements EgressQueue {
  open = false;
  declare private readonly mergeable: boolean;
  /** Whether other workers fill this ring too, so that every burst takes the lock. */
  declare private readonly shared: boolean;
  readonly #descriptors = new DescriptorList();
  readonly #chainHead = new Int32Array(CHAINS_MAX);
  readonly #chainBytes = new Int32Array(CHAINS_MAX);
  #chainCount = 0;
  readonly #target: PieceCursor;

  constructor(arena: ArenaView, attachment: RingAttachment, shared: boolean) {
    super(arena, attachment);
    this.mergeable = attachment.mergeable;
    this.shared = shared;
    this.#target = new PieceCursor(arena);
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
    this.publish();
    this.open = false;
    if (this.shared) this.state.unlock();
  }

  give(frame: Frame): number {
    if (this.available() === 0) return this.fault === RING_FAULT.NONE ? GIVE_NO_BUFFER : GIVE_FAULT;
    if (frame.pieceCount !== 1) return this.#giveScattered(frame);
    const head = this.headAt(0);
    if (head >= this.size) return this.#faulted(RING_FAULT.HEAD_OUT_OF_RANGE);
    const at = head << 2;
    const flags = this.desc[at + 3] & (DESC_F_NEXT | DESC_F_WRITE | DESC_F_INDIRECT);
    if (flags !== DESC_F_WRITE) return this.#giveScattered(frame);
    const frameBytes = frame.totalBytes;
    const writtenBytes = this.headerBytes + frameBytes;
    if (this.desc[at + 2] >>> 0 < writtenBytes) return this.#giveScattered(frame);
    // Only what is written needs to be shared memory; nothing beyond it is touched.
    const index = this.translator.locate(this.desc[at], this.desc[at + 1], writtenBytes);
    if (index < 0) return this.#giveScattered(frame);
    const to = this.arena.windows[this.translator.window];
    writeNetHeader(to, index, this.headerBytes);
    copyBytes(this.arena, frame.view, frame.index, to, index + this.headerBytes, frameBytes);
    this.putUsed(head, writtenBytes);
    this.availNext = (this.availNext + 1) & 0xffff;
    this.burstFrames++;
    this.burstBytes += frameBytes;
    return GIVE_DONE;
  }

  giveRun(
    from: IngressQueue,
    framesMax: number,
    word0: number,
    word1: number,
    word2: number,
    mask0: number,
    mask1: number,
    frameBytesMax: number,
  ): number {
    if (!(from instanceof SplitFromGuest)) return 0;
    return moveRun(from, this, framesMax, word0, word1, word2, mask0, mask1, frameBytesMax);
  }

  #giveScattered(frame: Frame): number {
    const neededBytes = this.headerBytes + frame.totalBytes;
    const result = this.#collect(neededBytes);
    if (result !== GIVE_DONE) return result;
    frame.spread();
    const target = this.#target;
    target.rewind();
    target.writeNetHeader(this.headerBytes, this.#chainCount);
    for (let piece = 0; piece < frame.pieceCount; piece++) {
      target.write(frame.pieceWindow[piece], frame.pieceIndex[piece], frame.pieceBytes[piece]);
    }
    for (let chain = 0; chain < this.#chainCount; chain++) {
      this.putUsed(this.#chainHead[chain], this.#chainBytes[chain]);
    }
    this.availNext = (this.availNext + this.#chainCount) & 0xffff;
    this.burstFrames++;
    this.burstBytes += frame.totalBytes;
    return GIVE_DONE;
  }

  /** Finds room for `neededBytes` in the next chain, or in the next few with MRG_RXBUF; takes none yet. */
  #collect(neededBytes: number): number {
    this.#target.clear();
    this.#chainCount = 0;
    let waiting = this.available();
    let roomBytes = 0;
    while (roomBytes < neededBytes) {
      if (this.#chainCount > 0 && !this.mergeable) return GIVE_TOO_SMALL;
      if (this.#chainCount === waiting) {
        waiting = this.refreshAvailable();
        if (this.fault !== RING_FAULT.NONE) return GIVE_FAULT;
        if (this.#chainCount >= waiting) return GIVE_NO_BUFFER;
      }
      if (this.#chainCount === CHAINS_MAX) return GIVE_TOO_SMALL;
      const head = this.headAt(this.#chainCount);
      const chainBytes = this.#collectChain(head, neededBytes - roomBytes);
      if (chainBytes === TOO_SCATTERED) return GIVE_TOO_SMALL;
      if (chainBytes < 0) return GIVE_FAULT;
      this.#chainHead[this.#chainCount] = head;
      this.#chainBytes[this.#chainCount] = chainBytes;
      this.#chainCount++;
      roomBytes += chainBytes;
    }
    return GIVE_DONE;
  }

  /** Adds a chain's pieces, up to `wantedBytes`. Answers their bytes, STOPPED or TOO_SCATTERED. */
  #collectChain(head: number, wantedBytes: number): number {
    const list = this.#descriptors;
    list.clear();
    const fault = walkChain(this, head, list);
    if (fault !== RING_FAULT.NONE) return this.#stopped(fault);
    let chainBytes = 0;
    let totalBytes = 0;
    for (let i = 0; i < list.count; i++) {
      if (list.writable[i] === 0) return this.#stopped(RING_FAULT.READABLE_TO_GUEST);
      const sizeBytes = list.sizeBytes[i] >>> 0;
      totalBytes += sizeBytes;
      // An empty buffer must have a good address too.
      if (this.translator.locateSome(list.gpaLo[i], list.gpaHi[i], 0, 1) < 0) {
        return this.#stopped(RING_FAULT.BUFFER_ADDRESS);
      }
      const usedBytes = Math.min(sizeBytes, wantedBytes - chainBytes);
      for (let done = 0; done < usedBytes; ) {
        const index = this.translator.locateSome(list.gpaLo[i], list.gpaHi[i], done, usedBytes - done);
        if (index < 0) return this.#stopped(RING_FAULT.BUFFER_ADDRESS);
        const pieceBytes = this.translator.contiguousBytes;
        if (!this.#target.add(this.translator.window, index, pieceBytes)) return TOO_SCATTERED;
        done += pieceBytes;
      }
      chainBytes += usedBytes;
    }
    if (totalBytes < this.headerBytes && this.#chainCount === 0) {
      return this.#stopped(RING_FAULT.CHAIN_SHORTER_THAN_HEADER);
    }
    return chainBytes;
  }

  #faulted(fault: number): number {
    this.fail(fault);
    return GIVE_FAULT;
  }

  #stopped(fault: number): number {
    this.fail(fault);
    return STOPPED;
  }
}

/** A header that promises nothing: no checksum to fill in, no segmentation, one buffer. */
function writeNetHeader(view: Window, index: number, headerBytes: number): void {
  if ((index & 3) === 0 && headerBytes !== NET_HEADER_BYTES_LEGACY) {
    const word = index >> 2;
    view.i32[word] = 0;
    view.i32[word + 1] = 0;
    view.i32[word + 2] = ONE_BUFFER;
    return;
  }
  for (let i = 0; i < headerBytes; i++) view.u8[index + i] = i === NET_HEADER_NUM_BUFFERS_OFFSET ? 1 : 0;
}

/** Pieces of guest memory that are written one after the other, as one stream of bytes. */
class PieceCursor {
  readonly #arena: ArenaView;
  readonly #window: Int32Array;
  readonly #index: Int32Array;
  readonly #sizeBytes: Int32Array;
  #count = 0;
  #piece = 0;
  #doneBytes = 0;

  constructor(arena: ArenaView) {
    this.#arena = arena;
    this.#window = new Int32Array(PIECES_MAX);
    this.#index = new Int32Array(PIECES_MAX);
    this.#sizeBytes = new Int32Array(PIECES_MAX);
  }

  clear(): void {
    this.#count = 0;
  }

  rewind(): void {
    this.#piece = 0;
    this.#doneBytes = 0;
  }

  /** False when there is no room for another piece. */
  add(window: number, index: number, sizeBytes: number): boolean {
    if (this.#count === PIECES_MAX) return false;
    this.#window[this.#count] = window;
    this.#index[this.#count] = index;
    this.#sizeBytes[this.#count] = sizeBytes;
    this.#count++;
    return true;
  }

  /** Copies from the arena to where the cursor stands. */
  write(fromWindow: number, fromIndex: number, sizeBytes: number): void {
    const from = this.#arena.windows[fromWindow];
    for (let done = 0; done < sizeBytes; ) {
      const roomBytes = this.#sizeBytes[this.#piece] - this.#doneBytes;
      const count = Math.min(roomBytes, sizeBytes - done);
      // Windows overlap by WINDOW_OVERLAP_BYTES, more than a frame, so `fromIndex + done` stays inside.
      copyBytes(
        this.#arena,
        from,
        fromIndex + done,
        this.#arena.windows[this.#window[this.#piece]],
        this.#index[this.#piece] + this.#doneBytes,
        count,
      );
      done += count;
      this.#advance(count);
    }
  }

  writeNetHeader(headerBytes: number, bufferCount: number): void {
    for (let i = 0; i < headerBytes; i++) {
      let byte = 0;
      if (i === NET_HEADER_NUM_BUFFERS_OFFSET) byte = bufferCount & 0xff;
      else if (i === NET_HEADER_NUM_BUFFERS_OFFSET + 1) byte = bufferCount >> 8;
      this.#arena.windows[this.#window[this.#piece]].u8[this.#index[this.#piece] + this.#doneBytes] = byte;
      this.#advance(1);
    }
  }

  #advance(sizeBytes: number): void {
    this.#doneBytes += sizeBytes;
    if (this.#doneBytes === this.#sizeBytes[this.#piece]) {
      this.#piece++;
      this.#doneBytes = 0;
    }
  }
}
