/** Guest-physical addresses to places in the arena (src/memory/gpa-translator.ts) against BigInt arithmetic. */

import { type GpaMap, GpaTranslator } from '../../src/memory/gpa-translator.ts';
import { WINDOW_BYTES } from '../../src/memory/window.ts';
import { measurePieces, type Piece } from './pieces.ts';

const ADDRESSES = 1024;
const FRAME_BYTES = 1530;
const GIB = 2 ** 30;

/** As QEMU lays out a guest of 4 GiB: below the hole for devices, and above 4 GiB. */
const MAP: GpaMap = [
  { start: 0, end: 3 * GIB, arenaOffset: 4 * GIB },
  { start: 4 * GIB, end: 5 * GIB, arenaOffset: 7 * GIB },
];

function naiveLocate(gpa: bigint, sizeBytes: bigint): bigint | null {
  for (const { start, end, arenaOffset } of MAP) {
    if (gpa >= BigInt(start) && gpa + sizeBytes <= BigInt(end))
      return gpa - BigInt(start) + BigInt(arenaOffset);
  }
  return null;
}

function piece(title: string, gpaOf: (i: number) => number): Piece {
  const translator = new GpaTranslator(MAP);
  const gpas = Array.from({ length: ADDRESSES }, (_, i) => gpaOf(i));
  const low = Int32Array.from(gpas, (gpa) => gpa | 0);
  const high = Int32Array.from(gpas, (gpa) => Math.floor(gpa / 2 ** 32));
  const table = new DataView(new ArrayBuffer(ADDRESSES * 8));
  for (const [i, gpa] of gpas.entries()) table.setBigUint64(i * 8, BigInt(gpa), true);
  return {
    title,
    operations: ADDRESSES,
    ways: {
      'GpaTranslator.locate': () => {
        let sum = 0;
        for (let i = 0; i < ADDRESSES; i++) {
          const index = translator.locate(low[i], high[i], FRAME_BYTES);
          sum = (sum + index + translator.window) | 0;
        }
        return sum;
      },
      BigInt: () => {
        let sum = 0;
        for (let i = 0; i < ADDRESSES; i++) {
          const offset = naiveLocate(table.getBigUint64(i * 8, true), BigInt(FRAME_BYTES))!;
          sum = (sum + Number(offset % BigInt(WINDOW_BYTES)) + Number(offset / BigInt(WINDOW_BYTES))) | 0;
        }
        return sum;
      },
    },
  };
}

await measurePieces([
  piece('translate, one region', (i) => i * 4096 + 12),
  piece('translate, two regions in turn', (i) => (i % 2 === 0 ? i * 4096 : 4 * GIB + i * 4096)),
]);
