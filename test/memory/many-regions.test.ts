/**
 * 64 guests that take all the memory regions they get, with the limits of this machine: they would reach
 * vm.max_map_count, and then nothing can be mapped or unmapped any more. With small budgets and ports:
 * test/port/budgets.test.ts.
 */
import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { Arena } from '../../src/memory/arena.ts';
import { GuestMemory } from '../../src/memory/guest-memory.ts';
import { MemoryError } from '../../src/memory/peer-mapping.ts';
import { GuestFile, UVA_BASE } from './guest-file.ts';

const SLOTS = 509;
const GUESTS = 64;
const PAGE_BYTES = 4096;

/** Pieces of address space of this process, as the kernel counts them. */
function pieces(): number {
  return readFileSync('/proc/self/maps', 'utf8').split('\n').length;
}

it(`${GUESTS} guests with ${SLOTS} regions each get no more than there is`, { timeout: 120_000 }, () => {
  const limit = Number(readFileSync('/proc/sys/vm/max_map_count', 'utf8'));
  const arena = Arena.reserve(2 ** 37);
  const file = new GuestFile(SLOTS * PAGE_BYTES);
  const before = pieces();
  const guests = Array.from({ length: GUESTS }, () => new GuestMemory(arena));
  const counts = guests.map((guest) => {
    for (let count = 0; count < SLOTS; count++) {
      const at = BigInt(count * PAGE_BYTES);
      // Not side by side, so that each is a mapping of its own.
      const place = { gpa: 3n * at, uva: UVA_BASE + 3n * at, sizeBytes: BigInt(PAGE_BYTES), mmapOffset: at };
      try {
        guest.add(place, file.fd);
      } catch (error) {
        expect(error).toBeInstanceOf(MemoryError);
        expect((error as Error).message).toMatch(/no more than 16 memory regions for one guest/);
        return count;
      }
    }
    return SLOTS;
  });
  // Half of what there is, at most, is for regions and the holes between them.
  expect(pieces() - before).toBeLessThanOrEqual(limit / 2);
  expect(counts[0]).toBe(SLOTS);
  expect(Math.min(...counts)).toBeGreaterThanOrEqual(16);
  for (const guest of guests) guest.clear();
  expect(arena.mappedBytes).toBe(0);
  file.close();
  arena.release();
});
