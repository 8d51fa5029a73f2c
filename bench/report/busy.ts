/**
 * How long a switch works for one frame, which no generator limits: the share of the time that it was busy, over the
 * frames of that time. Pure.
 */
import type { PeerName } from '../plan.ts';
import type { Comparison } from './results.ts';

/**
 * A generator with fewer empty looks is the limit. An empty look takes some 20 nanoseconds and one that finds a burst
 * some 1,500, so at this share it works for 95 % of the time.
 */
const EMPTY_LOOK_SHARE_MIN = 0.8;

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

/** Whether the generator could not have sent more frames, in more than half of the rounds. */
export function isLimitedByGenerator(comparison: Comparison, peer: PeerName): boolean {
  const shares = knownOf(comparison.emptyLookShares[peer] ?? []);
  return shares.filter((share) => share < EMPTY_LOOK_SHARE_MIN).length * 2 > shares.length;
}
