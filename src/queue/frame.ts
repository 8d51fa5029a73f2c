/**
 * One Ethernet frame where it lies: pieces of the arena, without the virtio-net header. A worker has one
 * Frame and describes every frame in it, one after the other; nothing is copied until a `toGuest` queue
 * copies it. All fields are integers that V8 keeps unboxed.
 */
import type { ArenaView, Window } from '../memory/arena-view.ts';

/** Most pieces of a frame; one that is scattered over more is dropped. */
export const FRAME_PIECES_MAX = 1024;
/** Bytes at the start of a frame that parsers may look at; `headerIndex` says where. */
export const FRAME_HEAD_BYTES = 128;

export class Frame {
  pieceCount = 0;
  totalBytes = 0;
  /** Place of the first byte when there is a single piece; `view` is that window. */
  window = 0;
  index = 0;
  declare view: Window;
  declare readonly pieceWindow: Int32Array;
  declare readonly pieceIndex: Int32Array;
  declare readonly pieceBytes: Int32Array;
  /**
   * The frame's first bytes, contiguous: the arena window itself where the first piece is long enough,
   * otherwise a copy. `head16` and `head32` see the same bytes, where `headIndex` is a multiple of 2 or 4.
   */
  declare head: Uint8Array;
  declare head16: Uint16Array;
  declare head32: Int32Array;
  headIndex = 0;
  /** Window that `head` shows, or -1 for the copy; spares rewriting the fields for each frame. */
  private headWindow = -1;
  declare private readonly arena: ArenaView;
  readonly #gathered = new Uint8Array(FRAME_HEAD_BYTES);
  readonly #gathered16 = new Uint16Array(this.#gathered.buffer);
  readonly #gathered32 = new Int32Array(this.#gathered.buffer);

  constructor(arena: ArenaView) {
    this.pieceWindow = new Int32Array(FRAME_PIECES_MAX);
    this.pieceIndex = new Int32Array(FRAME_PIECES_MAX);
    this.pieceBytes = new Int32Array(FRAME_PIECES_MAX);
    this.arena = arena;
    this.view = arena.windows[0];
    this.head = this.#gathered;
    this.head16 = this.#gathered16;
    this.head32 = this.#gathered32;
  }

  /** A frame of a single piece. */
  setSingle(window: number, index: number, sizeBytes: number): void {
    this.pieceCount = 1;
    this.totalBytes = sizeBytes;
    this.window = window;
    this.index = index;
    this.headIndex = index;
    if (window !== this.headWindow) this.setHeadWindow(window);
  }

  /** Writes a single piece to the arrays too, for code that goes through pieces. */
  spread(): void {
    if (this.pieceCount !== 1) return;
    this.pieceWindow[0] = this.window;
    this.pieceIndex[0] = this.index;
    this.pieceBytes[0] = this.totalBytes;
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
    if (this.pieceCount > 0 && this.pieceBytes[0] >= Math.min(this.totalBytes, FRAME_HEAD_BYTES)) {
      this.window = this.pieceWindow[0];
      this.index = this.pieceIndex[0];
      this.headIndex = this.index;
      this.setHeadWindow(this.window);
      return;
    }
    this.#gather();
  }

  private setHeadWindow(window: number): void {
    const view = this.arena.windows[window];
    this.view = view;
    this.head = view.u8;
    this.head16 = view.u16;
    this.head32 = view.i32;
    this.headWindow = window;
  }

  #gather(): void {
    const gathered = this.#gathered;
    let filled = 0;
    for (let piece = 0; piece < this.pieceCount && filled < FRAME_HEAD_BYTES; piece++) {
      const bytes = this.arena.windows[this.pieceWindow[piece]].u8;
      const index = this.pieceIndex[piece];
      const count = Math.min(this.pieceBytes[piece], FRAME_HEAD_BYTES - filled);
      for (let i = 0; i < count; i++) gathered[filled + i] = bytes[index + i];
      filled += count;
    }
    this.head = gathered;
    this.head16 = this.#gathered16;
    this.head32 = this.#gathered32;
    this.headIndex = 0;
    this.headWindow = -1;
  }
}
