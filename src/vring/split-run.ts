/**
 * The fast path between two split rings: moves a run of frames that are all alike in one tight loop, with
 * everything that stays the same held in locals. A frame belongs to the run when it is one plain descriptor,
 * goes into one plain descriptor, both lie in the pieces of memory that the translators remember, and its
 * addresses are those of the run's flow. The first frame that is anything else ends the run and takes the
 * general path (split-from-guest.ts, split-to-guest.ts), which also names what is wrong with it; so nothing
 * here reports a fault. The checks are the same: each field of guest memory is read once, and what was
 * checked is what is used. Hot path of one worker; the target queue must be open.
 */
import { FRAME_BYTES_MIN } from '../../protocol/ethernet.ts';
import { NET_HEADER_BYTES } from '../../protocol/virtio/net.ts';
import { DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE } from '../../protocol/virtio/split-ring.ts';
import { copyBytes } from '../queue/copy.ts';
import type { SplitFromGuest } from './split-from-guest.ts';
import { AVAIL_ENTRIES, ONE_BUFFER, USED_ENTRIES } from './split-ring.ts';
import type { SplitToGuest } from './split-to-guest.ts';

const SHAPE_FLAGS = DESC_F_NEXT | DESC_F_WRITE | DESC_F_INDIRECT;

/**
 * Moves up to `framesMax` waiting frames whose first twelve bytes are the given words, in the bits of their
 * masks, and that have at most `frameBytesMax` bytes. Answers how many; their descriptors are used on both sides, to be published.
 */
export function moveRun(
  from: SplitFromGuest,
  to: SplitToGuest,
  framesMax: number,
  word0: number,
  word1: number,
  word2: number,
  mask0: number,
  mask1: number,
  frameBytesMax: number,
): number {
  const headerBytes = from.headerBytes;
  const source = from.translator;
  const target = to.translator;
  if (headerBytes !== NET_HEADER_BYTES || to.headerBytes !== NET_HEADER_BYTES) return 0;
  if (source.hitBytes < 0 || target.hitBytes < 0) return 0;
  const framesWanted = Math.min(framesMax, to.available());
  const fromWindow = from.arena.windows[source.hitWindow];
  const toWindow = from.arena.windows[target.hitWindow];
  const from32 = fromWindow.i32;
  const to32 = toWindow.i32;
  const sourceLo = source.hitLo;
  const sourceHi = source.hitHi;
  const sourceBytes = source.hitBytes;
  const sourceIndex = source.hitIndex;
  const targetLo = target.hitLo;
  const targetHi = target.hitHi;
  const targetBytes = target.hitBytes;
  const targetIndex = target.hitIndex;
  const fromDesc = from.desc;
  const fromAvail = from.avail;
  const fromUsed = from.used32;
  const fromSize = from.size;
  const toDesc = to.desc;
  const toAvail = to.avail;
  const toUsed = to.used32;
  const toSize = to.size;
  const fromNext = from.availNext;
  const fromUsedNext = from.usedNext;
  const toNext = to.availNext;
  const toUsedNext = to.usedNext;
  let runBytes = 0;
  let moved = 0;
  for (; moved < framesWanted; moved++) {
    const fromHead = fromAvail[AVAIL_ENTRIES + ((fromNext + moved) & (fromSize - 1))];
    if (fromHead >= fromSize) break;
    const fromAt = fromHead << 2;
    if ((fromDesc[fromAt + 3] & SHAPE_FLAGS) !== 0) break;
    const chainBytes = fromDesc[fromAt + 2];
    const frameBytes = chainBytes - NET_HEADER_BYTES;
    if (frameBytes < FRAME_BYTES_MIN || frameBytes > frameBytesMax) break;
    const fromDistance = (fromDesc[fromAt] - sourceLo) | 0;
    if (fromDesc[fromAt + 1] !== sourceHi || fromDistance < 0 || fromDistance > sourceBytes - chainBytes)
      break;
    const fromIndex = sourceIndex + fromDistance + NET_HEADER_BYTES;
    if ((fromIndex & 3) !== 0) break;
    const fromWord = fromIndex >> 2;
    if ((from32[fromWord] & mask0) !== word0 || (from32[fromWord + 1] & mask1) !== word1) break;
    if (from32[fromWord + 2] !== word2) break;

    const toHead = toAvail[AVAIL_ENTRIES + ((toNext + moved) & (toSize - 1))];
    if (toHead >= toSize) break;
    const toAt = toHead << 2;
    if ((toDesc[toAt + 3] & SHAPE_FLAGS) !== DESC_F_WRITE) break;
    if (toDesc[toAt + 2] >>> 0 < chainBytes) break;
    const toDistance = (toDesc[toAt] - targetLo) | 0;
    if (toDesc[toAt + 1] !== targetHi || toDistance < 0 || toDistance > targetBytes - chainBytes) break;
    const headerIndex = targetIndex + toDistance;
    if ((headerIndex & 3) !== 0) break;

    // Only what differs is written, here and in the used rings: drivers read these lines over and over, and a
    // line that nobody writes stays in both processors' caches.
    const headerWord = headerIndex >> 2;
    if (to32[headerWord] !== 0) to32[headerWord] = 0;
    if (to32[headerWord + 1] !== 0) to32[headerWord + 1] = 0;
    if (to32[headerWord + 2] !== ONE_BUFFER) to32[headerWord + 2] = ONE_BUFFER;
    const toIndex = headerIndex + NET_HEADER_BYTES;
    copyBytes(from.arena, fromWindow, fromIndex, toWindow, toIndex, frameBytes);

    const fromUsedAt = USED_ENTRIES + (((fromUsedNext + moved) & (fromSize - 1)) << 1);
    if (fromUsed[fromUsedAt] !== fromHead) fromUsed[fromUsedAt] = fromHead;
    if (fromUsed[fromUsedAt + 1] !== 0) fromUsed[fromUsedAt + 1] = 0;
    const toUsedAt = USED_ENTRIES + (((toUsedNext + moved) & (toSize - 1)) << 1);
    if (toUsed[toUsedAt] !== toHead) toUsed[toUsedAt] = toHead;
    if (toUsed[toUsedAt + 1] !== chainBytes) toUsed[toUsedAt + 1] = chainBytes;
    runBytes += frameBytes;
  }
  from.skip(moved, runBytes);
  to.skip(moved, runBytes);
  return moved;
}
