/**
 * Places frames of a batch in the buffers of a split ring. The loop is for frames in one piece that fit a plain
 * descriptor in the memory that the translator remembers; the first one that needs anything else ends it and takes
 * the general way (to-guest.ts), which also names what is wrong.
 */
import * as NET from '../../../protocol/virtio/net.ts';
import * as SPLIT_RING from '../../../protocol/virtio/split-ring.ts';
import type { Batch } from '../../queue/batch.ts';
import * as BATCH from '../../queue/batch.ts';
import * as WRITES from '../guest-writes.ts';
import type { ToGuest } from '../to-guest.ts';
import type { SplitLayout } from './layout.ts';

// V8 folds a module's own constants into a loop, and loads imported ones again at each use: some 3 ns a frame.
const { NET_HEADER_BYTES } = NET;
const { AVAIL_ENTRIES, DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE, USED_ENTRIES } = SPLIT_RING;
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
const { writePlainFrame, writeTags, writeUsedEntry } = WRITES;

const SHAPE_FLAGS = DESC_F_NEXT | DESC_F_WRITE | DESC_F_INDIRECT;

/** Answers the place in `order` of the frame that it left, or `count`. */
export function placePlain(
  layout: SplitLayout,
  ring: ToGuest,
  batch: Batch,
  order: Int32Array,
  from: number,
  count: number,
): number {
  const { desc, avail, used32 } = layout;
  // `| 0`: V8 keeps a number that it read from a field in its tagged form, and takes it out of that again at each use in
  // the loop; as an int32 it stays one (2 % of a frame, measured).
  const mask = layout.mask | 0;
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
  if (headerBytes !== NET_HEADER_BYTES || hitBytes < 0 || !ring.hasWaiting()) return from;
  const waiting = (layout.availSeen - layout.availNext) & 0xffff;
  let end = (from + waiting) | 0;
  if (end > count) end = count | 0;
  const toWindow = windows[hitWindow];
  const availNext = (layout.availNext - from) | 0;
  const usedNext = (layout.usedNext - from) | 0;
  let sourceWindow = batch.windowOf(order[from]) | 0;
  if (sourceWindow === IN_PIECES) return from;
  let fromWindow = windows[sourceWindow];
  let word0 = records[AT_WORD0];
  let word1 = records[AT_WORD1];
  let word2 = records[AT_WORD2];
  let word3 = pushBytes === 0 ? records[AT_WORD3] : push0;
  let sumBytes = 0;
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
    const head = avail[AVAIL_ENTRIES + ((availNext + k) & mask)];
    if (head >= size) break;
    const at = head << 2;
    if ((desc[at + 3] & SHAPE_FLAGS) !== DESC_F_WRITE) break;
    if (desc[at + 2] >>> 0 < writtenBytes) break;
    // Only what is written needs to be shared memory; nothing beyond it is touched.
    const distance = (desc[at] - hitLo) | 0;
    if (desc[at + 1] !== hitHi || distance < 0 || distance > hitBytes - writtenBytes) break;
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
    writeUsedEntry(used32, USED_ENTRIES + (((usedNext + k) & mask) << 1), head, writtenBytes);
    sumBytes = (sumBytes + frameBytes) | 0;
  }
  if (pushBytes !== 0) writeTags(toWindow, batch, order, from, k);
  if (log !== null) log.markPlaced(translator, batch, order, from, k);
  const placed = k - from;
  layout.availNext = (layout.availNext + placed) & 0xffff;
  layout.usedNext = (layout.usedNext + placed) & 0xffff;
  ring.burstFrames += placed;
  ring.burstBytes += sumBytes;
  return k;
}
