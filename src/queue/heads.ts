/**
 * Reads the heads of all frames of a batch, their addresses and the word behind them: once, for whatever is decided upon
 * them, and in one short loop, so that memory answers for all frames at once. Hot path.
 */
import type { Window } from '../memory/window.ts';
import type { Batch } from './batch.ts';
import * as BATCH from './batch.ts';

// V8 folds a module's own constants into a loop, and loads imported ones again at each use: some 3 ns a frame.
const {
  AT_INDEX,
  AT_WINDOW,
  AT_WORD0,
  AT_WORD1,
  AT_WORD2,
  AT_WORD3,
  HEAD_BYTES,
  IN_PIECES,
  MIXED,
  RECORD_SHIFT,
} = BATCH;

/** What `readHeadsWithHeaders` answers for none; whoever gets it looks at each header. */
export const ALL_BITS = -1;

/** Fills in the heads and says in `alike` and `alikeBehind` what all have. The batch has a frame at least. */
export function readHeads(batch: Batch, windows: readonly Window[]): void {
  if (batch.headsAreRead) return;
  const { count, records, allIn } = batch;
  if (allIn === MIXED) {
    readMixed(batch, windows);
    return;
  }
  const { i32 } = windows[allIn];
  readHead(batch, 0, windows);
  const first0 = records[AT_WORD0];
  const first1 = records[AT_WORD1];
  const first2 = records[AT_WORD2];
  const first3 = records[AT_WORD3];
  let frame = 1;
  for (; frame < count; frame++) {
    const index = records[(frame << RECORD_SHIFT) + AT_INDEX];
    if ((index & 3) !== 0) break;
    const word = index >> 2;
    if (i32[word] !== first0 || i32[word + 1] !== first1 || i32[word + 2] !== first2) break;
    if (i32[word + 3] !== first3) break;
  }
  if (frame === count) {
    batch.alike = true;
    batch.alikeBehind = true;
    return;
  }
  readDiffering(batch, windows, i32);
}

/**
 * The same for frames in one window that each have a header of `headerBytes` right before them, where all heads are alike:
 * reads a word of each header as well, and answers all of them in one (`|`). Otherwise, or where a frame does not lie at a
 * multiple of 4, the heads are not read, and the answer is ALL_BITS. One loop costs half of what two do.
 */
export function readHeadsWithHeaders(batch: Batch, i32: Int32Array, headerBytes: number): number {
  const { count, records } = batch;
  const firstIndex = records[AT_INDEX];
  if ((firstIndex & 3) !== 0) return ALL_BITS;
  const headerWords = headerBytes >> 2;
  const firstWord = firstIndex >> 2;
  const first0 = i32[firstWord];
  const first1 = i32[firstWord + 1];
  const first2 = i32[firstWord + 2];
  const first3 = i32[firstWord + 3];
  let bits = i32[firstWord - headerWords];
  for (let frame = 1; frame < count; frame++) {
    const index = records[(frame << RECORD_SHIFT) + AT_INDEX];
    if ((index & 3) !== 0) return ALL_BITS;
    const word = index >> 2;
    bits |= i32[word - headerWords];
    if (i32[word] !== first0 || i32[word + 1] !== first1 || i32[word + 2] !== first2) return ALL_BITS;
    if (i32[word + 3] !== first3) return ALL_BITS;
  }
  records[AT_WORD0] = first0;
  records[AT_WORD1] = first1;
  records[AT_WORD2] = first2;
  records[AT_WORD3] = first3;
  batch.alike = true;
  batch.alikeBehind = true;
  return bits;
}

/** Frames of which not all have one head. */
function readDiffering(batch: Batch, windows: readonly Window[], i32: Int32Array): void {
  const { count, records } = batch;
  const first0 = records[AT_WORD0];
  const first1 = records[AT_WORD1];
  const first2 = records[AT_WORD2];
  const first3 = records[AT_WORD3];
  let frame = 1;
  let unaligned = 0;
  for (; frame < count; frame++) {
    const index = records[(frame << RECORD_SHIFT) + AT_INDEX];
    const word = index >> 2;
    unaligned |= index;
    if (i32[word] !== first0 || i32[word + 1] !== first1 || i32[word + 2] !== first2) break;
  }
  if (frame === count && (unaligned & 3) === 0) {
    batch.alike = true;
    readBehind(batch, i32);
    return;
  }
  // What was compared is not what counts: from here on each frame's head is read for good.
  let alikeBehind = true;
  for (frame = 1; frame < count; frame++) {
    const at = frame << RECORD_SHIFT;
    const index = records[at + AT_INDEX];
    if ((index & 3) !== 0) {
      readHead(batch, frame, windows);
      if (records[at + AT_WORD3] !== first3) alikeBehind = false;
      continue;
    }
    const word = index >> 2;
    records[at + AT_WORD0] = i32[word];
    records[at + AT_WORD1] = i32[word + 1];
    records[at + AT_WORD2] = i32[word + 2];
    if (i32[word + 3] !== first3) alikeBehind = false;
  }
  if (alikeBehind) batch.alikeBehind = true;
  else readBehind(batch, i32);
}

/** The fourth words of frames that do not all have the same, where they lie at multiples of 4. */
function readBehind({ count, records }: Batch, i32: Int32Array): void {
  for (let frame = 1; frame < count; frame++) {
    const at = frame << RECORD_SHIFT;
    const index = records[at + AT_INDEX];
    if ((index & 3) === 0) records[at + AT_WORD3] = i32[(index >> 2) + 3];
  }
}

function readMixed(batch: Batch, windows: readonly Window[]): void {
  for (let frame = 0; frame < batch.count; frame++) readHead(batch, frame, windows);
}

/** A frame that lies anyhow. */
function readHead(batch: Batch, frame: number, windows: readonly Window[]): void {
  const { records } = batch;
  const at = frame << RECORD_SHIFT;
  const index = records[at + AT_INDEX];
  const window = batch.allIn === MIXED ? records[at + AT_WINDOW] : batch.allIn;
  if (window !== IN_PIECES && (index & 3) === 0) {
    const { i32 } = windows[window];
    const word = index >> 2;
    records[at + AT_WORD0] = i32[word];
    records[at + AT_WORD1] = i32[word + 1];
    records[at + AT_WORD2] = i32[word + 2];
    records[at + AT_WORD3] = i32[word + 3];
    return;
  }
  HEAD_WORDS[3] = 0;
  gatherHead(batch, frame, windows, HEAD, Math.min(HEAD_BYTES, batch.bytesOf(frame)));
  records[at + AT_WORD0] = HEAD_WORDS[0];
  records[at + AT_WORD1] = HEAD_WORDS[1];
  records[at + AT_WORD2] = HEAD_WORDS[2];
  records[at + AT_WORD3] = HEAD_WORDS[3];
}

const HEAD = new Uint8Array(HEAD_BYTES);
const HEAD_WORDS = new Int32Array(HEAD.buffer);

/**
 * Reads the word behind the addresses again, for a frame that was cut there: what was behind its tags is now there. The
 * word that it had is not needed any more.
 */
export function readWord3(batch: Batch, frame: number, windows: readonly Window[]): number {
  const index = batch.indexOf(frame);
  const window = batch.windowOf(frame);
  if (window !== IN_PIECES && (index & 3) === 0) return windows[window].i32[(index >> 2) + 3];
  HEAD_WORDS[3] = 0;
  gatherHead(batch, frame, windows, HEAD, Math.min(HEAD_BYTES, batch.bytesOf(frame)));
  return HEAD_WORDS[3];
}

/** Copies the first `sizeBytes` of a frame, which has so many, to `to`, whatever pieces it lies in. */
export function gatherHead(
  batch: Batch,
  frame: number,
  windows: readonly Window[],
  to: Uint8Array,
  sizeBytes: number,
): void {
  const window = batch.windowOf(frame);
  if (window !== IN_PIECES) {
    copyOut(windows[window].u8, batch.indexOf(frame), to, 0, sizeBytes);
    return;
  }
  let filled = 0;
  const first = batch.firstPieceOf(frame);
  const end = first + batch.pieceCountOf(frame);
  for (let piece = first; piece < end && filled < sizeBytes; piece++) {
    const count = Math.min(batch.pieceBytes[piece], sizeBytes - filled);
    copyOut(windows[batch.pieceWindow[piece]].u8, batch.pieceIndex[piece], to, filled, count);
    filled += count;
  }
}

function copyOut(from: Uint8Array, index: number, to: Uint8Array, toIndex: number, count: number): void {
  for (let i = 0; i < count; i++) to[toIndex + i] = from[index + i];
}
