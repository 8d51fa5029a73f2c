/**
 * Frames per second by frame size between two ports, and how long the switch works for one, with each generator
 * in turn (bench/load/contract.ts); the rounds are those of rounds.ts. Main thread.
 */
import type { LoadKind } from '../load/contract.ts';
import { Lineup } from '../peers/lineup.ts';
import type { ThroughputResult } from '../report/results.ts';
import type { Rig } from '../rig.ts';
import { measureRounds, startLoads, stopLoads } from './rounds.ts';

const PORTS = 2;

export async function measureThroughput(rig: Rig): Promise<ThroughputResult[]> {
  const lineup = await Lineup.start(rig, rig.peers, PORTS);
  const results: ThroughputResult[] = [];
  try {
    for (const kind of rig.loadKinds) results.push(...(await measureWith(rig, lineup, kind)));
  } finally {
    await lineup.stop();
  }
  return results;
}

async function measureWith(rig: Rig, lineup: Lineup, load: LoadKind): Promise<ThroughputResult[]> {
  const where = `throughput, ${load}`;
  const loads = await startLoads(rig, lineup, where, (peer) => rig.startLoad(peer, load));
  const results: ThroughputResult[] = [];
  try {
    for (const frameBytes of rig.plan.frameSizesBytes) {
      const title = `${where}, ${frameBytes} bytes`;
      results.push({
        load,
        frameBytes,
        ...(await measureRounds(rig, lineup, loads, frameBytes, title)),
      });
    }
  } finally {
    await stopLoads(lineup, loads);
  }
  return results;
}
