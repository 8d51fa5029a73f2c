/**
 * Walks a descriptor chain of a split ring (VIRTIO 1.3, section 2.7.5) that is more than one plain
 * descriptor: bounded, each field read once, indirect tables checked whole. What it finds is copied into a
 * DescriptorList, so that later steps use what was checked and not what the guest made of it meanwhile.
 */
import { DESC_BYTES, DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE } from '../../protocol/virtio/split-ring.ts';
import type { Window } from '../memory/arena-view.ts';
import { RING_FAULT } from './faults.ts';
import type { SplitRing } from './split-ring.ts';

/** Most descriptors of a chain that are kept; a longer chain is legal but no frame needs it. */
export const CHAIN_DESCRIPTORS_MAX = 1024;
const INDIRECT_ENTRIES_MAX = 65_535;

/** The buffers of one or several chains, in order. */
export class DescriptorList {
  count = 0;
  /** A chain had more descriptors than fit: what is here is not all of it. */
  overflowed = false;
  readonly gpaLo = new Int32Array(CHAIN_DESCRIPTORS_MAX);
  readonly gpaHi = new Int32Array(CHAIN_DESCRIPTORS_MAX);
  /** uint32 carried as int32. */
  readonly sizeBytes = new Int32Array(CHAIN_DESCRIPTORS_MAX);
  /** DESC_F_WRITE or 0. */
  readonly writable = new Int32Array(CHAIN_DESCRIPTORS_MAX);

  clear(): void {
    this.count = 0;
    this.overflowed = false;
  }

  add(gpaLo: number, gpaHi: number, sizeBytes: number, writable: number): void {
    if (this.count === CHAIN_DESCRIPTORS_MAX) {
      this.overflowed = true;
      return;
    }
    this.gpaLo[this.count] = gpaLo;
    this.gpaHi[this.count] = gpaHi;
    this.sizeBytes[this.count] = sizeBytes;
    this.writable[this.count] = writable;
    this.count++;
  }
}

/** Appends the chain that starts at `head` to `list`. Answers a RING_FAULT. */
export function walkChain(ring: SplitRing, head: number, list: DescriptorList): number {
  if (head >= ring.size) return RING_FAULT.HEAD_OUT_OF_RANGE;
  const desc = ring.desc;
  let index = head;
  for (let visited = 0; visited < ring.size; visited++) {
    const at = index << 2;
    const gpaLo = desc[at];
    const gpaHi = desc[at + 1];
    const sizeBytes = desc[at + 2];
    const flagsAndNext = desc[at + 3];
    if ((flagsAndNext & DESC_F_INDIRECT) !== 0) {
      if ((flagsAndNext & DESC_F_NEXT) !== 0) return RING_FAULT.INDIRECT_WITH_NEXT;
      return walkIndirect(ring, gpaLo, gpaHi, sizeBytes, list);
    }
    list.add(gpaLo, gpaHi, sizeBytes, flagsAndNext & DESC_F_WRITE);
    if ((flagsAndNext & DESC_F_NEXT) === 0) return RING_FAULT.NONE;
    index = flagsAndNext >>> 16;
    if (index >= ring.size) return RING_FAULT.NEXT_OUT_OF_RANGE;
  }
  return RING_FAULT.CHAIN_LOOP;
}

function walkIndirect(
  ring: SplitRing,
  tableGpaLo: number,
  tableGpaHi: number,
  tableBytes: number,
  list: DescriptorList,
): number {
  if (!ring.indirect) return RING_FAULT.INDIRECT_NOT_NEGOTIATED;
  const entryCount = (tableBytes >>> 0) / DESC_BYTES;
  if (entryCount === 0 || entryCount > INDIRECT_ENTRIES_MAX || (tableBytes & (DESC_BYTES - 1)) !== 0) {
    return RING_FAULT.INDIRECT_LENGTH;
  }
  const tableIndex = ring.translator.locate(tableGpaLo, tableGpaHi, tableBytes);
  if (tableIndex < 0) return RING_FAULT.INDIRECT_ADDRESS;
  const window = ring.arena.windows[ring.translator.window];
  let entry = 0;
  for (let visited = 0; visited < entryCount; visited++) {
    const at = tableIndex + entry * DESC_BYTES;
    const flagsAndNext = wordAt(window, at + 12);
    if ((flagsAndNext & DESC_F_INDIRECT) !== 0) return RING_FAULT.INDIRECT_NESTED;
    list.add(wordAt(window, at), wordAt(window, at + 4), wordAt(window, at + 8), flagsAndNext & DESC_F_WRITE);
    if ((flagsAndNext & DESC_F_NEXT) === 0) return RING_FAULT.NONE;
    entry = flagsAndNext >>> 16;
    if (entry >= entryCount) return RING_FAULT.NEXT_OUT_OF_RANGE;
  }
  return RING_FAULT.CHAIN_LOOP;
}

/** A little-endian int32 at a byte index; indirect tables need no alignment. */
function wordAt(window: Window, index: number): number {
  if ((index & 3) === 0) return window.i32[index >> 2];
  const { u8 } = window;
  return u8[index] | (u8[index + 1] << 8) | (u8[index + 2] << 16) | (u8[index + 3] << 24);
}
