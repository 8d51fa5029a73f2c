/** The tables of switches that were measured in turn: throughput by frame size, and mixed traffic. Pure. */
import { formatTable } from '../../switch/cli/table.ts';
import type { PeerName } from '../plan.ts';
import { ratioOf, spreadOf } from '../statistics.ts';
import { busyNsPerFrame, knownOf } from './busy.ts';
import { placeOfAll } from './place.ts';
import type { MixedResult, ThroughputResult } from './results.ts';
import { columnsOf, formatRatio, mpps, NOTHING, percent, range, title } from './text.ts';
import { LOAD_TITLES, PEER_TITLES } from './titles.ts';

export function throughputLines(results: readonly ThroughputResult[]): string[] {
  const loads = [...new Set(results.map(({ load }) => load))];
  return loads.flatMap((load, i) => [
    ...title(
      `Throughput, both ways together; generator: ${LOAD_TITLES[load]}${i === 0 ? ' (headline)' : ''}`,
    ),
    ...comparisonTable(results.filter((result) => result.load === load)),
  ]);
}

export function mixedLines(result: MixedResult): string[] {
  return [
    ...title(
      `${result.portCount} ports, each sends to all others in turn; generator: ${LOAD_TITLES[result.load]}`,
    ),
    ...comparisonTable([result]),
  ];
}

function comparisonTable(results: readonly ThroughputResult[]): string[] {
  const columns = columnsOf(
    '>bytes',
    '<switch',
    '>Mpps',
    '>min',
    '>max',
    '>Gbit/s',
    '>busy',
    '>busy ns/frame',
    '>empty looks',
    '>disturbed',
    '<processors',
    '>cache line ns',
    '<rate, Ringway to it',
    '<busy time',
  );
  return formatTable(
    columns,
    results.flatMap((result) =>
      Object.keys(result.framesPerSecond).map((peer) => rowOf(result, peer as PeerName)),
    ),
  );
}

function rowOf(result: ThroughputResult, peer: PeerName): string[] {
  const { frameBytes, framesPerSecond, busyShares, emptyLookShares, disturbedShares, coreRoundTripNs } =
    result;
  const rates = framesPerSecond[peer] ?? [];
  const { median, min, max } = spreadOf(rates);
  const shares = knownOf(busyShares[peer] ?? []);
  const emptyLooks = knownOf(emptyLookShares[peer] ?? []);
  const busyNs = knownOf(busyNsPerFrame(result, peer));
  const ratio = peer === 'ringway' ? null : ratioOf(framesPerSecond.ringway ?? [], rates);
  const busyRatio = peer === 'ringway' ? null : ratioOf(knownOf(busyNsPerFrame(result, 'ringway')), busyNs);
  return [
    String(frameBytes),
    PEER_TITLES[peer],
    ...[median, min, max].map(mpps),
    ((median * frameBytes * 8) / 1e9).toFixed(2),
    shares.length === 0 ? NOTHING : `${(spreadOf(shares).median * 100).toFixed(0)} %`,
    busyNs.length === 0 ? NOTHING : spreadOf(busyNs).median.toFixed(1),
    emptyLooks.length === 0 ? NOTHING : `${(spreadOf(emptyLooks).median * 100).toFixed(0)} %`,
    percent(spreadOf(disturbedShares[peer] ?? []).max),
    placeOfAll(coreRoundTripNs),
    range(coreRoundTripNs.flat().filter((ns) => ns !== null)),
    ratio === null ? NOTHING : formatRatio(ratio),
    busyRatio === null ? NOTHING : formatRatio(busyRatio),
  ];
}
