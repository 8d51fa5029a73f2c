/**
 * How full a ring is, for who watches it: what the driver has made available and nobody has taken. Looks at the ring itself at
 * the moment that it is asked, so that no worker counts it. A guest that writes nonsense there gets a figure that makes no sense,
 * and that is all. Main thread.
 */
import { AVAIL_ENTRIES, RING_IDX } from '../../protocol/virtio/split-ring.ts';
import { STATE_AVAIL_NEXT } from '../queue/state.ts';
import type { RingAttachment } from './attachment.ts';
import { availableBits, OWNER_BITS } from './packed/owner-bits.ts';

export type WatchedRing = Pick<RingAttachment, 'layout' | 'size' | 'descOffset' | 'driverOffset'>;

const WRAP_BIT = 15;
const POSITION_MASK = 0x7fff;

/**
 * Chains of a split ring, descriptors of a packed one. Of a queue from a guest: what it has sent and waits for the switch; of one to
 * a guest: the room that it offers. Null: no ring has so many. `words`: of the ring's QueueState.
 */
export function waitingIn(buffer: ArrayBuffer, ring: WatchedRing, words: Int32Array): number | null {
  const next = words[STATE_AVAIL_NEXT];
  return ring.layout === 'split' ? waitingInSplit(buffer, ring, next) : waitingInPacked(buffer, ring, next);
}

function waitingInSplit(
  buffer: ArrayBuffer,
  { driverOffset, size }: WatchedRing,
  next: number,
): number | null {
  const [index] = new Uint16Array(buffer, driverOffset + 2 * RING_IDX, AVAIL_ENTRIES - RING_IDX);
  const waiting = (index - next) & 0xffff;
  return waiting <= size ? waiting : null;
}

/** Those that are available lie behind one another from the position on, so the first that is not is searched for. */
function waitingInPacked(buffer: ArrayBuffer, { descOffset, size }: WatchedRing, position: number): number {
  const desc = new Int32Array(buffer, descOffset, size * 4);
  const at = position & POSITION_MASK;
  const wrap = position >>> WRAP_BIT;
  const isAvailable = (distance: number): boolean => {
    const isNextRound = at + distance >= size;
    const word = ((at + distance) % size) * 4 + 3;
    return (desc[word] & OWNER_BITS) === availableBits(isNextRound ? wrap ^ 1 : wrap);
  };
  let low = 0;
  let high = size;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (isAvailable(middle)) low = middle + 1;
    else high = middle;
  }
  return low;
}
