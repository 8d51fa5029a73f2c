/**
 * Describes waiting frames of a packed ring in the batch: as split/gather.ts, for the same kind of frames. Nothing is
 * marked used here, since that would show in the ring at once; `publish` does it when the frames were copied.
 */
import * as SPLIT_RING from '../../../protocol/virtio/split-ring.ts';
import * as ORDERED from '../../memory/ordered.ts';
import type { Batch } from '../../queue/batch.ts';
import * as BATCH from '../../queue/batch.ts';
import type { FromGuest } from '../from-guest.ts';
import * as LAYOUT from '../layout.ts';
import type { PackedLayout } from './layout.ts';
import * as OWNERS from './owner-bits.ts';

// V8 folds a module's own constants into a loop, and loads imported ones again at each use: some 3 ns a frame.
const { PLAIN_FRAME_BYTES_MAX } = LAYOUT;
const { DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE } = SPLIT_RING;
const { AT_BYTES, AT_INDEX, BATCH_FRAMES_MAX, HEAD_BYTES, RECORD_SHIFT } = BATCH;
const { loadOrdered32 } = ORDERED;
const { availableBits, OWNER_BITS } = OWNERS;

const SHAPE_BITS = (DESC_F_NEXT | DESC_F_WRITE | DESC_F_INDIRECT) << 16;

/** Answers how many chains were taken. */
export function gatherPlain(layout: PackedLayout, ring: FromGuest, batch: Batch): number {
  const { desc, takenIds, takenSlots } = layout;
  // `| 0`: V8 keeps a number that it read from a field in its tagged form, and takes it out of that again at each use in
  // the loop; as an int32 it stays one (2 % of a frame, measured).
  const size = layout.size | 0;
  const { translator } = ring;
  const headerBytes = ring.headerBytes | 0;
  const { records } = batch;
  let taken = 0;
  while (taken < BATCH_FRAMES_MAX) {
    const { hitWindow } = translator;
    const hitLo = translator.hitLo | 0;
    const hitHi = translator.hitHi | 0;
    const hitBytes = translator.hitBytes | 0;
    const hitIndex = translator.hitIndex | 0;
    let at = layout.availAt | 0;
    let wrap = layout.availWrap | 0;
    let expected = availableBits(wrap);
    let count = batch.count | 0;
    let bytesMax = batch.bytesMax | 0;
    let sumBytes = 0;
    let hasMore = true;
    for (; taken < BATCH_FRAMES_MAX; taken++) {
      const word = at << 2;
      const idAndFlags = loadOrdered32(desc, word + 3);
      if ((idAndFlags & OWNER_BITS) !== expected) {
        hasMore = false;
        break;
      }
      if ((idAndFlags & SHAPE_BITS) !== 0) break;
      const chainBytes = desc[word + 2];
      const frameBytes = (chainBytes - headerBytes) | 0;
      if (frameBytes < HEAD_BYTES || frameBytes > PLAIN_FRAME_BYTES_MAX) break;
      const distance = (desc[word] - hitLo) | 0;
      if (desc[word + 1] !== hitHi || distance < 0 || distance > hitBytes - chainBytes) break;
      const record = count << RECORD_SHIFT;
      records[(record + AT_INDEX) | 0] = hitIndex + distance + headerBytes;
      records[(record + AT_BYTES) | 0] = frameBytes;
      count++;
      sumBytes = (sumBytes + frameBytes) | 0;
      if (frameBytes > bytesMax) bytesMax = frameBytes;
      takenIds[taken] = idAndFlags & 0xffff;
      takenSlots[taken] = 1;
      at++;
      if (at === size) {
        at = 0;
        wrap ^= 1;
        expected ^= OWNER_BITS;
      }
    }
    const first = batch.count;
    batch.count = count;
    batch.bytesMax = bytesMax;
    batch.bytesTaken += sumBytes;
    if (count > first) batch.noteWindow(first, hitWindow);
    ring.burstBytes += sumBytes;
    layout.availAt = at;
    layout.availWrap = wrap;
    layout.takenCount = taken;
    layout.forgetWalked();
    if (!hasMore || taken === BATCH_FRAMES_MAX || !ring.takeChain(batch)) break;
    taken++;
  }
  return taken;
}
