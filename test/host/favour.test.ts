/** Threads of this process before and while it is favoured. Whoever is not root may not ask for that, and all stays as it is. */
import { readdirSync } from 'node:fs';
import { getPriority, setPriority } from 'node:os';
import { Worker } from 'node:worker_threads';
import { expect, it, onTestFinished } from 'vitest';
import { favour } from '../../src/host/favour.ts';

const mayAsk = process.getuid?.() === 0;
const priorities = (): Map<number, number> =>
  new Map(
    readdirSync('/proc/self/task').map((thread) => [Number(thread), getPriority(Number(thread))] as const),
  );

it('has each thread go before others until it is ended, and then as before', async () => {
  const worker = new Worker('require("node:worker_threads").parentPort.once("message", () => {})', {
    eval: true,
  });
  onTestFinished(async () => {
    await worker.terminate();
  });
  await new Promise((resolve) => worker.once('online', resolve));
  const [another] = [...priorities().keys()].slice(-1);
  setPriority(another, 3);
  const before = priorities();
  expect(before.get(another)).toBe(3);
  const disfavour = favour();
  for (const [thread, was] of before) expect(getPriority(thread)).toBe(mayAsk ? -20 : was);
  disfavour();
  for (const [thread, was] of before) expect(getPriority(thread)).toBe(was);
});
