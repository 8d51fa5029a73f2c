/**
 * Eight ports, each of which sends to all others in turn, so that every burst is a mixture of targets: what a
 * switch does when its traffic is not one flow. Against the peers that switch by address. Main thread.
 */
import { Lineup } from '../peers/lineup.ts';
import type { MixedResult } from '../report/results.ts';
import type { Rig } from '../rig.ts';
import { measureRounds, startLoads, stopLoads } from './rounds.ts';

const PORTS = 8;
const FRAME_BYTES = 64;
/** testpmd as a peer copies between two ports and looks at no address. */
const NO_SWITCH = 'testpmd';

export async function measureMixed(rig: Rig): Promise<MixedResult> {
  const peers = rig.peers.filter((name) => name !== NO_SWITCH);
  const lineup = await Lineup.start(rig, peers, PORTS);
  try {
    const title = `mixed, ${PORTS} ports`;
    const loads = await startLoads(rig, lineup, title, (peer) => rig.startMixedLoad(peer));
    try {
      const comparison = await measureRounds(rig, lineup, loads, FRAME_BYTES, title);
      return { load: 'embedded', frameBytes: FRAME_BYTES, portCount: PORTS, ...comparison };
    } finally {
      await stopLoads(lineup, loads);
    }
  } finally {
    await lineup.stop();
  }
}
