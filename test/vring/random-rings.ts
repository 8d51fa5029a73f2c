/** Random rings, and random ways to cut frames and buffers in pieces, for fuzz tests of either layout. */
import { packedBase, WRAP_COUNTER } from '../../protocol/virtio/packed-ring.ts';
import { INDIRECT_PIECES_MAX, PIECE_GAP_BYTES, type Shape } from '../../src/frontend/driver-ring.ts';
import type { RingLayoutKind } from '../../src/vring/attachment.ts';
import type { Random } from './random.ts';
import type { RingPlan } from './ring-worlds.ts';

export const FRAME_BYTES_MAX = 9000;
const GIB = 2 ** 30;

type Draw = (random: Random, bound: number) => number;

const SIZES: Readonly<Record<RingLayoutKind, Draw>> = {
  split: (random, sizeMax) => 2 ** random.between(1, Math.floor(Math.log2(sizeMax))),
  packed: (random, sizeMax) => random.between(1, random.pick([8, sizeMax])),
};

const BASES: Readonly<Record<RingLayoutKind, Draw>> = {
  split: (random, size) => random.pick([0, 1, 65_535, 65_536 - size, random.between(0, 65_535)]),
  packed: (random, size) => {
    const position = random.pick([0, size - 1, random.between(0, size - 1)]) | random.pick([0, WRAP_COUNTER]);
    return packedBase(position, position);
  },
};

/** A ring of `sizeMax` descriptors at most, of any size that its layout may have, at any base. */
export function randomPlan(
  random: Random,
  layout: RingLayoutKind,
  bufferBytes: number,
  sizeMax = 1024,
): Omit<RingPlan, 'receiveShape'> {
  const size = SIZES[layout](random, sizeMax);
  const mergeable = random.chance(50);
  const neededBytes = 2 * size * (bufferBytes + 64 + INDIRECT_PIECES_MAX * 16 + 32) + 2 ** 16;
  const sizeBytes = Math.ceil(neededBytes / 4096) * 4096;
  // What does not fit the first region lies in the last one.
  const firstBytes = Math.ceil((sizeBytes * random.between(5, 95)) / 100 / 4096) * 4096;
  return {
    layout,
    inOrder: false,
    size,
    eventIdx: random.chance(50),
    indirect: random.chance(60),
    mergeable,
    headerBytes: mergeable || random.chance(50) ? 12 : 10,
    bufferBytes,
    base: BASES[layout](random, size),
    memory: random.chance(50)
      ? sizeBytes
      : [
          // Below 4 GiB, above it, and in between a hole; user addresses are something else altogether.
          { sizeBytes: firstBytes, gpa: 0, uva: 0x7000_0000_0000 },
          { sizeBytes: 2 * 2 ** 20, gpa: 3 * GIB, uva: 0x1000 },
          { sizeBytes, gpa: 4 * GIB, uva: 0x6000_0000_0000 },
        ],
  };
}

/** A random way to cut `totalBytes` in at most `maxPieces`; parts may be empty. */
export function randomPieces(random: Random, totalBytes: number, maxPieces: number): number[] {
  const pieces: number[] = [];
  let left = totalBytes;
  while (pieces.length < maxPieces - 1 && left > 0 && random.chance(75)) {
    const piece = random.chance(10)
      ? 0
      : random.between(1, Math.min(left, random.pick([1, 8, 14, 64, 4096])));
    pieces.push(piece);
    left -= piece;
  }
  if (left > 0 || pieces.length === 0) pieces.push(left);
  return pieces;
}

export function randomReceiveShape(random: Random, plan: Omit<RingPlan, 'receiveShape'>): () => Shape {
  return () => {
    const maxPieces = Math.min(6, plan.size);
    const roomBytes = plan.bufferBytes - PIECE_GAP_BYTES * maxPieces;
    // With MRG_RXBUF small buffers make frames span several; without, some are too small for the frame.
    const totalBytes = random.between(plan.headerBytes, random.chance(40) ? 2000 : roomBytes);
    const pieces = random.chance(50) ? [totalBytes] : randomPieces(random, totalBytes, maxPieces);
    return { pieces, indirect: plan.indirect && random.chance(40) };
  };
}
