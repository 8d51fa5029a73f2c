/**
 * Whether every queue of a port carries frames. Which one a flow falls on depends on its ports, and in a guest on the
 * processor that sends, so all flows of one run may fall on the same. Owns nothing. Called by tests with real guests.
 */
import { expect } from 'vitest';
import type { RingwayProcess } from './ringway-process.ts';

const RUNS_MAX = 5;

/** Runs `traffic`, with other flows each time, until each of the first `queueCount` queues of the port was used. */
export async function expectEveryQueueUsed(
  ringway: RingwayProcess,
  port: string,
  queueCount: number,
  traffic: () => Promise<unknown>,
): Promise<void> {
  const framesOf = async (): Promise<number[]> =>
    (await ringway.port(port)).queues.slice(0, queueCount).map(({ frames }) => frames);
  const before = await framesOf();
  let frames: number[] = [];
  for (let runs = 0; runs < RUNS_MAX; runs++) {
    await traffic();
    frames = (await framesOf()).map((count, i) => count - (before[i] ?? 0));
    if (frames.length === queueCount && !frames.includes(0)) return;
  }
  expect.fail(`frames of the queues of port ${port} in ${RUNS_MAX} runs: ${JSON.stringify(frames)}`);
}
