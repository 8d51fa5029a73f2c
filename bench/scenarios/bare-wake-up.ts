/**
 * What this machine asks for waking a thread: an eventfd is written on one processor, a thread that blocks in
 * `epoll_wait` on the other answers in shared memory at once. No switch can deliver a first frame after idle
 * sooner; on a virtual machine, where the idle processor must first be scheduled by the host, it is most of it.
 */
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { closeFd, createEventFd } from '../../src/host/descriptor.ts';
import { withDeadline } from '../../test/peers/deadline.ts';
import type { LatencyFigures } from '../statistics.ts';

const PROGRAM = new URL('./bare-wake-up-worker.ts', import.meta.url);
const SLACK_MS = 60_000;

export type BareWakeUpSetup = {
  readonly role: 'sleeper' | 'waker';
  readonly cpu: number;
  readonly eventFd: number;
  /** One int32: how often the sleeper woke. */
  readonly shared: SharedArrayBuffer;
  readonly samples: number;
  /** Spun away before each sample, so that only the sleeper's processor is idle. */
  readonly gapMs: number;
};

export async function measureBareWakeUps(
  sleeperCpu: number,
  wakerCpu: number,
  samples: number,
  gapMs: number,
): Promise<LatencyFigures> {
  const eventFd = createEventFd();
  const common = { eventFd, shared: new SharedArrayBuffer(64), samples, gapMs };
  const start = (setup: BareWakeUpSetup) => new Worker(PROGRAM, { workerData: setup });
  const sleeper = start({ ...common, role: 'sleeper', cpu: sleeperCpu });
  // It may be over before the waker's figures are here.
  const ended = once(sleeper, 'exit');
  try {
    await once(sleeper, 'message');
    const waker = start({ ...common, role: 'waker', cpu: wakerCpu });
    const answered = once(waker, 'message') as Promise<[LatencyFigures]>;
    const [figures] = await withDeadline(
      answered,
      samples * gapMs + SLACK_MS,
      () => 'the sleeping thread did not wake',
    );
    await ended;
    return figures;
  } finally {
    await sleeper.terminate();
    closeFd(eventFd);
  }
}
