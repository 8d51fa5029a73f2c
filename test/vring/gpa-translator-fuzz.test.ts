/**
 * GpaTranslator, which remembers what it found last, against a twin that remembers nothing: random maps with
 * neighbours, holes and ranges across multiples of 4 GiB, and lookups that jump between them.
 */
import { describe, expect, it } from 'vitest';
import { type GpaMap, type GpaRange, GpaTranslator } from '../../src/memory/gpa-translator.ts';
import { WINDOW_BYTES, WINDOW_OVERLAP_BYTES } from '../../src/memory/window.ts';
import { Random, seeds } from './random.ts';

const GIB = 2 ** 30;
const FOUR_GIB = 4 * GIB;
const MIB = 2 ** 20;

const lo = (gpa: number): number => gpa | 0;
const hi = (gpa: number): number => Math.floor(gpa / FOUR_GIB) | 0;

function rangeOf(map: GpaMap, gpa: number): GpaRange | undefined {
  return map.find((range) => gpa >= range.start && gpa < range.end);
}

/** Arena offset of a whole piece, or -1. */
function naiveLocate(map: GpaMap, gpa: number, sizeBytes: number): number {
  const range = rangeOf(map, gpa);
  if (range === undefined || gpa + sizeBytes > range.end) return -1;
  return range.arenaOffset + (gpa - range.start);
}

function located(translator: GpaTranslator, gpa: number, sizeBytes: number): number {
  const index = translator.locate(lo(gpa), hi(gpa), sizeBytes);
  if (index < 0) return -1;
  // What is found must be readable through its window.
  expect(index + sizeBytes).toBeLessThanOrEqual(WINDOW_BYTES + WINDOW_OVERLAP_BYTES);
  return translator.window * WINDOW_BYTES + index;
}

function randomMap(random: Random): GpaRange[] {
  const ranges: GpaRange[] = [];
  let start = random.pick([0, MIB, 0x7fff_0000_0000, random.between(0, 4095) * MIB]);
  let arenaOffset = random.between(0, 4) * GIB;
  for (let left = random.between(1, 6); left > 0; left--) {
    const sizeBytes = random.pick([
      4096,
      MIB,
      700 * MIB,
      GIB,
      3 * GIB,
      5 * GIB,
      random.between(1, 6000) * MIB,
    ]);
    ranges.push({ start, end: start + sizeBytes, arenaOffset });
    start += sizeBytes + random.pick([0, 4096, GIB, random.between(0, 5000) * MIB]);
    arenaOffset += sizeBytes + random.pick([0, 2 * MIB, GIB]);
  }
  return ranges;
}

/** Addresses at and around every edge that could matter, and some in between. */
function randomGpa(random: Random, map: GpaMap): number {
  const range = random.pick(map);
  const sizeBytes = range.end - range.start;
  const boundary = Math.ceil(range.start / FOUR_GIB) * FOUR_GIB;
  const nearby = random.pick([0, 1, 63, 64, 65, 4096, random.between(0, MIB)]);
  const gpa = random.pick([
    range.start + nearby,
    range.start - nearby,
    range.end - nearby,
    range.end + nearby,
    boundary + nearby,
    boundary - nearby,
    range.start + Math.floor((random.next() / FOUR_GIB) * sizeBytes),
    random.next() + random.between(0, 4) * FOUR_GIB,
  ]);
  return Math.max(0, gpa);
}

describe('GpaTranslator and its forgetful twin', () => {
  it.each(seeds(60))('agree, seed %i', (seed) => {
    const random = new Random(seed);
    const map = randomMap(random);
    const translator = new GpaTranslator(map);
    for (let turn = 0; turn < 3000; turn++) {
      const gpa = randomGpa(random, map);
      const sizeBytes = random.pick([1, 14, 64, 1526, WINDOW_OVERLAP_BYTES]);
      const what = `${sizeBytes} bytes at 0x${gpa.toString(16)}`;
      expect(located(translator, gpa, sizeBytes), what).toBe(naiveLocate(map, gpa, sizeBytes));
      const index = translator.locateSome(lo(gpa), hi(gpa), 0, sizeBytes);
      const range = rangeOf(map, gpa);
      if (range === undefined) {
        expect(index, what).toBe(-1);
        continue;
      }
      expect(translator.window * WINDOW_BYTES + index, what).toBe(range.arenaOffset + (gpa - range.start));
      expect(translator.contiguousBytes, what).toBe(Math.min(range.end - gpa, sizeBytes));
    }
  });

  it('does not take a low address for one beyond the next multiple of 4 GiB', () => {
    const translator = new GpaTranslator([
      { start: 0x1000_0000, end: 0x1010_0000, arenaOffset: 0 },
      { start: 0xf000_0000, end: 0x1_2000_0000, arenaOffset: GIB },
    ]);
    expect(located(translator, 0xf000_0000, 64)).toBe(GIB);
    expect(located(translator, 0x1000_0000, 64)).toBe(0);
    expect(located(translator, 0xf000_0000, 64)).toBe(GIB);
    expect(located(translator, 0x0800_0000, 64)).toBe(-1);
  });
});
