/** Areas of our own in the arena: where they lie, that they hold zeros, and that they are given back. */
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { closeFd } from '../../src/host/descriptor.ts';
import { createMemoryFile } from '../../src/host/mapping.ts';
import { Arena, ArenaFullError } from '../../src/memory/arena.ts';
import { ArenaView } from '../../src/memory/arena-view.ts';
import { allocateScratch, type ScratchArea } from '../../src/memory/scratch.ts';
import { WINDOW_BYTES } from '../../src/memory/window.ts';
import { openedSince, openFds } from '../host/open-fds.ts';

const MIB = 2 ** 20;
const ARENA_BYTES = 2 ** 32;
const arena = Arena.reserve(ARENA_BYTES);
const view = new ArenaView(arena.location);
let areas: ScratchArea[] = [];

afterAll(() => arena.release());

afterEach(() => {
  for (const area of areas) area.release();
  areas = [];
  expect(arena.mappedBytes).toBe(0);
});

function allocate(sizeBytes: number, alignBytes?: number): ScratchArea {
  const area = allocateScratch(arena, {
    name: 'test',
    sizeBytes,
    ...(alignBytes !== undefined && { alignBytes }),
  });
  areas.push(area);
  return area;
}

/** Takes a part of the arena at a place of the test's choice. */
function occupy(offset: number, sizeBytes: number): void {
  const fd = createMemoryFile('taken', sizeBytes);
  expect(arena.map({ fd, fileOffset: 0, sizeBytes, pageBytes: 4096, preferredOffset: offset })).toBe(offset);
  closeFd(fd);
}

describe('a scratch area', () => {
  it('is whole pages of zeros at its address, which hold what is written', () => {
    const area = allocate(5000);
    expect(area.sizeBytes).toBe(8192);
    expect(area.address).toBe(arena.location.address + area.offset);
    expect(view.bytesAt(area.offset, area.sizeBytes).every((byte) => byte === 0)).toBe(true);
    view.u8.fill(7, area.offset, area.offset + area.sizeBytes);
    expect(view.bytesAt(area.offset, area.sizeBytes).every((byte) => byte === 7)).toBe(true);
  });

  it('has zeros again for the next one at its place, and keeps no descriptor', () => {
    const before = openFds();
    const first = allocate(MIB);
    view.u8.fill(7, first.offset, first.offset + MIB);
    areas = [];
    first.release();
    expect(view.u8[first.offset]).toBe(0);
    const second = allocate(MIB);
    expect(second.offset).toBe(first.offset);
    expect(view.bytesAt(second.offset, MIB).every((byte) => byte === 0)).toBe(true);
    expect(openedSince(before)).toEqual([]);
  });

  it('begins where it is told to, behind others', () => {
    allocate(4096);
    for (const alignBytes of [4096, 64 * MIB, WINDOW_BYTES]) {
      expect(allocate(MIB, alignBytes).offset % alignBytes).toBe(0);
    }
  });

  it('lies within one window, also when the first free place crosses a border', () => {
    occupy(0, WINDOW_BYTES - 2 * MIB);
    const small = allocate(2 * MIB);
    expect(small.offset).toBe(WINDOW_BYTES - 2 * MIB);
    areas = [];
    small.release();
    expect(allocate(3 * MIB).offset).toBe(WINDOW_BYTES);
    arena.unmap(0);
  });

  it('is refused when no window has room, and then nothing is left', () => {
    const offsets: number[] = [];
    // Only a crossing of the last border is left free.
    for (let offset = 0; offset < ARENA_BYTES; offset += WINDOW_BYTES) {
      const lead = offset === 0 ? 0 : 2 * MIB;
      occupy(offset + lead, WINDOW_BYTES - lead - 2 * MIB);
      offsets.push(offset + lead);
    }
    const mapped = arena.mappedBytes;
    expect(() => allocate(4 * MIB)).toThrow(ArenaFullError);
    expect(arena.mappedBytes).toBe(mapped);
    for (const offset of offsets) arena.unmap(offset);
  });

  it('is not given back twice', () => {
    const area = allocate(4096);
    areas = [];
    area.release();
    expect(() => area.release()).toThrow('an area is given back once');
  });

  it.each([
    [0, undefined],
    [-4096, undefined],
    [1.5, undefined],
    [Number.NaN, undefined],
    [WINDOW_BYTES + 1, undefined],
    [4096, 0],
    [4096, 2048],
    [4096, 12_288],
    [4096, 2 * WINDOW_BYTES],
  ])('of %d bytes, aligned to %s, is a bug of the caller', (sizeBytes, alignBytes) => {
    expect(() => allocate(sizeBytes, alignBytes)).toThrow(expect.objectContaining({ code: 'ERR_ASSERTION' }));
  });
});
