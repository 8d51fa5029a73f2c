/**
 * Guest-physical addresses of descriptors to places in the arena, on the hot path of one thread. The whole
 * range is checked, not only its start. What was hit last is remembered in small integers: a guest's buffers
 * nearly always lie in one region, and most lookups are then a subtraction and two comparisons. Allocates
 * nothing; numbers that cross function borders stay in int32 range.
 */
import { WINDOW_BYTES, WINDOW_OVERLAP_BYTES } from './window.ts';

/** One contiguous piece of guest memory; `end` is exclusive. */
export type GpaRange = { readonly start: number; readonly end: number; readonly arenaOffset: number };
/** All of a guest's memory by ascending address; plain data that can be posted to a worker. */
export type GpaMap = readonly GpaRange[];
/**
 * Of a guest whose device is behind an IOMMU (iotlb.ts), by the addresses that its drivers write down: what the device may
 * read, and what it may write; often the same array. RANGE_WORDS a range: first address, end, arena offset minus first address.
 * Nobody changes it, so threads share it.
 */
export type IovaMap = {
  readonly kind: 'iova';
  readonly readable: Float64Array;
  readonly writable: Float64Array;
};
/** What a ring's descriptors are translated by. */
export type AddressMap = GpaMap | IovaMap;
export const RANGE_WORDS = 3;

export function isIovaMap(map: AddressMap): map is IovaMap {
  return !Array.isArray(map);
}

const TWO_32 = 4_294_967_296;

export class GpaTranslator {
  /** Window of the last place found; its index is what the methods answer. */
  window = 0;
  /** After `locateSome`: how many bytes lie contiguous from there, at most as many as asked for. */
  contiguousBytes = 0;
  /**
   * The remembered piece: from the address with halves `hitHi` and `hitLo` (int32), `hitBytes` lie in window
   * `window` from `hitIndex` on. Reaches into the window's overlap, but not across a multiple of 4 GiB, where
   * the lower half starts again; -1 bytes: nothing is remembered.
   */
  hitHi = 0;
  hitLo = 0;
  hitBytes = -1;
  hitIndex = 0;
  hitWindow = 0;
  /** After -1: the first byte that was not found, or, of a range of several pieces, where the first of them ends. */
  missedLo = 0;
  missedHi = 0;
  declare private readonly isForWriting: boolean;
  /** Per range: start, end, arena offset minus start. */
  declare private ranges: Float64Array;
  declare private rangeCount: number;

  /** `isForWriting`: behind an IOMMU, finds only what may be written instead of what may be read. */
  constructor(map: AddressMap, isForWriting = false) {
    this.isForWriting = isForWriting;
    this.follow(map);
  }

  /** Translates by this map from now on: the guest has more memory, or less. */
  follow(map: AddressMap): void {
    this.hitBytes = -1;
    if (isIovaMap(map)) {
      this.ranges = this.isForWriting ? map.writable : map.readable;
      this.rangeCount = this.ranges.length / RANGE_WORDS;
      return;
    }
    this.rangeCount = map.length;
    this.ranges = new Float64Array(map.length * 3);
    for (const [i, range] of map.entries()) {
      this.ranges[i * 3] = range.start;
      this.ranges[i * 3 + 1] = range.end;
      this.ranges[i * 3 + 2] = range.arenaOffset - range.start;
    }
  }

  /**
   * Index in `window` of the address whose halves are given (int32, any sign), or -1 when not all of
   * `sizeBytes` (1 to WINDOW_OVERLAP_BYTES) is one piece of the guest's memory.
   */
  locate(gpaLo: number, gpaHi: number, sizeBytes: number): number {
    const distance = (gpaLo - this.hitLo) | 0;
    if (gpaHi === this.hitHi && distance >= 0 && distance <= this.hitBytes - sizeBytes) {
      this.window = this.hitWindow;
      return this.hitIndex + distance;
    }
    return this.locateAnew(gpaLo, gpaHi, sizeBytes);
  }

  /**
   * As `locate` for a range that may continue in another piece: `skipBytes` (0 to 2^32) after the address,
   * sets `contiguousBytes`. -1 when that byte is not the guest's memory.
   */
  locateSome(gpaLo: number, gpaHi: number, skipBytes: number, wantedBytes: number): number {
    const gpa = (gpaHi >>> 0) * TWO_32 + (gpaLo >>> 0) + skipBytes;
    const at = this.rangeOf(gpa);
    if (at < 0) return this.miss(gpa);
    this.contiguousBytes = Math.min(this.ranges[at + 1] - gpa, wantedBytes, WINDOW_OVERLAP_BYTES) | 0;
    return this.placeOf(gpa + this.ranges[at + 2]);
  }

  private locateAnew(gpaLo: number, gpaHi: number, sizeBytes: number): number {
    const gpa = (gpaHi >>> 0) * TWO_32 + (gpaLo >>> 0);
    const at = this.rangeOf(gpa);
    if (at < 0) return this.miss(gpa);
    if (gpa + sizeBytes > this.ranges[at + 1]) return this.miss(this.ranges[at + 1]);
    const index = this.placeOf(gpa + this.ranges[at + 2]);
    this.remember(gpa, at);
    return index;
  }

  private miss(gpa: number): -1 {
    this.missedLo = (gpa % TWO_32) | 0;
    this.missedHi = Math.floor(gpa / TWO_32) | 0;
    return -1;
  }

  /** Remembers the part of a range that shares the address's upper half and its window. */
  private remember(gpa: number, at: number): void {
    const start = this.ranges[at];
    const end = this.ranges[at + 1];
    const delta = this.ranges[at + 2];
    const windowStart = this.window * WINDOW_BYTES - delta;
    const upperHalf = Math.floor(gpa / TWO_32);
    const pieceStart = Math.max(start, windowStart, upperHalf * TWO_32);
    const pieceEnd = Math.min(
      end,
      windowStart + WINDOW_BYTES + WINDOW_OVERLAP_BYTES,
      (upperHalf + 1) * TWO_32,
    );
    this.hitHi = upperHalf | 0;
    this.hitLo = (pieceStart % TWO_32) | 0;
    this.hitBytes = (pieceEnd - pieceStart) | 0;
    this.hitIndex = (pieceStart - windowStart) | 0;
    this.hitWindow = this.window;
  }

  /** Cut to int32 at once: a field that ever held a double stays a boxed number in V8. */
  private placeOf(offset: number): number {
    const window = Math.floor(offset / WINDOW_BYTES) | 0;
    this.window = window;
    return (offset - window * WINDOW_BYTES) | 0;
  }

  /** Where in `ranges` the range that holds `gpa` stands, or -1. */
  private rangeOf(gpa: number): number {
    const { ranges } = this;
    // A guest decides how many ranges there are, up to several hundred, and how often none is found at once.
    let low = 0;
    let high = this.rangeCount;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (gpa < ranges[middle * 3 + 1]) high = middle;
      else low = middle + 1;
    }
    const at = low * 3;
    return low < this.rangeCount && gpa >= ranges[at] ? at : -1;
  }
}
