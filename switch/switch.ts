/**
 * The switch as one object: the arena, the forwarding table, the poll workers and the ports on them. What a
 * process starts, asks and stops; the command line and the control API stand on it. Main thread.
 */
import { formatMac } from '../protocol/ethernet.ts';
import { Arena } from '../src/memory/arena.ts';
import { ArenaView } from '../src/memory/arena-view.ts';
import type { Port, PortEvents, PortQueue } from '../src/port/contract.ts';
import { COUNT_BYTES, COUNT_CALLS, COUNT_FRAMES, QueueState } from '../src/queue/state.ts';
import { createPort, endpointOf } from './config/kinds/index.ts';
import { copiedPorts } from './config/kinds/pcap.ts';
import { ConfigError, type PortConfig, type SwitchConfig, uniqueEndpoint } from './config/resolve.ts';
import { type Books, booksOf, NO_BOOKS, sumBooks } from './control/books.ts';
import type { FdbReport, PortReport, QueueReport, WorkReport } from './control/report.ts';
import { createFdbMemory, Fdb } from './l2/fdb/fdb.ts';
import type { Logger } from './log.ts';
import { WorkerPool } from './worker/pool.ts';

export const PORTS_MAX = 4096;
const TICK_MS = 1000;
/** Addresses are aged this often; one pass over a million of them takes some 20 ms of the main thread. */
const AGEING_PERIOD_TICKS = 10;

export class Switch {
  readonly #config: SwitchConfig;
  readonly #log: Logger;
  readonly #arena: Arena;
  readonly #arenaView: ArenaView;
  readonly #fdb: Fdb;
  readonly #workers: WorkerPool;
  readonly #ports = new Map<number, Port>();
  /** What each port is attached to, so that no two are attached to the same. */
  readonly #endpoints = new Map<number, string>();
  /** Ports that get copies instead of switched frames, and the names of those whose frames are copied. */
  readonly #copied = new Map<number, 'all' | readonly string[]>();
  /** The books of ports that were removed. */
  #gone: Books = NO_BOOKS;
  /** Ports that are being removed. */
  readonly #leaving = new Set<Port>();
  readonly #clock: NodeJS.Timeout;
  #tick = 0;

  private constructor(config: SwitchConfig, log: Logger) {
    this.#config = config;
    this.#log = log;
    this.#arena = Arena.reserve(config.arenaBytes);
    this.#arenaView = new ArenaView(this.#arena.location);
    const fdbMemory = createFdbMemory({ capacity: config.fdb.capacity, maxPorts: PORTS_MAX });
    this.#fdb = new Fdb(fdbMemory);
    this.#workers = new WorkerPool({
      cpus: config.cpus,
      poll: config.poll,
      idleUs: config.idleUs,
      arena: this.#arena.location,
      fdb: fdbMemory,
      onQueueFailed: (portId, queueIndex) => this.#ports.get(portId)?.queueFailed(queueIndex),
    });
    this.#clock = setInterval(() => this.#onTick(), TICK_MS);
  }

  /**
   * Starts the workers and every port.
   * @throws ConfigError, SocketPathError or PortError when a port cannot be; then nothing is left behind
   */
  static async start(config: SwitchConfig, log: Logger): Promise<Switch> {
    const created = new Switch(config, log);
    try {
      for (const port of config.ports) await created.addPort(port);
    } catch (error) {
      await created.stop();
      throw error;
    }
    if (created.#arena.location.sizeBytes < config.arenaBytes) {
      log.warn(
        { bytes: created.#arena.location.sizeBytes },
        'the system allowed a smaller arena than asked for',
      );
    }
    return created;
  }

  /** Rejects when a worker died, which is a bug: the process should end with its message. */
  get failed(): Promise<never> {
    return this.#workers.failed;
  }

  /** @throws ConfigError (its name is taken, there are too many), SocketPathError, PortError */
  async addPort(config: PortConfig): Promise<void> {
    this.#requireFree(config);
    const id = this.#freeId();
    const port = createPort(config, {
      id,
      name: config.name,
      arena: this.#arena,
      arenaView: this.#arenaView,
      dataPath: this.#workers,
      events: this.#eventsOf(id, config.name),
    });
    this.#ports.set(id, port);
    this.#endpoints.set(id, uniqueEndpoint(config));
    await this.#workers.addPort(id);
    const copied = copiedPorts(config);
    if (copied !== null) this.#copied.set(id, copied);
    await this.#tellCopied();
    try {
      await port.start();
    } catch (error) {
      await this.#forget(port);
      throw error;
    }
  }

  /** Tells the workers which ports there are now of those that others get copies of. */
  async #tellCopied(): Promise<void> {
    for (const [id, names] of this.#copied) {
      const sources = [...this.#ports.values()]
        .filter((port) => port.id !== id && (names === 'all' || names.includes(port.name)))
        .map((port) => ({ portId: port.id, name: port.name }));
      await this.#workers.setPolicy(id, { copiesOf: sources });
    }
  }

  /** @throws ConfigError when there is no such port */
  async removePort(name: string): Promise<void> {
    const port = this.#portNamed(name);
    if (port === undefined || this.#leaving.has(port)) throw new ConfigError(`there is no port ${name}`);
    await this.#remove(port);
  }

  ports(): PortReport[] {
    return [...this.#ports.values()].map((port) => this.#reportOf(port));
  }

  /** The sum over all ports, with those that were removed. */
  totals(): Books {
    return sumBooks([this.#gone, ...[...this.#ports.values()].map((port) => this.#booksOf(port))]);
  }

  workers(): WorkReport[] {
    return this.#workers.work();
  }

  fdb(): FdbReport {
    const entries = this.#fdb.entries().map((entry) => ({
      mac: formatMac(entry.macLo, entry.macHi),
      vlan: entry.vlan,
      port: this.#ports.get(entry.port)?.name ?? `#${entry.port}`,
      ageSeconds: this.#tick - entry.lastSeenTick,
    }));
    return { capacity: this.#fdb.capacity, ageSeconds: this.#config.fdb.ageSeconds, entries };
  }

  /** Stops every ring, removes the sockets and ends the workers. */
  async stop(): Promise<void> {
    clearInterval(this.#clock);
    for (const port of [...this.#ports.values()]) {
      if (!this.#leaving.has(port)) await this.#remove(port);
    }
    await this.#workers.stop();
    // The arena stays reserved until the process ends: a view of it could still be reachable.
  }

  #requireFree(config: PortConfig): void {
    if (this.#portNamed(config.name) !== undefined) {
      throw new ConfigError(`port ${config.name} exists already`);
    }
    const endpoint = uniqueEndpoint(config);
    const [other] = [...this.#endpoints].find(([, taken]) => taken === endpoint) ?? [];
    if (other === undefined) return;
    throw new ConfigError(`${endpointOf(config)} belongs to port ${this.#ports.get(other)?.name}`);
  }

  async #remove(port: Port): Promise<void> {
    this.#leaving.add(port);
    await port.stop();
    await this.#forget(port);
    this.#leaving.delete(port);
  }

  async #forget(port: Port): Promise<void> {
    this.#copied.delete(port.id);
    const counts = await this.#workers.removePort(port.id);
    this.#gone = sumBooks([this.#gone, booksOf(port.counters, port.states, counts)]);
    this.#fdb.flushPort(port.id);
    this.#ports.delete(port.id);
    this.#endpoints.delete(port.id);
  }

  #onTick(): void {
    this.#tick++;
    this.#workers.setTick(this.#tick);
    if (this.#tick % AGEING_PERIOD_TICKS === 0) this.#fdb.age(this.#tick, this.#config.fdb.ageSeconds);
  }

  #portNamed(name: string): Port | undefined {
    return [...this.#ports.values()].find((port) => port.name === name);
  }

  #freeId(): number {
    for (let id = 0; id < PORTS_MAX; id++) if (!this.#ports.has(id)) return id;
    throw new ConfigError(`there are ${PORTS_MAX} ports already`);
  }

  #eventsOf(id: number, port: string): PortEvents {
    return {
      // Who lived behind it may turn up behind another port.
      disconnected: () => this.#fdb.flushPort(id),
      info: (message) => this.#log.info({ port }, message),
      warn: (message) => this.#log.warn({ port }, message),
    };
  }

  #reportOf(port: Port): PortReport {
    const queues = port.queues.map((queue) => this.#queueReport(port, queue));
    return {
      name: port.name,
      kind: port.kind,
      endpoint: port.endpoint,
      ...port.status,
      queuePairs: runningPairs(queues),
      mtu: port.mtu,
      details: port.details,
      queues,
      ...this.#booksOf(port),
    };
  }

  #queueReport(port: Port, queue: PortQueue): QueueReport {
    const { counts } = new QueueState(port.states, queue.index);
    return {
      ...queue,
      worker: this.#workers.workerOf(port.id, queue.index),
      frames: counts[COUNT_FRAMES],
      bytes: counts[COUNT_BYTES],
      calls: counts[COUNT_CALLS],
    };
  }

  #booksOf(port: Port): Books {
    return booksOf(port.counters, port.states, this.#workers.countsOf(port.id));
  }
}

/** Pairs with both queues started, enabled and without a fault. */
function runningPairs(queues: readonly PortQueue[]): number {
  const isRunning = (index: number): boolean =>
    queues.some((queue) => queue.index === index && queue.started && queue.enabled && queue.reason === null);
  return queues.filter(({ index }) => index % 2 === 0 && isRunning(index) && isRunning(index + 1)).length;
}
