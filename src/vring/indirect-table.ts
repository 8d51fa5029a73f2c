/**
 * An indirect descriptor's table (VIRTIO 1.3, sections 2.7.5.3 and 2.8.7), as far as both layouts treat it alike:
 * where it lies, checked whole, and its words, which need no alignment.
 */
import { DESC_BYTES } from '../../protocol/virtio/split-ring.ts';
import type { Window } from '../memory/window.ts';
import { RING_FAULT } from './faults.ts';
import type { Ring } from './ring.ts';

/** What fits the overlap of two windows (arena-view.ts), so that a table can be read through one. */
const ENTRIES_MAX = 65_535;

/** Index of the table in `tableWindow`, or a RING_FAULT as a negative number. */
export function locateTable(ring: Ring, gpaLo: number, gpaHi: number, tableBytes: number): number {
  if (!ring.indirect) return -RING_FAULT.INDIRECT_NOT_NEGOTIATED;
  const entryCount = (tableBytes >>> 0) / DESC_BYTES;
  if (entryCount === 0 || entryCount > ENTRIES_MAX || (tableBytes & (DESC_BYTES - 1)) !== 0) {
    return -RING_FAULT.INDIRECT_LENGTH;
  }
  const index = ring.tables.locate(gpaLo, gpaHi, tableBytes);
  if (index >= 0) return index;
  return ring.isTranslated && isThere(ring, gpaLo, gpaHi, tableBytes)
    ? -RING_FAULT.INDIRECT_SCATTERED
    : -RING_FAULT.INDIRECT_ADDRESS;
}

/** Whether all of it is known, in several pieces; otherwise the translator tells of the first byte that is not. */
function isThere({ tables }: Ring, gpaLo: number, gpaHi: number, tableBytes: number): boolean {
  for (let done = 0; done < tableBytes; done += tables.contiguousBytes)
    if (tables.locateSome(gpaLo, gpaHi, done, tableBytes - done) < 0) return false;
  return true;
}

/** The window of the table last located. */
export function tableWindow(ring: Ring): Window {
  return ring.arena.windows[ring.tables.window];
}

/** A little-endian int32 at a byte index. */
export function tableWord(window: Window, index: number): number {
  if ((index & 3) === 0) return window.i32[index >> 2];
  const { u8 } = window;
  return u8[index] | (u8[index + 1] << 8) | (u8[index + 2] << 16) | (u8[index + 3] << 24);
}
