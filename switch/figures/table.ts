/**
 * The one table of figures: each has a name, a unit, a sentence and labels, and is taken from a snapshot. Prometheus' text, the
 * table in docs/monitoring.md, the dashboard and the alert rules are made from it or checked against it. Names follow those of
 * openstack-network-exporter (ovs_interface_…) where they mean the same.
 */
import type { Books } from '../control/books.ts';
import { DROP_REASONS } from '../l2/drop-reasons.ts';
import {
  COUNT_BROADCAST,
  COUNT_COPIES,
  COUNT_MULTICAST,
  COUNT_SIZES,
  SIZE_BOUNDS,
} from '../l2/port-counts.ts';
import type { PluginReport } from '../plugin/plugin-table.ts';
import type { FiguresSnapshot, Labels, PortSnapshot, QueueSnapshot, WorkerSnapshot } from './snapshot.ts';

/** Of one set of labels. `label`: one more, with its value. */
export type Sample = {
  readonly labels: Labels;
  readonly label?: readonly [name: string, value: string];
  readonly value: number;
};

/** How many of each class; `bounds`: the most that belongs to each class but the last. */
export type HistogramSample = {
  readonly labels: Labels;
  readonly bounds: readonly number[];
  readonly counts: readonly number[];
  readonly sum: number;
};

export type FigureUnit = 'packets' | 'bytes' | 'seconds' | null;

type FigureBase = {
  /** Without prefix, unit and `_total`. */
  readonly name: string;
  readonly unit: FigureUnit;
  /** One sentence. */
  readonly help: string;
  readonly labels: readonly string[];
};

export type Figure = FigureBase &
  (
    | { readonly type: 'counter' | 'gauge'; readonly samples: (all: FiguresSnapshot) => Iterable<Sample> }
    | { readonly type: 'histogram'; readonly samples: (all: FiguresSnapshot) => Iterable<HistogramSample> }
  );

type NumberType = 'counter' | 'gauge';

const NO_LABELS: Labels = {};
const PORT_LABELS = ['port', 'type'];
const QUEUE_LABELS = ['port', 'type', 'queue', 'direction'];
const WORKER_LABELS = ['worker'];

/** The most frames of each class of bursts but the last, of 33 to 64. */
export const BURST_BOUNDS = [1, 2, 4, 8, 16, 32];

function ofSwitch(
  name: string,
  type: NumberType,
  unit: FigureUnit,
  help: string,
  value: (all: FiguresSnapshot) => number,
): Figure {
  return { name, type, unit, help, labels: [], samples: (all) => [{ labels: NO_LABELS, value: value(all) }] };
}

/** Of each of a kind; null: it has none. */
function ofEach<T extends { readonly labels: Labels }>(
  each: (all: FiguresSnapshot) => Iterable<T>,
  labels: readonly string[],
) {
  return (
    name: string,
    type: NumberType,
    unit: FigureUnit,
    help: string,
    value: (one: T) => number | null,
  ): Figure => ({
    name,
    type,
    unit,
    help,
    labels,
    *samples(all) {
      for (const one of each(all)) {
        const number = value(one);
        if (number !== null) yield { labels: one.labels, value: number };
      }
    },
  });
}

function* queuesOf({ ports }: FiguresSnapshot): Generator<QueueSnapshot> {
  for (const { queues } of ports) yield* queues;
}

const ofPorts = ofEach<PortSnapshot>(({ ports }) => ports, PORT_LABELS);
const ofQueues = ofEach<QueueSnapshot>(queuesOf, QUEUE_LABELS);
const ofWorkers = ofEach<WorkerSnapshot>(({ workers }) => workers, WORKER_LABELS);

/** What is dropped on one side of the switch, of a port. */
export function droppedBy({ counts }: PortSnapshot, side: 'sender' | 'receiver'): number {
  let sum = 0;
  for (let at = 0; at < DROP_REASONS.length; at++) if (DROP_REASONS[at].side === side) sum += counts[at];
  return sum;
}

const sideText = (side: 'sender' | 'receiver'): string => (side === 'sender' ? 'rx' : 'tx');

function* dropsOfPorts({ ports }: FiguresSnapshot): Generator<Sample> {
  for (const { labels, counts } of ports)
    for (let at = 0; at < DROP_REASONS.length; at++)
      if (counts[at] > 0) yield { labels, label: ['reason', DROP_REASONS[at].name], value: counts[at] };
}

/** All of them, so that each begins at 0. */
function* dropsOfAll({ totals }: { readonly totals: Books }): Generator<Sample> {
  for (const { name, side } of DROP_REASONS)
    yield { labels: { direction: sideText(side) }, label: ['reason', name], value: totals.drops[name] };
}

function* portsByState({ ports }: FiguresSnapshot): Generator<Sample> {
  for (const state of ['waiting', 'negotiating', 'running', 'stopped'])
    yield { labels: { state }, value: ports.filter((port) => port.state === state).length };
}

function* sizesOfPorts({ ports }: FiguresSnapshot): Generator<HistogramSample> {
  for (const { labels, counts, rxBytes } of ports) {
    const sizes = [...counts.subarray(COUNT_SIZES, COUNT_SIZES + SIZE_BOUNDS.length + 1)];
    yield { labels, bounds: SIZE_BOUNDS, counts: sizes, sum: rxBytes };
  }
}

function* burstsOfWorkers({ workers }: FiguresSnapshot): Generator<HistogramSample> {
  for (const { labels, bursts, frames } of workers)
    yield { labels, bounds: BURST_BOUNDS, counts: bursts, sum: frames };
}

function* collectionsOf(
  { workers, collections }: FiguresSnapshot,
  which: 'count' | 'seconds',
): Generator<Sample> {
  yield { labels: { thread: 'main' }, value: collections[which] };
  for (const { index, collections: own } of workers)
    yield { labels: { thread: `worker ${index}` }, value: own[which] };
}

const pluginLabels = ({ name }: PluginReport): Labels => ({ plugin: name });

function ofPlugins(name: string, help: string, value: (plugin: PluginReport) => number): Figure {
  return {
    name,
    type: 'counter',
    unit: 'packets',
    help,
    labels: ['plugin'],
    *samples({ plugins }) {
      for (const plugin of plugins) yield { labels: pluginLabels(plugin), value: value(plugin) };
    },
  };
}

function* dropsOfPlugins({ plugins }: FiguresSnapshot): Generator<Sample> {
  for (const plugin of plugins)
    for (const { name, frames } of plugin.drops)
      yield { labels: pluginLabels(plugin), label: ['reason', name], value: frames };
}

function* countersOfPlugins({ plugins }: FiguresSnapshot): Generator<Sample> {
  for (const plugin of plugins)
    for (const [name, value] of Object.entries(plugin.counters))
      yield { labels: pluginLabels(plugin), label: ['counter', name], value };
}

const SWITCH_FIGURES: readonly Figure[] = [
  {
    name: 'build_info',
    type: 'gauge',
    unit: null,
    help: 'Always 1; the labels say which version runs, and on which Node.',
    labels: ['version', 'node'],
    samples: ({ version }) => [{ labels: { version, node: process.versions.node }, value: 1 }],
  },
  ofSwitch(
    'start_time',
    'gauge',
    'seconds',
    'When the process began, since 1970.',
    ({ startSeconds }) => startSeconds,
  ),
  {
    name: 'ports',
    type: 'gauge',
    unit: null,
    help: 'Ports by their state.',
    labels: ['state'],
    samples: portsByState,
  },
  ofSwitch(
    'rx',
    'counter',
    'packets',
    'Frames that came in from all ports, with those that were removed.',
    ({ totals }) => totals.counters.ingressFrames,
  ),
  ofSwitch(
    'tx',
    'counter',
    'packets',
    'Frames that went out to all ports, with those that were removed.',
    ({ totals }) => totals.counters.egressFrames,
  ),
  {
    name: 'drops',
    type: 'counter',
    unit: 'packets',
    help: 'Frames that were dropped, by reason, of all ports with those that were removed.',
    labels: ['direction', 'reason'],
    samples: dropsOfAll,
  },
];

const PORT_FIGURES: readonly Figure[] = [
  ofPorts(
    'interface_link_state',
    'gauge',
    null,
    'Whether frames can pass the port: 1 or 0.',
    ({ state, isShut }) => (state === 'running' && !isShut ? 1 : 0),
  ),
  ofPorts(
    'interface_mtu',
    'gauge',
    'bytes',
    'Largest packet for the port, where it is known.',
    ({ mtu }) => mtu,
  ),
  ofPorts(
    'interface_rx',
    'counter',
    'packets',
    'Frames that came in from the port.',
    (port) => port.rxPackets,
  ),
  ofPorts('interface_rx', 'counter', 'bytes', 'Bytes of those frames.', (port) => port.rxBytes),
  ofPorts(
    'interface_tx',
    'counter',
    'packets',
    'Frames that went out to the port.',
    (port) => port.txPackets,
  ),
  ofPorts('interface_tx', 'counter', 'bytes', 'Bytes of those frames.', (port) => port.txBytes),
  ofPorts(
    'interface_rx_dropped',
    'counter',
    'packets',
    'Frames from the port that were dropped, for whatever reason.',
    (port) => droppedBy(port, 'sender'),
  ),
  ofPorts(
    'interface_tx_dropped',
    'counter',
    'packets',
    'Frames to the port that were dropped, for whatever reason.',
    (port) => droppedBy(port, 'receiver'),
  ),
  {
    name: 'interface_drops',
    type: 'counter',
    unit: 'packets',
    help: 'The same by reason; a reason that there never was is left out.',
    labels: [...PORT_LABELS, 'reason'],
    samples: dropsOfPorts,
  },
  ofPorts(
    'interface_rx_multicast',
    'counter',
    'packets',
    'Frames from the port to groups but broadcast, as far as they were not dropped before.',
    ({ counts }) => counts[COUNT_MULTICAST],
  ),
  ofPorts(
    'interface_rx_broadcast',
    'counter',
    'packets',
    'Broadcast frames from the port, as far as they were not dropped before.',
    ({ counts }) => counts[COUNT_BROADCAST],
  ),
  ofPorts(
    'interface_copies',
    'counter',
    'packets',
    'Copies that were made of frames from the port, by flooding, mirroring and segmentation.',
    ({ counts }) => counts[COUNT_COPIES],
  ),
  {
    name: 'interface_rx_size',
    type: 'histogram',
    unit: 'bytes',
    help: 'Frames from the port by length; of bursts with several lengths one in seven is looked at and counts for the others.',
    labels: PORT_LABELS,
    samples: sizesOfPorts,
  },
];

const QUEUE_FIGURES: readonly Figure[] = [
  ofQueues('queue', 'counter', 'packets', 'Frames that passed the queue.', ({ frames }) => frames),
  ofQueues('queue', 'counter', 'bytes', 'Bytes of those frames.', ({ bytes }) => bytes),
  ofQueues(
    'queue_signals',
    'counter',
    null,
    'Times that the other side was signalled.',
    ({ signals }) => signals,
  ),
  ofQueues(
    'queue_signals_suppressed',
    'counter',
    null,
    'Bursts after which it was not, because it did not ask for it.',
    ({ suppressed }) => suppressed,
  ),
  ofQueues(
    'queue_size',
    'gauge',
    null,
    'Descriptors of the queue, or frames that it holds at most.',
    ({ size }) => size,
  ),
  ofQueues(
    'queue_waiting',
    'gauge',
    null,
    'Of a virtqueue in use: what the driver has made available and nobody has taken: frames that wait (rx), or room for frames (tx).',
    ({ waiting }) => waiting,
  ),
];

const WORKER_FIGURES: readonly Figure[] = [
  ofWorkers(
    'worker_busy',
    'counter',
    'seconds',
    'Time that the worker spent on frames; a second of it each second is all that it can do.',
    ({ busySeconds }) => busySeconds,
  ),
  ofWorkers(
    'worker_sleep',
    'counter',
    'seconds',
    'Time that the worker slept.',
    ({ sleptSeconds }) => sleptSeconds,
  ),
  ofWorkers('worker_sleeps', 'counter', null, 'Times that the worker fell asleep.', ({ sleeps }) => sleeps),
  ofWorkers(
    'worker_empty_turns',
    'counter',
    null,
    'Turns of its loop that found no frame.',
    ({ emptyTurns }) => emptyTurns,
  ),
  {
    name: 'worker_burst',
    type: 'histogram',
    unit: 'packets',
    help: 'Bursts that the worker took, by how many frames they had.',
    labels: WORKER_LABELS,
    samples: burstsOfWorkers,
  },
  {
    name: 'collections',
    type: 'counter',
    unit: null,
    help: "Collections of a thread's garbage.",
    labels: ['thread'],
    samples: (all) => collectionsOf(all, 'count'),
  },
  {
    name: 'collection',
    type: 'counter',
    unit: 'seconds',
    help: 'Time that the thread stood still for them.',
    labels: ['thread'],
    samples: (all) => collectionsOf(all, 'seconds'),
  },
];

const FDB_FIGURES: readonly Figure[] = [
  ofSwitch('fdb_entries', 'gauge', null, 'Addresses in the forwarding table.', ({ fdb }) => fdb.entries),
  ofSwitch('fdb_capacity', 'gauge', null, 'Addresses that it holds at most.', ({ fdb }) => fdb.capacity),
  ofSwitch('fdb_learned', 'counter', null, 'Addresses that were entered.', ({ fdb }) => fdb.learned),
  ofSwitch(
    'fdb_moved',
    'counter',
    null,
    'Known addresses that were seen behind another port.',
    ({ fdb }) => fdb.moved,
  ),
  ofSwitch('fdb_evicted', 'counter', null, 'Addresses that made room for others.', ({ fdb }) => fdb.evicted),
  ofSwitch('fdb_aged', 'counter', null, 'Addresses that were silent for too long.', ({ fdb }) => fdb.aged),
];

const PLUGIN_FIGURES: readonly Figure[] = [
  {
    name: 'plugin_running',
    type: 'gauge',
    unit: null,
    help: 'Whether the plugin decides: 1, or 0 after it was taken out.',
    labels: ['plugin'],
    *samples({ plugins }) {
      for (const plugin of plugins)
        yield { labels: pluginLabels(plugin), value: plugin.state === 'running' ? 1 : 0 };
    },
  },
  ofPlugins('plugin', 'Frames that the plugin decided about.', ({ frames }) => frames),
  ofPlugins('plugin_redirected', 'Frames that it sent elsewhere.', ({ redirected }) => redirected),
  ofPlugins('plugin_mirrored', 'Frames that it had copied.', ({ mirrored }) => mirrored),
  ofPlugins('plugin_nowhere', 'Frames that it sent to a port that was not there.', ({ nowhere }) => nowhere),
  {
    name: 'plugin_drops',
    type: 'counter',
    unit: 'packets',
    help: 'Frames that it dropped, by its own reasons.',
    labels: ['plugin', 'reason'],
    samples: dropsOfPlugins,
  },
  {
    name: 'plugin_counter',
    type: 'counter',
    unit: null,
    help: 'Its own counters.',
    labels: ['plugin', 'counter'],
    samples: countersOfPlugins,
  },
];

export const FIGURES: readonly Figure[] = [
  ...SWITCH_FIGURES,
  ...PORT_FIGURES,
  ...QUEUE_FIGURES,
  ...WORKER_FIGURES,
  ...FDB_FIGURES,
  ...PLUGIN_FIGURES,
];

/** As Prometheus has it: with prefix, unit and, of a counter, `_total`. */
export function metricName({ name, unit, type }: Figure): string {
  return ['ringway', name, ...(unit === null ? [] : [unit]), ...(type === 'counter' ? ['total'] : [])].join(
    '_',
  );
}
