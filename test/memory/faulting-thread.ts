/** A thread that touches the arena as a worker does, page by page, when it is told; for losses.test.ts. */
import { parentPort, workerData } from 'node:worker_threads';
import type { ArenaLocation } from '../../src/memory/arena.ts';
import { ArenaView } from '../../src/memory/arena-view.ts';

export type Touch = {
  readonly location: ArenaLocation;
  readonly offset: number;
  readonly sizeBytes: number;
  readonly strideBytes: number;
  /** Threads wait for each other here, so that they touch at the same time. */
  readonly barrier: SharedArrayBuffer;
  readonly threads: number;
};

const { location, offset, sizeBytes, strideBytes, barrier, threads } = workerData as Touch;
const view = new ArenaView(location);
const arrived = new Int32Array(barrier);
Atomics.add(arrived, 0, 1);
while (Atomics.load(arrived, 0) < threads) {
  // All at once.
}
let sum = 0;
for (let at = offset; at < offset + sizeBytes; at += strideBytes) {
  sum += view.u8[at]!;
  view.u8[at + 1] = 1;
}
parentPort!.postMessage(sum);
