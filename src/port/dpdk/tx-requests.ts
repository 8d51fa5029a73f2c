/**
 * What a frame asks for, asked of a DPDK device: marks the mbuf that the frame was copied to. Looks only at what lies
 * there by then, memory of ours, and at what was kept when the request was checked (src/queue/requests.ts). Hot path of
 * one worker at a time.
 *
 * - Segments: the headers are those that were checked, and a device that segments takes all of them (`takes`).
 * - A checksum may be asked for of any bytes. One of TCP or UDP over IP, with nothing else between and around, is left to
 *   the device, if it knows that one and its driver agrees; any other is put in here, right behind the copy.
 *
 * Where a device completes a checksum, the sum of the pseudo header stands in its field, made of what the IP header says,
 * and without the length if the frame is to be cut. Any number of VLAN tags counts as part of the Ethernet header.
 */

import * as ETHERNET from '../../../protocol/ethernet.ts';
import * as IP from '../../../protocol/ip.ts';
import { MBUF_TX_HIGH, TX_OFFLOAD } from '../../dpdk/layout.ts';
import type { Window } from '../../memory/window.ts';
import { checksumOf, folded, sumBytes, swapped16 } from '../../offload/checksum.ts';
import type { Batch } from '../../queue/batch.ts';
import * as REQUESTS from '../../queue/requests.ts';

const { ETHERNET_HEADER_BYTES, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_QINQ, ETHERTYPE_VLAN } = ETHERNET;
const { VLAN_TAG_BYTES } = ETHERNET;
const { AT_CSUM_OFFSET, AT_CSUM_START, AT_DROPPED, AT_HEADER_BYTES, AT_NEEDS, AT_NETWORK_START } = REQUESTS;
const { AT_SEGMENT_BYTES, OFFLOAD_TSO4, REQUEST_HEADER_BYTES_MAX, REQUEST_SHIFT } = REQUESTS;
const { IPV4_CKSUM, TCP_CKSUM, UDP_CKSUM } = TX_OFFLOAD;

/** Behind two tags of the frame and two that it gets. */
const NETWORK_START_MAX = ETHERNET_HEADER_BYTES + 4 * VLAN_TAG_BYTES;
const { IPV4_FRAGMENT_MASK, IPV4_HEADER_BYTES_MIN, IPV6_HEADER_BYTES, PROTOCOL_TCP, PROTOCOL_UDP } = IP;
const { TCP_CHECKSUM_OFFSET, TCP_HEADER_BYTES_MIN, UDP_CHECKSUM_OFFSET, UDP_HEADER_BYTES } = IP;

/** The part of TxBurst (src/dpdk/burst.ts) that is needed: requests for the frame placed last. */
export type RequestTaker = {
  /** TX_OFFLOAD bits. */
  readonly offloads: number;
  request(
    flagsHigh: number,
    l2Bytes: number,
    l3Bytes: number,
    l4Bytes: number,
    segmentBytes: number,
  ): boolean;
};

export class TxRequests {
  declare private readonly tx: RequestTaker;
  declare private readonly window: Window;

  constructor(tx: RequestTaker, window: Window) {
    this.tx = tx;
    this.window = window;
  }

  /** The frame lies at `at`, in one piece, and asks for a checksum. */
  askChecksum(batch: Batch, frame: number, at: number, frameBytes: number): void {
    const { requests, tags } = batch;
    const csumStart = requests.csumStartOf(frame) + tags.pushBytes;
    const csumOffset = requests.csumOffsetOf(frame);
    if (this.leaveChecksum(at, frameBytes, csumStart, csumOffset)) return;
    const sum = sumBytes(this.window, at + csumStart, frameBytes - csumStart);
    this.put16(at + csumStart + csumOffset, checksumOf(sum) || 0xffff);
  }

  /** Whether the device puts it in. */
  private leaveChecksum(at: number, frameBytes: number, csumStart: number, csumOffset: number): boolean {
    const { tx, window } = this;
    const { u8 } = window;
    const networkStart = networkStartOf(u8, at, csumStart);
    if (networkStart < 0) return false;
    const network = at + networkStart;
    const transport = at + csumStart;
    const packetBytes = frameBytes - networkStart;
    const transportBytes = frameBytes - csumStart;
    const l3Bytes = csumStart - networkStart;
    const isIpv4 = u8[network] >>> 4 === 4;
    if (isIpv4) {
      if ((u8[network] & 0x0f) << 2 !== l3Bytes || word16(u8, network + 2) !== packetBytes) return false;
      if ((word16(u8, network + 6) & IPV4_FRAGMENT_MASK) !== 0) return false;
    } else if (l3Bytes !== IPV6_HEADER_BYTES || word16(u8, network + 4) !== transportBytes) return false;

    const protocol = u8[network + (isIpv4 ? 9 : 6)];
    let flags = isIpv4 ? MBUF_TX_HIGH.IPV4 : MBUF_TX_HIGH.IPV6;
    let l4Bytes = UDP_HEADER_BYTES;
    if (protocol === PROTOCOL_TCP) {
      if ((tx.offloads & TCP_CKSUM) === 0 || csumOffset !== TCP_CHECKSUM_OFFSET) return false;
      if (transportBytes < TCP_HEADER_BYTES_MIN) return false;
      l4Bytes = (u8[transport + 12] >>> 4) << 2;
      if (l4Bytes < TCP_HEADER_BYTES_MIN || l4Bytes > transportBytes) return false;
      flags |= MBUF_TX_HIGH.TCP_CKSUM;
    } else if (protocol === PROTOCOL_UDP) {
      if ((tx.offloads & UDP_CKSUM) === 0 || csumOffset !== UDP_CHECKSUM_OFFSET) return false;
      if (word16(u8, transport + 4) !== transportBytes) return false;
      flags |= MBUF_TX_HIGH.UDP_CKSUM;
    } else return false;
    this.put16(transport + csumOffset, pseudoSum(window, network, isIpv4, protocol, transportBytes));
    return tx.request(flags, networkStart, l3Bytes, l4Bytes, 0);
  }

  /** The frame, whose headers lie at `at`, is to be cut into segments of TCP. False: the driver refuses it. */
  askSegments(batch: Batch, frame: number, at: number): boolean {
    const { tx, window } = this;
    const { u8 } = window;
    const { words, heads } = batch.requests;
    const { pushBytes } = batch.tags;
    const record = frame << REQUEST_SHIFT;
    const headerBytes = words[record + AT_HEADER_BYTES];
    const networkStart = words[record + AT_NETWORK_START];
    const csumStart = words[record + AT_CSUM_START];
    const isIpv4 = (words[record + AT_NEEDS] & OFFLOAD_TSO4) !== 0;
    const from = frame * REQUEST_HEADER_BYTES_MAX + words[record + AT_DROPPED];
    // Whatever its sender has made of them since.
    const to = at + pushBytes;
    for (let i = networkStart; i < headerBytes; i++) u8[to + i] = heads[from + i];

    const network = to + networkStart;
    const l3Bytes = csumStart - networkStart;
    let flags = MBUF_TX_HIGH.TCP_SEG | (isIpv4 ? MBUF_TX_HIGH.IPV4 : MBUF_TX_HIGH.IPV6);
    if (isIpv4) {
      this.put16(network + 10, 0);
      if ((tx.offloads & IPV4_CKSUM) !== 0) flags |= MBUF_TX_HIGH.IP_CKSUM;
      else this.put16(network + 10, checksumOf(sumBytes(window, network, l3Bytes)));
    }
    this.put16(
      to + csumStart + words[record + AT_CSUM_OFFSET],
      pseudoSum(window, network, isIpv4, PROTOCOL_TCP, 0),
    );
    const l4Bytes = headerBytes - csumStart;
    return tx.request(flags, networkStart + pushBytes, l3Bytes, l4Bytes, words[record + AT_SEGMENT_BYTES]);
  }

  /** In the order of memory. */
  private put16(index: number, value: number): void {
    const { u8 } = this.window;
    u8[index] = value;
    u8[index + 1] = value >>> 8;
  }
}

/** Of the pseudo header, folded; `lengthBytes` 0: without the length. */
function pseudoSum(
  window: Window,
  network: number,
  isIpv4: boolean,
  protocol: number,
  lengthBytes: number,
): number {
  const addresses = isIpv4 ? sumBytes(window, network + 12, 8) : sumBytes(window, network + 8, 32);
  return folded(addresses + swapped16(protocol) + swapped16(lengthBytes));
}

/** Where the IP header of the frame at `at` begins, which has its shortest length before `end`; -1: there is none. */
function networkStartOf(u8: Uint8Array, at: number, end: number): number {
  const last = Math.min(end - IPV4_HEADER_BYTES_MIN, NETWORK_START_MAX);
  for (let start = ETHERNET_HEADER_BYTES; start <= last; start += VLAN_TAG_BYTES) {
    const type = word16(u8, at + start - 2);
    const version = u8[at + start] >>> 4;
    if (type === ETHERTYPE_IPV4) return version === 4 ? start : -1;
    if (type === ETHERTYPE_IPV6) return version === 6 ? start : -1;
    if (type !== ETHERTYPE_VLAN && type !== ETHERTYPE_QINQ) return -1;
  }
  return -1;
}

function word16(bytes: Uint8Array, at: number): number {
  return (bytes[at] << 8) | bytes[at + 1];
}
