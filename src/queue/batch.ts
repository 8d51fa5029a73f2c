/**
 * A burst of frames on its way through the switch: up to 64 frames as records of small integers, in the order in
 * which they came. A queue's `gather` describes waiting frames here, stages (switch/l2) decide about them by short
 * loops over the records, and a queue's `place` copies them. Nothing is copied before that. A worker has one Batch
 * for all bursts; it allocates nothing after its construction.
 *
 * Shape. One typed array with a record of eight words a frame, not an array a field: V8 loads a typed array's place
 * and length again at every use, so each further array in a loop costs a nanosecond a frame. What nearly all bursts
 * have in common is told once for the batch (`allIn`, `alike`) and then not read from the records at all.
 *
 * Most frames lie in one piece: window and index say where. One in several pieces, or of fewer bytes than are read
 * into the record, has IN_PIECES for its window, and its places stand in the side table (`piece*`).
 *
 * What is decided upon is read once into the batch, the two addresses and the EtherType behind them, and written from
 * here, because a guest may change its memory between the decision and the copy: neither goes a frame to whom it is not
 * for, nor does one that had no tag get one on the way.
 */

import { FrameTags } from './frame-tags.ts';
import { Requests } from './requests.ts';

/** Most frames of a batch. */
export const BATCH_FRAMES_MAX = 64;
/** Most pieces of a frame; one that is scattered over more is dropped. */
export const FRAME_PIECES_MAX = 96;
/** Most pieces of all frames of a batch; a frame for which there may be no room waits for the next one. */
export const BATCH_PIECES_MAX = 8 * FRAME_PIECES_MAX;
/** Besides, each frame may become one of a single piece, and then one more for its front (`replaceFront`). */
const PIECES_MAX = 2 * BATCH_PIECES_MAX + 4 * BATCH_FRAMES_MAX;
/** In place of a window: the frame lies in several pieces. */
export const IN_PIECES = -1;
/** In `allIn`: the frames do not all lie in one piece of one window. */
export const MIXED = -2;
/** Bytes at the start of a frame that stand in its record: both addresses. */
export const ADDRESSES_BYTES = 12;
/** Those, and the word behind them, which begins with the EtherType. */
export const HEAD_BYTES = 16;

/** A record begins at word `frame << RECORD_SHIFT` of `records`; its words: */
export const RECORD_SHIFT = 3;
/**
 * Index in the window of the frame's first byte. Of a frame in pieces: its first one in the side table, and how many it
 * has behind bit 16.
 */
export const AT_INDEX = 0;
export const AT_BYTES = 1;
/** The destination's first four bytes; its last two and the source's first two; the source's last four. */
export const AT_WORD0 = 2;
export const AT_WORD1 = 3;
export const AT_WORD2 = 4;
/** Where the frame goes: a port's id, or a code of the forwarder. */
export const AT_TARGET = 5;
/** Only while `allIn` is MIXED. */
export const AT_WINDOW = 6;
/** The EtherType, and the two bytes behind it, if there are as many; those are the batch's word only. */
export const AT_WORD3 = 7;

/** Why `place` did not place a frame. */
export const REFUSED_NO_BUFFER = 1;
/** The frame is longer than what the other side takes. */
export const REFUSED_TOO_SMALL = 2;
/** The queue is stopped, see its `fault`. */
export const REFUSED_FAULT = 3;

/** Values of REQUEST_* (src/offload/request.ts). */
const BAD_REQUEST_KINDS = 5;

/** `waitsBeyondBytes` of batches whose frames do not wait. */
export const NEVER_WAITS = 2 ** 30;

/** The order of the batch itself, for `place`. */
export const AS_THEY_CAME = Int32Array.from({ length: BATCH_FRAMES_MAX }, (_, i) => i);

export class Batch {
  /** Frames. */
  count = 0;
  /** Length of the longest of them, in bytes. */
  bytesMax = 0;
  /** Of all of them as they were taken, in bytes. */
  bytesTaken = 0;
  /** The window that all frames lie in, each in one piece; otherwise MIXED. */
  allIn = MIXED;
  /** All frames have the addresses of the first one; the others' records need not have them. */
  alike = false;
  /** All frames have the fourth word of the first one; the others' records need not have it. */
  alikeBehind = false;
  /** Frames that were taken from the queue and cannot be forwarded; they have no record. */
  tooLong = 0;
  tooShort = 0;
  tooScattered = 0;
  /** The heads were read as the frames were taken (heads.ts). */
  headsAreRead = false;
  /** The first bytes of all frames lie in memory of our own (switch/l2/head-copies.ts). */
  headsAreCopied = false;
  declare readonly records: Int32Array;
  /** The side table of pieces. */
  declare readonly pieceWindow: Int32Array;
  declare readonly pieceIndex: Int32Array;
  declare readonly pieceBytes: Int32Array;
  declare readonly tags: FrameTags;
  /** After `noteOrigins`: as which of the burst each frame came, whatever was left out of the batch since. */
  declare private readonly origins: Int32Array;
  private piecesUsed = 0;
  /** For `endFronts`. */
  private hasFrontsInPieces = false;
  /** Pieces of the frame that is being put together. */
  private piecesOpen = 0;
  /** Frames that the last `place` did not place, in order, and why. */
  refusedCount = 0;
  declare readonly refused: Int32Array;
  declare readonly refusedWhy: Int32Array;
  /**
   * For queues with `framesPlaced`: when there are no buffers for a frame longer than this, `place` refuses all that follow
   * for the same reason, because they are to wait behind it.
   */
  waitsBeyondBytes = NEVER_WAITS;
  /** Whether any frame asks for a checksum or for segments, or has a known one; false: `requests` means nothing. */
  asks = false;
  declare readonly requests: Requests;
  /** While `asks`: whether the receiver that frames are placed on next is told of known checksums. */
  tellsValid = false;
  /** Frames that were taken from the queue and asked for what cannot be, by REQUEST_* (src/offload/request.ts). */
  declare readonly badRequests: Int32Array;
  private hasBadRequests = false;

  constructor() {
    this.records = new Int32Array(BATCH_FRAMES_MAX << RECORD_SHIFT);
    this.refused = new Int32Array(BATCH_FRAMES_MAX);
    this.refusedWhy = new Int32Array(BATCH_FRAMES_MAX);
    this.pieceWindow = new Int32Array(PIECES_MAX);
    this.pieceIndex = new Int32Array(PIECES_MAX);
    this.pieceBytes = new Int32Array(PIECES_MAX);
    this.tags = new FrameTags(BATCH_FRAMES_MAX);
    this.origins = new Int32Array(BATCH_FRAMES_MAX);
    this.requests = new Requests(BATCH_FRAMES_MAX);
    this.badRequests = new Int32Array(BAD_REQUEST_KINDS);
  }

  clear(): void {
    this.count = 0;
    this.bytesMax = 0;
    this.bytesTaken = 0;
    this.allIn = MIXED;
    this.alike = false;
    this.alikeBehind = false;
    this.headsAreRead = false;
    this.headsAreCopied = false;
    this.tooLong = 0;
    this.tooShort = 0;
    this.tooScattered = 0;
    this.piecesUsed = 0;
    this.refusedCount = 0;
    this.tags.clear();
    this.asks = false;
    if (this.hasBadRequests) this.clearBadRequests();
  }

  /** Takes a frame out that asked for what cannot be; `why`: a REQUEST_*. */
  refuseRequest(why: number): void {
    this.badRequests[why]++;
    this.hasBadRequests = true;
  }

  private clearBadRequests(): void {
    this.badRequests.fill(0);
    this.hasBadRequests = false;
  }

  bytesOf(frame: number): number {
    return this.records[(frame << RECORD_SHIFT) + AT_BYTES];
  }

  indexOf(frame: number): number {
    return this.records[(frame << RECORD_SHIFT) + AT_INDEX];
  }

  windowOf(frame: number): number {
    return this.allIn !== MIXED ? this.allIn : this.records[(frame << RECORD_SHIFT) + AT_WINDOW];
  }

  /** Word 0, 1 or 2 of the frame's addresses. */
  headWordOf(frame: number, word: number): number {
    const record = this.alike ? 0 : frame;
    return this.records[(record << RECORD_SHIFT) + AT_WORD0 + word];
  }

  /** The word behind the addresses. */
  word3Of(frame: number): number {
    const record = this.alikeBehind ? 0 : frame;
    return this.records[(record << RECORD_SHIFT) + AT_WORD3];
  }

  firstPieceOf(frame: number): number {
    return this.records[(frame << RECORD_SHIFT) + AT_INDEX] & 0xffff;
  }

  pieceCountOf(frame: number): number {
    return this.records[(frame << RECORD_SHIFT) + AT_INDEX] >>> 16;
  }

  /** Adds a frame that lies in one piece. */
  add(window: number, index: number, sizeBytes: number): void {
    if (sizeBytes < HEAD_BYTES)
      this.#addRecord(IN_PIECES, this.#pieceAt(window, index, sizeBytes), sizeBytes);
    else this.#addRecord(window, index, sizeBytes);
  }

  /** Makes a piece of the side table; answers it as a record has it. */
  #pieceAt(window: number, index: number, sizeBytes: number): number {
    const at = this.piecesUsed++;
    this.pieceWindow[at] = window;
    this.pieceIndex[at] = index;
    this.pieceBytes[at] = sizeBytes;
    return at | (1 << 16);
  }

  #addRecord(window: number, index: number, sizeBytes: number): void {
    const frame = this.count;
    const at = frame << RECORD_SHIFT;
    this.records[at + AT_INDEX] = index;
    this.records[at + AT_BYTES] = sizeBytes;
    if (sizeBytes > this.bytesMax) this.bytesMax = sizeBytes;
    this.bytesTaken += sizeBytes;
    this.count = frame + 1;
    this.noteWindow(frame, window);
  }

  /** The frames from `first` on, the last ones so far, lie in this window. */
  noteWindow(first: number, window: number): void {
    if (first === 0 && window >= 0) {
      this.allIn = window;
      return;
    }
    if (this.allIn === window) return;
    if (this.allIn !== MIXED) this.writeWindows(0, first, this.allIn);
    this.allIn = MIXED;
    this.writeWindows(first, this.count, window);
  }

  private writeWindows(first: number, end: number, window: number): void {
    for (let frame = first; frame < end; frame++) this.records[(frame << RECORD_SHIFT) + AT_WINDOW] = window;
  }

  /** Whether a frame of many pieces can still be described. */
  get hasRoomForPieces(): boolean {
    return this.piecesUsed <= BATCH_PIECES_MAX - FRAME_PIECES_MAX;
  }

  /** Begins a frame of several pieces: `addPiece` them, then `addPieces` the frame. Call with room only. */
  beginPieces(): void {
    this.piecesOpen = 0;
  }

  /** False when the frame has too many. */
  addPiece(window: number, index: number, sizeBytes: number): boolean {
    if (this.piecesOpen === FRAME_PIECES_MAX) return false;
    this.describePiece(window, index, sizeBytes);
    return true;
  }

  /** As `addPiece`, of a frame that was taken before: the switch may have made a few more pieces of it. */
  describePiece(window: number, index: number, sizeBytes: number): void {
    const at = this.piecesUsed + this.piecesOpen;
    this.pieceWindow[at] = window;
    this.pieceIndex[at] = index;
    this.pieceBytes[at] = sizeBytes;
    this.piecesOpen++;
  }

  /** Adds the frame of these pieces, at least one. */
  addPieces(sizeBytes: number): void {
    const first = this.piecesUsed;
    if (this.piecesOpen === 1 && sizeBytes >= HEAD_BYTES) {
      this.#addRecord(this.pieceWindow[first], this.pieceIndex[first], sizeBytes);
      return;
    }
    this.piecesUsed += this.piecesOpen;
    this.#addRecord(IN_PIECES, first | (this.piecesOpen << 16), sizeBytes);
  }

  /**
   * Takes `sizeBytes` out of the frame behind its addresses: tags that were read. As addresses are not read from memory
   * again, it is enough that the frame begins so much later. Where less is left than a plain frame has, it becomes one in
   * pieces.
   */
  cut(frame: number, sizeBytes: number): void {
    const at = frame << RECORD_SHIFT;
    const { records } = this;
    records[at + AT_BYTES] -= sizeBytes;
    const window = this.windowOf(frame);
    if (window === IN_PIECES) {
      this.#cutPieces(frame, sizeBytes);
      return;
    }
    records[at + AT_INDEX] += sizeBytes;
    const leftBytes = records[at + AT_BYTES];
    if (leftBytes >= HEAD_BYTES) return;
    if (this.allIn !== MIXED) this.writeWindows(0, this.count, this.allIn);
    this.allIn = MIXED;
    records[at + AT_INDEX] = this.#pieceAt(window, records[at + AT_INDEX], leftBytes);
    records[at + AT_WINDOW] = IN_PIECES;
  }

  #cutPieces(frame: number, sizeBytes: number): void {
    let left = sizeBytes;
    for (let piece = this.firstPieceOf(frame); left > 0; piece++) {
      const count = Math.min(left, this.pieceBytes[piece]);
      this.pieceIndex[piece] += count;
      this.pieceBytes[piece] -= count;
      left -= count;
    }
  }

  /**
   * The first bytes of the frame lie there from now on, as many as it has at least; the rest where it lay. For all frames
   * one after the other, between `beginFronts` and `endFronts`.
   */
  replaceFront(frame: number, window: number, index: number, sizeBytes: number): void {
    const { records, pieceWindow, pieceIndex, pieceBytes } = this;
    const at = frame << RECORD_SHIFT;
    const leftBytes = records[at + AT_BYTES] - sizeBytes;
    const oldWindow = records[at + AT_WINDOW];
    const oldIndex = records[at + AT_INDEX];
    if (leftBytes === 0 && sizeBytes >= HEAD_BYTES) {
      records[at + AT_WINDOW] = window;
      records[at + AT_INDEX] = index;
      return;
    }
    this.hasFrontsInPieces = true;
    records[at + AT_WINDOW] = IN_PIECES;
    const front = this.#pieceAt(window, index, sizeBytes);
    if (leftBytes === 0) {
      records[at + AT_INDEX] = front;
      return;
    }
    if (oldWindow !== IN_PIECES) {
      this.#pieceAt(oldWindow, oldIndex + sizeBytes, leftBytes);
      records[at + AT_INDEX] = front + (1 << 16);
      return;
    }
    let piece = oldIndex & 0xffff;
    const end = piece + (oldIndex >>> 16);
    let skipBytes = sizeBytes;
    for (; piece < end && pieceBytes[piece] <= skipBytes; piece++) skipBytes -= pieceBytes[piece];
    let pieces = 1;
    for (; piece < end; piece++, pieces++) {
      this.#pieceAt(pieceWindow[piece], pieceIndex[piece] + skipBytes, pieceBytes[piece] - skipBytes);
      skipBytes = 0;
    }
    records[at + AT_INDEX] = (front & 0xffff) | (pieces << 16);
  }

  beginFronts(): void {
    if (this.allIn !== MIXED) this.writeWindows(0, this.count, this.allIn);
    this.allIn = MIXED;
    this.hasFrontsInPieces = false;
  }

  /** Those that are whole frames lie in this window. */
  endFronts(window: number): void {
    if (!this.hasFrontsInPieces) this.allIn = window;
  }

  /**
   * Has the frame begin so many bytes earlier, or later again when negative, as room for tags behind its addresses
   * (`tags.pushBytes`). What lies there is not read: it is in place of addresses and tags.
   */
  makeRoom(frame: number, sizeBytes: number): void {
    const at = frame << RECORD_SHIFT;
    this.records[at + AT_BYTES] += sizeBytes;
    if (this.windowOf(frame) !== IN_PIECES) {
      this.records[at + AT_INDEX] -= sizeBytes;
      return;
    }
    const first = this.firstPieceOf(frame);
    this.pieceIndex[first] -= sizeBytes;
    this.pieceBytes[first] += sizeBytes;
  }

  /** The same for all frames, which then have room for so many bytes of tags; `tags.pushBytes` says so. */
  makeRoomForAll(sizeBytes: number): void {
    const { records, count, tags } = this;
    const addedBytes = sizeBytes - tags.pushBytes;
    tags.pushBytes = sizeBytes;
    this.bytesMax += addedBytes;
    if (this.allIn === MIXED) {
      for (let frame = 0; frame < count; frame++) this.makeRoom(frame, addedBytes);
      return;
    }
    for (let frame = 0; frame < count; frame++) {
      const at = frame << RECORD_SHIFT;
      records[at + AT_INDEX] -= addedBytes;
      records[at + AT_BYTES] += addedBytes;
    }
  }

  /** Writes into all records what they need not have while frames are alike, so that they may come to differ. */
  spread(): void {
    const { records, count, alike, alikeBehind } = this;
    for (let frame = 1; frame < count; frame++) {
      const at = frame << RECORD_SHIFT;
      if (alike) {
        records[at + AT_WORD0] = records[AT_WORD0];
        records[at + AT_WORD1] = records[AT_WORD1];
        records[at + AT_WORD2] = records[AT_WORD2];
      }
      if (alikeBehind) records[at + AT_WORD3] = records[AT_WORD3];
    }
    this.alike = false;
    this.alikeBehind = false;
  }

  /** Has the record of a frame, and its tags, stand in the place of another one. All frames must have been spread. */
  move(frame: number, to: number): void {
    const { records, tags } = this;
    for (let word = 0; word < 1 << RECORD_SHIFT; word++) {
      records[(to << RECORD_SHIFT) + word] = records[(frame << RECORD_SHIFT) + word];
    }
    this.origins[to] = this.origins[frame];
    tags.outers[to] = tags.outers[frame];
    tags.inners[to] = tags.inners[frame];
    if (this.asks) this.requests.copy(to, this.requests, frame);
  }

  /** Before frames are left out, if it is to be known afterwards as which each came. */
  noteOrigins(): void {
    for (let frame = 0; frame < this.count; frame++) this.origins[frame] = frame;
  }

  originOf(frame: number): number {
    return this.origins[frame];
  }

  /** Adds a frame of another batch as it lies, with what it asks for; its addresses are read anew or copied. */
  addOf(source: Batch, frame: number): void {
    if (source.asks && (source.needsOf(frame) !== 0 || source.requests.isValid(frame))) {
      this.beginAsking();
      this.requests.copy(this.count, source.requests, frame);
    }
    const window = source.windowOf(frame);
    if (window !== IN_PIECES) {
      this.add(window, source.indexOf(frame), source.bytesOf(frame));
      return;
    }
    const first = source.firstPieceOf(frame);
    const end = first + source.pieceCountOf(frame);
    this.beginPieces();
    for (let piece = first; piece < end; piece++)
      this.describePiece(source.pieceWindow[piece], source.pieceIndex[piece], source.pieceBytes[piece]);
    this.addPieces(source.bytesOf(frame));
  }

  /** The next frame to be added asks for what this one of another batch does, as it is with its new tags. */
  addRequestOf(source: Batch, frame: number): void {
    if (!source.hasHeader(frame)) return;
    this.beginAsking();
    this.requests.copy(this.count, source.requests, frame);
    this.requests.dropFront(this.count, -source.tags.pushBytes);
  }

  refuse(frame: number, why: number): void {
    const at = this.refusedCount;
    this.refused[at] = frame;
    this.refusedWhy[at] = why;
    this.refusedCount = at + 1;
  }

  /** Call before the first request of a frame is put into `requests`. */
  beginAsking(): void {
    if (this.asks) return;
    this.asks = true;
    this.requests.clear();
  }

  /** What a frame needs of its receiver to be handed over as it is: OFFLOAD_* bits; 0 nearly always. */
  needsOf(frame: number): number {
    return this.asks ? this.requests.needsOf(frame) : 0;
  }

  /** Whether the receiver is told that the frame's checksum is right, which asks for nothing. */
  isToldValid(frame: number): boolean {
    return this.asks && this.tellsValid && this.requests.isValid(frame);
  }

  /** Whether the frame's virtio-net header says anything. */
  hasHeader(frame: number): boolean {
    return this.asks && (this.requests.needsOf(frame) !== 0 || this.isToldValid(frame));
  }

  /** As `Requests.dropFront`; a batch in which nothing asks may come too. */
  dropRequestFront(frame: number, sizeBytes: number): boolean {
    return !this.asks || this.requests.dropFront(frame, sizeBytes);
  }

  /** Frames that come of it where it is not handed over whole: 1, or its segments. */
  segmentCountOf(frame: number): number {
    return this.asks ? this.requests.segmentCountOf(frame, this.bytesOf(frame)) : 1;
  }

  /** Bytes of the longest of these: what an MTU is about. */
  wireBytesOf(frame: number): number {
    if (!this.asks) return this.bytesOf(frame);
    const { pushBytes } = this.tags;
    return this.requests.wireBytesOf(frame, this.bytesOf(frame) - pushBytes) + pushBytes;
  }
}
