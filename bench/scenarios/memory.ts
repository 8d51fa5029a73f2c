/**
 * Resident memory of Ringway's process with two ports under load, without the guests' memory. From a checkout,
 * the first start of a version loads Node's type stripper, and later ones take what it made; so one start
 * comes before the one that is measured.
 */
import { progress } from '../report/progress.ts';
import type { MemoryResult } from '../report/results.ts';
import type { Rig } from '../rig.ts';
import { residentMemory } from './process-facts.ts';

export async function measureMemory(rig: Rig): Promise<MemoryResult> {
  progress('memory');
  const { warmUpMs, windowMs } = rig.plan;
  await (await rig.startRingway()).stop();
  const ringway = await rig.startRingway();
  try {
    const load = await rig.startLoad(ringway, rig.loadKinds[0]);
    try {
      await load.measure({ frameBytes: 64, warmUpMs, windowMs });
      const { totalMiB, sharedMiB } = residentMemory(ringway.pid);
      return { residentMiB: totalMiB - sharedMiB, guestSharedMiB: sharedMiB };
    } finally {
      await load.stop();
    }
  } finally {
    await ringway.stop();
  }
}
