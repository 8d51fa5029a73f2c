/**
 * Copying frame bytes within the arena: the one copy that forwarding a frame costs. Places are a window
 * and an index in it. Hot path: allocates nothing, passes small integers only.
 *
 * Which way is fastest depends on size and alignment (bench/micro/copy.bench.ts): a loop over 64-bit words
 * up to some 200 bytes when both places are alike modulo 8, otherwise `copyWithin`, whose call costs as much
 * as copying 150 bytes. Elements of a BigUint64Array are moved without becoming BigInt objects as long as one
 * is assigned straight to another. Float64Array would be as fast, but may change NaN bits.
 */
import type { ArenaView } from '../memory/arena-view.ts';
import { WINDOW_BYTES, type Window } from '../memory/window.ts';
import { ADDRESSES_BYTES, type Batch, IN_PIECES } from './batch.ts';
import { TAG_BYTES } from './frame-tags.ts';

export const WORD64_LOOP_BYTES_MAX = 192;
const WORD32_LOOP_BYTES_MAX = 64;
const TYPE_BYTES = 2;

/** Copies from one window of `arena` to another, or within one. */
export function copyBytes(
  arena: ArenaView,
  from: Window,
  fromIndex: number,
  to: Window,
  toIndex: number,
  sizeBytes: number,
): void {
  if (sizeBytes <= WORD64_LOOP_BYTES_MAX) {
    const difference = fromIndex ^ toIndex;
    if ((difference & 7) === 0 && (fromIndex & 3) === 0) {
      copyWords64(from, fromIndex, to, toIndex, sizeBytes);
      return;
    }
    if (sizeBytes <= WORD32_LOOP_BYTES_MAX && ((fromIndex | toIndex) & 3) === 0) {
      copyWords32(from, fromIndex, to, toIndex, sizeBytes);
      return;
    }
  }
  const fromOffset = from.startOffset + fromIndex;
  arena.u8.copyWithin(to.startOffset + toIndex, fromOffset, fromOffset + sizeBytes);
}

/**
 * Copies `sizeBytes` of a frame, all of it or its beginning, to one place: the rest from wherever it lies, but addresses,
 * tags and EtherType as they stand in the batch. The beginning has addresses and tags at least.
 */
export function copyFrame(
  arena: ArenaView,
  batch: Batch,
  frame: number,
  sizeBytes: number,
  to: Window,
  toIndex: number,
): void {
  const fromWindow = batch.windowOf(frame);
  if (fromWindow === IN_PIECES) copyPieces(arena, batch, frame, sizeBytes, to, toIndex);
  else {
    const from = arena.windows[fromWindow];
    const fromIndex = batch.indexOf(frame) + ADDRESSES_BYTES;
    copyBytes(arena, from, fromIndex, to, toIndex + ADDRESSES_BYTES, sizeBytes - ADDRESSES_BYTES);
  }
  putHead(batch, frame, sizeBytes, to, toIndex);
}

/** What stands behind the addresses of a frame in pieces. */
function copyPieces(
  arena: ArenaView,
  batch: Batch,
  frame: number,
  sizeBytes: number,
  to: Window,
  toIndex: number,
): void {
  let done = 0;
  const first = batch.firstPieceOf(frame);
  const end = first + batch.pieceCountOf(frame);
  for (let piece = first; piece < end && done < sizeBytes; piece++) {
    const bytes = Math.min(batch.pieceBytes[piece], sizeBytes - done);
    const skipped = Math.min(bytes, Math.max(0, ADDRESSES_BYTES - done));
    const from = arena.windows[batch.pieceWindow[piece]];
    copyBytes(arena, from, batch.pieceIndex[piece] + skipped, to, toIndex + done + skipped, bytes - skipped);
    done += bytes;
  }
}

/** Writes a frame's addresses, its new tags and its EtherType as they stand in the batch. */
function putHead(batch: Batch, frame: number, sizeBytes: number, to: Window, toIndex: number): void {
  const { pushBytes } = batch.tags;
  for (let word = 0; word < 3; word++) putWord(to, toIndex + 4 * word, batch.headWordOf(frame, word));
  const tagIndex = toIndex + ADDRESSES_BYTES;
  if (pushBytes > 0) putWord(to, tagIndex, batch.tags.push0Of(frame));
  if (pushBytes > TAG_BYTES) putWord(to, tagIndex + TAG_BYTES, batch.tags.push1Of(frame));
  if (sizeBytes < ADDRESSES_BYTES + pushBytes + TYPE_BYTES) return;
  const type = batch.word3Of(frame);
  to.u8[tagIndex + pushBytes] = type;
  to.u8[tagIndex + pushBytes + 1] = type >> 8;
}

function putWord(to: Window, index: number, word: number): void {
  if ((index & 3) === 0) {
    to.i32[index >> 2] = word;
    return;
  }
  const { u8 } = to;
  u8[index] = word;
  u8[index + 1] = word >> 8;
  u8[index + 2] = word >> 16;
  u8[index + 3] = word >> 24;
}

/** Calls after which V8 has compiled a short function for good. */
const WARM_UP_CALLS = 400_000;

/**
 * Brings the 64-bit loop into its compiled form: until then each word becomes a BigInt object, and the first
 * frames would cost a garbage collection. Copies within the page of the arena that begins at `offset`, which must be
 * nobody else's: without one, it must be called before any guest's memory is mapped.
 */
export function warmUpCopy(arena: ArenaView, offset = 0): void {
  const window = arena.windows[Math.floor(offset / WINDOW_BYTES)];
  const index = offset % WINDOW_BYTES;
  for (let call = 0; call < WARM_UP_CALLS; call++) copyBytes(arena, window, index, window, index + 2048, 64);
}

/** Both indices are alike modulo 8 and multiples of 4; for WORD64_LOOP_BYTES_MAX at most. */
export function copyWords64(
  from: Window,
  fromIndex: number,
  to: Window,
  toIndex: number,
  sizeBytes: number,
): void {
  let done = 0;
  if ((fromIndex & 4) !== 0 && sizeBytes >= 4) {
    to.i32[toIndex >> 2] = from.i32[fromIndex >> 2];
    done = 4;
  }
  const from64 = from.u64;
  const to64 = to.u64;
  const fromWord = (fromIndex + done) >> 3;
  const toWord = (toIndex + done) >> 3;
  const wordCount = (sizeBytes - done) >> 3;
  for (let i = 0; i < wordCount; i++) to64[toWord + i] = from64[fromWord + i];
  done += wordCount << 3;
  if (sizeBytes - done >= 4) {
    to.i32[(toIndex + done) >> 2] = from.i32[(fromIndex + done) >> 2];
    done += 4;
  }
  for (; done < sizeBytes; done++) to.u8[toIndex + done] = from.u8[fromIndex + done];
}

/** Both indices are multiples of 4. */
function copyWords32(from: Window, fromIndex: number, to: Window, toIndex: number, sizeBytes: number): void {
  const from32 = from.i32;
  const to32 = to.i32;
  const wordCount = sizeBytes >> 2;
  const fromWord = fromIndex >> 2;
  const toWord = toIndex >> 2;
  for (let i = 0; i < wordCount; i++) to32[toWord + i] = from32[fromWord + i];
  for (let i = wordCount << 2; i < sizeBytes; i++) to.u8[toIndex + i] = from.u8[fromIndex + i];
}
