/**
 * One thread's sight of the arena. V8 reads a typed array fast only at indices that are small integers, and
 * the arena is far larger than that; so a place in it is a pair of small integers, window number and index
 * within the window, and each window has typed arrays of its own. Any thread; one instance a thread.
 */
import { viewMemory } from '../host/mapping.ts';
import type { ArenaLocation } from './arena.ts';

export const WINDOW_BYTES = 2 ** 30;
/**
 * How far a window's arrays reach into the next one, so that a frame's part that starts inside a window can
 * be read through that window alone. As long as the longest indirect table (65,535 descriptors).
 */
export const WINDOW_OVERLAP_BYTES = 2 ** 20;

/** Typed arrays over one window and its overlap, all starting at the same byte. */
export class Window {
  declare readonly u8: Uint8Array;
  declare readonly u16: Uint16Array;
  declare readonly i32: Int32Array;
  declare readonly u64: BigUint64Array;
  /** Arena offset of the window's first byte. */
  declare readonly startOffset: number;

  constructor(buffer: ArrayBuffer, startOffset: number) {
    const sizeBytes = Math.min(WINDOW_BYTES + WINDOW_OVERLAP_BYTES, buffer.byteLength - startOffset);
    this.u8 = new Uint8Array(buffer, startOffset, sizeBytes);
    this.u16 = new Uint16Array(buffer, startOffset, sizeBytes >> 1);
    this.i32 = new Int32Array(buffer, startOffset, sizeBytes >> 2);
    this.u64 = new BigUint64Array(buffer, startOffset, sizeBytes >> 3);
    this.startOffset = startOffset;
  }
}

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
