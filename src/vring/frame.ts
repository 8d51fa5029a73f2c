/**
 * One Ethernet frame where it lies: pieces of the arena, without the virtio-net header. A worker has one
 * Frame and describes every frame in it, one after the other; nothing is copied until a `toGuest` queue
 * copies it. All fields are integers that V8 keeps unboxed.
 */
import type { ArenaView } from '../memory/arena-view.ts';

/** Most pieces of a frame; one that is scattered over more is dropped. */
export const FRAME_PIECES_MAX = 1024;
/** Bytes at the start of a frame that parsers may look at; `headerIndex` says where. */
export const FRAME_HEAD_BYTES = 128;

export class Frame {
  pieceCount = 0;
  totalBytes = 0;
  readonly pieceWindow = new Int32Array(FRAME_PIECES_MAX);
  readonly pieceIndex = new Int32Array(FRAME_PIECES_MAX);
  readonly pieceBytes = new Int32Array(FRAME_PIECES_MAX);
  /**
   * The frame's first bytes, contiguous: the arena window itself where the first piece is long enough,
   * otherwise a copy. `head16` sees the same bytes and may be used when `headIndex` is even.
   */
  head: Uint8Array;
  head16: Uint16Array;
  headIndex = 0;
  readonly #arena: ArenaView;
  readonly #gathered = new Uint8Array(FRAME_HEAD_BYTES);
  readonly #gathered16 = new Uint16Array(this.#gathered.buffer);

  constructor(arena: ArenaView) {
    this.#arena = arena;
    this.head = this.#gathered;
    this.head16 = this.#gathered16;
  }

  /** A frame of a single piece. */
  setSingle(window: number, index: number, sizeBytes: number): void {
    this.pieceCount = 1;
    this.totalBytes = sizeBytes;
    this.pieceWindow[0] = window;
    this.pieceIndex[0] = index;
    this.pieceBytes[0] = sizeBytes;
    const view = this.#arena.windows[window]!;
    this.head = view.u8;
    this.head16 = view.u16;
    this.headIndex = index;
  }

  /** Starts a frame of several pieces; `add` them, then call `finish`. */
  reset(): void {
    this.pieceCount = 0;
    this.totalBytes = 0;
  }

  /** False when there is no room for another piece. */
  add(window: number, index: number, sizeBytes: number): boolean {
    const at = this.pieceCount;
    if (at === FRAME_PIECES_MAX) return false;
    this.pieceWindow[at] = window;
    this.pieceIndex[at] = index;
    this.pieceBytes[at] = sizeBytes;
    this.pieceCount = at + 1;
    this.totalBytes += sizeBytes;
    return true;
  }

  /** Makes the first bytes contiguous. */
  finish(): void {
    if (this.pieceCount > 0 && this.pieceBytes[0]! >= Math.min(this.totalBytes, FRAME_HEAD_BYTES)) {
      const view = this.#arena.windows[this.pieceWindow[0]!]!;
      this.head = view.u8;
      this.head16 = view.u16;
      this.headIndex = this.pieceIndex[0]!;
      return;
    }
    this.#gather();
  }

  #gather(): void {
    const gathered = this.#gathered;
    let filled = 0;
    for (let piece = 0; piece < this.pieceCount && filled < FRAME_HEAD_BYTES; piece++) {
      const bytes = this.#arena.windows[this.pieceWindow[piece]!]!.u8;
      const index = this.pieceIndex[piece]!;
      const count = Math.min(this.pieceBytes[piece]!, FRAME_HEAD_BYTES - filled);
      for (let i = 0; i < count; i++) gathered[filled + i] = bytes[index + i]!;
      filled += count;
    }
    this.head = gathered;
    this.head16 = this.#gathered16;
    this.headIndex = 0;
  }
}
