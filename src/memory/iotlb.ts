/**
 * What an IOMMU lets a guest's device do, as far as its front-end has told: ranges of addresses as drivers write them down
 * (IOVA), where each lies in the front-end's memory, and whether it may be read or written there. A cache: what is not in it is
 * asked for (src/device/translations.ts), and what is in it may be forgotten. Bounded, because a front-end may tell
 * without end. vhost-user.rst, "IOMMU support". Main thread; workers get `mapIn`.
 */
import { type GpaRange, type IovaMap, RANGE_WORDS } from './gpa-translator.ts';

/** ACCESS_READ, ACCESS_WRITE or both, as on the wire. */
export type Access = number;
export const ACCESS_READ = 1;
export const ACCESS_WRITE = 2;

/** A byte that has no translation that allows this. Plain data that can be posted. */
export type AddressMiss = { readonly iova: bigint; readonly access: Access };

/** The smallest page that an IOMMU has. */
export const IOMMU_PAGE_BYTES = 4096;
/**
 * Ranges that are kept; neighbours that lie next to each other in the front-end's memory, with the same permissions, are
 * one. A guest behind `iommu=pt` has one for each of its stretches of buffers, in pages that came together.
 */
export const IOTLB_RANGES_MAX = 8192;
/** Pages of one range that are named as missing, at most. */
const MISSES_MAX = 32;
const FIRST_CAPACITY = 64;

/** Where the front-end's addresses lie in the arena: ranges by ascending address. */
export type UvaMap = readonly GpaRange[];

export type IovaPlace =
  | { readonly kind: 'at'; readonly offset: number }
  /** One for each page of which something lacks. */
  | { readonly kind: 'missing'; readonly misses: readonly AddressMiss[] }
  /** It is known whole, and is not one piece of the arena. */
  | { readonly kind: 'scattered' };

/** Words of a range: first address, end, front-end's address minus IOVA, permissions. */
const WORDS = 4;
const START = 0;
const END = 1;
const DELTA = 2;
const ACCESS = 3;

export class Iotlb {
  #words = new Float64Array(FIRST_CAPACITY * WORDS);
  #count = 0;
  /** Where the next one is looked for that is to be forgotten. */
  #hand = 0;
  readonly #rangesMax: number;

  constructor(rangesMax = IOTLB_RANGES_MAX) {
    this.#rangesMax = rangesMax;
  }

  get rangeCount(): number {
    return this.#count;
  }

  /** As messages tell them; for whoever takes over. */
  get ranges(): readonly { iova: number; sizeBytes: number; uva: number; access: Access }[] {
    return Array.from({ length: this.#count }, (_, i) => {
      const [start, end, delta, access] = this.#words.subarray(i * WORDS, (i + 1) * WORDS);
      return { iova: start, sizeBytes: end - start, uva: start + delta, access };
    });
  }

  /**
   * From now on this range is translated so, whatever was there before. All sums are below 2^53. Answers whether something
   * that was allowed is not any more, or lies elsewhere. Call when there is room: `isFull` says no.
   */
  update(iova: number, sizeBytes: number, uva: number, access: Access): boolean {
    return this.#replace(iova, iova + sizeBytes, uva - iova, access);
  }

  /** Forgets what is known of the range up to `end`. Answers whether there was anything. */
  invalidate(iova: number, end: number): boolean {
    return this.#replace(iova, end, 0, 0);
  }

  clear(): void {
    this.#count = 0;
    this.#words = new Float64Array(FIRST_CAPACITY * WORDS);
  }

  /** Another range may not fit. */
  get isFull(): boolean {
    return this.#count + 2 > this.#rangesMax;
  }

  /** Forgets one range of those that `mayGo`, in turn. */
  forgetOne(mayGo: (iova: number, end: number) => boolean): void {
    for (let tries = 0; tries < this.#count; tries++) {
      this.#hand = (this.#hand + 1) % this.#count;
      const at = this.#hand * WORDS;
      if (!mayGo(this.#words[at + START], this.#words[at + END])) continue;
      this.#splice(this.#hand, 1, []);
      return;
    }
    // All are needed, and more than there may be: then these are asked for again.
    this.#count = 0;
  }

  /** What is allowed at an address. */
  accessAt(iova: bigint): Access {
    if (iova >= 2n ** 53n) return 0;
    const address = Number(iova);
    const i = this.#firstEndingAfter(address);
    const at = i * WORDS;
    return i < this.#count && this.#words[at + START] <= address ? this.#words[at + ACCESS] : 0;
  }

  /** Where a range lies that is to be read or written. */
  place(iova: bigint, sizeBytes: number, access: Access, uvas: UvaMap): IovaPlace {
    const misses = this.missesIn(iova, sizeBytes, access);
    if (misses.length > 0) return { kind: 'missing', misses };
    const start = Number(iova);
    const pieces = this.#piecesOf(start, start + sizeBytes, access, uvas);
    const [first] = pieces;
    if (first === undefined || first.start !== start || first.end !== start + sizeBytes)
      return { kind: 'scattered' };
    return { kind: 'at', offset: first.arenaOffset };
  }

  /** The front-end's address of a byte; null: not known. */
  uvaOf(iova: bigint): bigint | null {
    if (this.accessAt(iova) === 0) return null;
    const address = Number(iova);
    return BigInt(address + this.#words[this.#firstEndingAfter(address) * WORDS + DELTA]);
  }

  /** The first byte of each page, or part of one, that may not be read or written so; no more than a few. */
  missesIn(iova: bigint, sizeBytes: number, access: Access): AddressMiss[] {
    const misses: AddressMiss[] = [];
    const pageBytes = BigInt(IOMMU_PAGE_BYTES);
    const end = iova + BigInt(sizeBytes);
    for (let at = iova; at < end && misses.length < MISSES_MAX; ) {
      const known = this.accessAt(at);
      if ((known & access) === access) {
        at = BigInt(this.#words[this.#firstEndingAfter(Number(at)) * WORDS + END]);
        continue;
      }
      // What may be done already stays allowed, where a front-end allows what it is asked for.
      misses.push({ iova: at, access: access | known });
      at = (at / pageBytes + 1n) * pageBytes;
    }
    return misses;
  }

  /** What workers translate by; ranges that do not lie in `uvas` are left out. */
  mapIn(uvas: UvaMap): IovaMap {
    const readable = this.#flatMap(ACCESS_READ, uvas);
    const isAlike = this.#isAlike();
    return { kind: 'iova', readable, writable: isAlike ? readable : this.#flatMap(ACCESS_WRITE, uvas) };
  }

  /** Whether all that may be read may be written, and the other way round. */
  #isAlike(): boolean {
    for (let i = 0; i < this.#count; i++)
      if (this.#words[i * WORDS + ACCESS] !== (ACCESS_READ | ACCESS_WRITE)) return false;
    return true;
  }

  #flatMap(access: Access, uvas: UvaMap): Float64Array {
    const pieces = this.#piecesOf(0, Number.MAX_SAFE_INTEGER, access, uvas);
    // Shared: every worker has the same, and none changes it.
    const words = new Float64Array(new SharedArrayBuffer(pieces.length * RANGE_WORDS * 8));
    for (const [i, { start, end, arenaOffset }] of pieces.entries())
      words.set([start, end, arenaOffset - start], i * RANGE_WORDS);
    return words;
  }

  /** What allows that, within the range, neighbours in the arena as one. */
  #piecesOf(from: number, to: number, access: Access, uvas: UvaMap): GpaRange[] {
    const pieces: { start: number; end: number; arenaOffset: number }[] = [];
    const words = this.#words;
    for (let i = this.#firstEndingAfter(from); i < this.#count && words[i * WORDS + START] < to; i++) {
      const at = i * WORDS;
      if ((words[at + ACCESS] & access) !== access) continue;
      const delta = words[at + DELTA];
      const uvaStart = Math.max(from, words[at + START]) + delta;
      const uvaEnd = Math.min(to, words[at + END]) + delta;
      for (let u = firstUvaEndingAfter(uvas, uvaStart); u < uvas.length; u++) {
        const range = uvas[u];
        if (range.start >= uvaEnd) break;
        const uvaFrom = Math.max(range.start, uvaStart);
        const start = uvaFrom - delta;
        const end = Math.min(range.end, uvaEnd) - delta;
        const arenaOffset = range.arenaOffset + (uvaFrom - range.start);
        const last = pieces.at(-1);
        const continues = last?.end === start && last.arenaOffset + (last.end - last.start) === arenaOffset;
        if (last !== undefined && continues) last.end = end;
        else pieces.push({ start, end, arenaOffset });
      }
    }
    return pieces;
  }

  /** No access: nothing takes its place. Answers whether something that was allowed before is not so any more. */
  #replace(start: number, end: number, delta: number, access: Access): boolean {
    const words = this.#words;
    const first = this.#firstEndingAfter(start);
    let after = first;
    let isLost = false;
    const news: Range[] = [];
    for (; after < this.#count && words[after * WORDS + START] < end; after++) {
      const old = rangeAt(words, after);
      if ((old.access & ~access) !== 0 || old.delta !== delta) isLost = true;
      if (old.start < start) news.push({ ...old, end: start });
    }
    if (access !== 0) news.push({ start, end, delta, access });
    if (after > first) {
      const old = rangeAt(words, after - 1);
      if (old.end > end) news.push({ ...old, start: end });
    }
    // Neighbours may go on where it ends.
    const low = first > 0 ? first - 1 : first;
    const high = after < this.#count ? after + 1 : after;
    if (low < first) news.unshift(rangeAt(words, low));
    if (high > after) news.push(rangeAt(words, after));
    this.#splice(low, high - low, joined(news));
    return isLost;
  }

  #splice(at: number, removed: number, added: readonly Range[]): void {
    const count = this.#count - removed + added.length;
    if (count * WORDS > this.#words.length) {
      const longer = new Float64Array(Math.max(2 * this.#words.length, count * WORDS));
      longer.set(this.#words);
      this.#words = longer;
    }
    this.#words.copyWithin((at + added.length) * WORDS, (at + removed) * WORDS, this.#count * WORDS);
    for (const [i, { start, end, delta, access }] of added.entries())
      this.#words.set([start, end, delta, access], (at + i) * WORDS);
    this.#count = count;
  }

  #firstEndingAfter(address: number): number {
    let low = 0;
    let high = this.#count;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (address < this.#words[middle * WORDS + END]) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}

type Range = {
  readonly start: number;
  readonly end: number;
  readonly delta: number;
  readonly access: Access;
};

function rangeAt(words: Float64Array, i: number): Range {
  const at = i * WORDS;
  return {
    start: words[at + START],
    end: words[at + END],
    delta: words[at + DELTA],
    access: words[at + ACCESS],
  };
}

function joined(ranges: readonly Range[]): Range[] {
  const result: Range[] = [];
  for (const range of ranges) {
    const last = result.at(-1);
    const continues = last?.end === range.start && last.delta === range.delta && last.access === range.access;
    if (last !== undefined && continues) result[result.length - 1] = { ...last, end: range.end };
    else result.push(range);
  }
  return result;
}

function firstUvaEndingAfter(uvas: UvaMap, uva: number): number {
  let low = 0;
  let high = uvas.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (uva < uvas[middle].end) high = middle;
    else low = middle + 1;
  }
  return low;
}
