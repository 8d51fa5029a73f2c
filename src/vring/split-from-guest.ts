/**
 * A guest's transmit queue: describes what the guest sends as a Frame that points into its memory. The one
 * plain descriptor that holds header and frame, as most drivers send small frames, has a path of its own.
 * Hot path of one worker.
 */
import { FRAME_BYTES_MAX, FRAME_BYTES_MIN } from '../../protocol/ethernet.ts';
import { DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE } from '../../protocol/virtio/split-ring.ts';
import {
  type IngressQueue,
  TAKE_FAULT,
  TAKE_FRAME,
  TAKE_TOO_LONG,
  TAKE_TOO_SCATTERED,
  TAKE_TOO_SHORT,
} from '../queue/contract.ts';
import type { Frame } from '../queue/frame.ts';
import { RING_FAULT } from './faults.ts';
import { DescriptorList, walkChain } from './split-chain.ts';
import { AVAIL_ENTRIES, SplitRing } from './split-ring.ts';

/** Frames that are read ahead at most. */
const AHEAD_FRAMES_MAX = 64;

export class SplitFromGuest extends SplitRing implements IngressQueue {
  #head = 0;
  readonly #aheadPlaces = new Int32Array(AHEAD_FRAMES_MAX + 1);
  readonly #descriptors = new DescriptorList();

  /**
   * Two loops that are as short as can be: the shorter, the more of the reads does the processor begin before the
   * first one is answered. Frames that lie elsewhere than the last one are left out.
   */
  readAhead(count: number): void {
    const { desc, avail, mask, translator, availNext, headerBytes } = this;
    const places = this.#aheadPlaces;
    const { hitLo, hitIndex } = translator;
    const distanceMax = translator.hitBytes - headerBytes - FRAME_BYTES_MIN;
    if (distanceMax < 0) return;
    const countMax = Math.min(count, AHEAD_FRAMES_MAX);
    for (let i = 0; i < countMax; i++) {
      const at = (avail[AVAIL_ENTRIES + ((availNext + i) & mask)] & mask) << 2;
      const distance = (desc[at] - hitLo) | 0;
      const isNear = distance >= 0 && distance <= distanceMax;
      places[i] = (hitIndex + (isNear ? distance + headerBytes : 0)) >> 2;
    }
    const { i32 } = this.arena.windows[translator.hitWindow];
    let sum = 0;
    for (let i = 0; i < countMax; i++) sum ^= i32[places[i]];
    // Kept where nobody looks: V8 leaves out reads whose result is not used.
    places[AHEAD_FRAMES_MAX] = sum;
  }

  take(frame: Frame): number {
    const head = this.headAt(0);
    this.#head = head;
    if (head >= this.size) return this.#faulted(RING_FAULT.HEAD_OUT_OF_RANGE);
    const at = head << 2;
    const flags = this.desc[at + 3];
    if ((flags & (DESC_F_NEXT | DESC_F_WRITE | DESC_F_INDIRECT)) !== 0) return this.#takeChain(frame, head);
    const chainBytes = this.desc[at + 2];
    const frameBytes = chainBytes - this.headerBytes;
    // A length of 2 GiB and more is negative here and goes the long way, which names what is wrong.
    if (frameBytes < FRAME_BYTES_MIN || frameBytes > FRAME_BYTES_MAX) return this.#takeChain(frame, head);
    const index = this.translator.locate(this.desc[at], this.desc[at + 1], chainBytes);
    if (index < 0) return this.#takeChain(frame, head);
    frame.setSingle(this.translator.window, index + this.headerBytes, frameBytes);
    this.burstFrames++;
    this.burstBytes += frameBytes;
    return TAKE_FRAME;
  }

  destinationAhead(ahead: number, words: Int32Array): boolean {
    const at = (this.headAt(ahead) & this.mask) << 2;
    // Whatever is unusual about the chain, this looks at guest memory that `locate` allows, and nowhere else.
    const index = this.translator.locate(
      this.desc[at],
      this.desc[at + 1],
      this.headerBytes + FRAME_BYTES_MIN,
    );
    if (index < 0) return false;
    const frameIndex = index + this.headerBytes;
    if ((frameIndex & 3) !== 0) return false;
    const { i32 } = this.arena.windows[this.translator.window];
    words[0] = i32[frameIndex >> 2];
    words[1] = i32[(frameIndex >> 2) + 1];
    return true;
  }

  release(): void {
    this.putUsed(this.#head, 0);
    this.availNext = (this.availNext + 1) & 0xffff;
  }

  #takeChain(frame: Frame, head: number): number {
    const list = this.#descriptors;
    list.clear();
    const fault = walkChain(this, head, list);
    if (fault !== RING_FAULT.NONE) return this.#faulted(fault);
    const result = this.#describe(frame, list);
    if (result === TAKE_FRAME) {
      this.burstFrames++;
      this.burstBytes += frame.totalBytes;
    }
    return result;
  }

  /** Turns the descriptors into the frame's pieces, leaving the header out. */
  #describe(frame: Frame, list: DescriptorList): number {
    frame.reset();
    let headerLeftBytes = this.headerBytes;
    for (let i = 0; i < list.count; i++) {
      if (list.writable[i] !== 0) return this.#faulted(RING_FAULT.WRITABLE_FROM_GUEST);
      const sizeBytes = list.sizeBytes[i] >>> 0;
      // An empty buffer must have a good address too.
      if (this.translator.locateSome(list.gpaLo[i], list.gpaHi[i], 0, 1) < 0) {
        return this.#faulted(RING_FAULT.BUFFER_ADDRESS);
      }
      const skippedBytes = Math.min(headerLeftBytes, sizeBytes);
      headerLeftBytes -= skippedBytes;
      if (frame.totalBytes + (sizeBytes - skippedBytes) > FRAME_BYTES_MAX) return TAKE_TOO_LONG;
      const result = this.#addPieces(frame, list.gpaLo[i], list.gpaHi[i], skippedBytes, sizeBytes);
      if (result !== TAKE_FRAME) return result;
    }
    if (list.overflowed) return TAKE_TOO_SCATTERED;
    if (headerLeftBytes > 0) return this.#faulted(RING_FAULT.CHAIN_SHORTER_THAN_HEADER);
    if (frame.totalBytes < FRAME_BYTES_MIN) return TAKE_TOO_SHORT;
    frame.finish();
    return TAKE_FRAME;
  }

  /** Adds a buffer from `skippedBytes` on; it is cut where the guest's memory is not contiguous here. */
  #addPieces(frame: Frame, gpaLo: number, gpaHi: number, skippedBytes: number, sizeBytes: number): number {
    for (let done = skippedBytes; done < sizeBytes; ) {
      const index = this.translator.locateSome(gpaLo, gpaHi, done, sizeBytes - done);
      if (index < 0) return this.#faulted(RING_FAULT.BUFFER_ADDRESS);
      const pieceBytes = this.translator.contiguousBytes;
      if (!frame.add(this.translator.window, index, pieceBytes)) return TAKE_TOO_SCATTERED;
      done += pieceBytes;
    }
    return TAKE_FRAME;
  }

  #faulted(fault: number): number {
    this.fail(fault);
    return TAKE_FAULT;
  }
}
