/**
 * The results as aligned text, one table for each scenario; those that compare switches round by round are in
 * comparison-table.ts. Pure: every function answers lines.
 */
import { formatTable } from '../../switch/cli/table.ts';
import type { PeerName } from '../plan.ts';
import { ratioOf, spreadOf } from '../statistics.ts';
import type { MachineFacts } from './facts.ts';
import type { GoalLine } from './goals.ts';
import { placeOfAll } from './place.ts';
import type {
  CollectionsResult,
  IdleResult,
  LatencyResult,
  MemoryResult,
  MicroResult,
  PairResult,
  ScaleResult,
} from './results.ts';
import { columnsOf, formatRatio, mpps, NOTHING, percent, title } from './text.ts';
import { LOAD_TITLES, PEER_TITLES } from './titles.ts';

export function factLines(facts: MachineFacts, otherCommit: string | null = null): string[] {
  const software = [
    `Node ${facts.node}`,
    facts.dpdk === null ? null : `DPDK ${facts.dpdk}`,
    facts.openVSwitch === null ? null : `Open vSwitch ${facts.openVSwitch}`,
    facts.qemu === null ? null : `QEMU ${facts.qemu}`,
  ].filter((text) => text !== null);
  return [
    `Ringway ${facts.ringway}${otherCommit === null ? '' : `, the other checkout ${otherCommit}`}, ${facts.date}`,
    `${facts.cpu}, ${facts.cores} cores, ${facts.memoryGiB} GiB, hypervisor ${facts.hypervisor}, Linux ${facts.kernel}`,
    software.join(', '),
  ];
}

export function latencyLines(result: LatencyResult): string[] {
  const columns = columnsOf(
    '<switch',
    '>median ns',
    '>p99 ns',
    '>p99.9 ns',
    '>lost',
    '>disturbed',
    '<Ringway to it, median',
    '<p99',
  );
  const of = (peer: string, field: 'medianNs' | 'p99Ns' | 'p999Ns' | 'lost' | 'disturbedShare'): number[] =>
    (result[peer as PeerName] ?? []).map((figures) => figures[field]);
  const ratio = (peer: string, field: 'medianNs' | 'p99Ns'): string => {
    const spread = peer === 'ringway' ? null : ratioOf(of('ringway', field), of(peer, field));
    return spread === null ? NOTHING : formatRatio(spread);
  };
  const rows = Object.keys(result).map((peer) => [
    PEER_TITLES[peer as PeerName],
    ...(['medianNs', 'p99Ns', 'p999Ns'] as const).map((field) => spreadOf(of(peer, field)).median.toFixed(0)),
    String(of(peer, 'lost').reduce((sum, lost) => sum + lost, 0)),
    percent(spreadOf(of(peer, 'disturbedShare')).max),
    ratio(peer, 'medianNs'),
    ratio(peer, 'p99Ns'),
  ]);
  return [
    ...title('Round trip of one 64-byte frame, through the switch and back; medians over the rounds'),
    ...formatTable(columns, rows),
  ];
}

export function scaleLines({ ports64, addresses, queuePairs, manyPorts }: ScaleResult): string[] {
  const pairs = [ports64, addresses, queuePairs].filter((pair) => pair !== undefined);
  const columns = columnsOf(
    '<large case',
    '>Mpps',
    '<small case',
    '>Mpps',
    '<ratio',
    '>disturbed',
    '<processors',
    '<generator',
  );
  const lines = pairs.length === 0 ? [] : formatTable(columns, pairs.map(pairRow));
  if (manyPorts !== undefined) {
    lines.push(
      `${manyPorts.portCount} ports at once: connected in ${(manyPorts.connectMs / 1000).toFixed(1)} s, ` +
        `${mpps(manyPorts.framesPerSecond)} Mpps between two of them (${LOAD_TITLES[manyPorts.load]}), ` +
        `${manyPorts.residentMiB.toFixed(0)} MiB without guest memory`,
    );
  }
  return [...title('Scale, 64-byte frames'), ...lines];
}

function pairRow({ load, base, scaled, coreRoundTripNs }: PairResult): string[] {
  const ratio = ratioOf(scaled.framesPerSecond, base.framesPerSecond);
  return [
    scaled.title,
    mpps(spreadOf(scaled.framesPerSecond).median),
    base.title,
    mpps(spreadOf(base.framesPerSecond).median),
    ratio === null ? NOTHING : formatRatio(ratio),
    percent(spreadOf([...base.disturbedShares, ...scaled.disturbedShares]).max),
    placeOfAll(coreRoundTripNs),
    LOAD_TITLES[load],
  ];
}

export function idleLines(result: IdleResult): string[] {
  const { portCount, windowMs, cpuShare, firstFrames, bareWakeUps, disturbedShare } = result;
  const us = (ns: number): string => `${(ns / 1000).toFixed(1)} µs`;
  return [
    ...title(`Idle, adaptive polling, ${portCount} connected ports`),
    `processor time: ${(cpuShare * 100).toFixed(2)} % of a core over ${(windowMs / 1000).toFixed(0)} s`,
    `first frame after idle: median ${us(firstFrames.medianNs)}, p99 ${us(firstFrames.p99Ns)}, ` +
      `p99.9 ${us(firstFrames.p999Ns)} (${firstFrames.samples} samples, ${firstFrames.lost} lost, disturbed ${percent(disturbedShare)})`,
    `waking a bare thread on this machine: median ${us(bareWakeUps.medianNs)}, p99 ${us(bareWakeUps.p99Ns)}, ` +
      `p99.9 ${us(bareWakeUps.p999Ns)}`,
  ];
}

export function memoryLines({ residentMiB, guestSharedMiB }: MemoryResult): string[] {
  return [
    ...title('Memory, 2 ports under load'),
    `resident: ${residentMiB.toFixed(1)} MiB without guest memory (${guestSharedMiB.toFixed(1)} MiB of that shared besides)`,
  ];
}

export function collectionsLines(result: CollectionsResult): string[] {
  const seconds = (result.windowMs / 1000).toFixed(0);
  return [
    ...title('Garbage collections under load, 64-byte frames'),
    `in ${seconds} s at ${mpps(result.framesPerSecond)} Mpps: ${result.inWorker} in the worker, ` +
      `${result.inMainThread} in the main thread`,
  ];
}

export function microLines(results: readonly MicroResult[]): string[] {
  const columns = columnsOf('<piece', '<way', '>ns', '>times as long');
  const rows = results.flatMap(({ group, entries }) =>
    entries.map(({ name, ns }, i) => [
      i === 0 ? group : '',
      name,
      ns.toFixed(2),
      i === 0 ? NOTHING : `${(ns / entries[0].ns).toFixed(1)}×`,
    ]),
  );
  return [...title('Inner pieces, one operation'), ...formatTable(columns, rows)];
}

export function goalTable(goals: readonly GoalLine[]): string[] {
  const columns = columnsOf('<goal', '<target', '<measured', '<met');
  const rows = goals.map(({ goal, target, figure, met }) => [
    goal,
    target,
    figure ?? 'not measured',
    met === null ? NOTHING : met ? 'yes' : 'NO',
  ]);
  return [...title('Goals'), ...formatTable(columns, rows)];
}
