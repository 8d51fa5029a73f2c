/**
 * Both translations, of guest-physical and of user addresses, against the naive twin: what Ringway reads in the
 * arena must be the byte that was written to the file.
 */
import { describe, expect, it, vi } from 'vitest';
import { type GpaMap, GpaTranslator } from '../../src/memory/gpa-translator.ts';
import { MemoryError } from '../../src/memory/peer-mapping.ts';
import { WINDOW_BYTES } from '../../src/memory/window.ts';
import { Random } from '../vring/random.ts';
import { file, GIB, hi, lo, locate, MIB, memory, PAGE, remove, view } from './memory-world.ts';
import { NaiveMemory, randomRange, randomRegion } from './naive-memory.ts';

describe('translations', () => {
  /** Writes a fresh mark to the file and looks for it in the arena. */
  function expectByte(
    twin: NaiveMemory,
    address: number,
    offset: number,
    space: 'gpa' | 'uva',
    mark: number,
  ): void {
    const { region, fileOffset } = twin.find(address, space)!;
    region.file.write(fileOffset, [mark]);
    if (view.u8[offset] !== mark) expect.fail(`${space} ${address} is not at arena offset ${offset}`);
  }

  function checkGpa(random: Random, twin: NaiveMemory, map: GpaMap, translator: GpaTranslator): void {
    const [gpa, sizeBytes] = randomRange(random, twin, 'gpa');
    const coverage = twin.coverage(gpa, sizeBytes, 'gpa');
    const index = translator.locate(lo(gpa), hi(gpa), sizeBytes);
    const offset = index < 0 ? -1 : translator.window * WINDOW_BYTES + index;
    // What was looked up before must not matter.
    expect(offset).toBe(locate(map, gpa, sizeBytes));
    if (coverage === 'none') expect(offset).toBe(-1);
    if (coverage === 'one') expect(offset).toBeGreaterThanOrEqual(0);
    if (offset >= 0) {
      expectByte(twin, gpa, offset, 'gpa', random.between(1, 255));
      expectByte(twin, gpa + sizeBytes - 1, offset + sizeBytes - 1, 'gpa', random.between(1, 255));
    }
    // Piece by piece every shared byte is reached, and none that is not.
    let done = 0;
    while (done < sizeBytes) {
      const at = translator.locateSome(lo(gpa), hi(gpa), done, sizeBytes - done);
      if (at < 0) break;
      const piece = translator.contiguousBytes;
      expect(piece).toBeGreaterThan(0);
      expectByte(twin, gpa + done, translator.window * WINDOW_BYTES + at, 'gpa', random.between(1, 255));
      expectByte(
        twin,
        gpa + done + piece - 1,
        translator.window * WINDOW_BYTES + at + piece - 1,
        'gpa',
        random.between(1, 255),
      );
      done += piece;
    }
    if (coverage === 'none') expect(twin.find(gpa + done, 'gpa')).toBeNull();
    else expect(done).toBe(sizeBytes);
  }

  function checkUva(random: Random, twin: NaiveMemory): void {
    const [uva, sizeBytes] = randomRange(random, twin, 'uva');
    const coverage = twin.coverage(uva, sizeBytes, 'uva');
    const offset = memory.offsetOfUva(BigInt(uva), sizeBytes);
    if (coverage === 'none') expect(offset).toBeNull();
    if (coverage === 'one') expect(offset).not.toBeNull();
    if (offset === null) return;
    expectByte(twin, uva, offset, 'uva', random.between(1, 255));
    expectByte(twin, uva + sizeBytes - 1, offset + sizeBytes - 1, 'uva', random.between(1, 255));
  }

  it.each([1, 2, 3, 4, 5, 6, 7, 8])(
    'agree with the naive twin over random regions (seed %i)',
    async (seed) => {
      const random = new Random(seed);
      const choices = [file(12 * GIB), file(64 * MIB), file(100 * PAGE + 123)];
      const twin = new NaiveMemory();
      let merged = 0;
      for (let round = 0; round < 60; round++) {
        if (twin.placed.length > 0 && random.chance(20)) {
          const gone = twin.placed.splice(random.between(0, twin.placed.length - 1), 1)[0];
          const { arenaOffset } = memory.find(gone);
          remove(gone);
          // Large parts are unmapped by another thread.
          await vi.waitUntil(() => view.u8[arenaOffset] === 0, { interval: 1 });
        } else {
          const { file: guest, ...region } = randomRegion(random, choices, twin.placed.at(-1));
          const placed = { ...region, file: guest };
          const accepts = twin.accepts(placed);
          if (accepts) {
            memory.add(region, guest.fd);
            twin.placed.push(placed);
          } else {
            expect(() => memory.add(region, guest.fd)).toThrow(MemoryError);
          }
        }
        expect(memory.regions).toHaveLength(twin.placed.length);
        const map = memory.gpaMap();
        merged += twin.placed.length - map.length;
        const translator = new GpaTranslator(map);
        for (let look = 0; look < 12; look++) {
          checkGpa(random, twin, map, translator);
          checkUva(random, twin);
        }
      }
      expect(merged).toBeGreaterThan(0);
    },
  );

  it('find nothing without any memory', () => {
    expect(locate([], 0, 1)).toBe(-1);
    expect(new GpaTranslator([]).locateSome(0, 0, 0, 1)).toBe(-1);
    expect(memory.offsetOfUva(0n, 1)).toBeNull();
  });

  it('find a piece again by its halves when the address lies on both sides of 4 GiB', () => {
    const map: GpaMap = [{ start: 2 ** 32 - 8192, end: 2 ** 32 + 8192, arenaOffset: GIB - 4096 }];
    const translator = new GpaTranslator(map);
    for (const gpa of [2 ** 32 - 100, 2 ** 32 + 50, 2 ** 32 - 8192, 2 ** 32, 2 ** 32 - 1, 2 ** 32 + 8191]) {
      const index = translator.locate(lo(gpa), hi(gpa), 1);
      expect(translator.window * WINDOW_BYTES + index).toBe(gpa - map[0].start + GIB - 4096);
      expect(translator.locate(lo(gpa), hi(gpa + 2 ** 32), 1)).toBe(-1);
    }
    // The last byte is remembered now; one more is not the guest's.
    expect(translator.locate(lo(2 ** 32 + 8191), 1, 2)).toBe(-1);
    expect(translator.locate(lo(2 ** 32 + 8192), 1, 1)).toBe(-1);
  });
});
