/** The goals of the project beside the figures of a run. Pure. */
import type { LoadKind } from '../load/contract.ts';
import type { PeerName } from '../plan.ts';
import { ratioOf, type Spread, spreadOf } from '../statistics.ts';
import { busyNsPerFrame, isLimitedByGenerator } from './busy.ts';
import { type Place, placeOf, placeOfAll } from './place.ts';
import type { Comparison, PairResult, Results, ThroughputResult } from './results.ts';
import { formatRatio } from './text.ts';

export type GoalLine = {
  readonly goal: string;
  readonly target: string;
  /** What was measured; null: not in this run. */
  readonly figure: string | null;
  /** Null: not measured, or not on a machine that the goal is for. */
  readonly met: boolean | null;
};

type Measured = Omit<Results, 'goals' | 'notes' | 'facts' | 'otherCommit' | 'coreRoundTripNs'>;
type Bound = { readonly atLeast: number } | { readonly atMost: number };

const HEADLINE: LoadKind = 'macswap-vectorised';
const PLACES: readonly Place[] = ['near', 'far'];
const LIMITED = '; the generator is the limit';
const BUSY_RATIO_MAX = { near: 0.4, far: 0.7 } as const;

export function goalLines(results: Measured): GoalLine[] {
  return [
    ...otherCheckoutLines(results),
    ...peerLines(results),
    latencyLine(results, 'median', 'medianNs'),
    latencyLine(results, 'p99', 'p99Ns'),
    ...scaleLines(results),
    ...processLines(results),
  ];
}

/** The largest share of a measurement in which others had a processor that was needed. */
export function worstDisturbance({ throughput, mixed, latency, scale, idle }: Measured): number {
  const pairs = [scale?.ports64, scale?.addresses, scale?.queuePairs].filter((pair) => pair !== undefined);
  const comparisons: readonly Comparison[] = [...(throughput ?? []), ...(mixed === undefined ? [] : [mixed])];
  return Math.max(
    0,
    ...comparisons.flatMap(({ disturbedShares }) => Object.values(disturbedShares).flat()),
    ...Object.values(latency ?? {}).flatMap((rounds) => rounds.map(({ disturbedShare }) => disturbedShare)),
    ...pairs.flatMap(({ base, scaled }) => [...base.disturbedShares, ...scaled.disturbedShares]),
    idle?.disturbedShare ?? 0,
  );
}

/** Against the other checkout; no lines when there is none. One line a place that the machine was in. */
function otherCheckoutLines({ throughput = [], mixed }: Measured): GoalLine[] {
  const rows = throughput.filter(({ framesPerSecond }) => framesPerSecond.other !== undefined);
  const lines = rows.flatMap((row) =>
    PLACES.flatMap((place) => {
      const ratio = rateRatio(row, 'other', place);
      if (ratio === null) return [];
      const [mode, path] = row.load.split('-');
      const goal = `${mode}, ${row.frameBytes.toLocaleString('en')} bytes, ${path} path, ${place}, against the other checkout`;
      const limit = isLimitedByGenerator(row, 'ringway') ? LIMITED : '';
      const atLeast = leastAgainstOther(row, mode);
      return [
        line(
          goal,
          `≥ ${atLeast.toFixed(2)}×`,
          { value: ratio.median, text: `${formatRatio(ratio)}${limit}` },
          { atLeast },
        ),
      ];
    }),
  );
  const ratio = mixed === undefined ? null : rateRatio(mixed, 'other');
  if (ratio !== null) lines.push(ratioLine('mixed, against the other checkout', ratio, 1));
  return lines;
}

/** Only at 64 bytes is the generator the limit that excuses. */
function leastAgainstOther(row: ThroughputResult, mode: string): number {
  if (mode !== 'macswap') return 1;
  return row.frameBytes === 64 && isLimitedByGenerator(row, 'ringway') ? 1 : 1.03;
}

function peerLines(results: Measured): GoalLine[] {
  const ratio = (load: LoadKind, frameBytes: number, peer: PeerName): Spread | null => {
    const row = rowOf(results, load, frameBytes);
    return row === undefined ? null : rateRatio(row, peer);
  };
  return [
    busyLine(results, 'near'),
    busyLine(results, 'far'),
    ratioLine('macswap, 1,518 bytes, against OVS-DPDK', ratio(HEADLINE, 1518, 'ovs'), 2),
    ratioLine("macswap, 1,518 bytes, against testpmd's vhost copy", ratio(HEADLINE, 1518, 'testpmd'), 1),
    ratioLine('io, 64 bytes, against OVS-DPDK', ratio('io-vectorised', 64, 'ovs'), 2),
    ratioLine("io, 64 bytes, against testpmd's vhost copy", ratio('io-vectorised', 64, 'testpmd'), 1),
    mixedLine(results),
  ];
}

function mixedLine({ mixed }: Measured): GoalLine {
  const goal = '8 ports, each sends to all others in turn, 64 bytes, against OVS-DPDK';
  const ratio = mixed === undefined ? null : rateRatio(mixed, 'ovs');
  const bound = { atLeast: 2 };
  if (mixed === undefined || ratio === null) return line(goal, '≥ 2.0×', undefined, bound);
  const limit = isLimitedByGenerator(mixed, 'ringway') ? LIMITED : '';
  return line(goal, '≥ 2.0×', { value: ratio.median, text: `${formatRatio(ratio)}${limit}` }, bound);
}

function busyLine(results: Measured, place: 'near' | 'far'): GoalLine {
  const atMost = BUSY_RATIO_MAX[place];
  const goal = `macswap, 64 bytes, busy time a frame, ${place}, against OVS-DPDK`;
  const target = `≤ ${atMost.toFixed(1)}×`;
  const row = rowOf(results, HEADLINE, 64);
  if (row === undefined) return line(goal, target, undefined, { atMost });
  const own = roundsIn(row, place, busyNsPerFrame(row, 'ringway'));
  const ovs = roundsIn(row, place, busyNsPerFrame(row, 'ovs'));
  const ratio = ratioOf(own, ovs);
  if (ratio === null) return line(goal, target, undefined, { atMost });
  const times = `${spreadOf(own).median.toFixed(1)} against ${spreadOf(ovs).median.toFixed(1)} ns`;
  return line(goal, target, { value: ratio.median, text: `${formatRatio(ratio)}, ${times}` }, { atMost });
}

function scaleLines({ scale }: Measured): GoalLine[] {
  const addresses = scale?.addresses;
  const few = ratioLine('1,000,000 learned addresses, against 2, near', pairRatio(addresses), 0.5);
  const place = addresses === undefined ? 'near' : placeOfAll(addresses.coreRoundTripNs);
  return [
    ratioLine('64 ports of which 2 are busy, against 2 ports', pairRatio(scale?.ports64), 0.8),
    place === 'near' ? few : { ...few, figure: `${few.figure}, ${place}`, met: null },
  ];
}

function processLines({ quick, idle, memory, collections }: Measured): GoalLine[] {
  return [
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
      quick ? '0' : '0 in 60 s',
      collections && {
        value: collections.inWorker,
        text: `${collections.inWorker} in ${(collections.windowMs / 1000).toFixed(0)} s`,
      },
      { atMost: 0 },
    ),
  ];
}

function rowOf({ throughput }: Measured, load: LoadKind, frameBytes: number): ThroughputResult | undefined {
  return throughput?.find((row) => row.load === load && row.frameBytes === frameBytes);
}

/** Ringway's rate over the peer's, in the rounds of one place or in all; null when there are none. */
function rateRatio(row: Comparison, peer: PeerName, place?: Place): Spread | null {
  const rates = (name: PeerName): number[] => roundsIn(row, place, row.framesPerSecond[name] ?? []);
  return ratioOf(rates('ringway'), rates(peer));
}

function roundsIn<T>(
  { coreRoundTripNs }: Comparison,
  place: Place | undefined,
  values: readonly (T | null)[],
): T[] {
  return values.filter(
    (value, round): value is T =>
      value !== null && (place === undefined || placeOf(coreRoundTripNs[round]) === place),
  );
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
