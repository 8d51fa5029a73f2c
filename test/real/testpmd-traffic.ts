/**
 * Frames that circulate between the two ports of testpmd through a Ringway, counted on both sides once all of them
 * have come to rest. Called by the tests with testpmd.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { PortStats, Testpmd } from '../peers/index.ts';

/** testpmd starts with four bursts of 32 frames from each queue, and each frame goes round until it stops. */
export const START_COMMAND = 'start tx_first 4';
const DEADLINE_MS = 60_000;
/** A drained ring is looked at so often without a change, and so long apart, before what lies in it counts as left lying. */
const DRAIN_LOOKS = 20;
const DRAIN_LOOK_MS = 50;

export type Tally = { readonly sent: number; readonly received: number; readonly lost: number };

/** Asks testpmd, which is the event to wait for here: it answers when it has counted. */
export async function untilForwarded(testpmd: Testpmd, frames: number): Promise<void> {
  const deadline = AbortSignal.timeout(DEADLINE_MS);
  for (;;) {
    const stats = await testpmd.portStats();
    if (Math.min(...stats.map((port) => port.rxPackets)) >= frames) return;
    if (deadline.aborted) throw new Error(`testpmd forwarded too little: ${JSON.stringify(stats)}`);
  }
}

/** Lets frames go round for a while, and until each port has received `framesMin`. */
export async function circulate(testpmd: Testpmd, framesMin: number, trafficMs: number): Promise<void> {
  await testpmd.command(START_COMMAND);
  await delay(trafficMs);
  await untilForwarded(testpmd, framesMin);
  await testpmd.command('stop');
}

/** Has testpmd take what is still on its way without sending it on; answers its counters when nothing more comes. */
export async function drain(testpmd: Testpmd): Promise<PortStats[]> {
  await testpmd.command('set fwd rxonly');
  await testpmd.command('start');
  let stats = await testpmd.portStats();
  for (let looks = 0; looks < DRAIN_LOOKS && tally(stats).lost !== 0; looks++) {
    await delay(DRAIN_LOOK_MS);
    const now = await testpmd.portStats();
    // Something still comes.
    if (tally(now).received !== tally(stats).received) looks = 0;
    stats = now;
  }
  await testpmd.command('stop');
  return stats;
}

export function tally(stats: readonly PortStats[]): Tally {
  const sent = stats.reduce((sum, port) => sum + port.txPackets, 0);
  const received = stats.reduce((sum, port) => sum + port.rxPackets, 0);
  return { sent, received, lost: sent - received };
}
