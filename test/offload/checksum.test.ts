/** Sums of window memory at any place and of any length against the naive twin's, and their extremes. */
import { describe, expect, it } from 'vitest';
import { checksumOf, folded, sumBytes, swapped16 } from '../../src/offload/checksum.ts';
import { Random, seeds } from '../vring/random.ts';
import { readAt, sharedArenaView, slotPlace, writeAt } from '../vring/scratch.ts';
import { naiveSum } from './naive-offload.ts';

/** As the twin has it: in network order. */
function sumAt(place: { window: number; index: number }, sizeBytes: number): number {
  return swapped16(sumBytes(sharedArenaView.windows[place.window], place.index, sizeBytes));
}

/** Two representations of zero are one number. */
const modulo = (sum: number): number => sum % 0xffff;

describe('the sum of memory', () => {
  it('is right at every alignment, of every short length, and reads nothing beside it', () => {
    const random = new Random(1);
    for (let shift = 0; shift < 8; shift++) {
      for (let sizeBytes = 0; sizeBytes <= 80; sizeBytes++) {
        const place = slotPlace(0, 0, shift);
        const bytes = random.bytes(sizeBytes);
        for (const around of [0x00, 0xff]) {
          writeAt(slotPlace(0, 0), new Uint8Array(128).fill(around));
          writeAt(place, bytes);
          expect([shift, sizeBytes, sumAt(place, sizeBytes)]).toEqual([shift, sizeBytes, naiveSum(bytes)]);
        }
      }
    }
  });

  it('loses no carry of the longest stretch of the largest words', () => {
    for (const sizeBytes of [65_535, 65_557, 2 ** 17]) {
      for (const shift of [0, 1, 2, 3]) {
        const place = slotPlace(1, 0, shift);
        writeAt(place, new Uint8Array(sizeBytes).fill(0xff));
        expect(sumAt(place, sizeBytes)).toBe(sizeBytes % 2 === 0 ? 0xffff : 0xff00);
      }
    }
  });

  it('is 0 of zeros only', () => {
    const place = slotPlace(0, 0);
    writeAt(place, new Uint8Array(64));
    expect(sumAt(place, 64)).toBe(0);
    writeAt(place, Uint8Array.from([0xff, 0xff]));
    expect(sumAt(place, 64)).toBe(0xffff);
  });

  for (const seed of seeds(20)) {
    it(`is right of stretches of any length over the border of two windows, seed ${seed}`, () => {
      const random = new Random(seed);
      const place = slotPlace(2, 0, random.between(0, 63));
      const bytes = random.bytes(65_557);
      writeAt(place, bytes);
      for (let i = 0; i < 20; i++) {
        const from = random.between(0, bytes.length);
        const sizeBytes = random.between(0, bytes.length - from);
        const part = { window: place.window, index: place.index + from };
        expect(sumAt(part, sizeBytes)).toBe(naiveSum(readAt(part, sizeBytes)));
      }
    });

    it(`of pieces is the sum of them put together, seed ${seed}`, () => {
      const random = new Random(seed);
      const place = slotPlace(0, 0, random.between(0, 63));
      const bytes = random.bytes(random.between(1, 3000));
      writeAt(place, bytes);
      let sum = 0;
      for (let done = 0; done < bytes.length; ) {
        const count = Math.min(bytes.length - done, random.pick([1, 2, 3, 7, 100, 1001]));
        const part = sumBytes(sharedArenaView.windows[place.window], place.index + done, count);
        sum += done % 2 === 0 ? part : swapped16(part);
        done += count;
      }
      expect(modulo(swapped16(folded(sum)))).toBe(modulo(naiveSum(bytes)));
    });
  }
});

describe('a checksum', () => {
  it('is what RFC 1071 has for an example (section 3)', () => {
    const bytes = Uint8Array.from([0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
    const place = slotPlace(0, 0);
    writeAt(place, bytes);
    const sum = sumBytes(sharedArenaView.windows[place.window], place.index, bytes.length);
    expect(swapped16(sum)).toBe(0xddf2);
    expect(swapped16(checksumOf(sum))).toBe(0x220d);
  });

  it('folds sums of up to 32 bits', () => {
    expect(folded(0xffff_ffff)).toBe(0xffff);
    expect(folded(0xffff_0001)).toBe(0x0001 + 0xffff - 0xffff);
    expect(folded(0)).toBe(0);
    expect(checksumOf(0)).toBe(0xffff);
  });
});
