/**
 * How long a switch works for one frame, which no generator limits: the share of the time that it was busy, over the
 * frames of that time. Pure.
 */
import type { PeerName } from '../plan.ts';
import type { Comparison } from './results.ts';

/** A switch that is idle for more of the time than this leaves waits for its generator. */
const BUSY_SHARE_MIN = 0.95;

/** Nanoseconds, one entry a round; null: the switch or the generator does not tell. */
export function busyNsPerFrame(comparison: Comparison, peer: PeerName): (number | null)[] {
  const rates = comparison.framesPerSecond[peer] ?? [];
  return (comparison.busyShares[peer] ?? []).map((share, round) =>
    share === null ? null : (share * 1e9) / rates[round],
  );
}

/** Shares of those rounds that are known. */
export function knownOf(values: readonly (number | null)[]): number[] {
  return values.filter((value) => value !== null);
}

/** Whether the switch could have moved more frames than it was sent, in at least half of the rounds. */
export function isLimitedByGenerator(comparison: Comparison, peer: PeerName): boolean {
  const shares = knownOf(comparison.busyShares[peer] ?? []);
  return shares.filter((share) => share < BUSY_SHARE_MIN).length * 2 > shares.length;
}
