/**
 * Round-trip latency with one frame in flight: from an embedded guest through the switch to the other, and
 * back. The same pair of guests on every peer in turn; switch and guests poll without pause.
 */
import { EmbeddedLoad } from '../load/embedded-load.ts';
import { Lineup } from '../peers/lineup.ts';
import type { PeerName } from '../plan.ts';
import { progress } from '../report/progress.ts';
import type { LatencyResult } from '../report/results.ts';
import type { Rig } from '../rig.ts';

const FRAME_BYTES = 64;
const ORDER_MS_MAX = 120_000;

export async function measureLatency(rig: Rig): Promise<LatencyResult> {
  const { rounds, latencySamples, loadCpu } = rig.plan;
  const lineup = await Lineup.start(rig, rig.peers, 2);
  const loads = new Map<PeerName, EmbeddedLoad>();
  const result: LatencyResult = {};
  try {
    for (let round = 0; round < rounds; round++) {
      for (const name of lineup.names) {
        if (round > 0 && !loads.has(name)) continue;
        progress(`latency, round ${round + 1} of ${rounds}, ${name}`);
        try {
          const { value, disturbedShare } = await lineup.during(name, async (peer) => {
            const load = loads.get(name) ?? (await EmbeddedLoad.start(peer, { cpu: loadCpu }));
            loads.set(name, load);
            const order = { kind: 'roundTrips', samples: latencySamples, frameBytes: FRAME_BYTES } as const;
            const pids = [peer.pid, load.pid];
            return rig.undisturbed(pids, () => load.guests.order(order, ORDER_MS_MAX));
          });
          result[name] = [...(result[name] ?? []), { ...value, disturbedShare }];
        } catch (error) {
          rig.leaveOut(name, 'latency', error);
          await loads.get(name)?.stop();
          loads.delete(name);
        }
      }
    }
  } finally {
    for (const load of loads.values()) await load.stop();
    await lineup.stop();
  }
  return result;
}
