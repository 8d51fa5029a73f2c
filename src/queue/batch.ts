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
 * Most frames lie in one piece: window and index say where. One in several pieces has IN_PIECES for its window, and its
 * places stand in the side table (`piece*`).
 *
 * What is decided upon is read once into the batch, the two addresses, and written from here, because a guest may
 * change its memory between the decision and the copy.
 */

import { Requests } from './requests.ts';

/** Most frames of a batch. */
export const BATCH_FRAMES_MAX = 64;
/** Most pieces of a frame; one that is scattered over more is dropped. */
export const FRAME_PIECES_MAX = 96;
/** Most pieces of all frames of a batch; a frame for which there may be no room waits for the next one. */
export const BATCH_PIECES_MAX = 8 * FRAME_PIECES_MAX;
/** In place of a window: the frame lies in several pieces. */
export const IN_PIECES = -1;
/** In `allIn`: the frames do not all lie in one piece of one window. */
export const MIXED = -2;
/** Bytes at the start of a frame that are read into its record: both addresses. */
export const HEAD_BYTES = 12;

/** A record begins at word `frame << RECORD_SHIFT` of `records`; its words: */
export const RECORD_SHIFT = 3;
/** Index in the window of the frame's first byte. */
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
/** Of a frame in pieces: its first one in the side table, and how many it has behind bit 16. */
export const AT_PIECES = 7;

/** Why `place` did not place a frame. */
export const REFUSED_NO_BUFFER = 1;
/** The frame is longer than what the other side takes. */
export const REFUSED_TOO_SMALL = 2;
/** The queue is stopped, see its `fault`. */
export const REFUSED_FAULT = 3;

/** Values of REQUEST_* (src/offload/request.ts). */
const BAD_REQUEST_KINDS = 5;

/** The order of the batch itself, for `place`. */
export const AS_THEY_CAME = Int32Array.from({ length: BATCH_FRAMES_MAX }, (_, i) => i);

export class Batch {
  /** Frames. */
  count = 0;
  /** Length of the longest of them, in bytes. */
  bytesMax = 0;
  /** The window that all frames lie in, each in one piece; otherwise MIXED. */
  allIn = MIXED;
  /** All frames have the addresses of the first one; the others' records need not have them. */
  alike = false;
  /** Frames that were taken from the queue and cannot be forwarded; they have no record. */
  tooLong = 0;
  tooShort = 0;
  tooScattered = 0;
  declare readonly records: Int32Array;
  /** The side table of pieces. */
  declare readonly pieceWindow: Int32Array;
  declare readonly pieceIndex: Int32Array;
  declare readonly pieceBytes: Int32Array;
  private piecesUsed = 0;
  /** Pieces of the frame that is being put together. */
  private piecesOpen = 0;
  /** Frames that the last `place` did not place, in order, and why. */
  refusedCount = 0;
  declare readonly refused: Int32Array;
  declare readonly refusedWhy: Int32Array;
  /** Whether any frame asks for a checksum or for segments; false: `requests` means nothing. */
  asks = false;
  declare readonly requests: Requests;
  /** Frames that were taken from the queue and asked for what cannot be, by REQUEST_* (src/offload/request.ts). */
  declare readonly badRequests: Int32Array;

  constructor() {
    this.records = new Int32Array(BATCH_FRAMES_MAX << RECORD_SHIFT);
    this.refused = new Int32Array(BATCH_FRAMES_MAX);
    this.refusedWhy = new Int32Array(BATCH_FRAMES_MAX);
    this.pieceWindow = new Int32Array(BATCH_PIECES_MAX);
    this.pieceIndex = new Int32Array(BATCH_PIECES_MAX);
    this.pieceBytes = new Int32Array(BATCH_PIECES_MAX);
    this.requests = new Requests(BATCH_FRAMES_MAX);
    this.badRequests = new Int32Array(BAD_REQUEST_KINDS);
  }

  clear(): void {
    this.count = 0;
    this.bytesMax = 0;
    this.allIn = MIXED;
    this.alike = false;
    this.tooLong = 0;
    this.tooShort = 0;
    this.tooScattered = 0;
    this.piecesUsed = 0;
    this.refusedCount = 0;
    this.asks = false;
    for (let why = 0; why < BAD_REQUEST_KINDS; why++) this.badRequests[why] = 0;
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

  firstPieceOf(frame: number): number {
    return this.records[(frame << RECORD_SHIFT) + AT_PIECES] & 0xffff;
  }

  pieceCountOf(frame: number): number {
    return this.records[(frame << RECORD_SHIFT) + AT_PIECES] >>> 16;
  }

  /** Adds a frame that lies in one piece. */
  add(window: number, index: number, sizeBytes: number): void {
    const frame = this.count;
    const at = frame << RECORD_SHIFT;
    this.records[at + AT_INDEX] = index;
    this.records[at + AT_BYTES] = sizeBytes;
    if (sizeBytes > this.bytesMax) this.bytesMax = sizeBytes;
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
    const at = this.piecesUsed + this.piecesOpen;
    this.pieceWindow[at] = window;
    this.pieceIndex[at] = index;
    this.pieceBytes[at] = sizeBytes;
    this.piecesOpen++;
    return true;
  }

  /** Adds the frame of these pieces, at least one. */
  addPieces(sizeBytes: number): void {
    const first = this.piecesUsed;
    if (this.piecesOpen === 1) {
      this.add(this.pieceWindow[first], this.pieceIndex[first], sizeBytes);
      return;
    }
    this.records[(this.count << RECORD_SHIFT) + AT_PIECES] = first | (this.piecesOpen << 16);
    this.piecesUsed += this.piecesOpen;
    this.add(IN_PIECES, 0, sizeBytes);
  }

  /** Adds a frame of another batch as it lies, with what it asks for; its addresses are read anew or copied. */
  addOf(source: Batch, frame: number): void {
    if (source.needsOf(frame) !== 0) {
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
      this.addPiece(source.pieceWindow[piece], source.pieceIndex[piece], source.pieceBytes[piece]);
    this.addPieces(source.bytesOf(frame));
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
    return this.asks ? this.requests.wireBytesOf(frame, this.bytesOf(frame)) : this.bytesOf(frame);
  }
}
