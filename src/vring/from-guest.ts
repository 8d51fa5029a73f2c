/**
 * A guest's transmit queue: describes what the guest sends in a batch that points into its memory. A frame whose
 * header and bytes lie in one plain descriptor, as most drivers send small frames, is described by the layout's
 * tight loop; every other takes the way through a list of descriptors here. Hot path of one worker.
 */
import { FRAME_BYTES_MAX, FRAME_BYTES_MIN } from '../../protocol/ethernet.ts';
import type { ArenaView } from '../memory/arena-view.ts';
import { AskedFor } from '../offload/asked-for.ts';
import type { Batch } from '../queue/batch.ts';
import type { IngressQueue } from '../queue/contract.ts';
import { HeldFrames } from '../queue/held-frames.ts';
import { STATE_WORK_SPENT } from '../queue/state.ts';
import type { RingAttachment } from './attachment.ts';
import { DescriptorList } from './descriptor-list.ts';
import { RING_FAULT } from './faults.ts';
import { PLAIN_FRAME_BYTES_MAX } from './layout.ts';
import { Ring } from './ring.ts';

/**
 * What a chain costs is counted in descriptors, beyond those that a frame has with any driver, and a long frame counts
 * besides: copying so many bytes takes as long as looking at one more. A queue may cost so much a turn, or the reserve
 * at once, and sits turns out when it cost more: then the worker's other queues go on, and by themselves those turns
 * take no time.
 */
const CHAIN_DESCRIPTORS_FREE = 4;
const LONG_FRAME_BYTES_SHIFT = 8;
const TURN_WORK = 64;
const WORK_RESERVE = 512;

/** What a chain turned out to be. */
const CHAIN_FRAME = 0;
const CHAIN_TOO_LONG = 1;
const CHAIN_TOO_SHORT = 2;
const CHAIN_TOO_SCATTERED = 3;
/** The ring is stopped, and the chain is not used. */
const CHAIN_FAULT = 4;

export class FromGuest extends Ring implements IngressQueue {
  /** What the next burst may cost; below 1 nothing is taken. */
  declare private workLeft: number;
  declare private readonly list: DescriptorList;
  /** Null: nothing was agreed on, and what the guest writes into its headers means nothing. */
  declare private readonly askedFor: AskedFor | null;
  declare readonly held: HeldFrames | null;

  constructor(arena: ArenaView, attachment: RingAttachment) {
    super(arena, attachment);
    this.list = new DescriptorList();
    this.askedFor = attachment.asks === 0 ? null : new AskedFor(arena, this.headerBytes, attachment.asks);
    // What the ring cost is owed however often it is stopped and started.
    this.workLeft = WORK_RESERVE - this.state.words[STATE_WORK_SPENT];
    this.held = this.askedFor === null ? null : new HeldFrames();
  }

  gather(batch: Batch): number {
    batch.clear();
    const { holdsFrames } = this;
    if (!holdsFrames && !this.hasWaiting()) return 0;
    this.workLeft = Math.min(this.workLeft + TURN_WORK, WORK_RESERVE);
    if (this.workLeft <= 0) return 0;
    if (holdsFrames) return (this.held as HeldFrames).give(batch);
    const taken = this.layout.gatherPlain(this, batch);
    this.burstFrames += taken;
    if (this.askedFor === null) return taken;
    this.askedFor.take(batch);
    return batch.asks && this.held !== null ? taken - this.held.holdBeyond(batch) : taken;
  }

  charge(work: number): void {
    this.workLeft -= work;
  }

  get holdsFrames(): boolean {
    return this.held !== null && !this.held.isEmpty;
  }

  finish(): void {
    if (this.holdsFrames) {
      // Used entries are written, although they are not shown yet.
      if (this.log !== null) this.log.markOwn();
      return;
    }
    this.state.words[STATE_WORK_SPENT] = WORK_RESERVE - this.workLeft;
    this.publish();
  }

  override armWake(): boolean {
    return super.armWake() && !this.holdsFrames;
  }

  /**
   * Takes the next waiting chain, whatever its shape, and describes its frame in the batch. False: it is not taken,
   * because the ring is stopped or the burst has become too long; then the burst ends here.
   */
  takeChain(batch: Batch): boolean {
    if (!batch.hasRoomForPieces || this.workLeft <= 0) return false;
    const { list } = this;
    list.clear();
    const fault = this.walk(list);
    if (fault !== RING_FAULT.NONE) {
      this.fail(fault);
      return false;
    }
    this.workLeft -= Math.max(0, list.count - CHAIN_DESCRIPTORS_FREE);
    const found = this.#describe(batch);
    if (found !== CHAIN_FRAME) this.askedFor?.forget(batch.count);
    if (found === CHAIN_FAULT) return false;
    this.useWalked(0);
    if (found === CHAIN_TOO_LONG) batch.tooLong++;
    else if (found === CHAIN_TOO_SHORT) batch.tooShort++;
    else if (found === CHAIN_TOO_SCATTERED) batch.tooScattered++;
    return true;
  }

  /** Turns the descriptors into the frame's pieces, leaving the header out. */
  #describe(batch: Batch): number {
    const { list, translator } = this;
    const { askedFor } = this;
    let headerLeftBytes = this.headerBytes;
    let frameBytes = 0;
    batch.beginPieces();
    for (let i = 0; i < list.count; i++) {
      if (list.writable[i] !== 0) return this.#faulted(RING_FAULT.WRITABLE_FROM_GUEST);
      const sizeBytes = list.sizeBytes[i] >>> 0;
      const skippedBytes = Math.min(headerLeftBytes, sizeBytes);
      headerLeftBytes -= skippedBytes;
      frameBytes += sizeBytes - skippedBytes;
      const isTooLong = frameBytes > FRAME_BYTES_MAX;
      // An empty buffer must have a good address too. The tight loop will find what is located here.
      const wantedBytes = isTooLong || sizeBytes === 0 ? 1 : sizeBytes;
      const index = translator.locate(list.gpaLo[i], list.gpaHi[i], wantedBytes);
      if (index < 0 && wantedBytes === 1) return this.#faulted(RING_FAULT.BUFFER_ADDRESS);
      if (isTooLong) return CHAIN_TOO_LONG;
      if (skippedBytes > 0 && askedFor !== null) {
        if (!this.#readHeader(askedFor, batch.count, list.gpaLo[i], list.gpaHi[i], skippedBytes, index))
          return this.#faulted(RING_FAULT.BUFFER_ADDRESS);
      }
      if (sizeBytes === skippedBytes && index >= 0) continue;
      const result =
        index < 0
          ? this.#addPieces(batch, list.gpaLo[i], list.gpaHi[i], skippedBytes, sizeBytes)
          : this.#addPiece(batch, index + skippedBytes, sizeBytes - skippedBytes);
      if (result !== CHAIN_FRAME) return result;
    }
    if (headerLeftBytes > 0) return this.#faulted(RING_FAULT.CHAIN_SHORTER_THAN_HEADER);
    if (frameBytes < FRAME_BYTES_MIN) return CHAIN_TOO_SHORT;
    if (frameBytes > PLAIN_FRAME_BYTES_MAX) this.workLeft -= frameBytes >> LONG_FRAME_BYTES_SHIFT;
    batch.addPieces(frameBytes);
    this.burstBytes += frameBytes;
    return CHAIN_FRAME;
  }

  /** The part of the header that a buffer begins with. False: it is nowhere. */
  #readHeader(
    askedFor: AskedFor,
    frame: number,
    gpaLo: number,
    gpaHi: number,
    sizeBytes: number,
    index: number,
  ): boolean {
    const { translator } = this;
    if (index >= 0) {
      askedFor.read(frame, translator.window, index, sizeBytes);
      return true;
    }
    for (let done = 0; done < sizeBytes; ) {
      const at = translator.locateSome(gpaLo, gpaHi, done, sizeBytes - done);
      if (at < 0) return false;
      askedFor.read(frame, translator.window, at, translator.contiguousBytes);
      done += translator.contiguousBytes;
    }
    return true;
  }

  #addPiece(batch: Batch, index: number, sizeBytes: number): number {
    return batch.addPiece(this.translator.window, index, sizeBytes) ? CHAIN_FRAME : CHAIN_TOO_SCATTERED;
  }

  /** Adds a buffer from `skippedBytes` on that is cut, because the guest's memory is not contiguous here. */
  #addPieces(batch: Batch, gpaLo: number, gpaHi: number, skippedBytes: number, sizeBytes: number): number {
    const { translator } = this;
    if (skippedBytes > 0 && translator.locateSome(gpaLo, gpaHi, 0, 1) < 0) {
      return this.#faulted(RING_FAULT.BUFFER_ADDRESS);
    }
    for (let done = skippedBytes; done < sizeBytes; ) {
      const index = translator.locateSome(gpaLo, gpaHi, done, sizeBytes - done);
      if (index < 0) return this.#faulted(RING_FAULT.BUFFER_ADDRESS);
      const pieceBytes = translator.contiguousBytes;
      this.workLeft--;
      if (!batch.addPiece(translator.window, index, pieceBytes)) return CHAIN_TOO_SCATTERED;
      done += pieceBytes;
    }
    return CHAIN_FRAME;
  }

  #faulted(fault: number): number {
    this.fail(fault);
    return CHAIN_FAULT;
  }
}
