/**
 * Walks a descriptor chain of a packed ring (VIRTIO 1.3, sections 2.8.5 to 2.8.7): its descriptors stand one after the
 * other, the last one has the buffer's id, and an indirect table is a list without links. Bounded (descriptor-list.ts),
 * each field read once. The first descriptor says that the chain is available; the driver has written the others
 * before it.
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
import type { PackedLayout } from './layout.ts';

/** Appends the chain that starts at `start` to `list`; leaves id and length in the layout. Answers a RING_FAULT. */
export function walkChain(ring: Ring, layout: PackedLayout, start: number, list: DescriptorList): number {
  const { desc, size } = layout;
  let at = start;
  for (let visited = 1; visited <= size; visited++) {
    const word = at << 2;
    const idAndFlags = desc[word + 3];
    const flags = idAndFlags >>> 16;
    layout.chainId = idAndFlags & 0xffff;
    layout.chainSlots = visited;
    if ((flags & DESC_F_INDIRECT) !== 0) {
      if ((flags & DESC_F_NEXT) !== 0 || visited > 1) return RING_FAULT.INDIRECT_WITH_NEXT;
      return walkTable(ring, layout, desc[word], desc[word + 1], desc[word + 2], list);
    }
    if (!list.add(desc[word], desc[word + 1], desc[word + 2], flags & DESC_F_WRITE)) {
      return RING_FAULT.CHAIN_TOO_LONG;
    }
    if ((flags & DESC_F_NEXT) === 0) return RING_FAULT.NONE;
    at++;
    if (at === size) at = 0;
  }
  return RING_FAULT.CHAIN_LOOP;
}

/**
 * Of an entry's flags only WRITE counts, and not even that in what a guest sends, where nothing is ever written: DPDK's
 * driver initialises its tables with it and leaves it on the first entry, and now and then on another one
 * (drivers/net/virtio, vring_desc_init_indirect_packed and virtqueue_enqueue_xmit_packed).
 */
function walkTable(
  ring: Ring,
  layout: PackedLayout,
  gpaLo: number,
  gpaHi: number,
  tableBytes: number,
  list: DescriptorList,
): number {
  const index = locateTable(ring, gpaLo, gpaHi, tableBytes);
  if (index < 0) return -index;
  const window = tableWindow(ring);
  const endIndex = index + (tableBytes >>> 0);
  const writeFlag = layout.isFromGuest ? 0 : DESC_F_WRITE;
  for (let at = index; at < endIndex; at += DESC_BYTES) {
    const writable = (tableWord(window, at + 12) >>> 16) & writeFlag;
    const lo = tableWord(window, at);
    if (!list.add(lo, tableWord(window, at + 4), tableWord(window, at + 8), writable)) {
      return RING_FAULT.CHAIN_TOO_LONG;
    }
  }
  return RING_FAULT.NONE;
}
