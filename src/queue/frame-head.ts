/**
 * The first bytes of a frame of a batch in one stretch, for whoever parses them: the arena's own window where the
 * frame lies in one piece, otherwise a copy. The guest may change them meanwhile, so what is read here may only
 * decide what does no harm when it is wrong. Hot path; one worker's object.
 */
import type { Window } from '../memory/arena-view.ts';
import { type Batch, IN_PIECES } from './batch.ts';
import { gatherHead } from './heads.ts';

/** Bytes that can be looked at. */
export const FRAME_HEAD_BYTES = 128;

export class FrameHead {
  declare bytes: Uint8Array;
  /** Index in `bytes` of the frame's first byte, and behind the last one that may be looked at. */
  start = 0;
  end = 0;
  declare private readonly gathered: Uint8Array;

  constructor() {
    this.gathered = new Uint8Array(FRAME_HEAD_BYTES);
    this.bytes = this.gathered;
  }

  show(batch: Batch, frame: number, windows: readonly Window[]): void {
    const headBytes = Math.min(batch.bytesOf(frame), FRAME_HEAD_BYTES);
    const window = batch.windowOf(frame);
    if (window !== IN_PIECES) {
      this.bytes = windows[window].u8;
      this.start = batch.indexOf(frame);
    } else {
      this.bytes = this.gathered;
      this.start = 0;
      gatherHead(batch, frame, windows, this.gathered, headBytes);
    }
    this.end = this.start + headBytes;
  }
}
