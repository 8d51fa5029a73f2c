/**
 * What receivers without offloads cost (src/offload): the checksum of 1,460 bytes, against the naive twin and the way that
 * adds both halves of each word by themselves; frames that ask for theirs; and 64 KiB of TCP cut into segments of 1,448 bytes, headers and checksums
 * included, without the copy to the receiver.
 */
import { NET_HEADER_BYTES, netHeaderWords } from '../../protocol/virtio/net.ts';
import { allocateScratch } from '../../src/memory/scratch.ts';
import type { Window } from '../../src/memory/window.ts';
import { WINDOW_BYTES } from '../../src/memory/window.ts';
import { sumBytes } from '../../src/offload/checksum.ts';
import { COMPLETION_SCRATCH_BYTES, Completion } from '../../src/offload/completion.ts';
import { REQUEST_TAKEN, takeRequest } from '../../src/offload/request.ts';
import { AS_THEY_CAME, BATCH_FRAMES_MAX, Batch } from '../../src/queue/batch.ts';
import { readHeads } from '../../src/queue/heads.ts';
import { OFFLOAD_CHECKSUM, OFFLOAD_TSO4 } from '../../src/queue/requests.ts';
import { completed, naiveSum, segmentsOf } from '../../test/offload/naive-offload.ts';
import { makeFrame } from '../../test/offload/random-requests.ts';
import { Random } from '../../test/vring/random.ts';
import { sharedArena, sharedArenaView } from '../../test/vring/scratch.ts';
import { measurePieces, type Piece } from './pieces.ts';

const SUMS = 128;
const SLOT_BYTES = 2048;
const SUMMED_BYTES = 1460;
const SEGMENT_BYTES = 1448;
/** A guest's buffers: 4 KiB each, as Linux sends from the page cache; 17 and the headers are the most that it has. */
const PAGE_BYTES = 4096;

const place = (offset: number): { window: Window; number: number; index: number } => {
  const number = Math.floor(offset / WINDOW_BYTES);
  return { window: sharedArenaView.windows[number], number, index: offset % WINDOW_BYTES };
};
const random = new Random(1);
const payload = allocateScratch(sharedArena, { name: 'payload', sizeBytes: SUMS * SLOT_BYTES });
sharedArenaView.u8.set(random.bytes(SUMS * SLOT_BYTES), payload.offset);

function sumHalves(i32: Int32Array, first: number, count: number): number {
  let low = 0;
  let high = 0;
  for (let i = first; i < first + count; i++) {
    low += i32[i] & 0xffff;
    high += i32[i] >>> 16;
  }
  return low + high;
}

function checksumPiece(shiftBytes: number): Piece {
  const { window, index } = place(payload.offset);
  const start = index + shiftBytes;
  return {
    title: `checksum of ${SUMMED_BYTES} bytes${shiftBytes === 0 ? '' : `, ${shiftBytes} off alignment`}`,
    operations: SUMS,
    ways: {
      sumBytes: () => {
        let sum = 0;
        for (let at = 0; at < SUMS * SLOT_BYTES; at += SLOT_BYTES) {
          sum = (sum + sumBytes(window, start + at, SUMMED_BYTES)) | 0;
        }
        return sum;
      },
      'halves of each word': () => {
        let sum = 0;
        for (let at = 0; at < SUMS * SLOT_BYTES; at += SLOT_BYTES) {
          sum = (sum + sumHalves(window.i32, (start + at) >> 2, SUMMED_BYTES >> 2)) | 0;
        }
        return sum;
      },
      'naive twin': () => {
        let sum = 0;
        for (let at = 0; at < SUMS * SLOT_BYTES; at += SLOT_BYTES) {
          sum += naiveSum(window.u8.subarray(start + at, start + at + SUMMED_BYTES));
        }
        return sum;
      },
    },
  };
}

function segmentsPiece(takes: number, title: string): Piece {
  const shape = { version: 4, protocol: 6, tags: 0, optionBytes: 0, tcpOptionBytes: 12 } as const;
  const { frame, csumStart, end } = makeFrame(random, { ...shape, payloadBytes: 45 * SEGMENT_BYTES });
  const area = allocateScratch(sharedArena, { name: 'frame', sizeBytes: 2 ** 17 });
  const scratch = allocateScratch(sharedArena, { name: 'completion', sizeBytes: COMPLETION_SCRATCH_BYTES });
  const completion = new Completion(sharedArenaView, scratch.offset);
  const batch = new Batch();
  const { number, index } = place(area.offset);
  sharedArenaView.u8.set(frame.subarray(0, end), area.offset);
  sharedArenaView.u8.set(frame.subarray(end), area.offset + PAGE_BYTES);
  batch.beginPieces();
  batch.addPiece(number, index, end);
  for (let done = end; done < frame.length; done += PAGE_BYTES) {
    const bytes = Math.min(PAGE_BYTES, frame.length - done);
    batch.addPiece(number, index + PAGE_BYTES + done - end, bytes);
  }
  batch.addPieces(frame.length);
  readHeads(batch, sharedArenaView.windows);
  const header = { flags: 1, gsoType: 1, hdrLen: end, gsoSize: SEGMENT_BYTES, csumStart, csumOffset: 16 };
  const [word0, word1, word2] = netHeaderWords(header, 0);
  const agreed = OFFLOAD_CHECKSUM | OFFLOAD_TSO4;
  return {
    title,
    operations: 1,
    ways: {
      Completion: () => {
        const why = takeRequest(batch, 0, sharedArenaView.windows, word0, word1, word2, agreed);
        if (why !== REQUEST_TAKEN) throw new Error('the request was refused');
        completion.begin(batch, AS_THEY_CAME, 1, takes);
        let made = 0;
        while (completion.next()) made += completion.batch.count;
        if (made !== 45) throw new Error(`${made} segments`);
      },
      'naive twin': () => segmentsOf(frame, SEGMENT_BYTES),
    },
  };
}

/** What a guest that leaves its checksums to others costs when a receiver takes none: each frame asks. */
function completionPiece(frameBytes: number): Piece {
  const shape = { version: 4, protocol: 6, tags: 0, optionBytes: 0, tcpOptionBytes: 12 } as const;
  const area = allocateScratch(sharedArena, { name: 'frames', sizeBytes: BATCH_FRAMES_MAX * SLOT_BYTES });
  const scratch = allocateScratch(sharedArena, { name: 'completion', sizeBytes: COMPLETION_SCRATCH_BYTES });
  const completion = new Completion(sharedArenaView, scratch.offset);
  const batch = new Batch();
  const { number, index } = place(area.offset);
  for (let frame = 0; frame < BATCH_FRAMES_MAX; frame++) {
    const made = makeFrame(random, { ...shape, payloadBytes: frameBytes - 66 });
    sharedArenaView.u8.set(made.frame, area.offset + frame * SLOT_BYTES + NET_HEADER_BYTES);
  }
  const header = { flags: 1, gsoType: 0, hdrLen: 0, gsoSize: 0, csumStart: 34, csumOffset: 16 };
  const [word0, word1, word2] = netHeaderWords(header, 0);
  return {
    title: `a checksum put into a frame of ${frameBytes} bytes`,
    operations: BATCH_FRAMES_MAX,
    ways: {
      Completion: () => {
        batch.clear();
        for (let frame = 0; frame < BATCH_FRAMES_MAX; frame++) {
          batch.add(number, index + frame * SLOT_BYTES + NET_HEADER_BYTES, frameBytes);
          takeRequest(batch, frame, sharedArenaView.windows, word0, word1, word2, OFFLOAD_CHECKSUM);
        }
        readHeads(batch, sharedArenaView.windows);
        completion.begin(batch, AS_THEY_CAME, BATCH_FRAMES_MAX, 0);
        let made = 0;
        while (completion.next()) made += completion.batch.count;
        if (made !== BATCH_FRAMES_MAX) throw new Error(`${made} frames`);
      },
      'naive twin': () => {
        for (let frame = 0; frame < BATCH_FRAMES_MAX; frame++) {
          const at = area.offset + frame * SLOT_BYTES + NET_HEADER_BYTES;
          completed(sharedArenaView.bytesAt(at, frameBytes), 34, 16);
        }
      },
    },
  };
}

await measurePieces([
  checksumPiece(0),
  checksumPiece(2),
  checksumPiece(1),
  completionPiece(66),
  completionPiece(1514),
  segmentsPiece(0, '64 KiB into 45 segments, with checksums'),
  segmentsPiece(OFFLOAD_CHECKSUM, '64 KiB into 45 segments, checksums left to the receiver'),
]);
