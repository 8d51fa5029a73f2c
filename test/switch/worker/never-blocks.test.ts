/** A worker of a process that ends does not block again, however often it was woken before: Node would wait for it. */
import { MessageChannel, Worker } from 'node:worker_threads';
import { expect, it, vi } from 'vitest';
import { closeFd, createEventFd, signalFd } from '../../../src/host/descriptor.ts';
import { Arena } from '../../../src/memory/arena.ts';
import { allocateScratch } from '../../../src/memory/scratch.ts';
import { createFdbMemory } from '../../../switch/l2/fdb/fdb.ts';
import { MOVES_BYTES } from '../../../switch/l2/fdb/moves.ts';
import {
  CONTROL_BYTES,
  CONTROL_EMPTY_TURNS,
  CONTROL_NEVER_BLOCKS,
  CONTROL_SLEEPING,
  type WorkerSetup,
} from '../../../switch/worker/orders.ts';
import { scratchBytes } from '../../../switch/worker/pool.ts';
import { WORKER_FIGURES_BYTES } from '../../../switch/worker/worker-figures.ts';

const MANY_TURNS = 100_000;

it('once it is told so', async () => {
  const arena = Arena.reserve(2 ** 32);
  const control = new SharedArrayBuffer(CONTROL_BYTES);
  const words = new Int32Array(control);
  const { port1, port2 } = new MessageChannel();
  const wakeFd = createEventFd();
  const workerData: WorkerSetup = {
    index: 0,
    workerCount: 1,
    cpu: null,
    poll: 'adaptive',
    idleUs: 0,
    arena: arena.location,
    fdb: createFdbMemory({ capacity: 16, maxPorts: 4 }),
    moves: new SharedArrayBuffer(MOVES_BYTES),
    probeMac: new Uint8Array(6),
    scratchOffset: allocateScratch(arena, { name: 'ringway-test', sizeBytes: scratchBytes(null) }).offset,
    vlanLimit: 1,
    groups: null,
    control,
    figures: new SharedArrayBuffer(WORKER_FIGURES_BYTES),
    wakeFd,
    orders: port2,
  };
  const worker = new Worker(new URL('../../../switch/worker/thread.ts', import.meta.url), {
    workerData,
    transferList: [port2],
  });
  const isAsleep = (): boolean => Atomics.load(words, CONTROL_SLEEPING) === 1;
  await vi.waitUntil(isAsleep, { timeout: 20_000 });
  // Awake for a moment: it comes back to where it would block.
  signalFd(wakeFd);
  await vi.waitUntil(isAsleep);
  Atomics.store(words, CONTROL_NEVER_BLOCKS, 1);
  signalFd(wakeFd);
  const before = Atomics.load(words, CONTROL_EMPTY_TURNS);
  await vi.waitUntil(() => Atomics.load(words, CONTROL_EMPTY_TURNS) - before > MANY_TURNS, {
    timeout: 20_000,
  });
  expect(await worker.terminate()).toBe(1);
  port1.close();
  closeFd(wakeFd);
});
