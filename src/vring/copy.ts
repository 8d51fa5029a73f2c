/**
 * Copying frame bytes within the arena: the one copy that forwarding a frame costs. Places are (window,
 * index) pairs. Hot path: allocates nothing, passes small integers only.
 */
import { type ArenaView, WINDOW_BYTES } from '../memory/arena-view.ts';

/** Up to here a loop over words beats the call that copyWithin is. */
const WORD_LOOP_BYTES_MAX = 96;

export function copyBytes(
  arena: ArenaView,
  fromWindow: number,
  fromIndex: number,
  toWindow: number,
  toIndex: number,
  sizeBytes: number,
): void {
  if (sizeBytes <= WORD_LOOP_BYTES_MAX && ((fromIndex | toIndex) & 3) === 0) {
    copyWords(arena, fromWindow, fromIndex, toWindow, toIndex, sizeBytes);
    return;
  }
  const fromOffset = fromWindow * WINDOW_BYTES + fromIndex;
  arena.u8.copyWithin(toWindow * WINDOW_BYTES + toIndex, fromOffset, fromOffset + sizeBytes);
}

function copyWords(
  arena: ArenaView,
  fromWindow: number,
  fromIndex: number,
  toWindow: number,
  toIndex: number,
  sizeBytes: number,
): void {
  const from = arena.windows[fromWindow]!;
  const to = arena.windows[toWindow]!;
  const from32 = from.i32;
  const to32 = to.i32;
  const wordCount = sizeBytes >> 2;
  const fromWord = fromIndex >> 2;
  const toWord = toIndex >> 2;
  for (let i = 0; i < wordCount; i++) to32[toWord + i] = from32[fromWord + i]!;
  for (let i = wordCount << 2; i < sizeBytes; i++) to.u8[toIndex + i] = from.u8[fromIndex + i]!;
}
