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
  const { desc, size, takenIds, takenSlots } = layout;
  const { translator, headerBytes } = ring;
  const { records } = batch;
  let taken = 0;
  while (taken < BATCH_FRAMES_MAX) {
    const { hitLo, hitHi, hitBytes, hitIndex, hitWindow } = translator;
    let at = layout.availAt;
    let wrap = layout.availWrap;
    let expected = availableBits(wrap);
    let count = batch.count;
    let bytesMax = batch.bytesMax;
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
      const frameBytes = chainBytes - headerBytes;
      if (frameBytes < HEAD_BYTES || frameBytes > PLAIN_FRAME_BYTES_MAX) break;
      const distance = (desc[word] - hitLo) | 0;
      if (desc[word + 1] !== hitHi || distance < 0 || distance > hitBytes - chainBytes) break;
      const record = count << RECORD_SHIFT;
      records[record + AT_INDEX] = hitIndex + distance + headerBytes;
      records[record + AT_BYTES] = frameBytes;
      count++;
      sumBytes += frameBytes;
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
