/**
 * The arena that the ring tests share, and places in it for frames that no guest sent: in one piece or several, at
 * any alignment, in different windows and over the border of two. They lie at the arena's end, so that guests
 * find their places at its start.
 */
import { closeFd } from '../../src/host/descriptor.ts';
import { createMemoryFile } from '../../src/host/mapping.ts';
import { Arena } from '../../src/memory/arena.ts';
import { ArenaView } from '../../src/memory/arena-view.ts';
import { WINDOW_BYTES } from '../../src/memory/window.ts';
import { BATCH_FRAMES_MAX, type Batch, IN_PIECES } from '../../src/queue/batch.ts';
import type { Random } from './random.ts';

export const sharedArena = Arena.reserve(2 ** 32);
export const sharedArenaView = new ArenaView(sharedArena.location);

const AREA_BYTES = 2 ** 21;
/** Room of one frame or of all its pieces. */
const SLOT_BYTES = 2 ** 14;
/** Addresses and EtherType. */
const HEAD_BYTES = 14;

function mapArea(preferredOffset: number): number {
  const fd = createMemoryFile('ringway-scratch', AREA_BYTES);
  try {
    return sharedArena.map({ fd, fileOffset: 0, sizeBytes: AREA_BYTES, pageBytes: 4096, preferredOffset });
  } finally {
    closeFd(fd);
  }
}

/** Two that lie in one window each, and one over the border of both: between slots 2 and 3. */
const AREAS = [2.5 * WINDOW_BYTES, 3.5 * WINDOW_BYTES, 3 * WINDOW_BYTES - 3 * SLOT_BYTES].map(mapArea);

export type Place = { readonly window: number; readonly index: number };

/** Where slot `slot` of an area begins, `shiftBytes` (below 64) further on. */
export function slotPlace(area: number, slot: number, shiftBytes = 0): Place {
  // So that in the last area a frame lies over the border, which is no slot's start.
  return placeOf(AREAS[area] + slot * SLOT_BYTES - (slot === 0 ? 0 : 100) + shiftBytes);
}

function placeOf(offset: number): Place {
  const window = Math.floor(offset / WINDOW_BYTES);
  return { window, index: offset - window * WINDOW_BYTES };
}

function offsetOf({ window, index }: Place): number {
  return window * WINDOW_BYTES + index;
}

export function writeAt(place: Place, bytes: Uint8Array): void {
  sharedArenaView.u8.set(bytes, offsetOf(place));
}

export function readAt(place: Place, sizeBytes: number): Uint8Array {
  return sharedArenaView.bytesAt(offsetOf(place), sizeBytes);
}

/** Writes frames to the arena and describes them in the batch: alike and plain, or in any way. */
export function describeFrames(batch: Batch, frames: readonly Uint8Array[], scatter: Random | null): void {
  if (frames.length > BATCH_FRAMES_MAX) throw new RangeError(`${frames.length} frames in a batch`);
  batch.clear();
  const hasMixedAreas = scatter?.chance(50) === true;
  const hasPieces = scatter?.chance(30) === true;
  const area = scatter?.between(0, 2) ?? 0;
  for (const [slot, bytes] of frames.entries()) {
    const frameArea = hasMixedAreas && scatter !== null ? scatter.between(0, 2) : area;
    if (hasPieces && scatter?.chance(50)) describePieces(batch, slot, bytes, scatter);
    else {
      const place = slotPlace(frameArea, slot, scatter?.pick([0, 0, 4, 1, 2, 7]) ?? 0);
      writeAt(place, bytes);
      batch.add(place.window, place.index, bytes.length);
    }
  }
}

/** Pieces in turn in the three areas, with gaps. */
function describePieces(batch: Batch, slot: number, bytes: Uint8Array, random: Random): void {
  batch.beginPieces();
  const used = [0, 0, 0];
  for (let done = 0, piece = 0; done < bytes.length; piece++) {
    const leftBytes = bytes.length - done;
    const pieceBytes = piece > 20 ? leftBytes : Math.min(leftBytes, random.pick([1, 3, 8, 14, 200, 9000]));
    const area = piece % 3;
    const place = slotPlace(area, slot, used[area] + random.between(0, 3));
    used[area] += pieceBytes + 4;
    writeAt(place, bytes.subarray(done, done + pieceBytes));
    batch.addPiece(place.window, place.index, pieceBytes);
    done += pieceBytes;
  }
  batch.addPieces(bytes.length);
}

type PlacedPiece = { readonly place: Place; readonly sizeBytes: number };

/** Where a frame of the batch lies. */
export function piecesOfFrame(batch: Batch, frame: number): PlacedPiece[] {
  const window = batch.windowOf(frame);
  if (window !== IN_PIECES) {
    return [{ place: { window, index: batch.indexOf(frame) }, sizeBytes: batch.bytesOf(frame) }];
  }
  const first = batch.firstPieceOf(frame);
  return Array.from({ length: batch.pieceCountOf(frame) }, (_, i) => ({
    place: { window: batch.pieceWindow[first + i], index: batch.pieceIndex[first + i] },
    sizeBytes: batch.pieceBytes[first + i],
  }));
}

/** The frame's bytes as they are in memory now. */
export function bytesOfFrame(batch: Batch, frame: number): Uint8Array {
  const parts = piecesOfFrame(batch, frame).map(({ place, sizeBytes }) => readAt(place, sizeBytes));
  return Uint8Array.from(Buffer.concat(parts));
}

/** Changes addresses and EtherTypes of all frames in memory, as a guest may at any time. */
export function spoilHeads(batch: Batch): void {
  for (let frame = 0; frame < batch.count; frame++) {
    let leftBytes = HEAD_BYTES;
    for (const { place, sizeBytes } of piecesOfFrame(batch, frame)) {
      const count = Math.min(leftBytes, sizeBytes);
      writeAt(place, new Uint8Array(count).fill(0xdb));
      leftBytes -= count;
    }
  }
}
