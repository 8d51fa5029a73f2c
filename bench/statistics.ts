/** The few statistics that the benchmark uses. Pure. */

/** Median of a few values, and how far they spread. */
export type Spread = { readonly median: number; readonly min: number; readonly max: number };

/** @throws RangeError when there are no values */
export function spreadOf(values: readonly number[]): Spread {
  if (values.length === 0) throw new RangeError('no values');
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const median = sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
  return { median, min: sorted[0], max: sorted.at(-1)! };
}

/** `a` over `b`, round by round, for as many rounds as both have; null when there are none. */
export function ratioOf(a: readonly number[], b: readonly number[]): Spread | null {
  const rounds = Math.min(a.length, b.length);
  if (rounds === 0) return null;
  return spreadOf(Array.from({ length: rounds }, (_, round) => a[round] / b[round]));
}

/** The value that `share` (0 to 1) of the ascending values do not exceed. */
export function percentileOf(sorted: Float64Array, share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.max(0, Math.ceil(sorted.length * share) - 1))];
}

/** Nanoseconds. */
export type LatencyFigures = {
  readonly samples: number;
  readonly lost: number;
  readonly medianNs: number;
  readonly p99Ns: number;
  readonly p999Ns: number;
};

export function latencyFiguresOf(timesMs: Float64Array, lost: number): LatencyFigures {
  const sorted = timesMs.toSorted();
  const ns = (share: number): number => Math.round(percentileOf(sorted, share) * 1e6);
  return { samples: sorted.length, lost, medianNs: ns(0.5), p99Ns: ns(0.99), p999Ns: ns(0.999) };
}
