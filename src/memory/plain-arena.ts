/** An arena of a thread's own, for what is forwarded between no guests. Maps nothing, and loads no library. */
import type { ArenaView } from './arena-view.ts';
import { Window } from './window.ts';

/** `sizeBytes`: of one window at most. Rings have no place in it. */
export function plainArena(sizeBytes: number): ArenaView {
  const buffer = new ArrayBuffer(sizeBytes);
  const u8 = new Uint8Array(buffer);
  return {
    buffer,
    u8,
    windows: [new Window(buffer, 0)],
    word16At: () => 0,
    bytesAt: (offset, count) => u8.slice(offset, offset + count),
  };
}
