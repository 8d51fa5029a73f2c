/** `ringway ports`: what each port of the running process does. */
import type { Command } from 'commander';
import { printable } from '../../src/host/printable.ts';
import { queueStoppedText } from '../../src/port/contract.ts';
import type { Offload } from '../../src/queue/offloads.ts';
import {
  BURST_BITS_MIN,
  BURST_FRAMES_MIN,
  burstByDefault,
  LOOP_SHUT_SECONDS,
} from '../config/common-port.ts';
import { inUnits } from '../config/kinds/values.ts';
import { askControl } from '../control/client.ts';
import type { PortReport, QueueReport } from '../control/report.ts';
import { DROP_REASONS } from '../l2/drop-reasons.ts';
import { type AskOptions, addAskOptions } from './ask-options.ts';
import { findControl } from './running.ts';
import { type Column, formatCount, formatTable, jsonText } from './table.ts';

export function addPorts(program: Command): void {
  const command = program
    .command('ports')
    .description('Show the ports of the running ringway: state, traffic and why frames were dropped.');
  addAskOptions(command).action(async (options: AskOptions) => {
    const ports = await askControl<PortReport[]>(await findControl(options.control), '/v1/ports');
    process.stdout.write(options.json ? jsonText(ports) : formatPorts(ports));
  });
}

/** Virtio features that an offload stands for, by their names. */
const FEATURES_OF_OFFLOAD: Readonly<Record<Offload, readonly string[]>> = {
  csum: ['NET_CSUM', 'NET_GUEST_CSUM'],
  tso: ['NET_HOST_TSO4', 'NET_HOST_TSO6', 'NET_GUEST_TSO4', 'NET_GUEST_TSO6'],
  ecn: ['NET_HOST_ECN', 'NET_GUEST_ECN'],
  uso: ['NET_HOST_USO', 'NET_GUEST_USO4', 'NET_GUEST_USO6'],
};

const LIMITS = [
  ['rateIn', 'rate-in', BURST_BITS_MIN],
  ['framesIn', 'frames-in', BURST_FRAMES_MIN],
  ['rateOut', 'rate-out', BURST_BITS_MIN],
  ['framesOut', 'frames-out', BURST_FRAMES_MIN],
] as const;
const STORMS = [
  ['stormBroadcast', 'storm-broadcast'],
  ['stormMulticast', 'storm-multicast'],
  ['stormUnknown', 'storm-unknown'],
] as const;

const COLUMNS: readonly Column[] = [
  { title: 'PORT', align: 'left' },
  { title: 'STATE', align: 'left' },
  { title: 'PAIRS', align: 'right' },
  { title: 'IN', align: 'right' },
  { title: 'OUT', align: 'right' },
  { title: 'DROPPED', align: 'right' },
  { title: 'ATTACHED TO', align: 'left' },
];

/** The table of ports; below a port, why it is not well and what was dropped. Counts are frames. */
export function formatPorts(ports: readonly PortReport[]): string {
  if (ports.length === 0) return 'There are no ports.\n';
  const [titles, ...rows] = formatTable(COLUMNS, ports.map(rowOf));
  const lines = ports.flatMap((port, i) => [
    rows[i],
    ...detailsOf(port).map((text) => `  ${printable(text)}`),
  ]);
  return `${[titles, ...lines].join('\n')}\n`;
}

function rowOf(port: PortReport): string[] {
  const dropped = Object.values(port.drops).reduce((sum, count) => sum + count, 0);
  return [
    port.name,
    port.state,
    String(port.queuePairs),
    formatCount(port.counters.ingressFrames),
    formatCount(port.counters.egressFrames),
    formatCount(dropped),
    endpointText(port),
  ];
}

/** The path alone for guests, as most ports are; the kind before it otherwise. */
function endpointText({ kind, endpoint, details }: PortReport): string {
  if (kind !== 'vhost-user') return `${kind}:${endpoint}`;
  return details.role === 'client' ? `${endpoint} (client)` : endpoint;
}

function detailsOf(port: PortReport): string[] {
  const drops = DROP_REASONS.filter(({ name }) => port.drops[name] > 0);
  return [
    ...(port.reason === null ? [] : [port.reason]),
    ...adviceTexts(port),
    ...vlanTexts(port.settings),
    ...mirrorTexts(port.settings),
    ...guardTexts(port.settings),
    ...limitTexts(port.settings),
    ...otherTexts(port),
    ...groupTexts(port),
    ...port.queues.flatMap((queue) => queueDetails(queue, port.reason)),
    ...drops.map(({ name, text }) => `dropped ${formatCount(port.drops[name])}: ${text} (${name})`),
  ];
}

/** What to do about what is wrong; of what is only good to know, `--json` and `ringway doctor` tell. */
function adviceTexts({ advice }: PortReport): string[] {
  return advice === null || advice.severity === 'note' ? [] : [`do: ${advice.fix}`];
}

/** Why the queue is not well, unless that is what the port's own reason says. */
function queueDetails({ index, reason }: QueueReport, reasonOfPort: string | null): string[] {
  if (reason === null) return [];
  const text = queueStoppedText(index, reason);
  return reasonOfPort === text || reasonOfPort === reason ? [] : [text];
}

/** In the words of the options; nothing where the port carries all VLANs. */
function vlanTexts({ vlanMode, tag, trunks, cvlans }: PortReport['settings']): string[] {
  if (vlanMode === 'trunk' && trunks === null) return [];
  const lists = [
    ...(trunks === null ? [] : [`trunks ${rangesOf(trunks)}`]),
    ...(cvlans === null ? [] : [`cvlans ${rangesOf(cvlans)}`]),
  ];
  return [[`vlan-mode ${vlanMode}`, ...(tag === null ? [] : [`tag ${tag}`]), ...lists].join(', ')];
}

/** In the words of the options: whose frames it gets copies of. */
function mirrorTexts(settings: PortReport['settings']): string[] {
  const { mirror, mirrorDirection, mirrorVlans, outputVlan } = settings;
  if (mirror === null) return [];
  const texts = [
    `mirror ${mirror === 'all' ? mirror : mirror.join('+')}`,
    ...(mirrorDirection === 'in' || mirrorDirection === 'out' ? [`mirror-direction ${mirrorDirection}`] : []),
    ...(mirrorVlans === null ? [] : [`mirror-vlans ${rangesOf(mirrorVlans)}`]),
    ...(outputVlan === null ? [] : [`output-vlan ${outputVlan}`]),
  ];
  return [texts.join(', ')];
}

/** In the words of the options: what its guest may send, where that is not anything. */
function guardTexts({ macs, macsMax, macsSticky, staticMacs, ips, guard }: PortReport['settings']): string[] {
  const texts = [
    ...(macs === null ? [] : [`macs ${macs.join('+')}`]),
    ...(macsMax === null ? [] : [`macs-max ${macsMax}${macsSticky ? ', macs-sticky on' : ''}`]),
    ...(ips === null ? [] : [`ips ${ips.join('+')}`]),
    ...(guard.length === 0 ? [] : [`guard ${guard.join('+')}`]),
    ...(staticMacs.length === 0 ? [] : [`static-macs ${staticMacs.join('+')}`]),
  ];
  return texts.length === 0 ? [] : [texts.join(', ')];
}

/** In the words of the options: what is not as it is by default, and what a guest has nevertheless. */
function otherTexts({ settings, details }: PortReport): string[] {
  const { flood, receive, forwardBpdu, mtu, plugins, offloads } = settings;
  const off = Object.entries(offloads ?? {}).flatMap(([name, isOn]) => (isOn ? [] : [name as Offload]));
  const texts = [
    ...(flood ? [] : ['flood off']),
    ...(receive ? [] : ['receive off']),
    ...(forwardBpdu ? ['forward-bpdu on'] : []),
    ...(mtu === null ? [] : [`mtu ${mtu}`]),
    ...(plugins === null ? [] : [`plugins ${plugins.length === 0 ? 'none' : plugins.join('+')}`]),
    ...(off.length === 0 ? [] : [`offloads ${off.map((name) => `no-${name}`).join('+')}`]),
  ];
  if (texts.length === 0) return [];
  const agreed = Array.isArray(details.features) ? details.features : [];
  const kept = off.filter((name) => FEATURES_OF_OFFLOAD[name].some((feature) => agreed.includes(feature)));
  const note =
    kept.length === 0 ? '' : ` (its guest keeps ${kept.join(', ')} until its QEMU is started anew)`;
  return [`${texts.join(', ')}${note}`];
}

/** In the words of the options, what a port may send and be sent. */
function limitTexts(settings: PortReport['settings']): string[] {
  const limits = LIMITS.flatMap(([key, word, burstMin]) => {
    const [limit, burst] = [settings[key], settings[`${key}Burst`]];
    if (limit === null) return [];
    const isDefault = burst === null || burst === burstByDefault(limit, burstMin);
    return [`${word} ${inUnits(limit)}`, ...(isDefault ? [] : [`${word}-burst ${inUnits(burst)}`])];
  });
  const storms = STORMS.flatMap(([key, word]) => {
    const limit = settings[key];
    return limit === null ? [] : [`${word} ${inUnits(limit)}`];
  });
  const { loopGuard, loopShutSeconds } = settings;
  const texts = [
    ...limits,
    ...storms,
    ...(settings.protected ? ['protected on'] : []),
    ...(loopGuard === 'off' ? [] : [`loop-guard ${loopGuard}`]),
    ...(loopGuard === 'off' || loopShutSeconds === LOOP_SHUT_SECONDS
      ? []
      : [`loop-shut-seconds ${loopShutSeconds}`]),
  ];
  return texts.length === 0 ? [] : [texts.join(', ')];
}

/** What snooping knows of the port, if there is anything. */
function groupTexts({ settings, groups }: PortReport): string[] {
  const { mrouter, fastLeave } = settings;
  const set = [
    ...(mrouter === 'auto' ? [] : [`mrouter ${mrouter}`]),
    ...(fastLeave ? ['fast-leave on'] : []),
  ];
  if (groups === undefined) return set.length === 0 ? [] : [set.join(', ')];
  const bad = Object.entries(groups.bad).map(([why, count]) => `${formatCount(count)} ${why}`);
  return [
    ...(set.length === 0 ? [] : [set.join(', ')]),
    ...(groups.groups === 0 ? [] : [`has joined ${formatCount(groups.groups)} groups`]),
    ...(groups.refused === 0 ? [] : [`wanted ${formatCount(groups.refused)} groups too many`]),
    ...(bad.length === 0 ? [] : [`sent bad messages about groups: ${bad.join(', ')}`]),
  ];
}

/** `1+5-7` of ascending numbers. */
function rangesOf(numbers: readonly number[]): string {
  const ranges: [first: number, last: number][] = [];
  for (const number of numbers) {
    const range = ranges.at(-1);
    if (range !== undefined && range[1] === number - 1) range[1] = number;
    else ranges.push([number, number]);
  }
  return ranges.map(([first, last]) => (first === last ? first : `${first}-${last}`)).join('+');
}
