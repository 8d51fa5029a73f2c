/**
 * A hash of the flow that a frame belongs to, so that one flow's frames stay in order on one queue: addresses,
 * protocol and ports of IPv4 and IPv6, behind up to two VLAN tags; otherwise the MAC addresses. Hot path,
 * only for ports with several queues. Not secret: a guest that picks its flows picks its peer's queues.
 */

import {
  ETHERNET_HEADER_BYTES,
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  ETHERTYPE_QINQ,
  ETHERTYPE_VLAN,
  VLAN_TAG_BYTES,
} from '../../protocol/ethernet.ts';
import * as IP from '../../protocol/ip.ts';
import type { FrameHead } from '../../src/queue/frame-head.ts';

// V8 folds a module's own constants, and loads imported ones again at each use.
const { IPV4_FRAGMENT_MASK, PROTOCOL_SCTP, PROTOCOL_TCP, PROTOCOL_UDP } = IP;

/** A non-negative int31. */
export function flowHash({ bytes: head, start, end, word0, word1, word2 }: FrameHead): number {
  let at = start + ETHERNET_HEADER_BYTES;
  let etherType = be16(head, at - 2);
  for (let tag = 0; tag < 2 && (etherType === ETHERTYPE_VLAN || etherType === ETHERTYPE_QINQ); tag++) {
    at += VLAN_TAG_BYTES;
    if (at > end) break;
    etherType = be16(head, at - 2);
  }
  let hash = 0;
  if (etherType === ETHERTYPE_IPV4 && at + 20 <= end) hash = hashIpv4(head, at, end);
  else if (etherType === ETHERTYPE_IPV6 && at + 40 <= end) hash = hashIpv6(head, at, end);
  else hash = mix(mix(mix(0, word0), word1), word2);
  return finish(hash);
}

/** The queue, 0 to `count` - 1, that a hash falls on. */
export function queueOfHash(hash: number, count: number): number {
  // The hash's 31 bits as a fraction of `count`; no division.
  return (((hash >>> 15) & 0xffff) * count) >>> 16;
}

function hashIpv4(head: Uint8Array, at: number, end: number): number {
  const hash = mix(mix(head[at + 9], be32(head, at + 12)), be32(head, at + 16));
  const transport = at + ((head[at] & 0x0f) << 2);
  // Fragments after the first carry no ports, so no fragment may use them.
  const isFragment = (be16(head, at + 6) & IPV4_FRAGMENT_MASK) !== 0;
  return isFragment ? hash : mixPorts(hash, head, transport, end, head[at + 9]);
}

function hashIpv6(head: Uint8Array, at: number, end: number): number {
  let hash = head[at + 6];
  for (let word = at + 8; word < at + 40; word += 4) hash = mix(hash, be32(head, word));
  return mixPorts(hash, head, at + 40, end, head[at + 6]);
}

function mixPorts(hash: number, head: Uint8Array, at: number, end: number, protocol: number): number {
  const hasPorts = protocol === PROTOCOL_TCP || protocol === PROTOCOL_UDP || protocol === PROTOCOL_SCTP;
  return hasPorts && at + 4 <= end ? mix(hash, be32(head, at)) : hash;
}

function mix(hash: number, word: number): number {
  const mixed = Math.imul(hash ^ word, 0x9e3779b1);
  return mixed ^ (mixed >>> 15);
}

function finish(hash: number): number {
  const mixed = Math.imul(hash ^ (hash >>> 13), 0x85ebca6b);
  return (mixed ^ (mixed >>> 16)) & 0x7fffffff;
}

function be16(bytes: Uint8Array, at: number): number {
  return (bytes[at] << 8) | bytes[at + 1];
}

function be32(bytes: Uint8Array, at: number): number {
  return (bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3];
}
