/** One of the two threads of bare-wake-up.ts, pinned: sleeps and says that it woke, or wakes and measures. */
import { parentPort, workerData } from 'node:worker_threads';
import { pinThread } from '../../src/host/affinity.ts';
import { drainFd, signalFd } from '../../src/host/descriptor.ts';
import { EpollSet } from '../../src/host/epoll.ts';
import { latencyFiguresOf } from '../statistics.ts';
import type { BareWakeUpSetup } from './bare-wake-up.ts';

const { role, cpu, eventFd, shared, samples, gapMs } = workerData as BareWakeUpSetup;
const words = new Int32Array(shared);

function sleep(): void {
  const epoll = new EpollSet();
  epoll.add(eventFd);
  for (let woken = 1; woken <= samples; woken++) {
    epoll.wait(-1);
    Atomics.store(words, 0, woken);
    drainFd(eventFd);
  }
  epoll.close();
}

function wake(): Float64Array {
  const timesMs = new Float64Array(samples);
  for (let i = 0; i < samples; i++) {
    const nextMs = performance.now() + gapMs;
    while (performance.now() < nextMs);
    const startMs = performance.now();
    signalFd(eventFd);
    while (Atomics.load(words, 0) !== i + 1);
    timesMs[i] = performance.now() - startMs;
  }
  return timesMs;
}

pinThread(cpu);
if (role === 'waker') parentPort!.postMessage(latencyFiguresOf(wake(), 0));
else {
  parentPort!.postMessage('ready');
  sleep();
}
