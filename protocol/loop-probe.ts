/**
 * The frame by which the switch finds loops that lie outside of it: it sends one out of a port now and then, and should
 * never see it come in again. Broadcast, so that every bridge passes it on; an EtherType for local experiments (IEEE Std
 * 802, 9.2.4), of which nobody but the sender knows the meaning.
 *
 *     6 bytes   ff:ff:ff:ff:ff:ff
 *     6 bytes   the sender's address, by which it knows its own
 *     2 bytes   0x88b5
 *     4 bytes   "RWLP"
 *    16 bytes   a number that was never used before and that nobody can guess
 *    zeros up to 60 bytes
 */
import { ETHERNET_HEADER_BYTES } from './ethernet.ts';

export const ETHERTYPE_LOOP_PROBE = 0x88b5;
export const LOOP_PROBE_BYTES = 60;
export const LOOP_PROBE_NUMBER_BYTES = 16;
const MAGIC = [0x52, 0x57, 0x4c, 0x50];
/** Where the number stands. */
export const LOOP_PROBE_NUMBER_AT = ETHERNET_HEADER_BYTES + MAGIC.length;

/** `mac`: six bytes; `number`: of LOOP_PROBE_NUMBER_BYTES. */
export function loopProbe(mac: Iterable<number>, number: Uint8Array): Uint8Array {
  const frame = new Uint8Array(LOOP_PROBE_BYTES);
  frame.fill(0xff, 0, 6);
  frame.set([...mac], 6);
  frame.set([ETHERTYPE_LOOP_PROBE >> 8, ETHERTYPE_LOOP_PROBE & 0xff], 12);
  frame.set(MAGIC, ETHERNET_HEADER_BYTES);
  frame.set(number, LOOP_PROBE_NUMBER_AT);
  return frame;
}
