/** Copying a frame within the arena (src/queue/copy.ts) against `set` of a subarray and against byte by byte. */
import { EmbeddedMemory } from '../../src/frontend/guest-memory.ts';
import { Arena } from '../../src/memory/arena.ts';
import { ArenaView } from '../../src/memory/arena-view.ts';
import { GuestMemory } from '../../src/memory/guest-memory.ts';
import { WINDOW_BYTES, type Window } from '../../src/memory/window.ts';
import { copyBytes, warmUpCopy } from '../../src/queue/copy.ts';
import { measurePieces, type Piece } from './pieces.ts';

const SLOTS = 256;
const SLOT_BYTES = 2048;
const HEADER_BYTES = 12;

const arena = Arena.reserve(2 ** 36);
const view = new ArenaView(arena.location);
warmUpCopy(view);

/** A guest's memory in the arena: the window that it lies in, and the index of its first byte there. */
function mapGuest(): { window: Window; index: number } {
  const memory = new EmbeddedMemory(SLOTS * SLOT_BYTES);
  const guest = new GuestMemory(arena);
  guest.add(memory.regions[0], memory.fd);
  const offset = guest.regions[0].arenaOffset;
  return { window: view.windows[Math.floor(offset / WINDOW_BYTES)], index: offset % WINDOW_BYTES };
}

const from = mapGuest();
const to = mapGuest();

/** `shiftBytes`: how far the target's alignment is off the source's. */
function piece(frameBytes: number, shiftBytes: number): Piece {
  const [fromWindow, toWindow] = [from.window, to.window];
  const fromStart = from.index + HEADER_BYTES;
  const toStart = to.index + HEADER_BYTES + shiftBytes;
  return {
    title: `copy ${frameBytes} bytes${shiftBytes === 0 ? '' : `, alignment ${shiftBytes} off`}`,
    operations: SLOTS,
    ways: {
      copyBytes: () => {
        for (let at = 0; at < SLOTS * SLOT_BYTES; at += SLOT_BYTES) {
          copyBytes(view, fromWindow, fromStart + at, toWindow, toStart + at, frameBytes);
        }
      },
      'set of a subarray': () => {
        for (let at = 0; at < SLOTS * SLOT_BYTES; at += SLOT_BYTES) {
          const source = fromWindow.u8.subarray(fromStart + at, fromStart + at + frameBytes);
          toWindow.u8.set(source, toStart + at);
        }
      },
      'byte by byte': () => {
        const [fromU8, toU8] = [fromWindow.u8, toWindow.u8];
        for (let at = 0; at < SLOTS * SLOT_BYTES; at += SLOT_BYTES) {
          for (let i = 0; i < frameBytes; i++) toU8[toStart + at + i] = fromU8[fromStart + at + i];
        }
      },
    },
  };
}

await measurePieces([
  ...[64, 128, 256, 512, 1518].map((frameBytes) => piece(frameBytes, 0)),
  piece(64, 4),
  piece(64, 2),
]);
