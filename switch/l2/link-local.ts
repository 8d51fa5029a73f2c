/**
 * Stage: frames to 01:80:C2:00:00:00 to 0F, the addresses that a bridge does not pass on (IEEE 802.1Q, table 8-1):
 * PAUSE, spanning tree, LACP, 802.1X, LLDP. Each is meant for whoever is at the other end of this very link, and sent
 * on it would stop, split or merge links that it says nothing about. Look-up marks them with a target of their own;
 * whether they are dropped or flooded the sender's policy says. Their sources are learned, as any. Hot path of one worker.
 */
import { DROP } from './drop-reasons.ts';
import type { ForwardingPort } from './forwarding-port.ts';

/** Whether the frame's destination, as look-up has it, is one of them; asked only about group addresses. */
export function isLinkLocal(word0: number, word1: number): boolean {
  // In memory's order 01 80 c2 00, then 00 and 00 to 0f; the upper half of the second word is the source's.
  return word0 === 0x00c28001 && (word1 & 0xf0ff) === 0;
}

/** Books `frames` of `sender` as kept to its link. */
export function dropLinkLocal(sender: ForwardingPort, frames: number): void {
  sender.counts[DROP.linkLocal] += frames;
}
