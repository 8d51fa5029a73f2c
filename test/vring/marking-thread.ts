/** A thread that writes to a guest's pages and marks them, round by round; for dirty-log-threads.test.ts. */
import { workerData } from 'node:worker_threads';
import type { ArenaLocation } from '../../src/memory/arena.ts';
import { ArenaView } from '../../src/memory/arena-view.ts';
import { DirtyLog, type RingLog } from '../../src/vring/dirty-log.ts';

export type Marking = {
  readonly location: ArenaLocation;
  readonly log: RingLog;
  /** Of guest address 0 in the arena. */
  readonly guestOffset: number;
  readonly pages: number;
  readonly rounds: number;
  /** Writes to each page in a round. */
  readonly writes: number;
  /** Every so many pages, from the first one on that is this thread's. */
  readonly stride: number;
  readonly firstPage: number;
  /** The round that may begin; threads that have done it, in all. */
  readonly turn: SharedArrayBuffer;
};

export const TURN_GO = 0;
export const TURN_DONE = 1;

if (workerData !== null) write(workerData as Marking);

function write({
  location,
  log,
  guestOffset,
  pages,
  rounds,
  writes,
  stride,
  firstPage,
  turn,
}: Marking): void {
  const view = new ArenaView(location);
  const guest = new Int32Array(view.buffer, guestOffset, pages * 1024);
  const dirty = new DirtyLog(view, log);
  const words = new Int32Array(turn);
  for (let round = 1; round <= rounds; round++) {
    while (Atomics.load(words, TURN_GO) < round) {
      // All at once.
    }
    for (let page = firstPage; page < pages; page += stride) {
      for (let i = 0; i < writes; i++) {
        guest[page * 1024] = round * writes + i;
        dirty.note(page * 4096, 0, 4);
        dirty.markNoted();
      }
    }
    Atomics.add(words, TURN_DONE, 1);
    Atomics.notify(words, TURN_DONE);
  }
}
