/**
 * Places frames of a batch in the buffers of a packed ring: as split/place.ts, for the same kind of frames and
 * buffers. Descriptors are marked used as they are filled, all but the first of the burst, which hides the others
 * from the driver until `publish`.
 */
import * as NET from '../../../protocol/virtio/net.ts';
import * as SPLIT_RING from '../../../protocol/virtio/split-ring.ts';
import * as ORDERED from '../../memory/ordered.ts';
import type { Batch } from '../../queue/batch.ts';
import * as BATCH from '../../queue/batch.ts';
import * as WRITES from '../guest-writes.ts';
import type { ToGuest } from '../to-guest.ts';
import type { PackedLayout } from './layout.ts';
import * as OWNERS from './owner-bits.ts';

// V8 folds a module's own constants into a loop, and loads imported ones again at each use: some 3 ns a frame.
const { NET_HEADER_BYTES } = NET;
const { DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE } = SPLIT_RING;
const {
  AS_THEY_CAME,
  AT_BYTES,
  AT_INDEX,
  AT_WINDOW,
  AT_WORD0,
  AT_WORD1,
  AT_WORD2,
  AT_WORD3,
  IN_PIECES,
  MIXED,
  RECORD_SHIFT,
} = BATCH;
const { writePlainFrame, writeTags, writeUsedDescriptor, writeWord32 } = WRITES;
const { loadOrdered32 } = ORDERED;
const { availableBits, OWNER_BITS, usedBits } = OWNERS;

const SHAPE_BITS = (DESC_F_NEXT | DESC_F_WRITE | DESC_F_INDIRECT) << 16;
const WRITTEN_BIT = DESC_F_WRITE << 16;

/** Answers the place in `order` of the frame that it left, or `count`. */
export function placePlain(
  layout: PackedLayout,
  ring: ToGuest,
  batch: Batch,
  order: Int32Array,
  from: number,
  count: number,
): number {
  const { desc } = layout;
  // `| 0`: V8 keeps a number that it read from a field in its tagged form, and takes it out of that again at each use in
  // the loop; as an int32 it stays one (2 % of a frame, measured).
  const size = layout.size | 0;
  const { arena, headerBytes } = ring;
  const { windows } = arena;
  const { records, alike, alikeBehind } = batch;
  const allIn = batch.allIn | 0;
  const { placedAt, push0 } = batch.tags;
  const pushBytes = batch.tags.pushBytes | 0;
  // Where tags are pushed, the first one stands there; what is special about any is for writeTags.
  const hasOwnWord3 = !alikeBehind && pushBytes === 0;
  const differs = !alike || hasOwnWord3;
  const isAll = order === AS_THEY_CAME;
  const { log, translator } = ring;
  const notesPlaces = pushBytes !== 0 || log !== null;
  const { hitWindow } = translator;
  const hitLo = translator.hitLo | 0;
  const hitHi = translator.hitHi | 0;
  const hitBytes = translator.hitBytes | 0;
  const hitIndex = translator.hitIndex | 0;
  if (headerBytes !== NET_HEADER_BYTES || hitBytes < 0 || ring.fault !== 0) return from;
  const toWindow = windows[hitWindow];
  let sourceWindow = batch.windowOf(order[from]) | 0;
  if (sourceWindow === IN_PIECES) return from;
  let fromWindow = windows[sourceWindow];
  let word0 = records[AT_WORD0];
  let word1 = records[AT_WORD1];
  let word2 = records[AT_WORD2];
  let word3 = pushBytes === 0 ? records[AT_WORD3] : push0;
  let at = layout.availAt | 0;
  let wrap = layout.availWrap | 0;
  let expected = availableBits(wrap) | WRITTEN_BIT;
  let usedWord = usedBits(wrap) | WRITTEN_BIT;
  if (layout.firstAt < 0) {
    // Noted before the loop, which would be slower with it: by the second frame it must be.
    if ((loadOrdered32(desc, (at << 2) + 3) & (OWNER_BITS | SHAPE_BITS)) !== expected) return from;
    layout.noteBurst(at, wrap, desc[(at << 2) + 2]);
  }
  let sumBytes = 0;
  const end = count | 0;
  let k = from | 0;
  for (; k < end; k++) {
    const record = (isAll ? k : order[k]) << RECORD_SHIFT;
    if (allIn === MIXED && records[record + AT_WINDOW] !== sourceWindow) {
      sourceWindow = records[record + AT_WINDOW];
      if (sourceWindow === IN_PIECES) break;
      fromWindow = windows[sourceWindow];
    }
    const frameBytes = records[(record + AT_BYTES) | 0];
    const writtenBytes = (frameBytes + NET_HEADER_BYTES) | 0;
    const word = at << 2;
    const idAndFlags = loadOrdered32(desc, word + 3);
    if ((idAndFlags & (OWNER_BITS | SHAPE_BITS)) !== expected) break;
    if (desc[word + 2] >>> 0 < writtenBytes) break;
    // Only what is written needs to be shared memory; nothing beyond it is touched.
    const distance = (desc[word] - hitLo) | 0;
    if (desc[word + 1] !== hitHi || distance < 0 || distance > hitBytes - writtenBytes) break;
    const headerIndex = (hitIndex + distance) | 0;
    if ((headerIndex & 3) !== 0) break;
    if (differs) {
      if (!alike) {
        word0 = records[record + AT_WORD0];
        word1 = records[record + AT_WORD1];
        word2 = records[record + AT_WORD2];
      }
      if (hasOwnWord3) word3 = records[record + AT_WORD3];
    }
    const fromIndex = records[(record + AT_INDEX) | 0];
    writePlainFrame(
      arena,
      fromWindow,
      fromIndex,
      frameBytes,
      word0,
      word1,
      word2,
      word3,
      toWindow,
      headerIndex,
    );
    if (notesPlaces) placedAt[k] = headerIndex;
    const used = (idAndFlags & 0xffff) | usedWord;
    if (layout.firstAt < 0) {
      layout.firstAt = at;
      layout.firstWord = used;
      writeWord32(desc, word + 2, writtenBytes);
    } else writeUsedDescriptor(desc, word, writtenBytes, used);
    sumBytes = (sumBytes + frameBytes) | 0;
    at++;
    if (at === size) {
      at = 0;
      wrap ^= 1;
      expected ^= OWNER_BITS;
      usedWord ^= OWNER_BITS;
    }
  }
  if (pushBytes !== 0) writeTags(toWindow, batch, order, from, k);
  if (log !== null) log.markPlaced(translator, batch, order, from, k);
  const placed = k - from;
  layout.availAt = at;
  layout.availWrap = wrap;
  layout.usedAt = at;
  layout.usedWrap = wrap;
  layout.forgetWalked();
  ring.burstFrames += placed;
  ring.burstBytes += sumBytes;
  return k;
}
