/**
 * Batches of frames: how they are described, reading their addresses, and copying them, for frames that lie in any
 * way; also when memory changes between two steps.
 */
import { describe, expect, it } from 'vitest';
import {
  AT_WORD3,
  BATCH_FRAMES_MAX,
  BATCH_PIECES_MAX,
  Batch,
  FRAME_PIECES_MAX,
  IN_PIECES,
  MIXED,
  RECORD_SHIFT,
} from '../../src/queue/batch.ts';
import { copyFrame } from '../../src/queue/copy.ts';
import { FRAME_HEAD_BYTES, FrameHead } from '../../src/queue/frame-head.ts';
import { gatherHead, readHeads, readWord3 } from '../../src/queue/heads.ts';
import { Random } from './random.ts';
import {
  bytesOfFrame,
  describeFrames,
  piecesOfFrame,
  readAt,
  sharedArenaView,
  slotPlace,
  spoilHeads,
  writeAt,
} from './scratch.ts';

const { windows } = sharedArenaView;
const HEAD_BYTES = 12;

/** The addresses that the batch has for a frame, as bytes. */
function headOf(batch: Batch, frame: number): Uint8Array {
  const words = Int32Array.from([0, 1, 2], (word) => batch.headWordOf(frame, word));
  return new Uint8Array(words.buffer);
}

/** Frames of a few flows, or of one. */
function randomFrames(random: Random, count: number): Uint8Array[] {
  const flows = random.pick([1, 1, 3]);
  return Array.from({ length: count }, () => {
    const bytes = random.bytes(random.between(14, random.pick([60, 200, 3000])));
    return bytes.fill(random.between(1, flows), 0, HEAD_BYTES);
  });
}

describe('a batch', () => {
  it('knows the window that all its frames lie in', () => {
    const batch = new Batch();
    batch.add(2, 100, 60);
    batch.add(2, 200, 1500);
    batch.add(2, 300, 64);
    expect(batch).toMatchObject({ count: 3, allIn: 2, bytesMax: 1500 });
    expect([0, 1, 2].map((frame) => batch.windowOf(frame))).toEqual([2, 2, 2]);
    expect([0, 1, 2].map((frame) => batch.indexOf(frame))).toEqual([100, 200, 300]);
    expect([0, 1, 2].map((frame) => batch.bytesOf(frame))).toEqual([60, 1500, 64]);
  });

  it.each([
    [[0, 0, 1], MIXED],
    [[1, 0, 0], MIXED],
    [[0, 1, 0], MIXED],
    [[3, 3, 3], 3],
    [[0], 0],
  ])('with frames in windows %j is all in %i', (places, allIn) => {
    const batch = new Batch();
    for (const window of places) batch.add(window, 0, 60);
    expect(batch.allIn).toBe(allIn);
    expect(places.map((_, frame) => batch.windowOf(frame))).toEqual(places);
  });

  it('is mixed with a frame in pieces, wherever that comes', () => {
    for (const at of [0, 1, 2]) {
      const batch = new Batch();
      for (let frame = 0; frame < 3; frame++) {
        if (frame !== at) batch.add(1, 0, 60);
        else {
          batch.beginPieces();
          batch.addPiece(1, 0, 30);
          batch.addPiece(1, 100, 30);
          batch.addPieces(60);
        }
      }
      expect(batch.allIn).toBe(MIXED);
      expect([0, 1, 2].map((frame) => batch.windowOf(frame))).toEqual(
        [0, 1, 2].map((frame) => (frame === at ? IN_PIECES : 1)),
      );
    }
  });

  it('takes a frame of one piece for one that lies in one piece', () => {
    const batch = new Batch();
    batch.beginPieces();
    batch.addPiece(1, 500, 60);
    batch.addPieces(60);
    expect(batch).toMatchObject({ count: 1, allIn: 1 });
    expect(batch.indexOf(0)).toBe(500);
  });

  it('forgets the pieces of a frame that was not added', () => {
    const batch = new Batch();
    batch.beginPieces();
    batch.addPiece(1, 500, 60);
    batch.beginPieces();
    batch.addPiece(2, 7, 20);
    batch.addPiece(3, 8, 40);
    batch.addPieces(60);
    expect(piecesOfFrame(batch, 0)).toEqual([
      { place: { window: 2, index: 7 }, sizeBytes: 20 },
      { place: { window: 3, index: 8 }, sizeBytes: 40 },
    ]);
  });

  it('takes so many pieces a frame, and so many in all', () => {
    const batch = new Batch();
    let frames = 0;
    while (batch.hasRoomForPieces) {
      batch.beginPieces();
      for (let piece = 0; piece < FRAME_PIECES_MAX; piece++) expect(batch.addPiece(0, piece, 1)).toBe(true);
      expect(batch.addPiece(0, 0, 1)).toBe(false);
      batch.addPieces(FRAME_PIECES_MAX);
      frames++;
    }
    expect(frames).toBe(BATCH_PIECES_MAX / FRAME_PIECES_MAX);
    expect(batch.firstPieceOf(frames - 1)).toBe(BATCH_PIECES_MAX - FRAME_PIECES_MAX);
    expect(batch.pieceCountOf(frames - 1)).toBe(FRAME_PIECES_MAX);
  });

  it('is as new when it was cleared', () => {
    const batch = new Batch();
    describeFrames(batch, randomFrames(new Random(3), 20), new Random(4));
    readHeads(batch, windows);
    batch.refuse(3, 1);
    batch.tooLong = 1;
    batch.clear();
    batch.add(1, 0, 14);
    const fresh = new Batch();
    fresh.add(1, 0, 14);
    const { count, allIn, bytesMax, alike, refusedCount, tooLong, hasRoomForPieces } = fresh;
    expect(batch).toMatchObject({ count, allIn, bytesMax, alike, refusedCount, tooLong, hasRoomForPieces });
  });
});

describe('reading addresses', () => {
  function plainBatch(frames: readonly Uint8Array[], shiftBytes = 0, area = 0): Batch {
    const batch = new Batch();
    for (const [slot, bytes] of frames.entries()) {
      const place = slotPlace(area, slot, shiftBytes);
      writeAt(place, bytes);
      batch.add(place.window, place.index, bytes.length);
    }
    return batch;
  }

  const sameFlow = (count: number): Uint8Array[] =>
    Array.from({ length: count }, (_, i) => new Random(i).bytes(60).fill(9, 0, HEAD_BYTES));

  it.each([1, 2, 64])('of %i frames of one flow finds them alike', (count) => {
    const batch = plainBatch(sameFlow(count));
    readHeads(batch, windows);
    expect(batch.alike).toBe(true);
    for (let frame = 0; frame < count; frame++) {
      expect(headOf(batch, frame)).toEqual(new Uint8Array(HEAD_BYTES).fill(9));
    }
  });

  // A byte in each of the three words, in the first, a middle and the last frame.
  it.each([
    [0, 0],
    [31, 5],
    [63, 11],
  ])('sees the one frame that differs, frame %i in byte %i', (differs, at) => {
    const frames = sameFlow(64);
    frames[differs][at] ^= 1;
    const batch = plainBatch(frames);
    readHeads(batch, windows);
    expect(batch.alike).toBe(false);
    for (const [frame, bytes] of frames.entries()) {
      expect(headOf(batch, frame)).toEqual(bytes.slice(0, HEAD_BYTES));
    }
  });

  it.each([1, 2, 3])('works %i bytes beside a word', (shiftBytes) => {
    const frames = randomFrames(new Random(shiftBytes), 64);
    const batch = plainBatch(frames, shiftBytes);
    readHeads(batch, windows);
    for (const [frame, bytes] of frames.entries()) {
      expect(headOf(batch, frame)).toEqual(bytes.slice(0, HEAD_BYTES));
    }
  });

  it('never takes an unaligned frame for alike that only is so from the word it begins in', () => {
    const frames = sameFlow(3);
    const batch = new Batch();
    for (const [slot, bytes] of frames.entries()) {
      const place = slotPlace(0, slot, slot === 1 ? 2 : 0);
      // From two bytes before it on, the second frame looks like the others; it differs at the end of its addresses.
      if (slot === 1) bytes[10] ^= 0xff;
      writeAt({ ...place, index: place.index - 2 }, new Uint8Array(HEAD_BYTES).fill(9));
      writeAt(place, bytes);
      batch.add(place.window, place.index, bytes.length);
    }
    readHeads(batch, windows);
    expect(batch.alike).toBe(false);
    for (const [frame, bytes] of frames.entries()) {
      expect(headOf(batch, frame)).toEqual(bytes.slice(0, HEAD_BYTES));
    }
  });

  it.each(Array.from({ length: 40 }, (_, seed) => seed))('of frames that lie anyhow, seed %i', (seed) => {
    const random = new Random(seed);
    const frames = randomFrames(random, random.between(1, BATCH_FRAMES_MAX));
    const batch = new Batch();
    describeFrames(batch, frames, random);
    readHeads(batch, windows);
    const isOneFlow = frames.every((bytes) => bytes[0] === frames[0][0]);
    if (!isOneFlow) expect(batch.alike).toBe(false);
    for (const [frame, bytes] of frames.entries()) {
      expect(bytesOfFrame(batch, frame)).toEqual(bytes);
      expect(headOf(batch, frame)).toEqual(bytes.slice(0, HEAD_BYTES));
    }
  });
});

describe('copying a frame', () => {
  const BEFORE = 0x11;
  const target = slotPlace(0, 100);

  /** Copies the frame to the target, shifted, and answers what is there; fails when anything around it changed. */
  function copied(batch: Batch, frame: number, sizeBytes: number, shiftBytes: number): Uint8Array {
    const place = { ...target, index: target.index + shiftBytes };
    const around = { ...place, index: place.index - 32 };
    writeAt(around, new Uint8Array(sizeBytes + 64).fill(BEFORE));
    copyFrame(sharedArenaView, batch, frame, sizeBytes, windows[place.window], place.index);
    const all = readAt(around, sizeBytes + 64);
    for (const edge of [all.subarray(0, 32), all.subarray(32 + sizeBytes)]) {
      expect(edge.every((byte) => byte === BEFORE)).toBe(true);
    }
    return all.slice(32, 32 + sizeBytes);
  }

  const ALIGNMENTS = [0, 1, 2, 3, 4, 5, 6, 7];
  it.each(ALIGNMENTS)('from %i bytes beside eight, to every other place', (fromShift) => {
    const batch = new Batch();
    for (const sizeBytes of [14, 15, 60, 61, 64, 75, 76, 77, 191, 204, 205, 1514]) {
      const bytes = new Random(sizeBytes).bytes(sizeBytes);
      const place = slotPlace(1, 1, fromShift);
      writeAt(place, bytes);
      batch.clear();
      batch.add(place.window, place.index, sizeBytes);
      readHeads(batch, windows);
      for (const toShift of ALIGNMENTS) expect(copied(batch, 0, sizeBytes, toShift)).toEqual(bytes);
    }
  });

  it.each(Array.from({ length: 40 }, (_, seed) => seed))(
    'that lies anyhow, whole or its beginning, seed %i',
    (seed) => {
      const random = new Random(seed);
      const frames = randomFrames(random, 20);
      const batch = new Batch();
      describeFrames(batch, frames, random);
      readHeads(batch, windows);
      for (const [frame, bytes] of frames.entries()) {
        for (const sizeBytes of [bytes.length, random.between(HEAD_BYTES, bytes.length), HEAD_BYTES]) {
          expect(copied(batch, frame, sizeBytes, random.between(0, 7))).toEqual(bytes.slice(0, sizeBytes));
        }
      }
    },
  );

  it.each([null, new Random(1), new Random(2), new Random(3)])(
    'writes the addresses and EtherTypes that were read, not what memory has become, %#',
    (scatter) => {
      const frames = randomFrames(new Random(5), 40);
      const batch = new Batch();
      describeFrames(batch, frames, scatter);
      readHeads(batch, windows);
      spoilHeads(batch);
      for (const [frame, bytes] of frames.entries()) {
        expect(bytesOfFrame(batch, frame)[0]).toBe(0xdb);
        expect(copied(batch, frame, bytes.length, 0)).toEqual(bytes);
      }
    },
  );
});

describe('tags', () => {
  const target = slotPlace(0, 100);
  const bytesOfTag = (tag: number): number[] => [...new Uint8Array(Int32Array.of(tag).buffer)];
  const TAGS = [0x0a000081, 0x1460a888];

  it.each(Array.from({ length: 40 }, (_, seed) => seed))(
    'are cut out of a frame that lies anyhow, and written into its copy, seed %i',
    (seed) => {
      const random = new Random(seed);
      const frames = randomFrames(random, 20).map((bytes, i) => {
        // Nothing is left between 14 and 20 bytes behind a tag in many of them.
        const kept = bytes.subarray(0, random.chance(40) ? random.between(14, 20) : bytes.length);
        const came = random.pick([0, 1, 2]);
        const tags = TAGS.slice(0, came).flatMap(bytesOfTag);
        const tagged = Uint8Array.from([...kept.subarray(0, 12), ...tags, ...kept.subarray(12)]);
        return { i, kept, came, tagged };
      });
      const batch = new Batch();
      describeFrames(
        batch,
        frames.map(({ tagged }) => tagged),
        random.chance(70) ? random : null,
      );
      readHeads(batch, windows);
      batch.spread();
      for (const { i, kept, came } of frames) {
        for (let cut = 0; cut < came; cut++) {
          expect(batch.word3Of(i)).toBe(TAGS[cut]);
          batch.cut(i, 4);
          batch.records[(i << RECORD_SHIFT) + AT_WORD3] = readWord3(batch, i, windows);
        }
        expect(batch.bytesOf(i)).toBe(kept.length);
      }
      spoilHeads(batch);
      const isUniform = random.chance(50);
      batch.tags.isPushUniform = isUniform;
      [batch.tags.push0, batch.tags.push1] = TAGS;
      for (const { i, kept } of frames) {
        const own = TAGS.map((tag) => (isUniform ? tag : tag ^ (i << 24)));
        [batch.tags.pushes0[i], batch.tags.pushes1[i]] = own;
        for (const count of [0, 1, 2]) {
          const pushed = own.slice(0, count).flatMap(bytesOfTag);
          const expected = Uint8Array.from([...kept.subarray(0, 12), ...pushed, ...kept.subarray(12)]);
          batch.makeRoom(i, 4 * count);
          batch.tags.pushBytes = 4 * count;
          expect(batch.bytesOf(i)).toBe(expected.length);
          const place = { ...target, index: target.index + random.between(0, 7) };
          copyFrame(sharedArenaView, batch, i, expected.length, windows[place.window], place.index);
          expect(readAt(place, expected.length)).toEqual(expected);
          batch.makeRoom(i, -4 * count);
        }
      }
    },
  );
});

describe('the beginning of a frame', () => {
  it.each(Array.from({ length: 20 }, (_, seed) => seed))(
    'is shown whatever pieces it lies in, seed %i',
    (seed) => {
      const random = new Random(seed);
      const frames = randomFrames(random, 30);
      const batch = new Batch();
      describeFrames(batch, frames, random);
      const head = new FrameHead();
      for (const [frame, bytes] of frames.entries()) {
        const headBytes = Math.min(bytes.length, FRAME_HEAD_BYTES);
        head.show(batch, frame, windows);
        expect(head.end - head.start).toBe(headBytes);
        expect(Uint8Array.from(head.bytes.subarray(head.start, head.end))).toEqual(bytes.slice(0, headBytes));
        const wanted = random.between(0, headBytes);
        const to = new Uint8Array(headBytes + 1).fill(0xaa);
        gatherHead(batch, frame, windows, to, wanted);
        expect(to.slice(0, wanted)).toEqual(bytes.slice(0, wanted));
        expect(to.subarray(wanted).every((byte) => byte === 0xaa)).toBe(true);
      }
    },
  );
});
