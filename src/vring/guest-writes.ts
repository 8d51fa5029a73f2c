/**
 * Every byte that is written to a guest's memory passes here: frames, their headers, used entries and the device's
 * event suppression. So this is where one looks for what a guest may see. Who calls anything here marks the page in the
 * ring's log afterwards, if it has one (dirty-log.ts); the calls are few, and a burst is marked in one go.
 * Hot path: functions with primitive arguments, short enough for V8 to put them into their callers.
 */
import * as NET from '../../protocol/virtio/net.ts';
import type { ArenaView } from '../memory/arena-view.ts';
import type { Window } from '../memory/window.ts';
import type { Batch } from '../queue/batch.ts';
import * as BATCH from '../queue/batch.ts';
import * as COPY from '../queue/copy.ts';
import * as TAGS from '../queue/frame-tags.ts';

// V8 folds a module's own constants into a loop, and loads imported ones again at each use: some 3 ns a frame.
const { NET_HEADER_BYTES_LEGACY, NET_HEADER_NUM_BUFFERS_OFFSET } = NET;
const { ADDRESSES_BYTES, AT_WORD3, HEAD_BYTES } = BATCH;
const { TAG_BYTES } = TAGS;
const { copyBytes, copyWords64, WORD64_LOOP_BYTES_MAX } = COPY;

/** Frames that may be copied by words of 64 bits. */
const SHORT_FRAME_BYTES_MAX = WORD64_LOOP_BYTES_MAX + ADDRESSES_BYTES;

/** The third word of a virtio-net header that says num_buffers = 1. */
const ONE_BUFFER = 1 << 16;

/**
 * A virtio-net header of twelve bytes that promises nothing, and behind it a frame of 16 bytes or more: its head, given as
 * four words, and the rest from where it lies. `headerIndex` is a multiple of 4. The header is read before anything is written, and
 * nearly always found as it should be: a load fetches the line from the guest's processor while later frames are
 * already being worked on, which a store, waiting for its turn, does not (5 to 15 % with DPDK's driver, measured).
 */
export function writePlainFrame(
  arena: ArenaView,
  from: Window,
  fromIndex: number,
  sizeBytes: number,
  word0: number,
  word1: number,
  word2: number,
  word3: number,
  to: Window,
  headerIndex: number,
): void {
  const { i32 } = to;
  const word = headerIndex >> 2;
  if ((i32[word] | i32[word + 1] | (i32[word + 2] ^ ONE_BUFFER)) !== 0) {
    i32[word] = 0;
    i32[word + 1] = 0;
    i32[word + 2] = ONE_BUFFER;
  }
  i32[word + 3] = word0;
  i32[word + 4] = word1;
  i32[word + 5] = word2;
  const fromBody = fromIndex + ADDRESSES_BYTES;
  const toBody = headerIndex + 2 * ADDRESSES_BYTES;
  if (sizeBytes <= SHORT_FRAME_BYTES_MAX && ((fromBody ^ toBody) & 7) === 0 && (fromBody & 3) === 0) {
    copyWords64(from, fromBody, to, toBody, sizeBytes - ADDRESSES_BYTES);
    i32[word + 6] = word3;
    return;
  }
  i32[word + 6] = word3;
  copyBytes(arena, from, fromIndex + HEAD_BYTES, to, headerIndex + 28, sizeBytes - HEAD_BYTES);
}

/**
 * The new tags of frames that were written with headers of twelve bytes at `tags.placedAt`, all with `tags.push0` in the
 * place of the first one, and behind them what stood behind their addresses. A loop of its own, so that the one which
 * writes frames costs nothing more without tags.
 */
export function writeTags({ i32 }: Window, batch: Batch, order: Int32Array, from: number, end: number): void {
  const { records, alikeBehind, tags } = batch;
  const { placedAt, pushBytes, isPushUniform } = tags;
  if (isPushUniform && alikeBehind && pushBytes === TAG_BYTES) {
    const word3 = records[AT_WORD3];
    for (let k = from; k < end; k++) i32[(placedAt[k] >> 2) + 7] = word3;
    return;
  }
  for (let k = from; k < end; k++) {
    const frame = order[k];
    const word = (placedAt[k] >> 2) + 6;
    i32[word] = tags.push0Of(frame);
    if (pushBytes === 2 * TAG_BYTES) i32[word + 1] = tags.push1Of(frame);
    i32[word + (pushBytes >> 2)] = batch.word3Of(frame);
  }
}

/** One byte. */
export function writeByte(to: Window, index: number, value: number): void {
  to.u8[index] = value;
}

/** Part of a frame. */
export function writeBytes(
  arena: ArenaView,
  from: Window,
  fromIndex: number,
  to: Window,
  toIndex: number,
  sizeBytes: number,
): void {
  copyBytes(arena, from, fromIndex, to, toIndex, sizeBytes);
}

/** Byte `at` of a header that promises nothing but says in how many buffers the frame lies. */
export function netHeaderByte(at: number, bufferCount: number): number {
  if (at === NET_HEADER_NUM_BUFFERS_OFFSET) return bufferCount & 0xff;
  return at === NET_HEADER_NUM_BUFFERS_OFFSET + 1 ? bufferCount >> 8 : 0;
}

/** A header that promises nothing, in one place. */
export function writeNetHeader(to: Window, index: number, headerBytes: number): void {
  if ((index & 3) === 0 && headerBytes !== NET_HEADER_BYTES_LEGACY) {
    const word = index >> 2;
    to.i32[word] = 0;
    to.i32[word + 1] = 0;
    to.i32[word + 2] = ONE_BUFFER;
    return;
  }
  for (let i = 0; i < headerBytes; i++) to.u8[index + i] = netHeaderByte(i, 1);
}

/** An entry of a split ring's used ring; only what differs is written. */
export function writeUsedEntry(used32: Int32Array, at: number, head: number, writtenBytes: number): void {
  // One branch for both words: two cost twice as much (measured).
  if (((used32[at] ^ head) | (used32[at + 1] ^ writtenBytes)) === 0) return;
  used32[at] = head;
  used32[at + 1] = writtenBytes;
}

/** Length, id and flags of a used packed descriptor. */
export function writeUsedDescriptor(
  desc: Int32Array,
  at: number,
  writtenBytes: number,
  idAndFlags: number,
): void {
  if (desc[at + 2] !== writtenBytes) desc[at + 2] = writtenBytes;
  desc[at + 3] = idAndFlags;
}

/**
 * Whatever was written before is visible to the driver first, and nothing that is read from the driver afterwards
 * was read before: an exchange on x86-64.
 */
export function publishWord16(words: Uint16Array, at: number, value: number): void {
  Atomics.store(words, at, value);
}

/** As `publishWord16`. */
export function publishWord32(words: Int32Array, at: number, value: number): void {
  Atomics.store(words, at, value);
}

/** A field that nobody waits for: an event index, a flag that may be seen late. */
export function writeWord16(words: Uint16Array, at: number, value: number): void {
  words[at] = value;
}

/** As `writeWord16`. */
export function writeWord32(words: Int32Array, at: number, value: number): void {
  words[at] = value;
}
