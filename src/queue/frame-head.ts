/**
 * The first bytes of a frame of a batch in one stretch, for whoever parses them: the arena's own window where the
 * frame lies in one piece, otherwise a copy. The guest may change them meanwhile, so what is read here may only
 * decide what does no harm when it is wrong. The addresses are the batch's: those in memory are not where they belong
 * once a tag was cut out behind them. Hot path; one worker's object.
 */
import type { Window } from '../memory/window.ts';
import { type Batch, IN_PIECES } from './batch.ts';
import { PUSH_BYTES_MAX } from './frame-tags.ts';
import { gatherHead } from './heads.ts';

/** Bytes that can be looked at. */
export const FRAME_HEAD_BYTES = 128;

export class FrameHead {
  declare bytes: Uint8Array;
  /** Index in `bytes` of the frame's first byte, and behind the last one that may be looked at. */
  start = 0;
  end = 0;
  /** The addresses, as three words. */
  word0 = 0;
  word1 = 0;
  word2 = 0;
  declare private readonly gathered: Uint8Array;

  constructor() {
    this.gathered = new Uint8Array(FRAME_HEAD_BYTES + PUSH_BYTES_MAX);
    this.bytes = this.gathered;
  }

  show(batch: Batch, frame: number, windows: readonly Window[]): void {
    this.word0 = batch.headWordOf(frame, 0);
    this.word1 = batch.headWordOf(frame, 1);
    this.word2 = batch.headWordOf(frame, 2);
    // Tags that it is about to get have room in its record, where nothing of it lies.
    const { pushBytes } = batch.tags;
    const headBytes = Math.min(batch.bytesOf(frame) - pushBytes, FRAME_HEAD_BYTES);
    const window = batch.windowOf(frame);
    if (window !== IN_PIECES) {
      this.bytes = windows[window].u8;
      this.start = batch.indexOf(frame) + pushBytes;
    } else {
      this.bytes = this.gathered;
      this.start = pushBytes;
      gatherHead(batch, frame, windows, this.gathered, pushBytes + headBytes);
    }
    this.end = this.start + headBytes;
  }
}
