/**
 * What the frames of a burst ask for, by the virtio-net headers before them: reads each header once and notes its request
 * in the batch, or takes the frame out of it. A frame in one plain descriptor or slot has its header right before it; of
 * others it is read while the chain is walked (`read`). Hot path of one worker; only of queues that agreed on offloads.
 */
import * as NET from '../../protocol/virtio/net.ts';
import type { ArenaView } from '../memory/arena-view.ts';
import type { Batch } from '../queue/batch.ts';
import * as BATCH from '../queue/batch.ts';
import { ALL_BITS, readHeadsWithHeaders } from '../queue/heads.ts';
import * as REQUEST from './request.ts';

// V8 folds a module's own constants into a loop, and loads imported ones again at each use: some 3 ns a frame.
const { AT_INDEX, BATCH_FRAMES_MAX, IN_PIECES, MIXED, RECORD_SHIFT } = BATCH;
const { NET_HEADER_BYTES } = NET;
const { DATA_VALID } = NET.NET_HDR_F;
const { REQUEST_TAKEN, asksNothing, takeRequest } = REQUEST;

/** Room for a header a frame. */
const SLOT_BYTES = 16;
const SLOT_SHIFT = 2;

export class AskedFor {
  declare private readonly arena: ArenaView;
  declare private readonly headerBytes: number;
  /** OFFLOAD_* bits. */
  declare private readonly agreed: number;
  /** DATA_VALID, if those who write the headers are believed that a checksum is right; otherwise 0. */
  declare private readonly validBit: number;
  /** Headers of frames that were not plain descriptors, by frame, and how much of each was read. */
  declare private readonly words: Int32Array;
  declare private readonly bytes: Uint8Array;
  declare private readonly readBytes: Int32Array;
  /** Frames that may have such a header; beyond them all are plain. */
  private readEnd = 0;

  constructor(arena: ArenaView, headerBytes: number, agreed: number, isBelieved = false) {
    this.arena = arena;
    this.headerBytes = headerBytes;
    this.agreed = agreed;
    this.validBit = isBelieved ? DATA_VALID : 0;
    this.words = new Int32Array(BATCH_FRAMES_MAX * (SLOT_BYTES >> 2));
    this.bytes = new Uint8Array(this.words.buffer);
    this.readBytes = new Int32Array(BATCH_FRAMES_MAX);
  }

  /** The next bytes of the header of the frame that will be the batch's `frame`th. */
  read(frame: number, window: number, index: number, sizeBytes: number): void {
    const from = this.arena.windows[window].u8;
    const to = frame * SLOT_BYTES + this.readBytes[frame];
    for (let i = 0; i < sizeBytes; i++) this.bytes[to + i] = from[index + i];
    this.readBytes[frame] += sizeBytes;
    if (frame >= this.readEnd) this.readEnd = frame + 1;
  }

  /** The chain whose header was read comes to nothing, and another frame will be the batch's `frame`th. */
  forget(frame: number): void {
    this.readBytes[frame] = 0;
  }

  /** Notes what the frames of a burst ask for, and takes those out that ask for what cannot be. */
  take(batch: Batch): void {
    if (this.readEnd !== 0 || !this.asksNothing(batch)) this.takeAll(batch);
  }

  /** Whether all frames are plain and ask for nothing, which costs a load a frame from a line that is read next anyway. */
  private asksNothing(batch: Batch): boolean {
    const { count, records, allIn } = batch;
    if (count === 0 || allIn === MIXED || this.headerBytes !== NET_HEADER_BYTES) return false;
    const { i32 } = this.arena.windows[allIn];
    const together = readHeadsWithHeaders(batch, i32, NET_HEADER_BYTES);
    if (together !== ALL_BITS) {
      const isNothing = asksNothing(together) && (together & this.validBit) === 0;
      batch.headsAreRead = isNothing;
      if (!isNothing) {
        batch.alike = false;
        batch.alikeBehind = false;
      }
      return isNothing;
    }
    let bits = 0;
    let unaligned = 0;
    for (let frame = 0; frame < count; frame++) {
      const index = records[(frame << RECORD_SHIFT) + AT_INDEX];
      bits |= i32[(index - NET_HEADER_BYTES) >> 2];
      unaligned |= index;
    }
    return asksNothing(bits) && (bits & this.validBit) === 0 && (unaligned & 3) === 0;
  }

  private takeAll(batch: Batch): void {
    const { windows } = this.arena;
    const { count, records } = batch;
    let kept = 0;
    for (let frame = 0; frame < count; frame++) {
      this.readPlain(batch, frame);
      if (kept !== frame) {
        const from = frame << RECORD_SHIFT;
        records.copyWithin(kept << RECORD_SHIFT, from, from + (1 << RECORD_SHIFT));
      }
      const at = frame << SLOT_SHIFT;
      const why = takeRequest(
        batch,
        kept,
        windows,
        this.words[at],
        this.words[at + 1],
        this.words[at + 2],
        this.agreed,
      );
      if (why === REQUEST_TAKEN) {
        if (asksNothing(this.words[at]) && (this.words[at] & this.validBit) !== 0) {
          batch.beginAsking();
          batch.requests.noteValid(kept);
        }
        kept++;
      } else batch.refuseRequest(why);
    }
    batch.count = kept;
    for (let frame = 0; frame < this.readEnd; frame++) this.readBytes[frame] = 0;
    this.readEnd = 0;
  }

  /** The header of a frame that was not read with its chain: it stands right before the frame. */
  private readPlain(batch: Batch, frame: number): void {
    if (this.readBytes[frame] === this.headerBytes) return;
    this.readBytes[frame] = 0;
    // One that is too short for a plain frame has a piece instead.
    const isPlain = batch.windowOf(frame) !== IN_PIECES;
    const piece = isPlain ? 0 : batch.firstPieceOf(frame);
    const window = isPlain ? batch.windowOf(frame) : batch.pieceWindow[piece];
    const index = isPlain ? batch.indexOf(frame) : batch.pieceIndex[piece];
    this.read(frame, window, index - this.headerBytes, this.headerBytes);
  }
}
