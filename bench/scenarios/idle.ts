/**
 * What Ringway costs when nothing happens: 16 connected ports without traffic in adaptive mode. Processor time
 * of the whole process, and how long the first frame after a pause takes.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { RING_SIZE } from '../load/contract.ts';
import { CONNECT_MS_MAX } from '../load/embedded-load.ts';
import { GuestProcess } from '../load/guest-client.ts';
import { progress } from '../report/progress.ts';
import type { IdleResult } from '../report/results.ts';
import type { Rig } from '../rig.ts';
import { measureBareWakeUps } from './bare-wake-up.ts';
import { cpuTimeMs } from './process-facts.ts';

const PORT_COUNT = 16;
const SETTLE_MS = 500;
const GAP_MS = 20;
const SLACK_MS = 60_000;

export async function measureIdle(rig: Rig): Promise<IdleResult> {
  const { idleWindowMs, firstFrameSamples } = rig.plan;
  const ringway = await rig.startRingway({ portCount: PORT_COUNT, poll: 'adaptive' });
  const guests = new GuestProcess(rig.plan.loadCpu);
  try {
    progress('idle');
    const plans = Array.from({ length: PORT_COUNT }, (_, port) => ({
      socketPath: ringway.socket(port),
      role: 'client' as const,
      queuePairs: 1,
      ringSize: RING_SIZE,
    }));
    await guests.order({ kind: 'connect', guests: plans }, CONNECT_MS_MAX);
    await delay(SETTLE_MS);
    const startMs = performance.now();
    const cpuBeforeMs = cpuTimeMs(ringway.pid);
    await delay(idleWindowMs);
    const cpuMs = cpuTimeMs(ringway.pid) - cpuBeforeMs;
    const windowMs = performance.now() - startMs;
    const order = { kind: 'firstFrames', samples: firstFrameSamples, gapMs: GAP_MS } as const;
    const timeoutMs = firstFrameSamples * GAP_MS + SLACK_MS;
    const measured = await rig.undisturbed([ringway.pid, guests.pid], () => guests.order(order, timeoutMs));
    return {
      portCount: PORT_COUNT,
      windowMs,
      cpuShare: cpuMs / windowMs,
      firstFrames: measured.value,
      bareWakeUps: await measureBareWakeUps(rig.plan.dutCpu, rig.plan.loadCpu, firstFrameSamples, GAP_MS),
      disturbedShare: measured.disturbedShare,
    };
  } finally {
    await guests.stop();
    await ringway.stop();
  }
}
