/**
 * How far apart the two processors are: the time that a cache line takes from one to the other and back. On a
 * virtual machine it changes when the host moves a virtual processor, and every figure of a switch whose
 * generator runs on the other processor changes with it; so it is told before and after a run.
 */
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { withDeadline } from '../../test/peers/deadline.ts';

const PROGRAM = new URL('./core-distance-worker.ts', import.meta.url);
const TIMEOUT_MS = 20_000;

export type CoreDistanceSetup = {
  readonly shared: SharedArrayBuffer;
  readonly cpu: number;
  /** The one that asks and measures; the other answers. */
  readonly asks: boolean;
};

/** Nanoseconds; null when it could not be measured, as on a single processor. */
export async function measureCoreDistance(cpuA: number, cpuB: number): Promise<number | null> {
  if (cpuA === cpuB) return null;
  const shared = new SharedArrayBuffer(4096);
  const workers = [cpuA, cpuB].map((cpu, i) => {
    const workerData: CoreDistanceSetup = { shared, cpu, asks: i === 0 };
    return new Worker(PROGRAM, { workerData });
  });
  try {
    const answered = once(workers[0], 'message') as Promise<[number]>;
    const [ns] = await withDeadline(answered, TIMEOUT_MS, () => 'the processors did not answer each other');
    return Math.round(ns);
  } catch {
    return null;
  } finally {
    for (const worker of workers) await worker.terminate();
  }
}
