/**
 * IP addresses, protocol and ports of the frames of a batch, for plugins that decide on them: read in one loop from copies that
 * no guest can change (../l2/head-copies.ts). Most frames of a burst belong to the flow of the one before them, which few
 * comparisons show. Hot path of one worker; allocates nothing. IPv4: RFC 791; IPv6 with its extension headers: RFC 8200.
 */
import { ETHERNET_HEADER_BYTES, ETHERTYPE_IPV4, ETHERTYPE_IPV6 } from '../../protocol/ethernet.ts';
import * as IP from '../../protocol/ip.ts';
import type { Batch } from '../../src/queue/batch.ts';
import * as BATCH from '../../src/queue/batch.ts';
import type { HeadCopies } from '../l2/head-copies.ts';

// V8 folds a module's own constants into a loop, and loads imported ones again at each use: some 3 ns a frame.
const { AT_WORD0, AT_WORD1, AT_WORD2, AT_WORD3, BATCH_FRAMES_MAX, RECORD_SHIFT } = BATCH;
const { IPV4_FRAGMENT_MASK, IPV4_HEADER_BYTES_MIN, IPV6_HEADER_BYTES } = IP;
const { PROTOCOL_DESTINATION_OPTIONS, PROTOCOL_HOP_BY_HOP, PROTOCOL_ROUTING } = IP;
const { PROTOCOL_SCTP, PROTOCOL_TCP, PROTOCOL_UDP } = IP;
const IP_START = ETHERNET_HEADER_BYTES;
const IPV4 = ETHERTYPE_IPV4;
const IPV6 = ETHERTYPE_IPV6;
const PROTOCOL_FRAGMENT = 44;
const FRAGMENT_OFFSET_BITS = 0xfff8;
const IPV4_OFFSET_BITS = 0x1fff;
const NONE = -1;
/** The word behind the addresses of an IPv4 frame whose header has no options: EtherType and first byte, as read. */
const PLAIN_IPV4 = 0x450008;
const TYPE_AND_VERSION = 0xffffff;
/** Of the word at 20: fragment flags and offset but for "don't fragment", and the protocol. */
const FRAGMENT_AND_PROTOCOL = 0xff00ffbf | 0;
/** Bytes of a frame with IPv4 and ports. */
const PORTS_END = IP_START + IPV4_HEADER_BYTES_MIN + 4;

export class HeaderFields {
  declare readonly versions: Int32Array;
  declare readonly sources4: Int32Array;
  declare readonly destinations4: Int32Array;
  declare readonly sources6: Int32Array;
  declare readonly destinations6: Int32Array;
  declare readonly protocols: Int32Array;
  declare readonly l4Sources: Int32Array;
  declare readonly l4Destinations: Int32Array;
  declare readonly l4Offsets: Int32Array;
  declare readonly repeats: Int32Array;

  constructor() {
    this.versions = new Int32Array(BATCH_FRAMES_MAX);
    this.sources4 = new Int32Array(BATCH_FRAMES_MAX);
    this.destinations4 = new Int32Array(BATCH_FRAMES_MAX);
    this.sources6 = new Int32Array(4 * BATCH_FRAMES_MAX);
    this.destinations6 = new Int32Array(4 * BATCH_FRAMES_MAX);
    this.protocols = new Int32Array(BATCH_FRAMES_MAX);
    this.l4Sources = new Int32Array(BATCH_FRAMES_MAX);
    this.l4Destinations = new Int32Array(BATCH_FRAMES_MAX);
    this.l4Offsets = new Int32Array(BATCH_FRAMES_MAX);
    this.repeats = new Int32Array(BATCH_FRAMES_MAX);
  }

  /** Of all frames of a batch whose heads are copied. */
  fill(batch: Batch, copies: HeadCopies): void {
    const { repeats } = this;
    const { count, records, alike, alikeBehind, tags } = batch;
    const { i32 } = copies.window;
    let before = 0;
    for (let frame = 0; frame < count; frame++) {
      const index = copies.indexOf(batch, frame);
      const word = index >> 2;
      const bytes = copies.bytesOf(batch, frame);
      repeats[frame] = 0;
      if (frame > 0 && bytes >= PORTS_END && repeats32(i32, word, before)) {
        const at = frame << RECORD_SHIFT;
        const last = at - (1 << RECORD_SHIFT);
        const isAlike =
          (alike ||
            (records[at + AT_WORD0] === records[last + AT_WORD0] &&
              records[at + AT_WORD1] === records[last + AT_WORD1] &&
              records[at + AT_WORD2] === records[last + AT_WORD2])) &&
          (tags.isUniform || tags.outers[frame] === tags.outers[frame - 1]);
        this.repeat(frame);
        if (isAlike) repeats[frame] = 1;
      } else {
        const word3 = records[((alikeBehind ? 0 : frame) << RECORD_SHIFT) + AT_WORD3];
        this.read(copies.window.u8, index, bytes, frame, ((word3 & 0xff) << 8) | ((word3 >> 8) & 0xff));
      }
      // Of what is no plain IPv4 header or has no room for ports nothing is told by comparing words.
      before = bytes >= PORTS_END ? word : 0;
    }
  }

  /** As the frame before it. */
  private repeat(frame: number): void {
    const last = frame - 1;
    this.versions[frame] = 4;
    this.sources4[frame] = this.sources4[last];
    this.destinations4[frame] = this.destinations4[last];
    this.protocols[frame] = this.protocols[last];
    this.l4Sources[frame] = this.l4Sources[last];
    this.l4Destinations[frame] = this.l4Destinations[last];
    this.l4Offsets[frame] = this.l4Offsets[last];
    this.clear6(frame);
  }

  private clear6(frame: number): void {
    const { sources6, destinations6 } = this;
    for (let word = 4 * frame; word < 4 * frame + 4; word++) {
      sources6[word] = 0;
      destinations6[word] = 0;
    }
  }

  /** `end` bytes of the frame lie at `index`. */
  private read(u8: Uint8Array, index: number, end: number, frame: number, etherType: number): void {
    this.versions[frame] = 0;
    this.sources4[frame] = 0;
    this.destinations4[frame] = 0;
    this.protocols[frame] = NONE;
    this.l4Sources[frame] = NONE;
    this.l4Destinations[frame] = NONE;
    this.l4Offsets[frame] = 0;
    this.clear6(frame);
    if (etherType === IPV4) this.readIpv4(u8, index, end, frame);
    else if (etherType === IPV6) this.readIpv6(u8, index, end, frame);
  }

  private readIpv4(u8: Uint8Array, index: number, end: number, frame: number): void {
    const ip = index + IP_START;
    const headerBytes = (u8[ip] & 0x0f) << 2;
    if (end < IP_START + IPV4_HEADER_BYTES_MIN || u8[ip] >> 4 !== 4 || headerBytes < IPV4_HEADER_BYTES_MIN)
      return;
    this.versions[frame] = 4;
    this.protocols[frame] = u8[ip + 9];
    this.sources4[frame] = be32(u8, ip + 12);
    this.destinations4[frame] = be32(u8, ip + 16);
    const fragment = be16(u8, ip + 6);
    if ((fragment & IPV4_OFFSET_BITS) !== 0) return;
    const isFragment = (fragment & IPV4_FRAGMENT_MASK) !== 0;
    this.readTransport(u8, index, end, IP_START + headerBytes, frame, isFragment);
  }

  private readIpv6(u8: Uint8Array, index: number, end: number, frame: number): void {
    const ip = index + IP_START;
    if (end < IP_START + IPV6_HEADER_BYTES || u8[ip] >> 4 !== 6) return;
    this.versions[frame] = 6;
    for (let word = 0; word < 4; word++) {
      this.sources6[4 * frame + word] = be32(u8, ip + 8 + 4 * word);
      this.destinations6[4 * frame + word] = be32(u8, ip + 24 + 4 * word);
    }
    let protocol = u8[ip + 6];
    let at = IP_START + IPV6_HEADER_BYTES;
    let isFragment = false;
    // Each is 8 bytes at least, so the copy's end is soon there.
    while (isExtension(protocol) && at + 8 <= end) {
      const next = u8[index + at];
      if (protocol === PROTOCOL_FRAGMENT) {
        const fragment = be16(u8, index + at + 2);
        this.protocols[frame] = next;
        // What follows in a later fragment is no header.
        if ((fragment & FRAGMENT_OFFSET_BITS) !== 0) return;
        if (fragment !== 0) isFragment = true;
        at += 8;
      } else at += (u8[index + at + 1] + 1) << 3;
      protocol = next;
    }
    if (isExtension(protocol)) return;
    this.protocols[frame] = protocol;
    this.readTransport(u8, index, end, at, frame, isFragment);
  }

  private readTransport(
    u8: Uint8Array,
    index: number,
    end: number,
    at: number,
    frame: number,
    isFragment: boolean,
  ): void {
    if (at >= end) return;
    this.l4Offsets[frame] = at;
    const protocol = this.protocols[frame];
    const hasPorts = protocol === PROTOCOL_TCP || protocol === PROTOCOL_UDP || protocol === PROTOCOL_SCTP;
    if (!hasPorts || isFragment || at + 4 > end) return;
    this.l4Sources[frame] = be16(u8, index + at);
    this.l4Destinations[frame] = be16(u8, index + at + 2);
  }
}

/** Whether both are IPv4 without options, and have the same addresses, protocol and four bytes behind, fragment or none. */
function repeats32(i32: Int32Array, word: number, before: number): boolean {
  return (
    before !== 0 &&
    (i32[word + 3] & TYPE_AND_VERSION) === PLAIN_IPV4 &&
    (i32[before + 3] & TYPE_AND_VERSION) === PLAIN_IPV4 &&
    ((i32[word + 5] ^ i32[before + 5]) & FRAGMENT_AND_PROTOCOL) === 0 &&
    (i32[word + 6] ^ i32[before + 6]) >>> 16 === 0 &&
    i32[word + 7] === i32[before + 7] &&
    i32[word + 8] === i32[before + 8] &&
    ((i32[word + 9] ^ i32[before + 9]) & 0xffff) === 0
  );
}

function isExtension(protocol: number): boolean {
  return (
    protocol === PROTOCOL_HOP_BY_HOP ||
    protocol === PROTOCOL_ROUTING ||
    protocol === PROTOCOL_DESTINATION_OPTIONS ||
    protocol === PROTOCOL_FRAGMENT
  );
}

function be16(bytes: Uint8Array, at: number): number {
  return (bytes[at] << 8) | bytes[at + 1];
}

function be32(bytes: Uint8Array, at: number): number {
  return (bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3];
}
