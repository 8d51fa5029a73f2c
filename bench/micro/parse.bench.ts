/** Parsing a frame for its flow (switch/l2/flow-hash.ts) against the same through a DataView and new objects. */

import { Arena } from '../../src/memory/arena.ts';
import { ArenaView } from '../../src/memory/arena-view.ts';
import { Batch } from '../../src/queue/batch.ts';
import { FrameHead } from '../../src/queue/frame-head.ts';
import { flowHash } from '../../switch/l2/flow-hash.ts';
import { measurePieces, type Piece } from './pieces.ts';

const FRAMES = 256;
const SLOT_BYTES = 2048;
const FRAME_BYTES = 64;

const view = new ArenaView(Arena.reserve(2 ** 32).location);
const batch = new Batch();
const head = new FrameHead();

/** IPv4 and UDP, each frame with ports of its own; without or with a VLAN tag. */
function writeFrames(startOffset: number, tagged: boolean): void {
  for (let i = 0; i < FRAMES; i++) {
    const ip = tagged ? 18 : 14;
    const bytes = new DataView(view.buffer, startOffset + i * SLOT_BYTES, FRAME_BYTES);
    if (tagged) bytes.setUint16(12, 0x8100);
    bytes.setUint16(ip - 2, 0x0800);
    bytes.setUint8(ip, 0x45);
    bytes.setUint8(ip + 9, 17);
    bytes.setUint32(ip + 12, 0xc6120001);
    bytes.setUint32(ip + 16, 0xc6120002);
    bytes.setUint16(ip + 20, 1024 + i);
    bytes.setUint16(ip + 22, 9);
  }
}

function naiveFlow(
  bytes: Uint8Array,
): { source: number; target: number; protocol: number; ports: number } | null {
  const data = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 14;
  while (data.getUint16(at - 2) === 0x8100) at += 4;
  if (data.getUint16(at - 2) !== 0x0800) return null;
  const transport = at + (data.getUint8(at) & 0x0f) * 4;
  return {
    source: data.getUint32(at + 12),
    target: data.getUint32(at + 16),
    protocol: data.getUint8(at + 9),
    ports: data.getUint32(transport),
  };
}

function naiveHash(bytes: Uint8Array): number {
  let hash = 0;
  for (const word of Object.values(naiveFlow(bytes) ?? {})) hash = Math.imul(hash ^ word, 0x9e3779b1);
  return hash >>> 1;
}

function piece(title: string, startOffset: number, tagged: boolean): Piece {
  writeFrames(startOffset, tagged);
  return {
    title,
    operations: FRAMES,
    ways: {
      flowHash: () => {
        let sum = 0;
        for (let i = 0; i < FRAMES; i++) {
          batch.clear();
          batch.add(0, startOffset + i * SLOT_BYTES, FRAME_BYTES);
          head.show(batch, 0, view.windows);
          sum = (sum + flowHash(head)) | 0;
        }
        return sum;
      },
      'DataView and objects': () => {
        let sum = 0;
        for (let i = 0; i < FRAMES; i++) {
          const at = startOffset + i * SLOT_BYTES;
          sum = (sum + naiveHash(view.u8.subarray(at, at + FRAME_BYTES))) | 0;
        }
        return sum;
      },
    },
  };
}

await measurePieces([
  piece('flow of an IPv4 UDP frame', 2 ** 20, false),
  piece('the same with a VLAN tag', 2 ** 21, true),
]);
