/**
 * What an IOMMU lets a device do (src/memory/iotlb.ts), against a naive twin that has a record for each page: random updates,
 * large and small, over one another, and invalidations, looked up in every way there is.
 */
import { describe, expect, it } from 'vitest';
import { GpaTranslator, type IovaMap, RANGE_WORDS } from '../../src/memory/gpa-translator.ts';
import { ACCESS_READ, ACCESS_WRITE, IOTLB_RANGES_MAX, Iotlb, type UvaMap } from '../../src/memory/iotlb.ts';
import { Random, seeds } from '../vring/random.ts';

const PAGE = 4096;
const PAGES = 64;
const BOTH = ACCESS_READ | ACCESS_WRITE;
const IOVA = 0x7_0000_0000;
const UVA = 0x7f00_0000_0000;
/** Front-end-virtual memory of 48 pages; the last 16 lie elsewhere in the arena, and another 16 are not shared. */
const UVAS: UvaMap = [
  { start: UVA, end: UVA + 32 * PAGE, arenaOffset: 3 * 2 ** 30 },
  { start: UVA + 32 * PAGE, end: UVA + 48 * PAGE, arenaOffset: 2 ** 30 - 5 * PAGE },
];

type Page = { readonly uva: number; readonly access: number };

class Twin {
  readonly pages = new Map<number, Page>();

  update(page: number, count: number, uvaPage: number, access: number): boolean {
    let isLost = false;
    for (let i = 0; i < count; i++) {
      const before = this.pages.get(page + i);
      const uva = UVA + (uvaPage + i) * PAGE;
      if (before !== undefined && (before.uva !== uva || (before.access & ~access) !== 0)) isLost = true;
      this.pages.set(page + i, { uva, access });
    }
    return isLost;
  }

  invalidate(page: number, count: number): boolean {
    let isLost = false;
    for (let i = 0; i < count; i++) isLost = this.pages.delete(page + i) || isLost;
    return isLost;
  }

  /** Arena offset of a byte that may be used so; null: none. */
  locate(iova: number, access: number): number | null {
    const page = this.pages.get(Math.floor((iova - IOVA) / PAGE));
    if (page === undefined || (page.access & access) !== access) return null;
    const uva = page.uva + ((iova - IOVA) % PAGE);
    const range = UVAS.find(({ start, end }) => uva >= start && uva < end);
    return range === undefined ? null : range.arenaOffset + (uva - range.start);
  }

  /** Stretches of neighbours that a list would have. */
  get rangeCount(): number {
    let count = 0;
    for (let page = 0; page < PAGES; page++) {
      const here = this.pages.get(page);
      const before = this.pages.get(page - 1);
      if (here === undefined) continue;
      if (before === undefined || before.uva + PAGE !== here.uva || before.access !== here.access) count++;
    }
    return count;
  }
}

function located(map: IovaMap, iova: number, access: number): number | null {
  const translator = new GpaTranslator(map, access === ACCESS_WRITE);
  const index = translator.locate(iova | 0, Math.floor(iova / 2 ** 32), 1);
  return index < 0 ? null : translator.window * 2 ** 30 + index;
}

function compare(iotlb: Iotlb, twin: Twin, random: Random): void {
  expect(iotlb.rangeCount).toBe(twin.rangeCount);
  const map = iotlb.mapIn(UVAS);
  for (let page = 0; page < PAGES; page++) {
    const iova = IOVA + page * PAGE + random.between(0, PAGE - 1);
    expect(iotlb.accessAt(BigInt(iova))).toBe(twin.pages.get(page)?.access ?? 0);
    for (const access of [ACCESS_READ, ACCESS_WRITE])
      expect(located(map, iova, access)).toBe(twin.locate(iova, access));
  }
  for (let tries = 0; tries < 8; tries++) comparePlace(iotlb, twin, random);
}

/** A range of some pages, byte by byte at its pages' borders. */
function comparePlace(iotlb: Iotlb, twin: Twin, random: Random): void {
  const access = random.pick([ACCESS_READ, ACCESS_WRITE, BOTH]);
  const iova = IOVA + random.between(0, (PAGES - 6) * PAGE);
  const sizeBytes = random.pick([1, 16, PAGE, random.between(1, 5 * PAGE)]);
  const pages = [...new Set([iova, iova + sizeBytes - 1].map((at) => Math.floor((at - IOVA) / PAGE)))];
  const all = Array.from({ length: pages.at(-1)! - pages[0] + 1 }, (_, i) => pages[0] + i);
  const missing = all.filter((page) => ((twin.pages.get(page)?.access ?? 0) & access) !== access);
  const place = iotlb.place(BigInt(iova), sizeBytes, access, UVAS);
  if (missing.length > 0) {
    expect(place.kind).toBe('missing');
    if (place.kind !== 'missing') return;
    expect(place.misses).toEqual(
      missing.map((page) => ({
        iova: BigInt(Math.max(iova, IOVA + page * PAGE)),
        access: access | (twin.pages.get(page)?.access ?? 0),
      })),
    );
    return;
  }
  const offsets = all.map((page) => twin.locate(Math.max(iova, IOVA + page * PAGE), access));
  const start = offsets[0];
  const isOne = offsets.every((offset, i) => {
    const at = Math.max(iova, IOVA + all[i] * PAGE) - iova;
    return start !== null && offset === start + at;
  });
  expect(place).toEqual(isOne ? { kind: 'at', offset: start } : { kind: 'scattered' });
}

describe('the translations of an IOMMU', () => {
  it.each(seeds(30))('are those of a twin that has a record for each page, seed %i', (seed) => {
    const random = new Random(seed);
    const iotlb = new Iotlb();
    const twin = new Twin();
    for (let step = 0; step < 120; step++) {
      const page = random.between(0, PAGES - 1);
      const count = random.between(1, Math.min(PAGES - page, random.pick([1, 1, 4, PAGES])));
      const iova = IOVA + page * PAGE;
      if (random.chance(70)) {
        const access = random.pick([ACCESS_READ, ACCESS_WRITE, BOTH, BOTH, BOTH]);
        // Often as its neighbours are, so that they join.
        const uvaPage = random.chance(60) ? page : random.between(0, 63);
        expect(iotlb.update(iova, count * PAGE, UVA + uvaPage * PAGE, access)).toBe(
          twin.update(page, count, uvaPage, access),
        );
      } else {
        expect(iotlb.invalidate(iova, iova + count * PAGE)).toBe(twin.invalidate(page, count));
      }
      compare(iotlb, twin, random);
    }
  });

  it('join with their neighbours, and one range serves for reading and writing', () => {
    const iotlb = new Iotlb();
    for (const page of [0, 2, 1, 3]) iotlb.update(IOVA + page * PAGE, PAGE, UVA + page * PAGE, BOTH);
    expect(iotlb.rangeCount).toBe(1);
    const { readable, writable } = iotlb.mapIn(UVAS);
    expect(writable).toBe(readable);
    expect([...readable]).toEqual([IOVA, IOVA + 4 * PAGE, 3 * 2 ** 30 - IOVA]);
    expect(iotlb.ranges).toEqual([{ iova: IOVA, sizeBytes: 4 * PAGE, uva: UVA, access: BOTH }]);
  });

  it('may be of a few bytes', () => {
    const iotlb = new Iotlb();
    iotlb.update(IOVA + 100, 8, UVA + 5, ACCESS_READ);
    expect(iotlb.accessAt(BigInt(IOVA + 99))).toBe(0);
    expect(iotlb.accessAt(BigInt(IOVA + 107))).toBe(ACCESS_READ);
    expect(iotlb.accessAt(BigInt(IOVA + 108))).toBe(0);
    // Its page has a hole before it and one behind it; the first byte that lacks is named.
    expect(iotlb.missesIn(BigInt(IOVA + 100), 20, ACCESS_READ)).toEqual([
      { iova: BigInt(IOVA + 108), access: ACCESS_READ },
    ]);
    expect(iotlb.uvaOf(BigInt(IOVA + 101))).toBe(BigInt(UVA + 6));
    expect(iotlb.uvaOf(BigInt(IOVA))).toBeNull();
  });

  it('name no more than some of the pages of a large range, and none for ever', () => {
    const iotlb = new Iotlb();
    expect(iotlb.missesIn(2n ** 64n - 2n ** 30n, 2 ** 30, ACCESS_READ)).toHaveLength(32);
    expect(iotlb.accessAt(2n ** 64n - 1n)).toBe(0);
  });

  it('are bounded: some are forgotten, in turn, but not what is needed', () => {
    const iotlb = new Iotlb(16);
    const needed = IOVA;
    for (let i = 0; i < 200; i++) {
      while (iotlb.isFull) iotlb.forgetOne((start) => start !== needed);
      // No two join.
      iotlb.update(IOVA + 2 * i * PAGE, PAGE, UVA, ACCESS_READ);
      expect(iotlb.rangeCount).toBeLessThanOrEqual(16);
      expect(iotlb.accessAt(BigInt(needed))).toBe(ACCESS_READ);
      expect(iotlb.accessAt(BigInt(IOVA + 2 * i * PAGE))).toBe(ACCESS_READ);
    }
    // All are needed: then all must go.
    while (iotlb.isFull) iotlb.forgetOne(() => false);
    expect(iotlb.rangeCount).toBeLessThan(16);
  });

  it('are as many as said, at most', () => {
    const iotlb = new Iotlb();
    for (let i = 0; i < IOTLB_RANGES_MAX - 2; i++) {
      expect(iotlb.isFull).toBe(false);
      iotlb.update(IOVA + 2 * i * PAGE, PAGE, UVA, BOTH);
    }
    iotlb.update(IOVA + 2 * IOTLB_RANGES_MAX * PAGE, PAGE, UVA, BOTH);
    expect(iotlb.isFull).toBe(true);
    expect(iotlb.mapIn(UVAS).readable.length).toBe(RANGE_WORDS * (IOTLB_RANGES_MAX - 1));
  });
});
