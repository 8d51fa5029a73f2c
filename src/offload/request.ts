/**
 * Takes a frame's request: checks the virtio-net header that its sender wrote, all of it and against the frame, and notes
 * it in the batch's side table (src/queue/requests.ts); or says why the frame must be dropped. A header is the guest's
 * word: the caller reads its three words once and hands them over as numbers, the frame's headers are read once into the
 * table, and from then on only these are used. VIRTIO 1.3, section 5.1.6.2. Hot path: allocates nothing, and a frame
 * costs the copy of REQUEST_HEADER_BYTES_MAX bytes at most.
 *
 *     word0, word1, word2 = the header's words, read once
 *     if (asksNothing(word0)) …nearly all frames of most guests: nothing is to be noted
 *     else why = takeRequest(batch, frame, windows, word0, word1, word2, agreed); if (why !== REQUEST_TAKEN) …drop it
 *
 * What is believed of the header: NEEDS_CSUM, csum_start, csum_offset, gso_type and gso_size. `hdr_len` is a hint and is
 * not looked at; how long the headers are is read from them. DATA_VALID (but see asked-for.ts), RSC_INFO and bits without a
 * name mean nothing from a driver and are left aside. A frame of one segment asks for its checksum only, as the kernel has it.
 *
 * A checksum may be asked for in any kind of frame; what is checked is that it lies behind the Ethernet header and
 * within the frame. Segments may be asked for of TCP and UDP over IPv4 and IPv6, with up to two VLAN tags, with options,
 * and with extension headers (hop-by-hop, routing, destination options), but not of fragments.
 */

import * as ETHERNET from '../../protocol/ethernet.ts';
import * as IP from '../../protocol/ip.ts';
import * as NET from '../../protocol/virtio/net.ts';
import type { Window } from '../memory/window.ts';
import type { Batch } from '../queue/batch.ts';
import * as BATCH from '../queue/batch.ts';
import { gatherHead } from '../queue/heads.ts';
import * as REQUESTS from '../queue/requests.ts';

// V8 folds a module's own constants into its code, and loads imported ones again at each use.
const { ETHERNET_HEADER_BYTES, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_QINQ, ETHERTYPE_VLAN } = ETHERNET;
const { VLAN_TAG_BYTES } = ETHERNET;
const { FRAME_PIECES_MAX, IN_PIECES } = BATCH;
const { OFFLOAD_CHECKSUM, OFFLOAD_ECN, OFFLOAD_TSO4, OFFLOAD_TSO6, OFFLOAD_USO4, OFFLOAD_USO6 } = REQUESTS;
const { CARD_SEGMENT_BYTES_MIN, OFFLOAD_UNCOMMON, REQUEST_HEADER_BYTES_MAX } = REQUESTS;
const { NEEDS_CSUM } = NET.NET_HDR_F;
const { NONE, TCPV4, TCPV6, UDP_L4, ECN } = NET.NET_HDR_GSO;

/** Most segments of a frame: two batches. A frame of 64 KiB has no more with any segment that TCP uses (536 bytes). */
export const SEGMENTS_MAX = 2 * BATCH.BATCH_FRAMES_MAX;
/** Completing a frame may put two pieces more into it. */
const PIECES_MAX = FRAME_PIECES_MAX - 2;

/** What `takeRequest` answers; all but the first are reasons to drop the frame. */
export const REQUEST_TAKEN = 0;
/** The checksum would not lie within the frame, behind the Ethernet header, or may not be asked for. */
export const REQUEST_BAD_CHECKSUM = 1;
/** What is to be segmented is not what the header says, is a fragment, or may not be asked for. */
export const REQUEST_BAD_SEGMENTS = 2;
/** More than SEGMENTS_MAX. */
export const REQUEST_TOO_MANY_SEGMENTS = 3;
/** The frame lies in so many pieces that there is no room for those that completing it adds. */
export const REQUEST_TOO_SCATTERED = 4;

const { PROTOCOL_DESTINATION_OPTIONS, PROTOCOL_HOP_BY_HOP, PROTOCOL_ROUTING, PROTOCOL_TCP, PROTOCOL_UDP } =
  IP;
const { IPV4_FRAGMENT_MASK, IPV4_HEADER_BYTES_MIN, IPV6_HEADER_BYTES } = IP;
const { TCP_CHECKSUM_OFFSET, TCP_HEADER_BYTES_MAX, TCP_HEADER_BYTES_MIN } = IP;
const { UDP_CHECKSUM_OFFSET, UDP_HEADER_BYTES } = IP;

/** Whether a header asks for nothing, by its first word. */
export function asksNothing(word0: number): boolean {
  return ((word0 & NEEDS_CSUM) | (word0 & 0xff00)) === 0;
}

/**
 * Call where the frame stands in the batch as it came, before a tag is taken out of it (`Batch.dropRequestFront` then), and
 * not if the sender agreed on no offload: its headers mean nothing. `agreed`: the OFFLOAD_* bits that it may ask for.
 */
export function takeRequest(
  batch: Batch,
  frame: number,
  windows: readonly Window[],
  word0: number,
  word1: number,
  word2: number,
  agreed: number,
): number {
  if (asksNothing(word0)) return REQUEST_TAKEN;
  const gsoType = (word0 >>> 8) & 0xff;
  const csumStart = word1 >>> 16;
  const csumOffset = word2 & 0xffff;
  const frameBytes = batch.bytesOf(frame);
  const bad = gsoType === NONE ? REQUEST_BAD_CHECKSUM : REQUEST_BAD_SEGMENTS;
  if ((word0 & NEEDS_CSUM) === 0 || (agreed & OFFLOAD_CHECKSUM) === 0) return bad;
  if (csumStart < ETHERNET_HEADER_BYTES || csumStart + csumOffset + 2 > frameBytes) return bad;
  if (batch.windowOf(frame) === IN_PIECES && batch.pieceCountOf(frame) > PIECES_MAX) {
    return REQUEST_TOO_SCATTERED;
  }
  batch.beginAsking();
  if (gsoType === NONE) {
    batch.requests.askChecksum(frame, csumStart, csumOffset);
    return REQUEST_TAKEN;
  }
  return takeSegments(batch, frame, windows, gsoType, word1 & 0xffff, csumStart, csumOffset, agreed);
}

function takeSegments(
  batch: Batch,
  frame: number,
  windows: readonly Window[],
  gsoType: number,
  segmentBytes: number,
  csumStart: number,
  csumOffset: number,
  agreed: number,
): number {
  const kind = gsoType & ~ECN;
  if (kind !== TCPV4 && kind !== TCPV6 && kind !== UDP_L4) return REQUEST_BAD_SEGMENTS;
  const isTcp = kind !== UDP_L4;
  const hasEcn = (gsoType & ECN) !== 0;
  if (segmentBytes === 0 || (hasEcn && !isTcp)) return REQUEST_BAD_SEGMENTS;
  if (csumOffset !== (isTcp ? TCP_CHECKSUM_OFFSET : UDP_CHECKSUM_OFFSET)) return REQUEST_BAD_SEGMENTS;
  const frameBytes = batch.bytesOf(frame);
  const leastBytes = csumStart + (isTcp ? TCP_HEADER_BYTES_MIN : UDP_HEADER_BYTES);
  if (leastBytes > frameBytes || leastBytes > REQUEST_HEADER_BYTES_MAX) return REQUEST_BAD_SEGMENTS;

  const { requests } = batch;
  const head = requests.headOf[frame];
  gatherHead(
    batch,
    frame,
    windows,
    head,
    Math.min(frameBytes, csumStart + TCP_HEADER_BYTES_MAX, REQUEST_HEADER_BYTES_MAX),
  );
  const networkStart = networkStartOf(head, csumStart);
  if (networkStart < 0) return REQUEST_BAD_SEGMENTS;
  const isIpv4 = word16(head, networkStart - 2) === ETHERTYPE_IPV4;
  const protocol = isTcp ? PROTOCOL_TCP : PROTOCOL_UDP;
  if (isIpv4) {
    if (kind === TCPV6 || !isIpv4Good(head, networkStart, csumStart, protocol, frameBytes)) {
      return REQUEST_BAD_SEGMENTS;
    }
  } else if (kind === TCPV4 || !isIpv6Good(head, networkStart, csumStart, protocol, frameBytes)) {
    return REQUEST_BAD_SEGMENTS;
  }

  const transportBytes = isTcp ? (head[csumStart + 12] >>> 4) << 2 : UDP_HEADER_BYTES;
  const headerBytes = csumStart + transportBytes;
  if (
    isTcp ? transportBytes < TCP_HEADER_BYTES_MIN : word16(head, csumStart + 4) !== frameBytes - csumStart
  ) {
    return REQUEST_BAD_SEGMENTS;
  }
  if (headerBytes > frameBytes || headerBytes > REQUEST_HEADER_BYTES_MAX) return REQUEST_BAD_SEGMENTS;

  const bits = isTcp ? (isIpv4 ? OFFLOAD_TSO4 : OFFLOAD_TSO6) : isIpv4 ? OFFLOAD_USO4 : OFFLOAD_USO6;
  const needs = OFFLOAD_CHECKSUM | bits | (hasEcn ? OFFLOAD_ECN : 0);
  if ((needs & ~agreed) !== 0) return REQUEST_BAD_SEGMENTS;
  const payloadBytes = frameBytes - headerBytes;
  if (payloadBytes <= segmentBytes) requests.askChecksum(frame, csumStart, csumOffset);
  else if (payloadBytes > segmentBytes * SEGMENTS_MAX) return REQUEST_TOO_MANY_SEGMENTS;
  else {
    const lengthAt = networkStart + (isIpv4 ? 2 : 4);
    const isCommon =
      segmentBytes >= CARD_SEGMENT_BYTES_MIN &&
      word16(head, lengthAt) !== 0 &&
      (isIpv4 || networkStart + IPV6_HEADER_BYTES === csumStart);
    requests.askSegments(
      frame,
      isCommon ? needs : needs | OFFLOAD_UNCOMMON,
      networkStart,
      csumStart,
      csumOffset,
      headerBytes,
      segmentBytes,
    );
  }
  return REQUEST_TAKEN;
}

/** Where the IP header begins, whose shortest form ends before `end`; -1: there is none. */
function networkStartOf(head: Uint8Array, end: number): number {
  let at = ETHERNET_HEADER_BYTES;
  for (let tags = 0; tags <= 2; tags++) {
    if (at + IPV4_HEADER_BYTES_MIN > end) return -1;
    const etherType = word16(head, at - 2);
    if (etherType === ETHERTYPE_IPV4 || etherType === ETHERTYPE_IPV6) return at;
    if (etherType !== ETHERTYPE_VLAN && etherType !== ETHERTYPE_QINQ) return -1;
    at += VLAN_TAG_BYTES;
  }
  return -1;
}

/** An IPv4 header that ends at `end`, of a packet that is as long as the frame. */
function isIpv4Good(
  head: Uint8Array,
  at: number,
  end: number,
  protocol: number,
  frameBytes: number,
): boolean {
  return (
    head[at] >>> 4 === 4 &&
    at + ((head[at] & 0x0f) << 2) === end &&
    head[at + 9] === protocol &&
    (word16(head, at + 6) & IPV4_FRAGMENT_MASK) === 0 &&
    isLength(word16(head, at + 2), frameBytes - at)
  );
}

/** An IPv6 header that ends, with its extension headers, at `end`. */
function isIpv6Good(
  head: Uint8Array,
  at: number,
  end: number,
  protocol: number,
  frameBytes: number,
): boolean {
  let next = at + IPV6_HEADER_BYTES;
  if (next > end || head[at] >>> 4 !== 6) return false;
  if (!isLength(word16(head, at + 4), frameBytes - next)) return false;
  let header = head[at + 6];
  // Each is eight bytes at least, and `end` lies within the kept headers.
  while (next < end) {
    const isExtension =
      header === PROTOCOL_HOP_BY_HOP ||
      header === PROTOCOL_ROUTING ||
      header === PROTOCOL_DESTINATION_OPTIONS;
    if (!isExtension) return false;
    header = head[next];
    next += (head[next + 1] + 1) << 3;
  }
  return next === end && header === protocol;
}

/** A length that the header gives; 0 says nothing, as in packets that are too long for the field. */
function isLength(value: number, bytes: number): boolean {
  return value === bytes || value === 0;
}

function word16(bytes: Uint8Array, at: number): number {
  return (bytes[at] << 8) | bytes[at + 1];
}
