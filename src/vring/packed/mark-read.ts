/**
 * Marks the chains used that a burst took from the driver. Their lengths stay as they are: without the flag WRITE a used
 * descriptor's length means nothing (VIRTIO 1.3, section 2.8.5). All but the first are written here, from the second on;
 * the first one, which hides the others, is left to `publish`.
 */
import * as WRITES from '../guest-writes.ts';
import type { PackedLayout } from './layout.ts';
import * as OWNERS from './owner-bits.ts';

// V8 folds a module's own constants into a loop, and loads imported ones again at each use: some 3 ns a frame.
const { OWNER_BITS, usedBits } = OWNERS;
const { writeWord32 } = WRITES;

export function markRead(layout: PackedLayout, takenCount: number): void {
  const { desc, size, takenIds, takenSlots } = layout;
  let at = layout.usedAt;
  let wrap = layout.usedWrap;
  let bits = usedBits(wrap);
  layout.firstAt = at;
  layout.firstWord = takenIds[0] | bits;
  for (let i = 0; i < takenCount; i++) {
    if (i !== 0) writeWord32(desc, (at << 2) + 3, takenIds[i] | bits);
    at += takenSlots[i];
    if (at >= size) {
      at -= size;
      wrap ^= 1;
      bits ^= OWNER_BITS;
    }
  }
  layout.usedAt = at;
  layout.usedWrap = wrap;
}
