/**
 * Keeps what figures are made from: takes rates once a second, adds up how busy workers were, and answers with all of it at one moment.
 * Reads what workers and queues count; asks nobody. Main thread.
 */
import type { Port } from '../../src/port/contract.ts';
import {
  COUNT_BYTES,
  COUNT_CALLS,
  COUNT_FRAMES,
  COUNT_SUPPRESSED,
  QUEUE_STATE_BYTES,
  sumLost,
} from '../../src/queue/state.ts';
import { type Books, booksOf, sumBooks } from '../control/books.ts';
import { DROP, DROP_REASONS } from '../l2/drop-reasons.ts';
import { PORT_COUNTS } from '../l2/port-counts.ts';
import type { PluginReport } from '../plugin/plugin-table.ts';
import { Collections } from '../worker/collections.ts';
import { machineMs, type WorkerCounts } from '../worker/worker-figures.ts';
import { Rates } from './rates.ts';
import type { FiguresReport } from './report.ts';
import type {
  FdbSnapshot,
  FiguresSnapshot,
  Labels,
  PortSnapshot,
  QueueSnapshot,
  WorkerSnapshot,
} from './snapshot.ts';

export type FiguresHost = {
  ports(): readonly Port[];
  isShut(portId: number): boolean;
  /** What can be sent to it at most; null: unknown. */
  mtuOf(port: Port): number | null;
  /** As WorkerPool.countsOf: the caller's own. */
  countsOf(portId: number): Float64Array;
  workers(): readonly WorkerCounts[];
  plugins(): PluginReport[];
  fdb(): FdbSnapshot;
  /** The books of ports that were removed. */
  gone(): Books;
};

/** Of a port, what rates are kept of; `PORT_RATES.rxPackets` is the counter of that name. */
export const PORT_RATES = { rxPackets: 0, rxBytes: 1, txPackets: 2, txBytes: 3, dropped: 4 } as const;
export const WORKER_RATES = { frames: 0, busyMs: 1, sleeps: 2, bursts: 3 } as const;
const PORT_WIDTH = Object.keys(PORT_RATES).length;
const WORKER_WIDTH = Object.keys(WORKER_RATES).length;

const WORDS_PER_QUEUE = QUEUE_STATE_BYTES / 8;
const COUNTS_AT = WORDS_PER_QUEUE / 2;
const COUNTER_RANGE = 2 ** 32;
const MS_PER_S = 1000;
const NS_PER_MS = 1e6;

/** What is added up. */
type Counters = Pick<PortSnapshot, 'rxPackets' | 'rxBytes' | 'txPackets' | 'txBytes' | 'counts'>;

class PortEntry {
  readonly rates = new Rates(PORT_WIDTH);
  readonly words: Float64Array;
  readonly labels: Labels;
  /** By the queue's number. */
  readonly queueLabels: Labels[] = [];

  constructor(port: Port) {
    this.words = new Float64Array(port.states);
    this.labels = { port: port.name, type: port.kind };
  }
}

class WorkerEntry {
  readonly rates = new Rates(WORKER_WIDTH);
  readonly labels: Labels;
  #last: WorkerCounts;
  busyMs = 0;
  emptyTurns = 0;

  constructor(index: number, now: WorkerCounts) {
    this.labels = { worker: String(index) };
    this.#last = now;
  }

  /** What is neither sleep nor turns without a frame is work. */
  advance(now: WorkerCounts): void {
    const turns = (now.emptyTurns - this.#last.emptyTurns + COUNTER_RANGE) % COUNTER_RANGE;
    const sleptMs = now.sleptMs - this.#last.sleptMs;
    const idleMs = sleptMs + (turns * now.emptyTurnNs) / NS_PER_MS;
    const sinceMs = Math.max(this.#last.atMs, now.beganMs);
    if (now.beganMs !== 0) this.busyMs += Math.max(0, now.atMs - sinceMs - idleMs);
    this.emptyTurns += turns;
    this.#last = now;
  }
}

export class FiguresKeeper {
  readonly #host: FiguresHost;
  readonly #startSeconds = Date.now() / MS_PER_S - performance.now() / MS_PER_S;
  readonly #ports = new Map<number, PortEntry>();
  #workers: WorkerEntry[] = [];
  readonly #collections = new Collections();
  readonly #values = new Float64Array(Math.max(PORT_WIDTH, WORKER_WIDTH));

  constructor(host: FiguresHost) {
    this.#host = host;
  }

  /** Once a second. */
  tick(): void {
    this.#collections.look();
    const atMs = machineMs();
    const values = this.#values.subarray(0, PORT_WIDTH);
    for (const port of this.#host.ports()) {
      const { words, rates } = this.#entryOf(port);
      sumQueues(words, values);
      const counts = this.#host.countsOf(port.id);
      let dropped = sumLost(words);
      for (let at = 0; at < DROP_REASONS.length; at++) dropped += counts[at];
      values[PORT_RATES.dropped] = dropped;
      rates.push(atMs, values);
    }
    const own = this.#values.subarray(0, WORKER_WIDTH);
    for (const [index, now] of this.#host.workers().entries()) {
      const entry = this.#workerOf(index, now);
      own[WORKER_RATES.frames] = now.frames;
      own[WORKER_RATES.busyMs] = entry.busyMs;
      own[WORKER_RATES.sleeps] = now.sleeps;
      own[WORKER_RATES.bursts] = sumOf(now.bursts);
      entry.rates.push(atMs, own);
    }
  }

  forgetPort(id: number): void {
    this.#ports.delete(id);
  }

  snapshot(version: string): FiguresSnapshot {
    const host = this.#host;
    this.#collections.look();
    const ports = host.ports().map((port) => this.#portSnapshot(port));
    return {
      version,
      startSeconds: this.#startSeconds,
      ports,
      workers: host.workers().map((counts, index) => this.#workerSnapshot(index, counts)),
      plugins: host.plugins(),
      fdb: host.fdb(),
      totals: this.#totalOf(ports),
      collections: { count: this.#collections.count, seconds: this.#collections.spentMs / MS_PER_S },
    };
  }

  /** The books of all ports together, and of those that were removed. */
  totals(): Books {
    return this.#totalOf(this.#host.ports().map((port) => this.#countersOf(port)));
  }

  #totalOf(ports: readonly Counters[]): Books {
    return sumBooks([this.#host.gone(), booksTogether(ports)]);
  }

  report(version: string): FiguresReport {
    const { ports, workers, startSeconds, fdb, totals } = this.snapshot(version);
    const all = this.#host.ports();
    return {
      version,
      upSeconds: Date.now() / MS_PER_S - startSeconds,
      fdb,
      drops: totals.drops,
      ports: ports.map((port, i) => this.#portFigures(port, all[i].id)),
      workers: workers.map((worker) => this.#workerFigures(worker)),
    };
  }

  #portFigures(port: PortSnapshot, id: number): FiguresReport['ports'][number] {
    const { name, kind, state, isShut, rxPackets, rxBytes, txPackets, txBytes, counts } = port;
    const rates = this.#ports.get(id)?.rates;
    const rate = (counter: number): number[] => rates?.all(counter) ?? [];
    const drops = DROP_REASONS.flatMap(({ name: reason }, at) =>
      counts[at] > 0 ? [[reason, counts[at]]] : [],
    );
    return {
      name,
      kind,
      state,
      isShut,
      totals: {
        rxPackets,
        rxBytes,
        txPackets,
        txBytes,
        dropped: sumOf(counts.subarray(0, DROP_REASONS.length)),
      },
      rates: {
        rxPackets: rate(PORT_RATES.rxPackets),
        rxBytes: rate(PORT_RATES.rxBytes),
        txPackets: rate(PORT_RATES.txPackets),
        txBytes: rate(PORT_RATES.txBytes),
        dropped: rate(PORT_RATES.dropped),
      },
      drops: Object.fromEntries(drops),
    };
  }

  #workerFigures(worker: WorkerSnapshot): FiguresReport['workers'][number] {
    const { index, sleeps, bursts, frames, collections } = worker;
    const { rates } = this.#workers[index];
    const packets = rates.all(WORKER_RATES.frames);
    const busyMs = rates.all(WORKER_RATES.busyMs);
    const perSecond = rates.all(WORKER_RATES.bursts);
    return {
      index,
      totals: { packets: frames, sleeps, bursts, collections: collections.count },
      rates: {
        packets,
        busyShare: busyMs.map((ms) => Math.min(ms / MS_PER_S, 1)),
        nsPerPacket: busyMs.map((ms, i) => (packets[i] > 0 ? (ms * NS_PER_MS) / packets[i] : null)),
        packetsPerBurst: perSecond.map((count, i) => (count > 0 ? packets[i] / count : null)),
        sleeps: rates.all(WORKER_RATES.sleeps),
      },
    };
  }

  #entryOf(port: Port): PortEntry {
    let entry = this.#ports.get(port.id);
    if (entry === undefined) {
      entry = new PortEntry(port);
      this.#ports.set(port.id, entry);
    }
    return entry;
  }

  #workerOf(index: number, now: WorkerCounts): WorkerEntry {
    this.#workers[index] ??= new WorkerEntry(index, now);
    this.#workers[index].advance(now);
    return this.#workers[index];
  }

  #workerSnapshot(index: number, counts: WorkerCounts): WorkerSnapshot {
    const { labels, busyMs, emptyTurns } = this.#workerOf(index, counts);
    const { bursts, frames, sleeps, sleptMs, collections, collectedMs } = counts;
    return {
      index,
      labels,
      bursts,
      frames,
      sleeps,
      emptyTurns,
      busySeconds: busyMs / MS_PER_S,
      sleptSeconds: sleptMs / MS_PER_S,
      collections: { count: collections, seconds: collectedMs / MS_PER_S },
    };
  }

  #portSnapshot(port: Port): PortSnapshot {
    const entry = this.#entryOf(port);
    return {
      name: port.name,
      labels: entry.labels,
      kind: port.kind,
      state: port.status.state,
      isShut: this.#host.isShut(port.id),
      mtu: this.#host.mtuOf(port),
      ...this.#countersOf(port),
      queues: queuesOf(port, entry),
    };
  }

  #countersOf(port: Port): Counters {
    const { words } = this.#entryOf(port);
    const sums = new Float64Array(PORT_WIDTH);
    sumQueues(words, sums);
    const counts = this.#host.countsOf(port.id);
    counts[DROP.notTaken] += sumLost(words);
    return {
      rxPackets: sums[PORT_RATES.rxPackets],
      rxBytes: sums[PORT_RATES.rxBytes],
      txPackets: sums[PORT_RATES.txPackets],
      txBytes: sums[PORT_RATES.txBytes],
      counts,
    };
  }
}

/** Of a thousand ports, without an object for each. */
function booksTogether(ports: readonly Counters[]): Books {
  const sums = { ingressFrames: 0, ingressBytes: 0, egressFrames: 0, egressBytes: 0 };
  const counts = new Float64Array(PORT_COUNTS);
  for (const port of ports) {
    sums.ingressFrames += port.rxPackets;
    sums.ingressBytes += port.rxBytes;
    sums.egressFrames += port.txPackets;
    sums.egressBytes += port.txBytes;
    for (let at = 0; at < PORT_COUNTS; at++) counts[at] += port.counts[at];
  }
  return booksOf(sums, new SharedArrayBuffer(0), counts);
}

function queuesOf(port: Port, { words, labels, queueLabels }: PortEntry): QueueSnapshot[] {
  const snapshots: QueueSnapshot[] = [];
  for (const { index, direction, size } of port.queues) {
    if (direction === 'control') continue;
    queueLabels[index] ??= {
      ...labels,
      queue: String(index >> 1),
      direction: direction === 'ingress' ? 'rx' : 'tx',
    };
    const at = index * WORDS_PER_QUEUE + COUNTS_AT;
    snapshots.push({
      labels: queueLabels[index],
      direction,
      size,
      frames: words[at + COUNT_FRAMES],
      bytes: words[at + COUNT_BYTES],
      signals: words[at + COUNT_CALLS],
      suppressed: words[at + COUNT_SUPPRESSED],
      waiting: port.waitingIn?.(index) ?? null,
    });
  }
  return snapshots;
}

/** Even ones are egress queues. */
function sumQueues(words: Float64Array, sums: Float64Array): void {
  sums.fill(0);
  for (let at = COUNTS_AT, isOut = true; at < words.length; at += WORDS_PER_QUEUE, isOut = !isOut) {
    sums[isOut ? PORT_RATES.txPackets : PORT_RATES.rxPackets] += words[at + COUNT_FRAMES];
    sums[isOut ? PORT_RATES.txBytes : PORT_RATES.rxBytes] += words[at + COUNT_BYTES];
  }
}

function sumOf(numbers: Iterable<number>): number {
  let sum = 0;
  for (const number of numbers) sum += number;
  return sum;
}
