/**
 * A bucket that several threads take from at once pays out its burst and its rate, however they meet. The clock is a counter that
 * they all move, so the outcome does not hang on how fast the machine is.
 */
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { expect, it } from 'vitest';
import { METER_BYTES, Meter } from '../../../switch/l2/meter.ts';

const THREADS = 4;
const LOOKS = 200_000;
const RATE = { perSecond: 250_000, burst: 1000 };
const METER = new URL('../../../switch/l2/meter.ts', import.meta.url).href;

/** Each look takes a microsecond, and wants a token. */
const PROGRAM = `
  const { parentPort, workerData } = require('node:worker_threads');
  import(${JSON.stringify(METER)}).then(({ Meter }) => {
    const { memory, clock, rate, looks } = workerData;
    const meter = new Meter(memory, 0);
    const words = new Int32Array(clock);
    meter.follow(rate, 1, 0);
    Atomics.add(words, 1, 1);
    Atomics.notify(words, 1);
    while (Atomics.load(words, 1) < workerData.threads) Atomics.wait(words, 1, Atomics.load(words, 1), 10);
    let passed = 0;
    for (let look = 0; look < looks; look++) {
      if (meter.fill(Atomics.add(words, 0, 1) + 1, 1) <= 0) continue;
      meter.spend(1);
      passed++;
    }
    parentPort.postMessage(passed);
  });
`;

it('of four threads', async () => {
  const memory = new SharedArrayBuffer(METER_BYTES);
  new Meter(memory, 0).follow(RATE, 1, 0);
  const workerData = { memory, clock: new SharedArrayBuffer(8), rate: RATE, looks: LOOKS, threads: THREADS };
  const workers = Array.from({ length: THREADS }, () => new Worker(PROGRAM, { eval: true, workerData }));
  const passed = await Promise.all(
    workers.map(async (worker) => {
      // Both may come at once: Node hands over what a thread said last when it tells that it has ended.
      const exited = once(worker, 'exit');
      const [count] = (await once(worker, 'message')) as [number];
      await exited;
      return count;
    }),
  );
  const sum = passed.reduce((total, count) => total + count, 0);
  const allowed = RATE.burst + (THREADS * LOOKS * RATE.perSecond) / 1e6;
  // Each thread may be in debt at the end, and the others need not know of a small part of a bucket.
  expect(sum).toBeGreaterThan(allowed * 0.99);
  expect(sum).toBeLessThanOrEqual(allowed + THREADS * (1 + RATE.burst / 256));
});
