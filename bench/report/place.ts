/**
 * What the distance of two processors says: a virtual machine's host puts them near each other or far apart, and
 * a switch and its generator are two different machines to measure then. Pure.
 */

/** `mixed`: it changed during the measurement, or the distance is unknown. */
export type Place = 'near' | 'far' | 'mixed';

/** Two distances that differ by more are not the same place. */
const DISTANCE_FACTOR_MAX = 1.5;
/** A cache line there and back, in nanoseconds: some 105 are seen near, some 550 far. */
const NEAR_NS_MAX = 250;

/** Whether the processors lay alike at both moments; null is an unknown distance. */
export function isSamePlace(a: number | null, b: number | null): boolean {
  return a === null || b === null || Math.max(a, b) <= DISTANCE_FACTOR_MAX * Math.min(a, b);
}

/** Of one round, by the distances before and after it. */
export function placeOf([before, after]: readonly [number | null, number | null]): Place {
  if (before === null || after === null || !isSamePlace(before, after)) return 'mixed';
  return Math.max(before, after) <= NEAR_NS_MAX ? 'near' : 'far';
}

/** Of several rounds together. */
export function placeOfAll(rounds: readonly (readonly [number | null, number | null])[]): Place {
  const places = new Set(rounds.map(placeOf));
  const [first] = places;
  return places.size === 1 ? first : 'mixed';
}
