/** Threads of this process before and while it is favoured. Whoever is not root may not ask for that, and all stays as it is. */
import { readdirSync } from 'node:fs';
import { getPriority, setPriority } from 'node:os';
import { Worker } from 'node:worker_threads';
import { expect, it, onTestFinished } from 'vitest';
import { favour, runAtOnce } from '../../src/host/favour.ts';
import { libc } from '../../src/host/libc.ts';
import { threadName } from '../../src/host/threads.ts';

const SCHED_FIFO = 1;
const SCHED_BATCH = 3;
const RESET_ON_FORK = 0x4000_0000;
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

it('has those that are meant run at once, but for whom somebody else put into another class', async () => {
  const named = async (name: string): Promise<number> => {
    const worker = new Worker('require("node:worker_threads").parentPort.once("message", () => {})', {
      ...{ eval: true, name },
    });
    onTestFinished(async () => {
      await worker.terminate();
    });
    await new Promise((resolve) => worker.once('online', resolve));
    return [...priorities().keys()].find((thread) => threadName(thread) === name)!;
  };
  const [urgent, other, batch] = [await named('urgent'), await named('other'), await named('batch')];
  // Also root may not, where the system gives a group no time for it.
  const mayRunAtOnce = libc.sched_setscheduler(other, SCHED_FIFO, Int32Array.of(1)) === 0;
  libc.sched_setscheduler(other, 0, Int32Array.of(0));
  libc.sched_setscheduler(batch, SCHED_BATCH, Int32Array.of(0));
  setPriority(urgent, 3);
  const classes = (): number[] => [urgent, other, batch].map((thread) => libc.sched_getscheduler(thread));
  const calm = runAtOnce((thread) => thread === urgent || thread === batch);
  const during = classes();
  calm();
  expect(during).toEqual([mayRunAtOnce ? SCHED_FIFO | RESET_ON_FORK : 0, 0, SCHED_BATCH]);
  expect(classes()).toEqual([0, 0, SCHED_BATCH]);
  expect([urgent, other].map((thread) => getPriority(thread))).toEqual([3, 0]);
});
