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
import type { FrameHeaders } from './interface.ts';

// V8 folds a module's own constants into a loop, and loads imported ones again at each use: some 3 ns a frame.
const { AT_BYTES, AT_INDEX, AT_WORD0, AT_WORD1, AT_WORD2, BATCH_FRAMES_MAX, MIXED, RECORD_SHIFT } = BATCH;
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
const NO_WORD = ~FRAGMENT_AND_PROTOCOL;
/** Bytes of a frame with IPv4 and ports. */
const PORTS_END = IP_START + IPV4_HEADER_BYTES_MIN + 4;

/** Fields that one frame of a run has and the others get when they are asked for (`spread`). */
export const SPREAD_VERSIONS = 1;
export const SPREAD_SOURCES = 2;
export const SPREAD_DESTINATIONS = 4;
export const SPREAD_PROTOCOLS = 8;
export const SPREAD_L4_SOURCES = 16;
export const SPREAD_L4_DESTINATIONS = 32;
export const SPREAD_L4_OFFSETS = 64;

/** Its fields by name are those of the first frame of each run alone: `Frames.firsts`. */
export class HeaderFields implements FrameHeaders {
  declare readonly ipVersions: Int32Array;
  declare readonly ipv4Sources: Int32Array;
  declare readonly ipv4Destinations: Int32Array;
  declare private readonly sources6: Int32Array;
  declare private readonly destinations6: Int32Array;
  declare readonly protocols: Int32Array;
  declare readonly l4Sources: Int32Array;
  declare readonly l4Destinations: Int32Array;
  declare readonly l4Offsets: Int32Array;
  /** 1: the frame has all that `Frames.repeats` names of the one before it. */
  declare readonly repeats: Int32Array;
  /** Where frames begin that do not repeat the one before them; behind the last one stands `count`. */
  declare private readonly runs: Int32Array;
  /** Of each frame that does not repeat the one before it: the next one of which the same holds, or `count`. */
  declare readonly runEnds: Int32Array;
  private runCount = 0;
  private count = 0;
  private isSpread = 0;
  private hasSix = false;

  constructor() {
    this.ipVersions = new Int32Array(BATCH_FRAMES_MAX);
    this.ipv4Sources = new Int32Array(BATCH_FRAMES_MAX);
    this.ipv4Destinations = new Int32Array(BATCH_FRAMES_MAX);
    this.sources6 = new Int32Array(4 * BATCH_FRAMES_MAX);
    this.destinations6 = new Int32Array(4 * BATCH_FRAMES_MAX);
    this.protocols = new Int32Array(BATCH_FRAMES_MAX);
    this.l4Sources = new Int32Array(BATCH_FRAMES_MAX);
    this.l4Destinations = new Int32Array(BATCH_FRAMES_MAX);
    this.l4Offsets = new Int32Array(BATCH_FRAMES_MAX);
    this.repeats = new Int32Array(BATCH_FRAMES_MAX).fill(1);
    this.runs = new Int32Array(BATCH_FRAMES_MAX + 1);
    this.runEnds = new Int32Array(BATCH_FRAMES_MAX);
  }

  /** One of the fields, SPREAD_*, of all frames. */
  field(which: number): Int32Array {
    const array = this.arrayOf(which);
    if ((this.isSpread & which) === 0) this.spread(array, which);
    return array;
  }

  /** Of all frames; 0 of those that have none. */
  get ipv6Sources(): Int32Array {
    this.clearOthers(this.sources6);
    return this.sources6;
  }

  get ipv6Destinations(): Int32Array {
    this.clearOthers(this.destinations6);
    return this.destinations6;
  }

  private arrayOf(which: number): Int32Array {
    switch (which) {
      case SPREAD_VERSIONS:
        return this.ipVersions;
      case SPREAD_SOURCES:
        return this.ipv4Sources;
      case SPREAD_DESTINATIONS:
        return this.ipv4Destinations;
      case SPREAD_PROTOCOLS:
        return this.protocols;
      case SPREAD_L4_SOURCES:
        return this.l4Sources;
      case SPREAD_L4_DESTINATIONS:
        return this.l4Destinations;
      default:
        return this.l4Offsets;
    }
  }

  private spread(array: Int32Array, which: number): void {
    const { runs, runCount } = this;
    this.isSpread |= which;
    if (runCount === this.count) return;
    for (let run = 0; run < runCount; run++) {
      const value = array[runs[run]];
      for (let frame = runs[run] + 1; frame < runs[run + 1]; frame++) array[frame] = value;
    }
  }

  private clearOthers(words: Int32Array): void {
    const ipVersions = this.field(SPREAD_VERSIONS);
    if (!this.hasSix) words.fill(0, 0, 4 * this.count);
    else for (let i = 0; i < 4 * this.count; i++) if (ipVersions[i >> 2] !== 6) words[i] = 0;
  }

  /** Of all frames of a batch whose heads are copied. */
  fill(batch: Batch, copies: HeadCopies): void {
    this.forgetRuns();
    this.count = batch.count;
    this.isSpread = 0;
    this.hasSix = false;
    const isAlike = batch.allIn !== MIXED && batch.alike && batch.alikeBehind && batch.tags.isUniform;
    if (isAlike && (batch.word3Of(0) & TYPE_AND_VERSION) === PLAIN_IPV4) this.fillAlike(batch, copies);
    else this.fillAny(batch, copies);
    this.runs[this.runCount] = batch.count;
    this.findEnds();
  }

  /** All of `repeats` are 1 again. */
  private forgetRuns(): void {
    const { repeats, runs } = this;
    for (let run = 0; run < this.runCount; run++) repeats[runs[run]] = 1;
    this.runCount = 0;
  }

  /** Frames in one piece each, with the same addresses, VLAN and plain IPv4 header. */
  private fillAlike(batch: Batch, copies: HeadCopies): void {
    const { repeats } = this;
    const { records } = batch;
    const count = batch.count | 0;
    const { i32 } = copies.window;
    // As no frame has it.
    let before5 = NO_WORD;
    let before6 = 0;
    let before7 = 0;
    let before8 = 0;
    let before9 = 0;
    for (let frame = 0; frame < count; frame++) {
      const at = frame << RECORD_SHIFT;
      const word = records[(at + AT_INDEX) | 0] >> 2;
      if (records[(at + AT_BYTES) | 0] >= PORTS_END) {
        const word5 = i32[(word + 5) | 0] & FRAGMENT_AND_PROTOCOL;
        const word6 = i32[(word + 6) | 0] >>> 16;
        const word7 = i32[(word + 7) | 0];
        const word8 = i32[(word + 8) | 0];
        const word9 = i32[(word + 9) | 0] & 0xffff;
        const difference =
          (word5 ^ before5) | (word6 ^ before6) | (word7 ^ before7) | (word8 ^ before8) | (word9 ^ before9);
        if (difference === 0) continue;
        before5 = word5;
        before6 = word6;
        before7 = word7;
        before8 = word8;
        before9 = word9;
      } else before5 = NO_WORD;
      repeats[frame] = 0;
      this.readFrame(batch, copies, frame);
    }
  }

  private findEnds(): void {
    const { runs, runEnds, runCount } = this;
    for (let run = 0; run < runCount; run++) runEnds[runs[run]] = runs[run + 1];
  }

  private fillAny(batch: Batch, copies: HeadCopies): void {
    const { repeats } = this;
    const { count } = batch;
    const { i32 } = copies.window;
    let before = 0;
    for (let frame = 0; frame < count; frame++) {
      const word = copies.indexOf(batch, frame) >> 2;
      const hasPorts = batch.bytesOf(frame) >= PORTS_END;
      if (!hasPorts || !repeatsWords(i32, word, before) || !isAlikeTheLast(batch, frame)) {
        repeats[frame] = 0;
        this.readFrame(batch, copies, frame);
      }
      // Of what has no room for ports nothing is told by comparing words.
      before = hasPorts ? word : 0;
    }
  }

  private readFrame(batch: Batch, copies: HeadCopies, frame: number): void {
    this.runs[this.runCount++] = frame;
    const type = batch.word3Of(frame);
    const index = copies.indexOf(batch, frame);
    this.read(
      copies.window.u8,
      index,
      copies.bytesOf(batch, frame),
      frame,
      ((type & 0xff) << 8) | ((type >> 8) & 0xff),
    );
  }

  /** `end` bytes of the frame lie at `index`. */
  private read(u8: Uint8Array, index: number, end: number, frame: number, etherType: number): void {
    this.ipVersions[frame] = 0;
    this.ipv4Sources[frame] = 0;
    this.ipv4Destinations[frame] = 0;
    this.protocols[frame] = NONE;
    this.l4Sources[frame] = NONE;
    this.l4Destinations[frame] = NONE;
    this.l4Offsets[frame] = 0;
    if (etherType === IPV4) this.readIpv4(u8, index, end, frame);
    else if (etherType === IPV6) this.readIpv6(u8, index, end, frame);
  }

  private readIpv4(u8: Uint8Array, index: number, end: number, frame: number): void {
    const ip = index + IP_START;
    const headerBytes = (u8[ip] & 0x0f) << 2;
    if (end < IP_START + IPV4_HEADER_BYTES_MIN || u8[ip] >> 4 !== 4 || headerBytes < IPV4_HEADER_BYTES_MIN)
      return;
    this.ipVersions[frame] = 4;
    this.protocols[frame] = u8[ip + 9];
    this.ipv4Sources[frame] = be32(u8, ip + 12);
    this.ipv4Destinations[frame] = be32(u8, ip + 16);
    const fragment = be16(u8, ip + 6);
    if ((fragment & IPV4_OFFSET_BITS) !== 0) return;
    const isFragment = (fragment & IPV4_FRAGMENT_MASK) !== 0;
    this.readTransport(u8, index, end, IP_START + headerBytes, frame, isFragment);
  }

  private readIpv6(u8: Uint8Array, index: number, end: number, frame: number): void {
    const ip = index + IP_START;
    if (end < IP_START + IPV6_HEADER_BYTES || u8[ip] >> 4 !== 6) return;
    this.ipVersions[frame] = 6;
    this.hasSix = true;
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

/** Whether it has the addresses and the VLAN of the frame before it. */
function isAlikeTheLast({ records, alike, tags }: Batch, frame: number): boolean {
  if (!tags.isUniform && tags.outers[frame] !== tags.outers[frame - 1]) return false;
  const at = frame << RECORD_SHIFT;
  const last = at - (1 << RECORD_SHIFT);
  return (
    alike ||
    (records[at + AT_WORD0] === records[last + AT_WORD0] &&
      records[at + AT_WORD1] === records[last + AT_WORD1] &&
      records[at + AT_WORD2] === records[last + AT_WORD2])
  );
}

/** Whether both are IPv4 without options, and have the same addresses, protocol and four bytes behind, fragment or none. */
function repeatsWords(i32: Int32Array, word: number, before: number): boolean {
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
