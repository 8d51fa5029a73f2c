/** The goals of the project beside the figures of a run. Pure. */
import type { PeerName } from '../plan.ts';
import { ratioOf, type Spread, spreadOf } from '../statistics.ts';
import type { PairResult, Results } from './results.ts';

export type GoalLine = {
  readonly goal: string;
  readonly target: string;
  /** What was measured; null: not in this run. */
  readonly figure: string | null;
  readonly met: boolean | null;
};

type Measured = Omit<Results, 'goals' | 'notes' | 'facts' | 'coreRoundTripNs'>;
type Bound = { readonly atLeast: number } | { readonly atMost: number };

export function goalLines(results: Measured): GoalLine[] {
  const { idle, memory, collections, scale } = results;
  return [
    ratioLine('64-byte frames, one core, against OVS-DPDK', throughputRatio(results, 64, 'ovs'), 2),
    ratioLine("64-byte frames, against testpmd's vhost copy", throughputRatio(results, 64, 'testpmd'), 1),
    ratioLine('1,518-byte frames, against OVS-DPDK', throughputRatio(results, 1518, 'ovs'), 1.5),
    ratioLine(
      "1,518-byte frames, against testpmd's vhost copy",
      throughputRatio(results, 1518, 'testpmd'),
      1,
    ),
    latencyLine(results, 'median', 'medianNs'),
    latencyLine(results, 'p99', 'p99Ns'),
    ratioLine('64 ports of which 2 are busy, against 2 ports', pairRatio(scale?.ports64), 0.8),
    ratioLine('1,000,000 learned addresses, against 2', pairRatio(scale?.addresses), 0.5),
    line(
      'idle, adaptive, 16 connected ports: processor time',
      '≤ 1 % of a core',
      idle && { value: idle.cpuShare * 100, text: `${(idle.cpuShare * 100).toFixed(2)} %` },
      { atMost: 1 },
    ),
    line(
      'first frame after idle, p99',
      '≤ 200 µs',
      idle && {
        value: idle.firstFrames.p99Ns / 1000,
        text: `${(idle.firstFrames.p99Ns / 1000).toFixed(1)} µs`,
      },
      { atMost: 200 },
    ),
    line(
      'resident memory, 2 ports, without guest memory',
      '≤ 120 MiB',
      memory && { value: memory.residentMiB, text: `${memory.residentMiB.toFixed(0)} MiB` },
      { atMost: 120 },
    ),
    line(
      'garbage collections in a worker under load',
      results.quick ? '0' : '0 in 60 s',
      collections && {
        value: collections.inWorker,
        text: `${collections.inWorker} in ${(collections.windowMs / 1000).toFixed(0)} s`,
      },
      { atMost: 0 },
    ),
  ];
}

/** The largest share of a measurement in which others had a processor that was needed. */
export function worstDisturbance({ throughput, latency, scale, idle }: Measured): number {
  const pairs = [scale?.ports64, scale?.addresses, scale?.queuePairs].filter((pair) => pair !== undefined);
  return Math.max(
    0,
    ...(throughput ?? []).flatMap(({ disturbedShares }) => Object.values(disturbedShares).flat()),
    ...Object.values(latency ?? {}).flatMap((rounds) => rounds.map(({ disturbedShare }) => disturbedShare)),
    ...pairs.flatMap(({ base, scaled }) => [...base.disturbedShares, ...scaled.disturbedShares]),
    idle?.disturbedShare ?? 0,
  );
}

/** Median of the ratios, with their spread. */
export function formatRatio({ median, min, max }: Spread): string {
  return min === max
    ? `${median.toFixed(2)}×`
    : `${median.toFixed(2)}× (${min.toFixed(2)} to ${max.toFixed(2)})`;
}

/** Of the headline generator, which is the first one. */
function throughputRatio({ throughput }: Measured, frameBytes: number, peer: PeerName): Spread | null {
  const load = throughput?.[0]?.load;
  const result = throughput?.find((entry) => entry.load === load && entry.frameBytes === frameBytes);
  return ratioOf(result?.framesPerSecond.ringway ?? [], result?.framesPerSecond[peer] ?? []);
}

function pairRatio(pair: PairResult | undefined): Spread | null {
  return pair === undefined ? null : ratioOf(pair.scaled.framesPerSecond, pair.base.framesPerSecond);
}

function ratioLine(goal: string, ratio: Spread | null, atLeast: number): GoalLine {
  const figure = ratio === null ? undefined : { value: ratio.median, text: formatRatio(ratio) };
  return line(goal, `≥ ${atLeast.toFixed(1)}×`, figure, { atLeast });
}

function latencyLine({ latency }: Measured, name: string, field: 'medianNs' | 'p99Ns'): GoalLine {
  const ns = (peer: PeerName): number[] => (latency?.[peer] ?? []).map((figures) => figures[field]);
  const ratio = ratioOf(ns('ringway'), ns('ovs'));
  const goal = `round trip, one frame in flight, ${name}, against OVS-DPDK`;
  if (ratio === null) return line(goal, '≤ 1.0×', undefined, { atMost: 1 });
  const times = `${spreadOf(ns('ringway')).median} against ${spreadOf(ns('ovs')).median} ns`;
  return line(
    goal,
    '≤ 1.0×',
    { value: ratio.median, text: `${formatRatio(ratio)}, ${times}` },
    { atMost: 1 },
  );
}

function line(
  goal: string,
  target: string,
  figure: { value: number; text: string } | undefined,
  bound: Bound,
): GoalLine {
  if (figure === undefined) return { goal, target, figure: null, met: null };
  const met = 'atLeast' in bound ? figure.value >= bound.atLeast : figure.value <= bound.atMost;
  return { goal, target, figure: figure.text, met };
}
