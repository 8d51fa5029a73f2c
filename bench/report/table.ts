/** The results as aligned text, one table for each scenario. Pure: every function answers lines. */
import { type Column, formatTable } from '../../switch/cli/table.ts';
import type { LoadKind } from '../load/contract.ts';
import type { PeerName } from '../plan.ts';
import { ratioOf, spreadOf } from '../statistics.ts';
import type { MachineFacts } from './facts.ts';
import { formatRatio, type GoalLine } from './goals.ts';
import type {
  CollectionsResult,
  IdleResult,
  LatencyResult,
  MemoryResult,
  MicroResult,
  PairResult,
  ScaleResult,
  ThroughputResult,
} from './results.ts';

export const PEER_TITLES: Readonly<Record<PeerName, string>> = {
  ringway: 'Ringway',
  ovs: 'OVS-DPDK',
  testpmd: 'testpmd vhost copy',
};

export const LOAD_TITLES: Readonly<Record<LoadKind, string>> = {
  vectorised: 'testpmd, vectorised receive path',
  default: 'testpmd, default receive path (mergeable buffers)',
  embedded: 'embedded front-end',
};

const NOTHING = '-';

export function factLines(facts: MachineFacts): string[] {
  const software = [
    `Node ${facts.node}`,
    facts.dpdk === null ? null : `DPDK ${facts.dpdk}`,
    facts.openVSwitch === null ? null : `Open vSwitch ${facts.openVSwitch}`,
    facts.qemu === null ? null : `QEMU ${facts.qemu}`,
  ].filter((text) => text !== null);
  return [
    `Ringway ${facts.ringway}, ${facts.date}`,
    `${facts.cpu}, ${facts.cores} cores, ${facts.memoryGiB} GiB, hypervisor ${facts.hypervisor}, Linux ${facts.kernel}`,
    software.join(', '),
  ];
}

export function throughputLines(results: readonly ThroughputResult[]): string[] {
  const loads = [...new Set(results.map(({ load }) => load))];
  return loads.flatMap((load, i) => [
    ...title(
      `Throughput, both ways together; generator: ${LOAD_TITLES[load]}${i === 0 ? ' (headline)' : ''}`,
    ),
    ...throughputTable(results.filter((result) => result.load === load)),
  ]);
}

function throughputTable(results: readonly ThroughputResult[]): string[] {
  const columns = columnsOf(
    '>bytes',
    '<switch',
    '>Mpps',
    '>min',
    '>max',
    '>Gbit/s',
    '>ns/frame',
    '>disturbed',
    '>cache line ns',
    '<Ringway to it',
  );
  const rows = results.flatMap(({ frameBytes, framesPerSecond, disturbedShares, coreRoundTripNs }) =>
    Object.entries(framesPerSecond).map(([peer, rounds]) => {
      const { median, min, max } = spreadOf(rounds);
      const ratio = peer === 'ringway' ? null : ratioOf(framesPerSecond.ringway ?? [], rounds);
      return [
        String(frameBytes),
        PEER_TITLES[peer as PeerName],
        ...[median, min, max].map(mpps),
        ((median * frameBytes * 8) / 1e9).toFixed(2),
        (1e9 / median).toFixed(1),
        percent(spreadOf(disturbedShares[peer as PeerName] ?? []).max),
        range(coreRoundTripNs.flat().filter((ns) => ns !== null)),
        ratio === null ? NOTHING : formatRatio(ratio),
      ];
    }),
  );
  return formatTable(columns, rows);
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

function pairRow({ load, base, scaled }: PairResult): string[] {
  const ratio = ratioOf(scaled.framesPerSecond, base.framesPerSecond);
  return [
    scaled.title,
    mpps(spreadOf(scaled.framesPerSecond).median),
    base.title,
    mpps(spreadOf(base.framesPerSecond).median),
    ratio === null ? NOTHING : formatRatio(ratio),
    percent(spreadOf([...base.disturbedShares, ...scaled.disturbedShares]).max),
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

/** Columns from titles that start with `<` (left) or `>` (right). */
function columnsOf(...titles: string[]): Column[] {
  return titles.map((text) => ({ title: text.slice(1), align: text.startsWith('>') ? 'right' : 'left' }));
}

function title(text: string): string[] {
  return ['', text, '='.repeat(text.length)];
}

/** The worst of the rounds: time that the switch or the generator had to wait for its processor. */
function percent(share: number): string {
  return `${(share * 100).toFixed(1)} %`;
}

function range(values: readonly number[]): string {
  if (values.length === 0) return NOTHING;
  const { min, max } = spreadOf(values);
  return `${min} to ${max}`;
}

function mpps(framesPerSecond: number): string {
  return (framesPerSecond / 1e6).toFixed(2);
}
