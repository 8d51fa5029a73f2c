/**
 * The first bytes of a batch's frames, copied for stages that look at them: whatever a guest does to its memory
 * afterwards, they are what the batch knew, and what receivers get. Frames of all lengths, in one piece or many, in one
 * window or several, with tags cut out of them and pushed into them, with requests.
 */
import { afterAll, describe, expect, it } from 'vitest';
import { allocateScratch } from '../../../src/memory/scratch.ts';
import {
  AT_WORD0,
  Batch,
  FRAME_PIECES_MAX,
  HEAD_BYTES,
  IN_PIECES,
  MIXED,
  RECORD_SHIFT,
} from '../../../src/queue/batch.ts';
import { readHeads } from '../../../src/queue/heads.ts';
import { HEAD_COPIES_SCRATCH_BYTES, HEAD_COPY_BYTES, HeadCopies } from '../../../switch/l2/head-copies.ts';
import { Random, seeds } from '../../vring/random.ts';
import {
  bytesOfFrame,
  describeFrames,
  piecesOfFrame,
  sharedArena,
  sharedArenaView,
  slotPlace,
  writeAt,
} from '../../vring/scratch.ts';

const area = allocateScratch(sharedArena, { name: 'head-copies', sizeBytes: HEAD_COPIES_SCRATCH_BYTES });
const heads = new HeadCopies(sharedArenaView, area.offset);
const { windows } = sharedArenaView;

afterAll(() => area.release());

type Pieces = ReturnType<typeof piecesOfFrame>;

/** As a guest may at any time: whatever lay there. */
function overwrite(pieces: Pieces, bytes = 0xdb): void {
  for (const { place, sizeBytes } of pieces) writeAt(place, new Uint8Array(sizeBytes).fill(bytes));
}

function piecesOf(batch: Batch): Pieces[] {
  return Array.from({ length: batch.count }, (_, frame) => piecesOfFrame(batch, frame));
}

function copyOf(batch: Batch, frame: number): Uint8Array {
  const index = heads.indexOf(batch, frame);
  return heads.window.u8.slice(index, index + heads.bytesOf(batch, frame));
}

/** The batch, its heads read and copied, and everything overwritten where it came from. */
function copied(frames: readonly Uint8Array[], scatter: Random | null): Batch {
  const batch = new Batch();
  describeFrames(batch, frames, scatter);
  readHeads(batch, windows);
  const sources = piecesOf(batch);
  heads.copy(batch);
  for (const [frame, pieces] of sources.entries()) {
    // Of a long frame the rest stays where it was.
    if (frames[frame].length <= 2048) overwrite(pieces);
  }
  return batch;
}

const expectFrames = (batch: Batch, frames: readonly Uint8Array[]): void => {
  expect(batch.count).toBe(frames.length);
  for (const [frame, bytes] of frames.entries()) {
    const copy = copyOf(batch, frame);
    expect(Buffer.from(copy).equals(bytes.subarray(0, HEAD_COPY_BYTES)), `copy ${frame}`).toBe(true);
    expect(Buffer.from(bytesOfFrame(batch, frame)).equals(bytes), `frame ${frame}`).toBe(true);
    expect(heads.indexOf(batch, frame) % 4).toBe(0);
  }
};

const random = new Random(1);

describe('frames of one window', () => {
  it.each([14, 15, 16, 17, 59, 60, 64, 127, 128, 129, 1514, 2047, 2048, 2049, 9000])(
    'of %i bytes are copied, plain where they are copied whole',
    (sizeBytes) => {
      const frames = Array.from({ length: 64 }, () => random.bytes(sizeBytes));
      const batch = copied(frames, null);
      expectFrames(batch, frames);
      const isPlain = sizeBytes >= HEAD_BYTES && sizeBytes <= 2048;
      expect(batch.allIn).toBe(isPlain ? Math.floor(area.offset / 2 ** 30) : MIXED);
      expect(batch.bytesMax).toBe(sizeBytes);
    },
  );

  it('that are all alike stay so', () => {
    const bytes = random.bytes(64);
    const batch = copied([bytes, bytes, bytes], null);
    expect([batch.alike, batch.alikeBehind]).toEqual([true, true]);
    expectFrames(batch, [bytes, bytes, bytes]);
  });

  it('are copied once: what a guest writes afterwards is not what a second stage sees', () => {
    const frames = [random.bytes(64), random.bytes(200)];
    const batch = copied(frames, null);
    heads.copy(batch);
    expectFrames(batch, frames);
  });

  it('of which one is long: the others are plain', () => {
    const frames = [random.bytes(64), random.bytes(3000), random.bytes(15), random.bytes(1514)];
    const batch = copied(frames, null);
    expectFrames(batch, frames);
    expect(frames.map((_, frame) => batch.windowOf(frame) === IN_PIECES)).toEqual([false, true, true, false]);
  });
});

describe('what was decided upon before', () => {
  it('is in the copy, although the guest changed it after it was read', () => {
    const frames = Array.from({ length: 5 }, () => random.bytes(100));
    const batch = new Batch();
    describeFrames(batch, frames, null);
    readHeads(batch, windows);
    for (const [{ place }] of piecesOf(batch)) writeAt(place, new Uint8Array(HEAD_BYTES).fill(1));
    heads.copy(batch);
    expectFrames(batch, frames);
  });

  it('is in the copy of a frame of which a tag was cut out: addresses, then what was behind the tag', () => {
    const frame = random.bytes(90);
    const long = random.bytes(5000);
    const batch = new Batch();
    describeFrames(batch, [frame, long], null);
    readHeads(batch, windows);
    for (let each = 0; each < 2; each++) {
      batch.cut(each, 4);
      batch.records[(each << RECORD_SHIFT) + 7] = Buffer.from([frame, long][each]).readInt32LE(16);
    }
    heads.copy(batch);
    const cut = (bytes: Uint8Array) => Uint8Array.from([...bytes.subarray(0, 12), ...bytes.subarray(16)]);
    expectFrames(batch, [cut(frame), cut(long)]);
  });
});

describe('tags for a receiver', () => {
  it.each([4, 8])('of %i bytes have room in front of the frame, whatever lies there', (pushBytes) => {
    const frames = [60, 128, 2048, 4000].map((sizeBytes) => random.bytes(sizeBytes));
    const batch = copied(frames, null);
    batch.makeRoomForAll(pushBytes);
    for (const [frame, bytes] of frames.entries()) {
      expect(bytesOfFrame(batch, frame).length).toBe(bytes.length + pushBytes);
      const [{ place }] = piecesOfFrame(batch, frame);
      writeAt(place, new Uint8Array(pushBytes).fill(7));
    }
    batch.makeRoomForAll(0);
    expectFrames(batch, frames);
  });
});

describe('frames in pieces', () => {
  /** Pieces of these many bytes, a byte apart. */
  function inPieces(batch: Batch, slot: number, sizes: readonly number[]): Uint8Array {
    const bytes = random.bytes(sizes.reduce((sum, size) => sum + size, 0));
    batch.beginPieces();
    let done = 0;
    for (const [piece, size] of sizes.entries()) {
      const place = slotPlace(0, slot, done + piece);
      writeAt(place, bytes.subarray(done, done + size));
      expect(batch.addPiece(place.window, place.index, size)).toBe(true);
      done += size;
    }
    batch.addPieces(bytes.length);
    return bytes;
  }

  it.each([
    ['as many as a frame may have, the first one long', [200, ...new Array(FRAME_PIECES_MAX - 1).fill(30)]],
    ['as many as a frame may have, all short', new Array(FRAME_PIECES_MAX).fill(22)],
    ['as many, of a frame that is copied whole', new Array(FRAME_PIECES_MAX).fill(3)],
    ['an end where the copy ends', [100, 28, 3000]],
    ['an end a byte before', [100, 27, 3000]],
    ['an end a byte behind', [100, 29, 3000]],
    ['an empty one', [100, 0, 28, 0, 3000]],
    ['two', [4000, 1000]],
  ])('%s', (_, sizes) => {
    const batch = new Batch();
    const frames: Uint8Array[] = [];
    while (batch.hasRoomForPieces && batch.count < 64) frames.push(inPieces(batch, frames.length, sizes));
    readHeads(batch, windows);
    const sources = piecesOf(batch);
    heads.copy(batch);
    for (const pieces of sources) {
      let leftBytes = HEAD_COPY_BYTES;
      for (const { place, sizeBytes } of pieces) {
        const count = Math.min(leftBytes, sizeBytes);
        writeAt(place, new Uint8Array(count).fill(0xdb));
        leftBytes -= count;
      }
    }
    expectFrames(batch, frames);
    const other = new Batch();
    for (const frame of frames.keys()) if (other.hasRoomForPieces) other.addOf(batch, frame);
    expect(other.count).toBeGreaterThan(0);
    for (let frame = 0; frame < other.count; frame++) {
      expect(Buffer.from(bytesOfFrame(other, frame)).equals(frames[frame]), `frame ${frame}`).toBe(true);
    }
  });
});

describe('frames that ask for something', () => {
  it('to be segmented have the headers that were kept when the request was checked', () => {
    const frame = random.bytes(5000);
    const batch = new Batch();
    describeFrames(batch, [frame], null);
    batch.beginAsking();
    batch.requests.askSegments(0, 2, 14, 34, 16, 54, 1000);
    batch.requests.headOf[0].set(frame.subarray(0, 54));
    readHeads(batch, windows);
    const [[{ place }]] = piecesOf(batch);
    writeAt(place, new Uint8Array(54).fill(9));
    heads.copy(batch);
    expectFrames(batch, [frame]);
    expect(batch.needsOf(0)).toBe(2);
  });

  it('for a checksum keep what they ask for', () => {
    const frame = random.bytes(100);
    const batch = new Batch();
    describeFrames(batch, [frame], null);
    batch.beginAsking();
    batch.requests.askChecksum(0, 34, 6);
    readHeads(batch, windows);
    heads.copy(batch);
    expectFrames(batch, [frame]);
    expect([batch.needsOf(0), batch.requests.csumStartOf(0), batch.requests.csumOffsetOf(0)]).toEqual([
      1, 34, 6,
    ]);
  });
});

describe('any frames', () => {
  it.each(seeds(150))('are what they were when they were copied (seed %i)', (seed) => {
    const any = new Random(seed);
    const sizes = any.pick([
      [60],
      [14, 15, 16, 17, 60, 64],
      [60, 1514],
      [60, 127, 128, 129, 2048, 2049, 9000],
    ]);
    const frames = Array.from({ length: any.between(1, 64) }, () => any.bytes(any.pick(sizes)));
    const batch = copied(frames, any);
    expectFrames(batch, frames);
    const word0s = frames.map((_, frame) => batch.records[(frame << RECORD_SHIFT) + AT_WORD0]);
    if (!batch.alike) expect(word0s).toEqual(frames.map((bytes) => Buffer.from(bytes).readInt32LE(0)));
  });
});
