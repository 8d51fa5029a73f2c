/**
 * The first bytes of each frame of a batch, copied once into memory of the worker's own: for stages that decide on what
 * lies behind the words that `readHeads` reads. A guest may change its memory at any time; so what such a stage looks
 * at is not the guest's memory but the copy, and the copy is what is forwarded: the batch describes a frame from then on
 * as lying in it. Frames up to 2 KiB are copied whole, and so are plain ones in one window, which take the tight loops of
 * receivers (1,518 bytes: 50 ns for the copy, 300 for placing a frame in pieces). A longer one becomes two or more
 * pieces of which the copy is the first.
 *
 * What the batch already knows is not read again: addresses, the word behind them, and the headers of a frame to be
 * segmented, of which its segments will be made. So the copy is what receivers get, wherever they get it from.
 *
 * Hot path; one worker's object, called by the stages of checks.ts that need it, of which the first one copies.
 */
import assert from 'node:assert/strict';
import type { ArenaView } from '../../src/memory/arena-view.ts';
import { WINDOW_BYTES, type Window } from '../../src/memory/window.ts';
import type { Batch } from '../../src/queue/batch.ts';
import * as BATCH from '../../src/queue/batch.ts';
import * as COPY from '../../src/queue/copy.ts';
import { PUSH_BYTES_MAX } from '../../src/queue/frame-tags.ts';
import * as REQUESTS from '../../src/queue/requests.ts';

// V8 folds a module's own constants into a loop, and loads imported ones again at each use: some 3 ns a frame.
const { ADDRESSES_BYTES, AT_BYTES, AT_INDEX, AT_WINDOW, AT_WORD0, AT_WORD1, AT_WORD2, AT_WORD3 } = BATCH;
const { BATCH_FRAMES_MAX, HEAD_BYTES, IN_PIECES, MIXED, RECORD_SHIFT } = BATCH;
const { AT_DROPPED, AT_HEADER_BYTES, OFFLOAD_SEGMENTS, REQUEST_HEADER_BYTES_MAX, REQUEST_SHIFT } = REQUESTS;
const { copyBytes } = COPY;

/** Bytes of a frame that stages may look at, or all of a shorter one. */
export const HEAD_COPY_BYTES = 128;
/** A frame up to this length is copied whole. */
const WHOLE_BYTES_MAX = 2048;
/**
 * Before each copy: room for the tags that a frame may get (Batch.makeRoom), and as much more that its words lie as those
 * of a guest's buffers mostly do, so that both are copied by words of 64 bits.
 */
const SLOT_ROOM_BYTES = 12;
/** Of frames of which no more is copied than stages look at; they lie close together. */
const SHORT_SLOT_BYTES = 144;
/** Of the others. An odd count of cache lines, so that their first ones do not meet in few sets of the cache. */
const LONG_SLOT_BYTES = 64 * (Math.ceil((SLOT_ROOM_BYTES + WHOLE_BYTES_MAX) / 128) * 2 + 1);
assert(SLOT_ROOM_BYTES >= PUSH_BYTES_MAX && SHORT_SLOT_BYTES >= SLOT_ROOM_BYTES + HEAD_COPY_BYTES);
const SHORT_SLOTS_BYTES = BATCH_FRAMES_MAX * SHORT_SLOT_BYTES;
/** Size of the scratch area, in the arena. */
export const HEAD_COPIES_SCRATCH_BYTES = SHORT_SLOTS_BYTES + BATCH_FRAMES_MAX * LONG_SLOT_BYTES;

export class HeadCopies {
  /** Where the copies lie. */
  declare readonly window: Window;
  declare private readonly windowNumber: number;
  declare private readonly firstIndex: number;
  declare private readonly arena: ArenaView;

  /** `scratchOffset`: of HEAD_COPIES_SCRATCH_BYTES in the arena, a multiple of 8, within one window. */
  constructor(arena: ArenaView, scratchOffset: number) {
    this.arena = arena;
    this.windowNumber = Math.floor(scratchOffset / WINDOW_BYTES);
    const start = scratchOffset % WINDOW_BYTES;
    assert(start % 8 === 0 && start + HEAD_COPIES_SCRATCH_BYTES <= WINDOW_BYTES, 'it lies within one window');
    this.firstIndex = start + SLOT_ROOM_BYTES;
    this.window = arena.windows[this.windowNumber];
  }

  /** Call when the heads were read and tags were taken out, before the batch's frames get any. Once more does nothing. */
  copy(batch: Batch): void {
    if (batch.headsAreCopied) return;
    batch.headsAreCopied = true;
    if (batch.allIn !== MIXED && batch.bytesMax <= WHOLE_BYTES_MAX && !batch.asks) {
      copyWhole(batch, this.arena, this.arena.windows[batch.allIn], this.window, this.firstIndex);
      batch.allIn = this.windowNumber;
      return;
    }
    batch.beginFronts();
    for (let frame = 0; frame < batch.count; frame++) this.copyOne(batch, frame);
    batch.endFronts(this.windowNumber);
  }

  /** Index in the window's arrays, a multiple of 4, of the copy of a frame of a batch whose heads are copied. */
  indexOf(batch: Batch, frame: number): number {
    const index = batch.indexOf(frame);
    return batch.windowOf(frame) === IN_PIECES ? batch.pieceIndex[index & 0xffff] : index;
  }

  /** Bytes there that are the frame's, and that stages may look at. */
  bytesOf(batch: Batch, frame: number): number {
    return Math.min(HEAD_COPY_BYTES, batch.bytesOf(frame));
  }

  private copyOne(batch: Batch, frame: number): void {
    const { records } = batch;
    const at = frame << RECORD_SHIFT;
    const frameBytes = records[at + AT_BYTES];
    const isWhole = frameBytes <= WHOLE_BYTES_MAX;
    const bytes = isWhole ? frameBytes : HEAD_COPY_BYTES;
    const isLong = bytes > HEAD_COPY_BYTES;
    const index =
      this.firstIndex + (isLong ? SHORT_SLOTS_BYTES + frame * LONG_SLOT_BYTES : frame * SHORT_SLOT_BYTES);
    const window = records[at + AT_WINDOW];
    const { window: to, arena } = this;
    if (window === IN_PIECES) this.copyPieces(batch, frame, index, bytes);
    else {
      const from = arena.windows[window];
      const fromIndex = records[at + AT_INDEX] + ADDRESSES_BYTES;
      copyBytes(arena, from, fromIndex, to, index + ADDRESSES_BYTES, bytes - ADDRESSES_BYTES);
    }
    this.putKnown(batch, frame, index, bytes);
    batch.replaceFront(frame, this.windowNumber, index, bytes);
  }

  private copyPieces(batch: Batch, frame: number, index: number, bytes: number): void {
    const { windows } = this.arena;
    let done = 0;
    for (let piece = batch.firstPieceOf(frame); done < bytes; piece++) {
      const count = Math.min(batch.pieceBytes[piece], bytes - done);
      const from = windows[batch.pieceWindow[piece]];
      copyBytes(this.arena, from, batch.pieceIndex[piece], this.window, index + done, count);
      done += count;
    }
  }

  /** What the batch knows of the frame; a frame has its addresses and an EtherType at least. */
  private putKnown(batch: Batch, frame: number, index: number, bytes: number): void {
    const { i32, u8 } = this.window;
    const word = index >> 2;
    i32[word] = batch.headWordOf(frame, 0);
    i32[word + 1] = batch.headWordOf(frame, 1);
    i32[word + 2] = batch.headWordOf(frame, 2);
    // Behind a frame of less than 16 bytes nothing lies.
    i32[word + 3] = batch.word3Of(frame);
    if ((batch.needsOf(frame) & OFFLOAD_SEGMENTS) === 0) return;
    const { words, heads } = batch.requests;
    const at = frame << REQUEST_SHIFT;
    const end = Math.min(bytes, words[at + AT_HEADER_BYTES]);
    const kept = frame * REQUEST_HEADER_BYTES_MAX + words[at + AT_DROPPED];
    for (let i = HEAD_BYTES; i < end; i++) u8[index + i] = heads[kept + i];
  }
}

/** Frames in one piece of one window, none so long that only its beginning is copied. */
function copyWhole(batch: Batch, arena: ArenaView, from: Window, to: Window, firstIndex: number): void {
  const { records, alike, alikeBehind } = batch;
  const count = batch.count | 0;
  const to32 = to.i32;
  const to64 = to.u64;
  const from64 = from.u64;
  let word0 = records[AT_WORD0];
  let word1 = records[AT_WORD1];
  let word2 = records[AT_WORD2];
  let word3 = records[AT_WORD3];
  let slotIndex = firstIndex | 0;
  for (let frame = 0; frame < count; frame++) {
    const at = frame << RECORD_SHIFT;
    const fromIndex = records[(at + AT_INDEX) | 0];
    const bytes = records[(at + AT_BYTES) | 0];
    let index = slotIndex;
    slotIndex = (slotIndex + SHORT_SLOT_BYTES) | 0;
    if (bytes > HEAD_COPY_BYTES)
      index = (firstIndex + SHORT_SLOTS_BYTES + Math.imul(frame, LONG_SLOT_BYTES)) | 0;
    if ((fromIndex & 7) !== 4 || bytes > HEAD_COPY_BYTES) {
      copyBytes(arena, from, fromIndex + HEAD_BYTES, to, index + HEAD_BYTES, bytes - HEAD_BYTES);
    } else {
      // Whole words, so the last one may have bytes that are not the frame's: of the same page, and for nobody.
      let fromWord = ((fromIndex + ADDRESSES_BYTES) >> 3) | 0;
      let toWord = ((index + ADDRESSES_BYTES) >> 3) | 0;
      const end = (fromWord + ((bytes - ADDRESSES_BYTES + 7) >> 3)) | 0;
      const fours = (end - 3) | 0;
      while (fromWord < fours) {
        to64[toWord] = from64[fromWord];
        to64[(toWord + 1) | 0] = from64[(fromWord + 1) | 0];
        to64[(toWord + 2) | 0] = from64[(fromWord + 2) | 0];
        to64[(toWord + 3) | 0] = from64[(fromWord + 3) | 0];
        fromWord = (fromWord + 4) | 0;
        toWord = (toWord + 4) | 0;
      }
      while (fromWord < end) {
        to64[toWord] = from64[fromWord];
        fromWord = (fromWord + 1) | 0;
        toWord = (toWord + 1) | 0;
      }
    }
    if (!alike) {
      word0 = records[at + AT_WORD0];
      word1 = records[at + AT_WORD1];
      word2 = records[at + AT_WORD2];
    }
    if (!alikeBehind) word3 = records[at + AT_WORD3];
    const word = index >> 2;
    to32[word] = word0;
    to32[word + 1] = word1;
    to32[word + 2] = word2;
    to32[word + 3] = word3;
    records[(at + AT_INDEX) | 0] = index;
  }
}
