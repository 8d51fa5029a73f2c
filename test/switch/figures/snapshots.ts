/** Made-up snapshots, for the tests of what is made of figures. */
import { NO_BOOKS } from '../../../switch/control/books.ts';
import type { FiguresSnapshot, PortSnapshot, WorkerSnapshot } from '../../../switch/figures/snapshot.ts';
import { BURST_CLASSES } from '../../../switch/l2/burst-counts.ts';
import { PORT_COUNTS } from '../../../switch/l2/port-counts.ts';
import type { PluginReport } from '../../../switch/plugin/plugin-table.ts';

export const NO_FDB = { learned: 0, moved: 0, evicted: 0, aged: 0, entries: 0, capacity: 8192 };

/** With a pair of queues. */
export function portSnapshot(name: string, changes: Partial<PortSnapshot> = {}): PortSnapshot {
  const labels = { port: name, type: 'vhost-user' };
  const queue = { frames: 1, bytes: 64, signals: 1, suppressed: 0, size: 256, waiting: 3 };
  return {
    name,
    labels,
    kind: 'vhost-user',
    state: 'running',
    isShut: false,
    mtu: 1500,
    rxPackets: 1,
    rxBytes: 64,
    txPackets: 1,
    txBytes: 64,
    counts: new Float64Array(PORT_COUNTS),
    queues: [
      { ...queue, direction: 'egress', labels: { ...labels, queue: '0', direction: 'tx' } },
      { ...queue, direction: 'ingress', labels: { ...labels, queue: '0', direction: 'rx' } },
    ],
    ...changes,
  };
}

export function workerSnapshot(index: number, changes: Partial<WorkerSnapshot> = {}): WorkerSnapshot {
  return {
    index,
    labels: { worker: String(index) },
    bursts: new Array<number>(BURST_CLASSES).fill(0),
    frames: 0,
    busySeconds: 0,
    sleptSeconds: 0,
    sleeps: 0,
    emptyTurns: 0,
    collections: { count: 0, seconds: 0 },
    ...changes,
  };
}

export const PLUGIN: PluginReport = {
  name: 'access',
  file: '/etc/ringway/access-list.ts',
  settings: {},
  state: 'running',
  reason: null,
  onFault: 'drop',
  reads: 'headers',
  reloads: 0,
  frames: 10,
  redirected: 1,
  mirrored: 2,
  nowhere: 0,
  drops: [{ name: 'denied', text: 'is not allowed', frames: 4 }],
  counters: { asked: 5 },
  unsaid: 0,
  noteCount: 0,
};

export function snapshot(changes: Partial<FiguresSnapshot> = {}): FiguresSnapshot {
  return {
    version: '1.2.3',
    startSeconds: 1_700_000_000,
    ports: [portSnapshot('vm0'), portSnapshot('vm1')],
    workers: [workerSnapshot(0)],
    plugins: [PLUGIN],
    fdb: NO_FDB,
    totals: NO_BOOKS,
    collections: { count: 0, seconds: 0 },
    ...changes,
  };
}
