/**
 * Guest-physical addresses of descriptors to places in the arena, on the hot path of one thread. The whole
 * range is checked, not only its start. The last range hit is remembered: a guest's buffers nearly always
 * lie in one region. Allocates nothing; numbers that cross function borders stay in int32 range.
 */
import { WINDOW_BYTES } from './arena-view.ts';

/** One contiguous piece of guest memory; `end` is exclusive. */
export type GpaRange = { readonly start: number; readonly end: number; readonly arenaOffset: number };
/** All of a guest's memory by ascending address; plain data that can be posted to a worker. */
export type GpaMap = readonly GpaRange[];

const TWO_32 = 4_294_967_296;
const WINDOWS_PER_BYTE = 1 / WINDOW_BYTES;

/** Fields of `#hit`: the remembered range and what to add to an address in it. */
const HIT_START = 0;
const HIT_END = 1;
const HIT_DELTA = 2;

export class GpaTranslator {
  /** Per range: start, end, arena offset minus start. */
  readonly #ranges: Float64Array;
  readonly #count: number;
  readonly #hit = new Float64Array(3);
  /** Window of the last place found; its index is what the methods answer. */
  window = 0;
  /** After `locateSome`: how many bytes lie contiguous from there, at most as many as asked for. */
  contiguousBytes = 0;

  constructor(map: GpaMap) {
    this.#count = map.length;
    this.#ranges = new Float64Array(map.length * 3);
    for (const [i, range] of map.entries()) {
      this.#ranges[i * 3] = range.start;
      this.#ranges[i * 3 + 1] = range.end;
      this.#ranges[i * 3 + 2] = range.arenaOffset - range.start;
    }
  }

  /**
   * Index in `window` of the address whose halves are given (int32, any sign), or -1 when not all of
   * `sizeBytes` (uint32 carried as int32) is one piece of the guest's memory.
   */
  locate(gpaLo: number, gpaHi: number, sizeBytes: number): number {
    const gpa = (gpaHi >>> 0) * TWO_32 + (gpaLo >>> 0);
    const hit = this.#hit;
    if (gpa < hit[HIT_START]! || gpa + (sizeBytes >>> 0) > hit[HIT_END]!) {
      if (!this.#find(gpa) || gpa + (sizeBytes >>> 0) > hit[HIT_END]!) return -1;
    }
    const offset = gpa + hit[HIT_DELTA]!;
    const window = (offset * WINDOWS_PER_BYTE) | 0;
    this.window = window;
    return (offset - window * WINDOW_BYTES) | 0;
  }

  /**
   * As `locate` for a range that may continue in another piece: `skipBytes` (int32, not negative) after the
   * address, sets `contiguousBytes`. -1 when that byte is not the guest's memory.
   */
  locateSome(gpaLo: number, gpaHi: number, skipBytes: number, wantedBytes: number): number {
    const gpa = (gpaHi >>> 0) * TWO_32 + (gpaLo >>> 0) + skipBytes;
    const hit = this.#hit;
    if ((gpa < hit[HIT_START]! || gpa >= hit[HIT_END]!) && !this.#find(gpa)) return -1;
    this.contiguousBytes = Math.min(hit[HIT_END]! - gpa, wantedBytes) | 0;
    const offset = gpa + hit[HIT_DELTA]!;
    const window = (offset * WINDOWS_PER_BYTE) | 0;
    this.window = window;
    return (offset - window * WINDOW_BYTES) | 0;
  }

  /** Remembers the range that holds `gpa`; false when none does. */
  #find(gpa: number): boolean {
    const ranges = this.#ranges;
    for (let at = 0; at < this.#count * 3; at += 3) {
      if (gpa >= ranges[at]! && gpa < ranges[at + 1]!) {
        this.#hit[HIT_START] = ranges[at]!;
        this.#hit[HIT_END] = ranges[at + 1]!;
        this.#hit[HIT_DELTA] = ranges[at + 2]!;
        return true;
      }
    }
    return false;
  }
}
