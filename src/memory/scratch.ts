/**
 * Memory of our own in the arena: slots and buffers of ports that are no guests. A part of the arena with a memory
 * file behind it, whose pages are zeros that cost nothing until they are touched. The one place where such parts are
 * made and given back. Main thread; workers see them by their offset or address.
 */
import assert from 'node:assert';
import { closeFd } from '../host/descriptor.ts';
import { createMemoryFile } from '../host/mapping.ts';
import { type Arena, ArenaFullError, roundUp } from './arena.ts';
import { WINDOW_BYTES } from './window.ts';

const PAGE_BYTES = 4096;

export type ScratchShape = {
  /** What the memory file is called, for who looks into /proc. */
  readonly name: string;
  /** Rounded up to whole pages; 1 GiB at most. */
  readonly sizeBytes: number;
  /** Of the beginning: a power of two, a page at least and 1 GiB at most. A page when left out. */
  readonly alignBytes?: number;
};

/** A part of the arena, from `allocateScratch` to `release`. It lies within one window (arena-view.ts). */
export class ScratchArea {
  /** From the arena's start, in bytes. */
  readonly offset: number;
  /** Of its first byte, in this process. */
  readonly address: number;
  readonly sizeBytes: number;
  readonly #arena: Arena;
  #isReleased = false;

  /** For `allocateScratch`. */
  constructor(arena: Arena, offset: number, sizeBytes: number) {
    this.#arena = arena;
    this.offset = offset;
    this.address = arena.location.address + offset;
    this.sizeBytes = sizeBytes;
  }

  /** Gives the part back. No worker may use it any more. */
  release(): void {
    assert(!this.#isReleased, 'an area is given back once');
    this.#isReleased = true;
    this.#arena.unmap(this.offset);
  }
}

/** @throws ArenaFullError, HostError */
export function allocateScratch(arena: Arena, shape: ScratchShape): ScratchArea {
  const { name, alignBytes = PAGE_BYTES } = shape;
  assert(Number.isSafeInteger(shape.sizeBytes) && shape.sizeBytes > 0, 'a size in bytes');
  assert(isPowerOfTwo(alignBytes) && alignBytes >= PAGE_BYTES && alignBytes <= WINDOW_BYTES, 'an alignment');
  const sizeBytes = roundUp(shape.sizeBytes, PAGE_BYTES);
  assert(sizeBytes <= WINDOW_BYTES, 'an area lies within one window');
  const fd = createMemoryFile(name, sizeBytes);
  try {
    return new ScratchArea(arena, mapInOneWindow(arena, fd, sizeBytes, alignBytes), sizeBytes);
  } finally {
    closeFd(fd);
  }
}

/** Tries the first free place, then the beginnings of windows behind it. */
function mapInOneWindow(arena: Arena, fd: number, sizeBytes: number, alignBytes: number): number {
  const mapAt = (preferredOffset: number | null): number =>
    arena.map({ fd, fileOffset: 0, sizeBytes, pageBytes: alignBytes, preferredOffset });
  const first = mapAt(null);
  if (isInOneWindow(first, sizeBytes)) return first;
  arena.unmap(first);
  for (let next = roundUp(first, WINDOW_BYTES); next < arena.location.sizeBytes; next += WINDOW_BYTES) {
    const offset = mapAt(next);
    if (isInOneWindow(offset, sizeBytes)) return offset;
    arena.unmap(offset);
  }
  throw new ArenaFullError(`no ${sizeBytes} bytes in a row are left in the arena: raise the arena size`);
}

function isInOneWindow(offset: number, sizeBytes: number): boolean {
  return Math.floor(offset / WINDOW_BYTES) === Math.floor((offset + sizeBytes - 1) / WINDOW_BYTES);
}

function isPowerOfTwo(value: number): boolean {
  return Number.isInteger(Math.log2(value));
}
