/**
 * Ethernet frames for the tests of forwarding, built byte by byte, and a place in an arena to lay them, so
 * that a batch can describe them in one piece or in several.
 */
import { Arena } from '../../../src/memory/arena.ts';
import { ArenaView } from '../../../src/memory/arena-view.ts';
import { allocateScratch } from '../../../src/memory/scratch.ts';
import { WINDOW_BYTES } from '../../../src/memory/window.ts';
import { type Batch, IN_PIECES } from '../../../src/queue/batch.ts';
import { FORWARDER_SCRATCH_BYTES } from '../../../switch/l2/forwarder.ts';

export const arena = Arena.reserve(2 ** 32);
export const arenaView = new ArenaView(arena.location);
/** Of the forwarders of one test file, which work one after the other. */
export const SCRATCH_OFFSET = allocateScratch(arena, {
  name: 'forwarder',
  sizeBytes: FORWARDER_SCRATCH_BYTES,
}).offset;

/** Addresses are six bytes; a number is the last byte of a unicast one. */
export type Mac = number | readonly number[];

export const macBytes = (mac: Mac): readonly number[] =>
  typeof mac === 'number' ? [2, 0, 0, 0, 0, mac] : mac;

const be16 = (value: number): number[] => [(value >> 8) & 255, value & 255];

/** Destination, source, tags, type and what follows, filled up to `sizeBytes`. */
export function ethernet(
  dst: Mac,
  src: Mac,
  { tags = [] as readonly number[], type = 0x0800, payload = [] as readonly number[], sizeBytes = 60 } = {},
): Uint8Array {
  const bytes = [
    ...macBytes(dst),
    ...macBytes(src),
    ...tags.flatMap((tag, i) => [...be16(i === 0 && tags.length > 1 ? 0x88a8 : 0x8100), ...be16(tag)]),
    ...be16(type),
    ...payload,
  ];
  const frame = new Uint8Array(Math.max(bytes.length, sizeBytes));
  frame.set(bytes);
  return frame;
}

export type Flow = {
  version: 4 | 6;
  src: readonly number[];
  dst: readonly number[];
  protocol: number;
  srcPort: number;
  dstPort: number;
};

/** An IP packet of a flow; the rest is what may differ between packets of one flow. */
export function ipPacket(
  flow: Flow,
  { ttl = 64, id = 0, fragment = 0, optionWords = 0, payload = [] as readonly number[] } = {},
): number[] {
  const transport = [...be16(flow.srcPort), ...be16(flow.dstPort), ...payload];
  if (flow.version === 6) {
    const header = [0x60, id & 15, 0, id & 255, ...be16(transport.length), flow.protocol, ttl];
    return [...header, ...flow.src, ...flow.dst, ...transport];
  }
  const header = [
    0x45 + optionWords,
    id & 255,
    0,
    0,
    ...be16(id),
    ...be16(fragment),
    ttl,
    flow.protocol,
    id & 255,
    0,
  ];
  return [
    ...header,
    ...flow.src,
    ...flow.dst,
    ...new Array<number>(4 * optionWords).fill(id & 255),
    ...transport,
  ];
}

/** Before the first frame, so that tests can look at the place of tags before it. */
const ROOM_BYTES = 64;
/** Behind what forwarders have for themselves. */
const BENCH_OFFSET = 2 ** 26;
/** Of one port's. */
export const BENCH_BYTES = 2 ** 24;

/** Lays frames in the arena, one after the other, and describes them in a batch. */
export class FrameBench {
  readonly #start: number;
  #at: number;

  constructor(startOffset = 0) {
    this.#start = BENCH_OFFSET + startOffset + ROOM_BYTES;
    this.#at = this.#start;
  }

  /** In one piece, at an offset that is a multiple of 4 plus `misalignment`. */
  single(batch: Batch, bytes: Uint8Array, misalignment = 0): void {
    const offset = this.#put(bytes, misalignment);
    batch.add(Math.floor(offset / WINDOW_BYTES), offset % WINDOW_BYTES, bytes.length);
  }

  /** In pieces of the given sizes; the last one takes the rest. */
  pieces(batch: Batch, bytes: Uint8Array, sizes: readonly number[]): void {
    batch.beginPieces();
    let done = 0;
    for (const sizeBytes of [...sizes, bytes.length]) {
      const piece = bytes.subarray(done, Math.min(done + sizeBytes, bytes.length));
      if (piece.length === 0) break;
      const offset = this.#put(piece, done & 3);
      batch.addPiece(Math.floor(offset / WINDOW_BYTES), offset % WINDOW_BYTES, piece.length);
      done += piece.length;
    }
    batch.addPieces(bytes.length);
  }

  #put(bytes: Uint8Array, misalignment: number): number {
    // Wraps long after a frame was delivered.
    if (this.#at > this.#start + BENCH_BYTES / 2) this.#at = this.#start;
    const offset = this.#at + misalignment;
    arenaView.u8.set(bytes, offset);
    this.#at = (offset + bytes.length + 4) & ~3;
    return offset;
  }
}

/** Where in the arena the pieces of a frame begin, and their bytes. */
export function piecesOfFrame(batch: Batch, frame: number): { offset: number; sizeBytes: number }[] {
  const window = batch.windowOf(frame);
  if (window !== IN_PIECES) {
    return [{ offset: window * WINDOW_BYTES + batch.indexOf(frame), sizeBytes: batch.bytesOf(frame) }];
  }
  return Array.from({ length: batch.pieceCountOf(frame) }, (_, i) => {
    const piece = batch.firstPieceOf(frame) + i;
    const offset = batch.pieceWindow[piece] * WINDOW_BYTES + batch.pieceIndex[piece];
    return { offset, sizeBytes: batch.pieceBytes[piece] };
  });
}

/** The frame's bytes where they lie, whichever way it is described. */
export function bytesOfFrame(batch: Batch, frame: number): Uint8Array {
  const parts = piecesOfFrame(batch, frame).map(({ offset, sizeBytes }) =>
    arenaView.bytesAt(offset, sizeBytes),
  );
  return Uint8Array.from(Buffer.concat(parts));
}

/**
 * As `place` has to write it: the addresses, tags and EtherType that were decided upon, then the bytes where they lie.
 */
export function placedBytesOfFrame(batch: Batch, frame: number): Uint8Array {
  const bytes = bytesOfFrame(batch, frame);
  const { tags } = batch;
  const view = new DataView(bytes.buffer);
  for (let word = 0; word < 3; word++) view.setInt32(4 * word, batch.headWordOf(frame, word), true);
  if (tags.pushBytes >= 4) view.setInt32(12, tags.push0Of(frame), true);
  if (tags.pushBytes === 8) view.setInt32(16, tags.push1Of(frame), true);
  view.setUint16(12 + tags.pushBytes, batch.word3Of(frame) & 0xffff, true);
  return bytes;
}
