/**
 * Walks a descriptor chain of a split ring (VIRTIO 1.3, section 2.7.5): bounded (descriptor-list.ts), each field read
 * once, indirect tables checked whole.
 */
import {
  DESC_BYTES,
  DESC_F_INDIRECT,
  DESC_F_NEXT,
  DESC_F_WRITE,
} from '../../../protocol/virtio/split-ring.ts';
import type { DescriptorList } from '../descriptor-list.ts';
import { RING_FAULT } from '../faults.ts';
import { locateTable, tableWindow, tableWord } from '../indirect-table.ts';
import type { Ring } from '../ring.ts';
import type { SplitLayout } from './layout.ts';

/** Appends the chain that starts at `head` to `list`. Answers a RING_FAULT. */
export function walkChain(ring: Ring, layout: SplitLayout, head: number, list: DescriptorList): number {
  const { desc, size } = layout;
  if (head >= size) return RING_FAULT.HEAD_OUT_OF_RANGE;
  let index = head;
  for (let visited = 0; visited < size; visited++) {
    const at = index << 2;
    const gpaLo = desc[at];
    const gpaHi = desc[at + 1];
    const sizeBytes = desc[at + 2];
    const flagsAndNext = desc[at + 3];
    if ((flagsAndNext & DESC_F_INDIRECT) !== 0) {
      if ((flagsAndNext & DESC_F_NEXT) !== 0) return RING_FAULT.INDIRECT_WITH_NEXT;
      return walkTable(ring, gpaLo, gpaHi, sizeBytes, list);
    }
    if (!list.add(gpaLo, gpaHi, sizeBytes, flagsAndNext & DESC_F_WRITE)) return RING_FAULT.CHAIN_TOO_LONG;
    if ((flagsAndNext & DESC_F_NEXT) === 0) return RING_FAULT.NONE;
    index = flagsAndNext >>> 16;
    if (index >= size) return RING_FAULT.NEXT_OUT_OF_RANGE;
  }
  return RING_FAULT.CHAIN_LOOP;
}

/** Section 2.7.5.3: the entries are a chain of their own. */
function walkTable(
  ring: Ring,
  gpaLo: number,
  gpaHi: number,
  tableBytes: number,
  list: DescriptorList,
): number {
  const index = locateTable(ring, gpaLo, gpaHi, tableBytes);
  if (index < 0) return -index;
  const window = tableWindow(ring);
  const entryCount = (tableBytes >>> 0) / DESC_BYTES;
  let entry = 0;
  for (let visited = 0; visited < entryCount; visited++) {
    const at = index + entry * DESC_BYTES;
    const flagsAndNext = tableWord(window, at + 12);
    if ((flagsAndNext & DESC_F_INDIRECT) !== 0) return RING_FAULT.INDIRECT_NESTED;
    const lo = tableWord(window, at);
    const hi = tableWord(window, at + 4);
    const sizeBytes = tableWord(window, at + 8);
    if (!list.add(lo, hi, sizeBytes, flagsAndNext & DESC_F_WRITE)) return RING_FAULT.CHAIN_TOO_LONG;
    if ((flagsAndNext & DESC_F_NEXT) === 0) return RING_FAULT.NONE;
    entry = flagsAndNext >>> 16;
    if (entry >= entryCount) return RING_FAULT.NEXT_OUT_OF_RANGE;
  }
  return RING_FAULT.CHAIN_LOOP;
}
