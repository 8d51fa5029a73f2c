/**
 * Completes the checksum of a frame that was copied whole, in the copy: for captures, which show a frame as one even if it
 * is to be cut into segments. What is handed to receivers is completion.ts. Hot path of a port that is captured; allocates
 * nothing.
 */
import type { Window } from '../memory/window.ts';
import type { Batch } from '../queue/batch.ts';
import { OFFLOAD_SEGMENTS, OFFLOAD_USO4, OFFLOAD_USO6 } from '../queue/requests.ts';
import { checksumOf, folded, sumBytes, swapped16 } from './checksum.ts';

const PROTOCOL_TCP = 6;
const PROTOCOL_UDP = 17;
/** Where the addresses stand in the headers, and how long both are. */
const IP4_ADDRESSES_AT = 12;
const IP4_ADDRESSES_BYTES = 8;
const IP6_ADDRESSES_AT = 8;
const IP6_ADDRESSES_BYTES = 32;

/**
 * The frame of the batch stands in the window from `index` on, all `sizeBytes` of it, with the tags that it gets. Of one
 * to be segmented the checksum is that of the whole as one packet, with a pseudo header of our own: what a guest puts there is
 * for segments, and not all put the same.
 */
export function completeChecksum(
  batch: Batch,
  frame: number,
  window: Window,
  index: number,
  sizeBytes: number,
): void {
  const { requests, tags } = batch;
  const start = tags.pushBytes + requests.csumStartOf(frame);
  const field = start + requests.csumOffsetOf(frame);
  if (start >= sizeBytes || field + 2 > sizeBytes) return;
  const needs = requests.needsOf(frame);
  let sum = 0;
  if ((needs & OFFLOAD_SEGMENTS) !== 0) {
    putWord(window, index + field, 0);
    const network = tags.pushBytes + requests.networkStartOf(frame);
    sum = pseudoHeaderSum(
      window,
      index + network,
      (needs & (OFFLOAD_USO4 | OFFLOAD_USO6)) !== 0,
      sizeBytes - start,
    );
  }
  sum += sumBytes(window, index + start, sizeBytes - start);
  putWord(window, index + field, checksumOf(folded(sum)) || 0xffff);
}

function pseudoHeaderSum(window: Window, ipIndex: number, isUdp: boolean, payloadBytes: number): number {
  const isIp6 = window.u8[ipIndex] >>> 4 === 6;
  const sum = isIp6
    ? sumBytes(window, ipIndex + IP6_ADDRESSES_AT, IP6_ADDRESSES_BYTES)
    : sumBytes(window, ipIndex + IP4_ADDRESSES_AT, IP4_ADDRESSES_BYTES);
  const length = swapped16(payloadBytes & 0xffff) + swapped16(payloadBytes >>> 16);
  return sum + length + swapped16(isUdp ? PROTOCOL_UDP : PROTOCOL_TCP);
}

/** As it is summed: in the order of memory. */
function putWord({ u8 }: Window, index: number, word: number): void {
  u8[index] = word;
  u8[index + 1] = word >>> 8;
}
