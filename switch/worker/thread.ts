/**
 * The poll worker's thread: a loop that forwards bursts from the queues placed on it, obeys orders from the
 * main thread, and in adaptive mode blocks when there was no work for a while. It never returns to Node's
 * event loop. Started by pool.ts.
 */
import { workerData } from 'node:worker_threads';
import { pinThread } from '../../src/host/affinity.ts';
import { PollWorker } from './loop.ts';
import type { WorkerSetup } from './orders.ts';

const setup = workerData as WorkerSetup;
if (setup.cpu !== null) pinThread(setup.cpu);
new PollWorker(setup).run();
