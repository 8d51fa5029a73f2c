/** The arena: where parts are placed, and that what is unmapped reads zeros. */
import { closeSync, fstatSync, ftruncateSync, openSync, readSync } from 'node:fs';
import { afterAll, afterEach, describe, expect, it, vi } from 'vitest';
import { closeFd } from '../../src/host/descriptor.ts';
import { isBusyElsewhere } from '../../src/host/elsewhere.ts';
import { Arena, ArenaFullError, type Placement, roundDown, roundUp } from '../../src/memory/arena.ts';
import { ArenaView } from '../../src/memory/arena-view.ts';
import { WINDOW_BYTES, WINDOW_OVERLAP_BYTES } from '../../src/memory/window.ts';
import { Random } from '../vring/random.ts';
import { GuestFile } from './guest-file.ts';

const GIB = 2 ** 30;
const MIB = 2 ** 20;

const arena = Arena.reserve(4 * GIB);
const view = new ArenaView(arena.location);
const file = new GuestFile(8 * GIB);
afterAll(() => {
  closeFd(file.fd);
  arena.release();
});

const taken: number[] = [];
afterEach(async () => {
  for (const offset of taken.splice(0)) arena.unmap(offset);
  expect(arena.mappedBytes).toBe(0);
  await vi.waitUntil(() => !isBusyElsewhere());
});

function map(but: Partial<Placement> = {}): number {
  const offset = arena.map({
    fd: file.fd,
    fileOffset: 0,
    sizeBytes: 4096,
    pageBytes: 4096,
    preferredOffset: null,
    ...but,
  });
  taken.push(offset);
  return offset;
}

function unmap(offset: number): void {
  taken.splice(taken.indexOf(offset), 1);
  arena.unmap(offset);
}

describe('Arena', () => {
  it('is as large as asked for, at least 4 GiB, from a multiple of 1 GiB', () => {
    for (const [asked, got] of [
      [0, 4 * GIB],
      [4 * GIB + 1, 5 * GIB],
      [20 * GIB, 20 * GIB],
    ] as const) {
      const made = Arena.reserve(asked);
      expect(made.location.sizeBytes).toBe(got);
      expect(made.location.address % GIB).toBe(0);
      made.release();
    }
  });

  it('takes half as often as the system refuses', () => {
    // More addresses than a process has.
    const made = Arena.reserve(2 ** 48);
    expect(made.location.sizeBytes).toBeLessThan(2 ** 48);
    expect(made.location.sizeBytes).toBeGreaterThanOrEqual(2 ** 45);
    made.release();
  });

  it('places parts at multiples of 2 MiB, of their page size, and large ones of 1 GiB', () => {
    const offsets = [
      map(),
      map({ pageBytes: 2 * MIB, sizeBytes: 2 * MIB }),
      map({ sizeBytes: GIB }),
      map({ sizeBytes: 3 * 4096 }),
    ];
    expect(offsets).toEqual([0, 2 * MIB, GIB, 4 * MIB]);
    expect(arena.mappedBytes).toBe(GIB + 2 * MIB + 4 * 4096);
  });

  it('prefers the asked place only where that is free, aligned and inside', () => {
    const first = map({ sizeBytes: 8192 });
    expect(map({ preferredOffset: first + 8192 })).toBe(first + 8192);
    expect(map({ preferredOffset: first + 8192 })).toBe(2 * MIB);
    expect(map({ preferredOffset: first + 12_289 })).toBe(4 * MIB);
    expect(map({ preferredOffset: -4096 })).toBe(6 * MIB);
    expect(map({ preferredOffset: 4 * GIB })).toBe(8 * MIB);
    expect(map({ preferredOffset: 4 * GIB - 4096, sizeBytes: 8192 })).toBe(10 * MIB);
    expect(map({ preferredOffset: 4 * GIB - 4096 })).toBe(4 * GIB - 4096);
  });

  it('uses a gap again and says when nothing is left', () => {
    const offsets = [0, 1, 2, 3].map((n) => map({ sizeBytes: GIB, fileOffset: n * GIB }));
    expect(offsets).toEqual([0, GIB, 2 * GIB, 3 * GIB]);
    expect(() => map()).toThrow(ArenaFullError);
    unmap(GIB);
    expect(() => map({ sizeBytes: GIB + 4096 })).toThrow(/no 1073745920 bytes left in the arena/);
    expect(map({ sizeBytes: GIB })).toBe(GIB);
  });

  it('unmaps a large part of a guest by another thread, and has nothing else placed there before', async () => {
    const sizeBytes = 64 * MIB;
    const part = { sizeBytes, mayBeLost: true };
    const offset = map(part);
    view.u8.fill(7, offset, offset + 4096);
    unmap(offset);
    expect(arena.mappedBytes).toBe(0);
    expect(() => arena.unmap(offset)).toThrow('nothing is mapped');
    expect(isBusyElsewhere()).toBe(true);
    let hasLeft = false;
    void arena.nextDeparture()?.then(() => {
      hasLeft = true;
    });
    expect(map(part)).not.toBe(offset);
    await vi.waitUntil(() => !isBusyElsewhere());
    expect([hasLeft, arena.nextDeparture()]).toEqual([true, null]);
    expect(view.u8[offset]).toBe(0);
    expect(map(part)).toBe(offset);
  });

  it('refuses to unmap what is not mapped', () => {
    const offset = map();
    expect(() => arena.unmap(offset + 4096)).toThrow(/nothing is mapped/);
  });

  it('never lays two parts over each other, and leaves zeros (seeded)', () => {
    const random = new Random(5);
    const parts = new Map<number, { sizeBytes: number; mark: number }>();
    for (let round = 0; round < 400; round++) {
      if (parts.size > 0 && random.chance(45)) {
        const offset = random.pick([...parts.keys()]);
        parts.delete(offset);
        unmap(offset);
        expect(view.u8[offset]).toBe(0);
        continue;
      }
      const sizeBytes = random.between(1, 50) * 4096;
      const mark = random.between(1, 255);
      const fileOffset = round * 50 * 4096;
      file.write(fileOffset, [mark]);
      file.write(fileOffset + sizeBytes - 1, [mark]);
      const near = [...parts].at(-1);
      const preferredOffset = near === undefined ? null : near[0] + random.pick([0, near[1].sizeBytes, 4096]);
      parts.set(map({ fileOffset, sizeBytes, preferredOffset }), { sizeBytes, mark });
      for (const [offset, part] of parts) {
        if (view.u8[offset] !== part.mark || view.u8[offset + part.sizeBytes - 1] !== part.mark) {
          expect.fail(`the part at ${offset} was overwritten`);
        }
      }
    }
  });
});

describe('ArenaView', () => {
  it('shows the same bytes in every window that reaches them', () => {
    const at = GIB + 12;
    const offset = map({ sizeBytes: 2 * GIB });
    expect(offset).toBe(0);
    file.write(at, [1, 2, 3, 4]);
    const [first, second] = view.windows;
    expect([...second!.u8.subarray(12, 16)]).toEqual([1, 2, 3, 4]);
    expect([...first!.u8.subarray(WINDOW_BYTES + 12, WINDOW_BYTES + 16)]).toEqual([1, 2, 3, 4]);
    expect(second!.i32[3]).toBe(0x0403_0201);
    expect(second!.u16[6]).toBe(0x0201);
    expect(first!.u8.length).toBe(WINDOW_BYTES + WINDOW_OVERLAP_BYTES);
    expect([...view.bytesAt(at, 4)]).toEqual([1, 2, 3, 4]);
    expect(view.windows.at(-1)!.u8.length).toBe(WINDOW_BYTES);
  });
});

it('rounds numbers that are no small integers', () => {
  expect([roundUp(2 ** 41 + 1, 4096), roundDown(2 ** 41 + 4097, 4096)]).toEqual([
    2 ** 41 + 4096,
    2 ** 41 + 4096,
  ]);
  expect([roundUp(0, 4096), roundUp(4096, 4096), roundDown(4095, 4096)]).toEqual([0, 4096, 0]);
});

/** Which of the pages from there on this process has in its page tables (proc_pid_pagemap(5), bit 63). */
function entered(address: number, pages: number): number[] {
  const fd = openSync('/proc/self/pagemap', 'r');
  const entries = Buffer.alloc(8 * pages);
  readSync(fd, entries, 0, entries.length, (address / 4096) * 8);
  closeSync(fd);
  return Array.from({ length: pages }, (_, page) => page).filter((page) => entries[8 * page + 7] >= 0x80);
}

describe('pages of a front-end', () => {
  const pages = 600;

  async function enteredOf(written: readonly number[], shrunkTo = pages): Promise<number[]> {
    const own = new GuestFile(pages * 4096);
    for (const page of written) own.write(page * 4096, [1]);
    const blocksBefore = fstatSync(own.fd).blocks;
    const offset = map({ fd: own.fd, sizeBytes: pages * 4096, mayBeLost: true });
    if (shrunkTo < pages) ftruncateSync(own.fd, shrunkTo * 4096);
    await arena.enterPages();
    if (shrunkTo === pages) expect(fstatSync(own.fd).blocks).toBe(blocksBefore);
    const there = entered(arena.location.address + offset, pages);
    closeFd(own.fd);
    return there;
  }

  it('are entered where there are any, and none is made', async () => {
    expect(await enteredOf([0, 3, 4, 200, 599])).toEqual([0, 3, 4, 200, 599]);
    expect(await enteredOf([])).toEqual([]);
  });

  it('may be gone meanwhile', async () => {
    expect(await enteredOf([3, 200], 100)).toEqual([3]);
  });
});
