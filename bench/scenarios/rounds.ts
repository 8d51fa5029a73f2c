/**
 * The same load on every peer in turn, A B C A B C, each paused while another is measured; what the scenarios that
 * compare switches have in common. Each measurement is checked for learned addresses and for others on the
 * processors, and a round during which the processors moved apart or together is made again. Main thread.
 */
import type { LoadFigures, LoadGenerator, Window, WindowWatch } from '../load/contract.ts';
import type { Peer, WorkMeter } from '../peers/contract.ts';
import type { Lineup } from '../peers/lineup.ts';
import type { PeerName } from '../plan.ts';
import { isSamePlace } from '../report/place.ts';
import { progress } from '../report/progress.ts';
import type { ByPeer, Comparison } from '../report/results.ts';
import type { Rig } from '../rig.ts';
import { measureCoreDistance } from './core-distance.ts';
import type { Measured } from './disturbance.ts';

/** One generator for each peer that is in the comparison. */
export type Loads = Map<PeerName, LoadGenerator>;

type Figures = LoadFigures & { readonly busyShare: number | null };
type Round = Map<PeerName, Measured<Figures>>;

/** Starts a generator at each peer; a peer where that fails is left out. */
export async function startLoads(
  rig: Rig,
  lineup: Lineup,
  where: string,
  start: (peer: Peer) => Promise<LoadGenerator>,
): Promise<Loads> {
  const loads: Loads = new Map();
  for (const name of lineup.names) {
    try {
      loads.set(name, await lineup.during(name, start));
    } catch (error) {
      rig.leaveOut(name, where, error);
    }
  }
  return loads;
}

export async function stopLoads(lineup: Lineup, loads: Loads): Promise<void> {
  for (const [name, load] of loads) await lineup.during(name, () => load.stop());
}

/** `title` says what is measured. A peer that fails is left out of what follows and taken out of `loads`. */
export async function measureRounds(
  rig: Rig,
  lineup: Lineup,
  loads: Loads,
  frameBytes: number,
  title: string,
): Promise<Comparison> {
  const framesPerSecond: ByPeer<number[]> = {};
  const busyShares: ByPeer<(number | null)[]> = {};
  const emptyLookShares: ByPeer<(number | null)[]> = {};
  const disturbedShares: ByPeer<number[]> = {};
  const coreRoundTripNs: [number | null, number | null][] = [];
  const { dutCpu, loadCpu, rounds, attemptsMax, warmUpMs, windowMs } = rig.plan;
  const window = { frameBytes, warmUpMs, windowMs };
  for (let round = 0; round < rounds; round++) {
    for (let attempt = 1; ; attempt++) {
      const before = await measureCoreDistance(dutCpu, loadCpu);
      const measured = await measureRound(
        rig,
        lineup,
        loads,
        window,
        `${title}, round ${round + 1} of ${rounds}`,
      );
      const after = await measureCoreDistance(dutCpu, loadCpu);
      // The host moved a processor: the peers of this round were not measured on the same machine.
      if (!isSamePlace(before, after) && attempt < attemptsMax) continue;
      coreRoundTripNs.push([before, after]);
      for (const [name, { value, disturbedShare }] of measured) {
        framesPerSecond[name] = [...(framesPerSecond[name] ?? []), value.framesPerSecond];
        busyShares[name] = [...(busyShares[name] ?? []), value.busyShare];
        emptyLookShares[name] = [...(emptyLookShares[name] ?? []), value.emptyLookShare];
        disturbedShares[name] = [...(disturbedShares[name] ?? []), disturbedShare];
      }
      break;
    }
  }
  return { framesPerSecond, busyShares, emptyLookShares, disturbedShares, coreRoundTripNs };
}

async function measureRound(
  rig: Rig,
  lineup: Lineup,
  loads: Loads,
  window: Window,
  title: string,
): Promise<Round> {
  const round: Round = new Map();
  for (const [name, load] of [...loads]) {
    progress(`${title}, ${name}`);
    const measure = (): Promise<Measured<Figures>> =>
      lineup.during(name, (peer) => measurePeer(rig, peer, load, window));
    try {
      // A second chance: a peer that was stopped while others were measured may need a moment to come back.
      round.set(name, await measure().catch(measure));
    } catch (error) {
      rig.leaveOut(name, `${title} and what follows`, error);
      loads.delete(name);
      await lineup.during(name, () => load.stop());
    }
  }
  return round;
}

async function measurePeer(
  rig: Rig,
  peer: Peer,
  load: LoadGenerator,
  window: Window,
): Promise<Measured<Figures>> {
  const meter = await peer.workMeter();
  const watch = meter === null ? null : watchWith(meter);
  const measured = await rig.undisturbed([peer.pid, load.pid], async () => {
    const figures = await load.measure(window, watch ?? undefined);
    return { ...figures, busyShare: watch?.busyShare() ?? null };
  });
  await checkLearned(peer, load);
  return measured;
}

/** A generator that cannot say when its window begins leaves the share unknown. */
function watchWith(meter: WorkMeter): WindowWatch & { busyShare(): number | null } {
  let isComplete = false;
  return {
    begins: () => {
      isComplete = false;
      return meter.begins();
    },
    ends: async () => {
      await meter.ends();
      isComplete = true;
    },
    busyShare: () => (isComplete ? meter.busyShare() : null),
  };
}

/** Frames to an address that is not learned go to all ports, which is another thing to measure. */
async function checkLearned(peer: Peer, { addresses }: LoadGenerator): Promise<void> {
  const learned = await peer.learned();
  if (learned === null) return;
  for (const address of addresses) {
    if (!learned.includes(address)) throw new Error(`it has not learned ${address}`);
  }
}
