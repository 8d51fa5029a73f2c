/**
 * Describes waiting frames of a split ring in the batch. The loop is for frames that are one plain descriptor in
 * the piece of memory that the translator remembers; the first one that is anything else takes the general way
 * (from-guest.ts), which also names what is wrong with it. The checks are the same in both: each field of guest memory
 * is read once, and what was checked is what is used. Used entries are written here, and seen by the driver
 * only when the index moves, at the end of the burst.
 */
import * as SPLIT_RING from '../../../protocol/virtio/split-ring.ts';
import type { Batch } from '../../queue/batch.ts';
import * as BATCH from '../../queue/batch.ts';
import type { FromGuest } from '../from-guest.ts';
import * as WRITES from '../guest-writes.ts';
import * as LAYOUT from '../layout.ts';
import type { SplitLayout } from './layout.ts';

// V8 folds a module's own constants into a loop, and loads imported ones again at each use: some 3 ns a frame.
const { PLAIN_FRAME_BYTES_MAX } = LAYOUT;
const { AVAIL_ENTRIES, DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE, USED_ENTRIES } = SPLIT_RING;
const { AT_BYTES, AT_INDEX, BATCH_FRAMES_MAX, HEAD_BYTES, RECORD_SHIFT } = BATCH;
const { writeUsedEntry } = WRITES;

const SHAPE_FLAGS = DESC_F_NEXT | DESC_F_WRITE | DESC_F_INDIRECT;

/** Answers how many chains were taken. */
export function gatherPlain(layout: SplitLayout, ring: FromGuest, batch: Batch): number {
  const { desc, avail, used32 } = layout;
  // `| 0`: V8 keeps a number that it read from a field in its tagged form, and takes it out of that again at each use in
  // the loop; as an int32 it stays one (2 % of a frame, measured).
  const mask = layout.mask | 0;
  const size = layout.size | 0;
  const { translator } = ring;
  const headerBytes = ring.headerBytes | 0;
  const { records } = batch;
  let waiting = (layout.availSeen - layout.availNext) & 0xffff;
  if (waiting > BATCH_FRAMES_MAX) waiting = BATCH_FRAMES_MAX;
  let taken = 0;
  while (taken < waiting) {
    const { hitWindow } = translator;
    const hitLo = translator.hitLo | 0;
    const hitHi = translator.hitHi | 0;
    const hitBytes = translator.hitBytes | 0;
    const hitIndex = translator.hitIndex | 0;
    const availNext = (layout.availNext - taken) | 0;
    const usedNext = (layout.usedNext - taken) | 0;
    const start = taken;
    let count = batch.count | 0;
    let bytesMax = batch.bytesMax | 0;
    let sumBytes = 0;
    for (; taken < waiting; taken++) {
      const head = avail[AVAIL_ENTRIES + ((availNext + taken) & mask)];
      if (head >= size) break;
      const at = head << 2;
      if ((desc[at + 3] & SHAPE_FLAGS) !== 0) break;
      const chainBytes = desc[at + 2];
      const frameBytes = (chainBytes - headerBytes) | 0;
      // A length of 2 GiB and more is negative here.
      if (frameBytes < HEAD_BYTES || frameBytes > PLAIN_FRAME_BYTES_MAX) break;
      const distance = (desc[at] - hitLo) | 0;
      if (desc[at + 1] !== hitHi || distance < 0 || distance > hitBytes - chainBytes) break;
      const record = count << RECORD_SHIFT;
      records[(record + AT_INDEX) | 0] = hitIndex + distance + headerBytes;
      records[(record + AT_BYTES) | 0] = frameBytes;
      count++;
      sumBytes = (sumBytes + frameBytes) | 0;
      if (frameBytes > bytesMax) bytesMax = frameBytes;
      writeUsedEntry(used32, USED_ENTRIES + (((usedNext + taken) & mask) << 1), head, 0);
    }
    const first = batch.count;
    batch.count = count;
    batch.bytesMax = bytesMax;
    batch.bytesTaken += sumBytes;
    if (count > first) batch.noteWindow(first, hitWindow);
    ring.burstBytes += sumBytes;
    layout.availNext = (layout.availNext + taken - start) & 0xffff;
    layout.usedNext = (layout.usedNext + taken - start) & 0xffff;
    if (taken === waiting || !ring.takeChain(batch)) break;
    taken++;
  }
  return taken;
}
