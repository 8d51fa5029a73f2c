/**
 * A guest's transmit queue: describes what the guest sends in a batch that points into its memory. A frame whose
 * header and bytes lie in one plain descriptor, as most drivers send small frames, is described by the layout's
 * tight loop; every other takes the way through a list of descriptors here. Hot path of one worker.
 */
import { FRAME_BYTES_MAX, FRAME_BYTES_MIN } from '../../protocol/ethernet.ts';
import type { ArenaView } from '../memory/arena-view.ts';
import type { Batch } from '../queue/batch.ts';
import type { IngressQueue } from '../queue/contract.ts';
import type { RingAttachment } from './attachment.ts';
import { CHAIN_DESCRIPTORS_MAX, DescriptorList } from './descriptor-list.ts';
import { RING_FAULT } from './faults.ts';
import { Ring } from './ring.ts';

/**
 * Descriptors that one burst looks at, more or less: a guest's chains may be as long as it likes, and the other
 * queues of the worker have their turn as soon as these are used up.
 */
const BURST_DESCRIPTORS_MAX = 4 * CHAIN_DESCRIPTORS_MAX;

/** What a chain turned out to be. */
const CHAIN_FRAME = 0;
const CHAIN_TOO_LONG = 1;
const CHAIN_TOO_SHORT = 2;
const CHAIN_TOO_SCATTERED = 3;
/** The ring is stopped, and the chain is not used. */
const CHAIN_FAULT = 4;

export class FromGuest extends Ring implements IngressQueue {
  private descriptorsLeft = 0;
  declare private readonly list: DescriptorList;

  constructor(arena: ArenaView, attachment: RingAttachment) {
    super(arena, attachment);
    this.list = new DescriptorList();
  }

  gather(batch: Batch): number {
    batch.clear();
    if (!this.hasWaiting()) return 0;
    this.descriptorsLeft = BURST_DESCRIPTORS_MAX;
    const taken = this.layout.gatherPlain(this, batch);
    this.burstFrames += taken;
    return taken;
  }

  finish(): void {
    this.publish();
  }

  /**
   * Takes the next waiting chain, whatever its shape, and describes its frame in the batch. False: it is not taken,
   * because the ring is stopped or the burst has become too long; then the burst ends here.
   */
  takeChain(batch: Batch): boolean {
    if (!batch.hasRoomForPieces || this.descriptorsLeft <= 0) return false;
    const { list } = this;
    list.clear();
    const fault = this.walk(list);
    if (fault !== RING_FAULT.NONE) {
      this.fail(fault);
      return false;
    }
    this.descriptorsLeft -= list.count + list.skipped;
    const found = this.#describe(batch);
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
    let headerLeftBytes = this.headerBytes;
    let frameBytes = 0;
    batch.beginPieces();
    for (let i = 0; i < list.count; i++) {
      if (list.writable[i] !== 0) return this.#faulted(RING_FAULT.WRITABLE_FROM_GUEST);
      const sizeBytes = list.sizeBytes[i] >>> 0;
      // An empty buffer must have a good address too. The tight loop will find what is located here.
      if (translator.locate(list.gpaLo[i], list.gpaHi[i], 1) < 0) {
        return this.#faulted(RING_FAULT.BUFFER_ADDRESS);
      }
      const skippedBytes = Math.min(headerLeftBytes, sizeBytes);
      headerLeftBytes -= skippedBytes;
      frameBytes += sizeBytes - skippedBytes;
      if (frameBytes > FRAME_BYTES_MAX) return CHAIN_TOO_LONG;
      const result = this.#addPieces(batch, list.gpaLo[i], list.gpaHi[i], skippedBytes, sizeBytes);
      if (result !== CHAIN_FRAME) return result;
    }
    if (list.overflowed) return CHAIN_TOO_SCATTERED;
    if (headerLeftBytes > 0) return this.#faulted(RING_FAULT.CHAIN_SHORTER_THAN_HEADER);
    if (frameBytes < FRAME_BYTES_MIN) return CHAIN_TOO_SHORT;
    batch.addPieces(frameBytes);
    this.burstBytes += frameBytes;
    return CHAIN_FRAME;
  }

  /** Adds a buffer from `skippedBytes` on; it is cut where the guest's memory is not contiguous here. */
  #addPieces(batch: Batch, gpaLo: number, gpaHi: number, skippedBytes: number, sizeBytes: number): number {
    const { translator } = this;
    for (let done = skippedBytes; done < sizeBytes; ) {
      const index = translator.locateSome(gpaLo, gpaHi, done, sizeBytes - done);
      if (index < 0) return this.#faulted(RING_FAULT.BUFFER_ADDRESS);
      const pieceBytes = translator.contiguousBytes;
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
