/**
 * One thread's sight of the arena. V8 reads a typed array fast only at indices that are small integers, and
 * the arena is far larger than that; so a place in it is a pair of small integers, window number and index
 * within the window, and each window has typed arrays of its own. Any thread; one instance a thread.
 */
import { viewMemory } from '../host/mapping.ts';
import type { ArenaLocation } from './arena.ts';
import { WINDOW_BYTES, Window } from './window.ts';

export class ArenaView {
  declare readonly buffer: ArrayBuffer;
  /** The whole arena as bytes; for `copyWithin`, whose offsets may be as large as they like. */
  declare readonly u8: Uint8Array;
  /** Window `i` covers arena offsets `i * WINDOW_BYTES` onwards. */
  declare readonly windows: readonly Window[];

  constructor(location: ArenaLocation) {
    this.buffer = viewMemory(location.address, location.sizeBytes);
    this.u8 = new Uint8Array(this.buffer);
    this.windows = Array.from(
      { length: Math.ceil(location.sizeBytes / WINDOW_BYTES) },
      (_, i) => new Window(this.buffer, i * WINDOW_BYTES),
    );
  }

  /** The little-endian word at an arena offset, which is even. Control plane, but quick: a ring has many. */
  word16At(offset: number): number {
    return this.windows[Math.floor(offset / WINDOW_BYTES)].u16[(offset % WINDOW_BYTES) >> 1];
  }

  /** A copy of `sizeBytes` at an arena offset. Control plane: it allocates. */
  bytesAt(offset: number, sizeBytes: number): Uint8Array {
    return this.u8.slice(offset, offset + sizeBytes);
  }
}
