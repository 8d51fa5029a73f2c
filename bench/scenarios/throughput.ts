/**
 * Frames per second by frame size: the same generator on every peer in turn, A B C A B C, each paused while
 * another is measured. The frames are learned unicast, which is checked.
 */
import type { LoadGenerator, LoadKind } from '../load/contract.ts';
import type { Peer } from '../peers/contract.ts';
import { Lineup } from '../peers/lineup.ts';
import type { PeerName } from '../plan.ts';
import { progress } from '../report/progress.ts';
import type { ByPeer, ThroughputResult } from '../report/results.ts';
import type { Rig } from '../rig.ts';
import { measureCoreDistance } from './core-distance.ts';
import type { Measured } from './disturbance.ts';

/** Two distances of the processors that differ by more are not the same placement. */
const DISTANCE_FACTOR_MAX = 1.5;

export async function measureThroughput(rig: Rig): Promise<ThroughputResult[]> {
  const lineup = await Lineup.start(rig);
  const results: ThroughputResult[] = [];
  try {
    for (const kind of rig.loadKinds) results.push(...(await measureWith(rig, lineup, kind)));
  } finally {
    await lineup.stop();
  }
  return results;
}

async function measureWith(rig: Rig, lineup: Lineup, kind: LoadKind): Promise<ThroughputResult[]> {
  const loads = new Map<PeerName, LoadGenerator>();
  const results: ThroughputResult[] = [];
  const where = `throughput with the ${kind} generator`;
  try {
    for (const name of lineup.names) {
      try {
        loads.set(name, await lineup.during(name, (peer) => rig.startLoad(peer, kind)));
      } catch (error) {
        rig.leaveOut(name, where, error);
      }
    }
    for (const frameBytes of rig.plan.frameSizesBytes) {
      results.push(await measureSize(rig, lineup, loads, kind, frameBytes));
    }
  } finally {
    for (const [name, load] of loads) await lineup.during(name, () => load.stop());
  }
  return results;
}

async function measureSize(
  rig: Rig,
  lineup: Lineup,
  loads: Map<PeerName, LoadGenerator>,
  load: LoadKind,
  frameBytes: number,
): Promise<ThroughputResult> {
  const framesPerSecond: ByPeer<number[]> = {};
  const disturbedShares: ByPeer<number[]> = {};
  const coreRoundTripNs: [number | null, number | null][] = [];
  const { dutCpu, loadCpu, rounds, attemptsMax } = rig.plan;
  for (let round = 0; round < rounds; round++) {
    const title = `throughput, ${load}, ${frameBytes} bytes, round ${round + 1} of ${rounds}`;
    for (let attempt = 1; ; attempt++) {
      const before = await measureCoreDistance(dutCpu, loadCpu);
      const measured = await measureRound(rig, lineup, loads, load, frameBytes, title);
      const after = await measureCoreDistance(dutCpu, loadCpu);
      // The host moved a processor: the peers of this round were not measured on the same machine.
      if (!isAlike(before, after) && attempt < attemptsMax) continue;
      coreRoundTripNs.push([before, after]);
      for (const [name, { value, disturbedShare }] of measured) {
        framesPerSecond[name] = [...(framesPerSecond[name] ?? []), value];
        disturbedShares[name] = [...(disturbedShares[name] ?? []), disturbedShare];
      }
      break;
    }
  }
  return { load, frameBytes, framesPerSecond, disturbedShares, coreRoundTripNs };
}

/** Every peer once; one that fails is left out of what follows. */
async function measureRound(
  rig: Rig,
  lineup: Lineup,
  loads: Map<PeerName, LoadGenerator>,
  load: LoadKind,
  frameBytes: number,
  title: string,
): Promise<Map<PeerName, Measured<number>>> {
  const round = new Map<PeerName, Measured<number>>();
  const { warmUpMs, windowMs } = rig.plan;
  for (const [name, generator] of [...loads]) {
    progress(`${title}, ${name}`);
    const measure = (): Promise<Measured<number>> =>
      lineup.during(name, async (peer) => {
        const result = await rig.undisturbed([peer.pid, generator.pid], () =>
          generator.measure({ frameBytes, warmUpMs, windowMs }),
        );
        await checkLearned(peer, generator);
        return result;
      });
    try {
      // A second chance: a peer that was stopped while others were measured may need a moment to come back.
      round.set(name, await measure().catch(measure));
    } catch (error) {
      rig.leaveOut(name, `throughput with the ${load} generator from ${frameBytes} bytes on`, error);
      loads.delete(name);
      await lineup.during(name, () => generator.stop());
    }
  }
  return round;
}

function isAlike(a: number | null, b: number | null): boolean {
  return a === null || b === null || Math.max(a, b) <= DISTANCE_FACTOR_MAX * Math.min(a, b);
}

/** Frames to an address that is not learned go to all ports, which is another thing to measure. */
async function checkLearned(peer: Peer, { addresses }: LoadGenerator): Promise<void> {
  const learned = await peer.learned();
  if (learned === null) return;
  for (const address of addresses) {
    if (!learned.includes(address)) throw new Error(`it has not learned ${address}`);
  }
}
