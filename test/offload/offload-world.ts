/**
 * Frames with requests in an arena, the engine that completes them, and what an egress queue that knows nothing of
 * offloads would copy: the frames as they come out, with their addresses from the batch.
 */
import { type NetHeader, netHeaderOf, netHeaderWords } from '../../protocol/virtio/net.ts';
import { allocateScratch } from '../../src/memory/scratch.ts';
import { WINDOW_BYTES } from '../../src/memory/window.ts';
import { COMPLETION_SCRATCH_BYTES, Completion } from '../../src/offload/completion.ts';
import { requestWord0, requestWord1, requestWord2 } from '../../src/offload/net-header.ts';
import { takeRequest } from '../../src/offload/request.ts';
import { AS_THEY_CAME, Batch } from '../../src/queue/batch.ts';
import { copyFrame } from '../../src/queue/copy.ts';
import { readHeads } from '../../src/queue/heads.ts';
import type { Random } from '../vring/random.ts';
import { describeFrames, sharedArena, sharedArenaView } from '../vring/scratch.ts';
import type { Request } from './random-requests.ts';

/** All OFFLOAD_* bits. */
export const ALL_OFFLOADS = 127;
const TARGET_BYTES = 2 ** 17;

export type Made = {
  readonly bytes: Uint8Array;
  /** What is left to do for the receiver. */
  readonly header: NetHeader;
  /** Number of the frame that it was made of. */
  readonly source: number;
};

export class OffloadWorld {
  readonly batch = new Batch();
  readonly completion: Completion;
  readonly #scratch = allocateScratch(sharedArena, {
    name: 'completion',
    sizeBytes: COMPLETION_SCRATCH_BYTES,
  });
  readonly #target = allocateScratch(sharedArena, { name: 'target', sizeBytes: TARGET_BYTES });
  /** Batches that the last `complete` took. */
  batchCount = 0;

  constructor() {
    this.completion = new Completion(sharedArenaView, this.#scratch.offset);
  }

  /** Puts the frames into the batch, anyhow if `scatter` is given, and takes their requests; answers what each met. */
  take(requests: readonly Request[], scatter: Random | null, agreed = ALL_OFFLOADS): number[] {
    const frames = requests.map(({ frame }) => frame);
    describeFrames(this.batch, frames, scatter);
    return requests.map(({ header }, frame) => this.takeHeader(frame, header, agreed));
  }

  takeHeader(frame: number, header: NetHeader, agreed = ALL_OFFLOADS): number {
    const [word0, word1, word2] = netHeaderWords(header, 0);
    return takeRequest(this.batch, frame, sharedArenaView.windows, word0, word1, word2, agreed);
  }

  /** Everything that comes out for a receiver that takes so much. */
  complete(takes: number): Made[] {
    readHeads(this.batch, sharedArenaView.windows);
    return this.completeRead(takes);
  }

  /** As `complete`, of a batch whose addresses were read. */
  completeRead(takes: number, batch = this.batch): Made[] {
    const { completion } = this;
    const made: Made[] = [];
    this.batchCount = 0;
    completion.begin(batch, AS_THEY_CAME, batch.count, takes);
    while (completion.next()) {
      this.batchCount++;
      for (let frame = 0; frame < completion.batch.count; frame++) made.push(this.#copied(frame));
    }
    return made;
  }

  release(): void {
    this.#scratch.release();
    this.#target.release();
  }

  #copied(frame: number): Made {
    const { batch, sourceOf } = this.completion;
    const { offset } = this.#target;
    const sizeBytes = batch.bytesOf(frame);
    const window = sharedArenaView.windows[Math.floor(offset / WINDOW_BYTES)];
    copyFrame(sharedArenaView, batch, frame, sizeBytes, window, offset % WINDOW_BYTES);
    const header = netHeaderOf(
      requestWord0(batch, frame, 0),
      requestWord1(batch, frame, 0),
      requestWord2(batch, frame, 0),
    );
    return { bytes: sharedArenaView.bytesAt(offset, sizeBytes), header, source: sourceOf[frame] };
  }
}
