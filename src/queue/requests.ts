/**
 * What the frames of a batch ask of whoever gets them: a checksum to be put in, a frame to be cut into segments. The
 * side table of a Batch, filled by src/offload/request.ts, which checks the whole request first, and read only while
 * `batch.asks`. Numbers count from the frame's first byte as the frame stands in the batch; a tag that is taken out
 * of the frame moves them (`dropFront`).
 *
 * The headers of a frame to be segmented are read once, when they are checked, and kept here: what was checked is what
 * segments are made of, whatever the guest does meanwhile. Hot path; one worker's object.
 */
import { ETHERNET_HEADER_BYTES } from '../../protocol/ethernet.ts';

/**
 * What a frame needs of its receiver to be handed over as it is, and what a receiver takes: bits, so that
 * `needs & ~takes` is what is left to do. Who takes segmentation takes checksums too.
 */
export const OFFLOAD_CHECKSUM = 1;
export const OFFLOAD_TSO4 = 2;
export const OFFLOAD_TSO6 = 4;
/** Beside TSO: CWR belongs to the first segment only. */
export const OFFLOAD_ECN = 8;
export const OFFLOAD_USO4 = 16;
export const OFFLOAD_USO6 = 32;
/**
 * Beside TSO and USO: headers or segments that a network card may not make, where a kernel does: IPv6 extension headers, no
 * length in the IP header, or segments of less than CARD_SEGMENT_BYTES_MIN.
 */
export const OFFLOAD_UNCOMMON = 64;
/** Payload of a segment that every card makes; the most that one of them asks for (Intel's 700 series). */
export const CARD_SEGMENT_BYTES_MIN = 256;
/** Those that make several frames of one. */
export const OFFLOAD_SEGMENTS = OFFLOAD_TSO4 | OFFLOAD_TSO6 | OFFLOAD_USO4 | OFFLOAD_USO6;
export const OFFLOAD_ALL = OFFLOAD_CHECKSUM | OFFLOAD_SEGMENTS | OFFLOAD_ECN;

/** Longest headers of a frame to be segmented, Ethernet's with them. */
export const REQUEST_HEADER_BYTES_MAX = 256;

/** A record begins at word `frame << REQUEST_SHIFT` of `words`; its words: */
export const REQUEST_SHIFT = 3;
/** OFFLOAD_* bits; 0: the frame asks for nothing, and the other words mean nothing. */
export const AT_NEEDS = 0;
/** Where the checksum begins to count, and where it is put from there on, in bytes. */
export const AT_CSUM_START = 1;
export const AT_CSUM_OFFSET = 2;
/** Of segmentation only. Bytes to the end of the TCP or UDP header. */
export const AT_HEADER_BYTES = 3;
/** Of segmentation only. Payload of each segment but the last. */
export const AT_SEGMENT_BYTES = 4;
/** Of segmentation only. Where the IP header begins. */
export const AT_NETWORK_START = 5;
/** Of segmentation only. Bytes at the beginning of the kept headers that the frame has no more. */
export const AT_DROPPED = 6;
/** 1: the frame asks for nothing, and its checksum is known to be right by whoever handed it in. */
export const AT_VALID = 7;

export class Requests {
  declare readonly words: Int32Array;
  /** Kept headers, REQUEST_HEADER_BYTES_MAX a frame. */
  declare readonly heads: Uint8Array;
  declare readonly heads32: Int32Array;
  /** Of each frame: its part of `heads`. */
  declare readonly headOf: readonly Uint8Array[];

  constructor(framesMax: number) {
    this.words = new Int32Array(framesMax << REQUEST_SHIFT);
    this.heads = new Uint8Array(framesMax * REQUEST_HEADER_BYTES_MAX);
    this.heads32 = new Int32Array(this.heads.buffer);
    this.headOf = Array.from({ length: framesMax }, (_, frame) =>
      this.heads.subarray(frame * REQUEST_HEADER_BYTES_MAX, (frame + 1) * REQUEST_HEADER_BYTES_MAX),
    );
  }

  clear(): void {
    this.words.fill(0);
  }

  needsOf(frame: number): number {
    return this.words[(frame << REQUEST_SHIFT) + AT_NEEDS];
  }

  isValid(frame: number): boolean {
    return this.words[(frame << REQUEST_SHIFT) + AT_VALID] !== 0;
  }

  noteValid(frame: number): void {
    this.words[(frame << REQUEST_SHIFT) + AT_VALID] = 1;
  }

  csumStartOf(frame: number): number {
    return this.words[(frame << REQUEST_SHIFT) + AT_CSUM_START];
  }

  csumOffsetOf(frame: number): number {
    return this.words[(frame << REQUEST_SHIFT) + AT_CSUM_OFFSET];
  }

  headerBytesOf(frame: number): number {
    return this.words[(frame << REQUEST_SHIFT) + AT_HEADER_BYTES];
  }

  segmentBytesOf(frame: number): number {
    return this.words[(frame << REQUEST_SHIFT) + AT_SEGMENT_BYTES];
  }

  networkStartOf(frame: number): number {
    return this.words[(frame << REQUEST_SHIFT) + AT_NETWORK_START];
  }

  /** For `Batch.segmentCountOf`. */
  segmentCountOf(frame: number, frameBytes: number): number {
    if ((this.needsOf(frame) & OFFLOAD_SEGMENTS) === 0) return 1;
    const segmentBytes = this.segmentBytesOf(frame);
    return ((frameBytes - this.headerBytesOf(frame) + segmentBytes - 1) / segmentBytes) | 0;
  }

  /** For `Batch.wireBytesOf`. */
  wireBytesOf(frame: number, frameBytes: number): number {
    if ((this.needsOf(frame) & OFFLOAD_SEGMENTS) === 0) return frameBytes;
    return this.headerBytesOf(frame) + this.segmentBytesOf(frame);
  }

  askChecksum(frame: number, csumStart: number, csumOffset: number): void {
    const at = frame << REQUEST_SHIFT;
    const { words } = this;
    words[at + AT_NEEDS] = OFFLOAD_CHECKSUM;
    words[at + AT_CSUM_START] = csumStart;
    words[at + AT_CSUM_OFFSET] = csumOffset;
    words[at + AT_DROPPED] = 0;
  }

  /** The frame's headers stand in `headOf[frame]`. */
  askSegments(
    frame: number,
    needs: number,
    networkStart: number,
    csumStart: number,
    csumOffset: number,
    headerBytes: number,
    segmentBytes: number,
  ): void {
    const at = frame << REQUEST_SHIFT;
    const { words } = this;
    words[at + AT_NEEDS] = needs;
    words[at + AT_CSUM_START] = csumStart;
    words[at + AT_CSUM_OFFSET] = csumOffset;
    words[at + AT_HEADER_BYTES] = headerBytes;
    words[at + AT_SEGMENT_BYTES] = segmentBytes;
    words[at + AT_NETWORK_START] = networkStart;
    words[at + AT_DROPPED] = 0;
  }

  /** Frame `frame` asks for what frame `fromFrame` of another table does. */
  copy(frame: number, from: Requests, fromFrame: number): void {
    const to = frame << REQUEST_SHIFT;
    const at = fromFrame << REQUEST_SHIFT;
    for (let word = 0; word <= AT_VALID; word++) this.words[to + word] = from.words[at + word];
    if ((this.words[to + AT_NEEDS] & OFFLOAD_SEGMENTS) === 0) return;
    const toHead = (frame * REQUEST_HEADER_BYTES_MAX) >> 2;
    const fromHead = (fromFrame * REQUEST_HEADER_BYTES_MAX) >> 2;
    const wordCount = REQUEST_HEADER_BYTES_MAX >> 2;
    for (let word = 0; word < wordCount; word++) this.heads32[toHead + word] = from.heads32[fromHead + word];
  }

  /**
   * The frame begins `sizeBytes` later from now on: a VLAN tag was taken out of it. False when the checksum begins
   * within that: a bad checksum request. A frame that asks for nothing may come too.
   */
  dropFront(frame: number, sizeBytes: number): boolean {
    const at = frame << REQUEST_SHIFT;
    const { words } = this;
    if (words[at + AT_NEEDS] === 0) return true;
    words[at + AT_CSUM_START] -= sizeBytes;
    words[at + AT_HEADER_BYTES] -= sizeBytes;
    words[at + AT_NETWORK_START] -= sizeBytes;
    words[at + AT_DROPPED] += sizeBytes;
    return words[at + AT_CSUM_START] >= ETHERNET_HEADER_BYTES;
  }
}
