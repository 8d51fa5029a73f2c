/**
 * Part of an address range as typed arrays whose indices are small integers: what the arena is looked at through (arena-view.ts).
 * Knows nothing of the system, so that threads can use it that load no library (switch/plugin/trial-thread.ts).
 */
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
