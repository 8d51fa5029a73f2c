/** One of the two threads of core-distance.ts, pinned: asks with a number and waits for it, or answers. */
import { parentPort, workerData } from 'node:worker_threads';
import { pinThread } from '../../src/host/affinity.ts';
import type { CoreDistanceSetup } from './core-distance.ts';

const BATCHES = 50;
const TRIPS_PER_BATCH = 5000;
/** Word indices on cache lines of their own. */
const QUESTION = 64;
const ANSWER = 128;

const { shared, cpu, asks } = workerData as CoreDistanceSetup;
const words = new Int32Array(shared);

/** Nanoseconds of a trip in the fastest batch: in the others, somebody else had one of the processors. */
function ask(): number {
  let bestMs = Number.POSITIVE_INFINITY;
  let number = 0;
  for (let batch = 0; batch < BATCHES; batch++) {
    const startMs = performance.now();
    for (let trip = 0; trip < TRIPS_PER_BATCH; trip++) {
      number++;
      Atomics.store(words, QUESTION, number);
      while (Atomics.load(words, ANSWER) !== number);
    }
    bestMs = Math.min(bestMs, performance.now() - startMs);
  }
  return (bestMs * 1e6) / TRIPS_PER_BATCH;
}

function answer(): void {
  const last = BATCHES * TRIPS_PER_BATCH;
  for (let seen = 0; seen !== last; ) {
    seen = Atomics.load(words, QUESTION);
    Atomics.store(words, ANSWER, seen);
  }
}

pinThread(cpu);
if (asks) parentPort!.postMessage(ask());
else answer();
