/**
 * The headers of a frame's segments. What stays the same is summed once a frame from the headers that were kept when the
 * request was checked (src/queue/requests.ts); each segment gets a copy with what differs, as the kernel has it:
 *
 * - IPv4: total length, identification (one more for each segment, also with DF), header checksum. IPv6: payload length;
 * - TCP: sequence number; FIN and PSH on the last segment only, CWR on the first only; checksum;
 * - UDP: length and checksum (0 is written as 0xffff).
 *
 * The checksum field of a request holds the sum of the pseudo header. It is not made anew but the length in it exchanged:
 * with a routing header the address in it is not the one that stands in the IPv6 header. Hot path; one worker's object.
 */
import * as IP from '../../protocol/ip.ts';
import type { Window } from '../memory/window.ts';
import type { Batch } from '../queue/batch.ts';
import * as REQUESTS from '../queue/requests.ts';
import { checksumOf, folded, swapped16 } from './checksum.ts';

// V8 folds a module's own constants into its code, and loads imported ones again at each use.
const { AT_CSUM_OFFSET, AT_CSUM_START, AT_DROPPED, AT_HEADER_BYTES, AT_NEEDS, AT_NETWORK_START } = REQUESTS;
const { OFFLOAD_TSO4, OFFLOAD_TSO6, OFFLOAD_USO4, REQUEST_HEADER_BYTES_MAX, REQUEST_SHIFT } = REQUESTS;

const { IPV6_HEADER_BYTES } = IP;
/** In the 16 bits of data offset and flags as they lie in memory: the flags are the second byte. */
const TCP_FIN_PSH = 0x0900;
const TCP_CWR = 0x8000;

export class SegmentHeaders {
  /** The kept headers, from `word` on. */
  declare private template: Int32Array;
  private word = 0;
  /** To the end of the TCP or UDP header. */
  headerBytes = 0;
  private networkStart = 0;
  private csumStart = 0;
  private csumOffset = 0;
  private isIpv4 = false;
  private isTcp = false;
  /** Sum of the IPv4 header without length, identification and checksum. */
  private networkSum = 0;
  private identification = 0;
  /** Sum of the TCP or UDP header without what differs, and of the pseudo header without its length. */
  private transportSum = 0;
  /** Sum of the pseudo header without its length. */
  private pseudoSum = 0;
  private sequence = 0;
  /** Of TCP: data offset and flags as they lie in memory. */
  private flags = 0;

  constructor() {
    this.template = new Int32Array(REQUEST_HEADER_BYTES_MAX >> 2);
  }

  /** Takes the headers of a frame that asks for segments. */
  begin(batch: Batch, frame: number): void {
    const { words, heads, heads32 } = batch.requests;
    const at = frame << REQUEST_SHIFT;
    const start = frame * REQUEST_HEADER_BYTES_MAX + words[at + AT_DROPPED];
    const needs = words[at + AT_NEEDS];
    this.template = heads32;
    this.word = start >> 2;
    this.headerBytes = words[at + AT_HEADER_BYTES];
    this.networkStart = words[at + AT_NETWORK_START];
    this.csumStart = words[at + AT_CSUM_START];
    this.csumOffset = words[at + AT_CSUM_OFFSET];
    this.isIpv4 = (needs & (OFFLOAD_TSO4 | OFFLOAD_USO4)) !== 0;
    this.isTcp = (needs & (OFFLOAD_TSO4 | OFFLOAD_TSO6)) !== 0;
    const network = start + this.networkStart;
    const transport = start + this.csumStart;
    const end = start + this.headerBytes;
    if (this.isIpv4) {
      this.identification = (heads[network + 4] << 8) | heads[network + 5];
      this.networkSum =
        sumOf(heads, network, transport) -
        half(heads, network + 2) -
        half(heads, network + 4) -
        half(heads, network + 10);
    }
    const field = half(heads, transport + this.csumOffset);
    const oldBytes = batch.bytesOf(frame) - this.csumStart;
    this.pseudoSum = field + swapped16(~oldBytes & 0xffff);
    let headerSum = sumOf(heads, transport, end) - field;
    if (this.isTcp) {
      this.sequence =
        (heads[transport + 4] << 24) |
        (heads[transport + 5] << 16) |
        (heads[transport + 6] << 8) |
        heads[transport + 7];
      this.flags = half(heads, transport + 12);
      headerSum -= half(heads, transport + 4) + half(heads, transport + 6) + this.flags;
    } else headerSum -= half(heads, transport + 4);
    this.transportSum = headerSum + this.pseudoSum;
  }

  /**
   * Writes the headers of segment `number`, whose payload begins `payloadStart` bytes into the frame's, to `toIndex`, a
   * multiple of 4; up to three bytes behind them too. `payloadSum`: folded or not, below 2^24; below 0: the receiver
   * completes the checksum, and the field gets the sum of the pseudo header.
   */
  write(
    to: Window,
    toIndex: number,
    number: number,
    payloadStart: number,
    payloadBytes: number,
    isLast: boolean,
    payloadSum: number,
  ): void {
    const { template, word, headerBytes } = this;
    const { i32, u16 } = to;
    const toWord = toIndex >> 2;
    const wordCount = headerBytes >> 2;
    for (let i = 0; i < wordCount; i++) i32[toWord + i] = template[word + i];
    // All headers begin and end at even places.
    if ((headerBytes & 2) !== 0) u16[(toWord + wordCount) << 1] = template[word + wordCount];
    const network16 = (toIndex + this.networkStart) >> 1;
    const packetBytes = headerBytes - this.networkStart + payloadBytes;
    if (this.isIpv4) {
      const length = swapped16(packetBytes);
      const identification = swapped16((this.identification + number) & 0xffff);
      u16[network16 + 1] = length;
      u16[network16 + 2] = identification;
      u16[network16 + 5] = checksumOf(this.networkSum + length + identification);
    } else u16[network16 + 2] = swapped16(packetBytes - IPV6_HEADER_BYTES);

    const transport16 = (toIndex + this.csumStart) >> 1;
    const transportLength = swapped16(headerBytes - this.csumStart + payloadBytes);
    let sum = this.transportSum + transportLength;
    if (this.isTcp) {
      const sequence = (this.sequence + payloadStart) | 0;
      const high = swapped16(sequence >>> 16);
      const low = swapped16(sequence & 0xffff);
      let { flags } = this;
      if (!isLast) flags &= ~TCP_FIN_PSH;
      if (number !== 0) flags &= ~TCP_CWR;
      u16[transport16 + 2] = high;
      u16[transport16 + 3] = low;
      u16[transport16 + 6] = flags;
      sum += high + low + flags;
    } else {
      u16[transport16 + 2] = transportLength;
      sum += transportLength;
    }
    u16[transport16 + (this.csumOffset >> 1)] =
      payloadSum < 0 ? folded(this.pseudoSum + transportLength) : this.finished(sum + payloadSum);
  }

  private finished(sum: number): number {
    const checksum = checksumOf(sum);
    return checksum === 0 && !this.isTcp ? 0xffff : checksum;
  }
}

/** Sum of an even number of bytes. */
function sumOf(bytes: Uint8Array, from: number, end: number): number {
  let sum = 0;
  for (let at = from; at < end; at += 2) sum += half(bytes, at);
  return sum;
}

/** A 16-bit word as it lies in memory. */
function half(bytes: Uint8Array, at: number): number {
  return bytes[at] | (bytes[at + 1] << 8);
}
