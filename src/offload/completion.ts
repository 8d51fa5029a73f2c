/**
 * Does for a receiver what it does not do itself: makes of frames that ask for a checksum or for segments a batch of
 * frames that ask for nothing, or for no more than the receiver takes. They are put together in a scratch area in the
 * arena, or of long ones the headers only, and the rest are slices of the sender's own buffers; so every kind of egress
 * queue copies them like any other frames. Made once for all receivers that take the same.
 *
 *     completion.begin(batch, order, count, takes);
 *     while (completion.next()) {
 *       for each receiver: queue.place(completion.batch, AS_THEY_CAME, completion.batch.count);
 *       …completion.batch.refused; completion.sourceOf[frame] is the frame of `batch` that it was made of
 *     }
 *
 * - The frames of `order` come out in order, those that ask for nothing more than `takes` as they are; so a burst needs
 *   to be cut nowhere. `next` answers false when all have come out. A frame's segments may fall into several batches;
 *   what a batch holds may be placed until `next` is called again, since the scratch area is then used anew.
 * - The addresses of all frames must have been read (`readHeads`); they are written from the batch, as ever.
 * - A receiver that takes checksums but not segmentation (`takes` has OFFLOAD_CHECKSUM alone) gets segments that ask for
 *   their checksum: cheaper, since the payload is not read.
 * - The first piece of a frame made here has COMPLETION_ROOM_BYTES before it that may be read and written, for a VLAN tag
 *   to be pushed. A frame that is not changed lies where it lay.
 *
 * Checksums are what the kernel makes of them: of the whole frame from csum_start on, with padding, if there is any; 0
 * is written as 0xffff, except in TCP segments. The guest may change the payload of a long frame between the sum and the
 * copy; then its own frame has a wrong checksum. Hot path; one worker's object.
 */
import assert from 'node:assert/strict';
import type { ArenaView } from '../memory/arena-view.ts';
import { WINDOW_BYTES, type Window } from '../memory/window.ts';
import { AT_WORD0, AT_WORD3, BATCH_FRAMES_MAX, Batch, RECORD_SHIFT } from '../queue/batch.ts';
import { OFFLOAD_CHECKSUM, OFFLOAD_SEGMENTS, type Requests } from '../queue/requests.ts';
import { checksumOf, sumBytes } from './checksum.ts';
import { FrameCursor } from './frame-cursor.ts';
import { SegmentHeaders } from './segment-headers.ts';

/**
 * Bytes before the first piece of a frame made here that two VLAN tags may be put into, and four more, so that its words
 * lie as those of a guest's buffers mostly do.
 */
export const COMPLETION_ROOM_BYTES = 12;
/**
 * A frame or segment as long as that is put together here, though its payload is copied twice then: in one piece it takes
 * the receivers' tight loops, of which 64 bytes need 10 ns where pieces need 100, and which many receivers need anew.
 */
const PUT_TOGETHER_BYTES_MAX = 2048;
/** One for each frame. An odd count of cache lines, so that their first ones do not meet in few sets of the cache. */
const SLOT_BYTES = 64 * (Math.ceil((COMPLETION_ROOM_BYTES + PUT_TOGETHER_BYTES_MAX) / 128) * 2 + 1);
/** Size of the scratch area, which the main thread makes (`allocateScratch`) and gives the worker by its offset. */
export const COMPLETION_SCRATCH_BYTES = BATCH_FRAMES_MAX * SLOT_BYTES;

export class Completion {
  /** What `next` made. */
  readonly batch = new Batch();
  /** Of each frame in `batch`: the frame of the source batch that it was made of. */
  readonly sourceOf = new Int32Array(BATCH_FRAMES_MAX);
  declare private readonly arena: ArenaView;
  declare private readonly window: Window;
  declare private readonly windowNumber: number;
  declare private readonly firstIndex: number;
  declare private readonly cursor: FrameCursor;
  private readonly headers = new SegmentHeaders();
  declare private source: Batch;
  declare private order: Int32Array;
  private count = 0;
  private takes = 0;
  /** Place in `order` of the next frame. */
  private at = 0;
  /** Of the frame that is being segmented: the next segment, 0 when there is none. */
  private segment = 0;
  private payloadStart = 0;
  private payloadBytes = 0;

  /** `scratchOffset`: of COMPLETION_SCRATCH_BYTES in the arena, within one window. */
  constructor(arena: ArenaView, scratchOffset: number) {
    this.arena = arena;
    this.windowNumber = Math.floor(scratchOffset / WINDOW_BYTES);
    this.firstIndex = scratchOffset % WINDOW_BYTES;
    assert(
      this.firstIndex + COMPLETION_SCRATCH_BYTES <= WINDOW_BYTES,
      'the scratch area lies within one window',
    );
    assert.equal(this.firstIndex % 64, 0);
    this.window = arena.windows[this.windowNumber];
    this.cursor = new FrameCursor(arena, this.batch);
    this.source = this.batch;
    this.order = this.sourceOf;
  }

  /** `takes`: OFFLOAD_* bits of what the receivers do themselves. Batch and order stay as they are until the end. */
  begin(source: Batch, order: Int32Array, count: number, takes: number): void {
    this.source = source;
    this.order = order;
    this.count = count;
    this.takes = takes;
    this.at = 0;
    this.segment = 0;
  }

  /** Makes the next batch; false: there is nothing left. */
  next(): boolean {
    const { batch, source, order, count, takes } = this;
    batch.clear();
    const { isUniform, outer, inner } = source.tags;
    batch.tags.isUniform = isUniform;
    batch.tags.outer = outer;
    batch.tags.inner = inner;
    while (this.at < count && this.hasRoom()) {
      const frame = order[this.at];
      const missing = source.needsOf(frame) & ~takes;
      if (missing === 0) this.pass(frame);
      else if ((missing & OFFLOAD_SEGMENTS) === 0 && (source.needsOf(frame) & OFFLOAD_SEGMENTS) === 0) {
        this.complete(frame);
      } else {
        this.makeSegments(frame);
        // The rest of them comes first in the next batch.
        if (this.segment !== 0) return true;
      }
      this.at++;
    }
    return batch.count > 0;
  }

  private hasRoom(): boolean {
    return this.batch.count < BATCH_FRAMES_MAX && this.batch.hasRoomForPieces;
  }

  /** Index in the window of the frame to be made next. */
  private slotIndex(): number {
    return this.firstIndex + this.batch.count * SLOT_BYTES + COMPLETION_ROOM_BYTES;
  }

  /** Call before the frame is added: its addresses, and what it is made of. */
  private nameNext(frame: number): void {
    const { batch, source } = this;
    const made = batch.count;
    this.sourceOf[made] = frame;
    const to = (made << RECORD_SHIFT) + AT_WORD0;
    const { records } = batch;
    records[to] = source.headWordOf(frame, 0);
    records[to + 1] = source.headWordOf(frame, 1);
    records[to + 2] = source.headWordOf(frame, 2);
    records[(made << RECORD_SHIFT) + AT_WORD3] = source.word3Of(frame);
    batch.tags.outers[made] = source.tags.outerOf(frame);
    batch.tags.inners[made] = source.tags.innerOf(frame);
  }

  /** The frame as it lies, with what it asks for. */
  private pass(frame: number): void {
    this.nameNext(frame);
    this.batch.addOf(this.source, frame);
  }

  /** The frame with its checksum. */
  private complete(frame: number): void {
    const { batch, source, cursor, window, windowNumber } = this;
    const { requests } = source;
    const frameBytes = source.bytesOf(frame);
    const csumStart = requests.csumStartOf(frame);
    const fieldAt = csumStart + requests.csumOffsetOf(frame);
    cursor.begin(source, frame);
    if (frameBytes <= PUT_TOGETHER_BYTES_MAX) {
      const index = this.slotIndex();
      cursor.copyTo(window, index, frameBytes);
      const sum = sumBytes(window, index + csumStart, frameBytes - csumStart);
      this.putChecksum(index + fieldAt, checksumOf(sum) || 0xffff);
      this.nameNext(frame);
      batch.add(windowNumber, index, frameBytes);
      return;
    }
    cursor.skip(csumStart);
    const checksum = checksumOf(cursor.sum(frameBytes - csumStart)) || 0xffff;

    this.nameNext(frame);
    const index = this.slotIndex();
    cursor.begin(source, frame);
    batch.beginPieces();
    if (fieldAt + 2 <= PUT_TOGETHER_BYTES_MAX) {
      cursor.copyTo(window, index, fieldAt + 2);
      this.putChecksum(index + fieldAt, checksum);
      batch.addPiece(windowNumber, index, fieldAt + 2);
    } else {
      cursor.describe(batch, fieldAt);
      cursor.skip(2);
      this.putChecksum(index, checksum);
      batch.addPiece(windowNumber, index, 2);
    }
    cursor.describe(batch, frameBytes - fieldAt - 2);
    batch.addPieces(frameBytes);
  }

  /** As it is summed: in the order of memory. */
  private putChecksum(index: number, checksum: number): void {
    const { u8 } = this.window;
    u8[index] = checksum;
    u8[index + 1] = checksum >>> 8;
  }

  /** As many segments as there is room for; `segment` is 0 afterwards when these were all. */
  private makeSegments(frame: number): void {
    const { batch, source, cursor, headers, window, windowNumber } = this;
    const { requests } = source;
    const segmentBytes = requests.segmentBytesOf(frame);
    const leavesChecksum = (this.takes & OFFLOAD_CHECKSUM) !== 0;
    if (this.segment === 0) {
      headers.begin(source, frame);
      cursor.begin(source, frame);
      cursor.skip(headers.headerBytes);
      this.payloadStart = 0;
      this.payloadBytes = source.bytesOf(frame) - headers.headerBytes;
    }
    const { headerBytes } = headers;
    const isTogether = headerBytes + segmentBytes <= PUT_TOGETHER_BYTES_MAX;
    while (this.hasRoom()) {
      const { payloadStart, payloadBytes } = this;
      const leftBytes = payloadBytes - payloadStart;
      const isLast = leftBytes <= segmentBytes;
      const bytes = isLast ? leftBytes : segmentBytes;
      const index = this.slotIndex();
      if (leavesChecksum) this.askChecksum(requests, frame);
      let sum = -1;
      if (isTogether) {
        cursor.copyTo(window, index + headerBytes, bytes);
        if (!leavesChecksum) sum = sumBytes(window, index + headerBytes, bytes);
      } else {
        batch.beginPieces();
        batch.addPiece(windowNumber, index, headerBytes);
        if (leavesChecksum) cursor.describe(batch, bytes);
        else sum = cursor.describeAndSum(batch, bytes);
      }
      headers.write(window, index, this.segment, payloadStart, bytes, isLast, sum);
      this.nameNext(frame);
      if (isTogether) batch.add(windowNumber, index, headerBytes + bytes);
      else batch.addPieces(headerBytes + bytes);
      if (isLast) {
        this.segment = 0;
        return;
      }
      this.segment++;
      this.payloadStart = payloadStart + bytes;
    }
  }

  private askChecksum(requests: Requests, frame: number): void {
    const { batch } = this;
    batch.beginAsking();
    batch.requests.askChecksum(batch.count, requests.csumStartOf(frame), requests.csumOffsetOf(frame));
  }
}
