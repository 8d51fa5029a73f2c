/**
 * The switch as one object: the arena, the forwarding table, the poll workers and the ports on them. What a
 * process starts, asks and stops; the command line and the control API stand on it. Main thread.
 */
import { resolve } from 'node:path';
import { formatMac } from '../protocol/ethernet.ts';
import { HandOverError } from '../src/device/hand-over.ts';
import { type RecordsEvents, RingRecords } from '../src/device/ring-records.ts';
import { HostError } from '../src/host/errors.ts';
import { peerSignalsNeverWait } from '../src/host/peer-signal.ts';
import { printable } from '../src/host/printable.ts';
import { Arena } from '../src/memory/arena.ts';
import { ArenaView } from '../src/memory/arena-view.ts';
import { allocateScratch } from '../src/memory/scratch.ts';
import type { Port, PortEvents, PortQueue } from '../src/port/contract.ts';
import type { HandOver } from '../src/port/hand-over.ts';
import { COUNT_BYTES, COUNT_CALLS, COUNT_FRAMES, QueueState } from '../src/queue/state.ts';
import { effectiveSettings } from './config/common-port.ts';
import type { PortConfig, SwitchConfig } from './config/resolve.ts';
import { ConfigError } from './config/settings.ts';
import { type Books, booksOf, NO_BOOKS, sumBooks } from './control/books.ts';
import type { FdbReport, PortReport, QueueReport, WorkReport } from './control/report.ts';
import { createFdbMemory, Fdb } from './l2/fdb/fdb.ts';
import type { Logger } from './log.ts';
import { LogRate } from './log-rate.ts';
import { PORTS_MAX, PortTable } from './port-table.ts';
import type { SwitchPositions, SwitchState } from './takeover/format.ts';
import { scratchBytes, WorkerPool } from './worker/pool.ts';

const TICK_MS = 1000;
/** Addresses are aged this often; one pass over a million of them takes some 20 ms of the main thread. */
const AGEING_PERIOD_TICKS = 10;

export class Switch {
  readonly #config: SwitchConfig;
  readonly #log: Logger;
  readonly #arena: Arena;
  readonly #records: RingRecords | null;
  readonly #fdb: Fdb;
  readonly #workers: WorkerPool;
  readonly #ports: PortTable;
  readonly #clock: NodeJS.Timeout;
  /** The books of ports that were removed. */
  #gone: Books = NO_BOOKS;
  #tick = 0;
  readonly #taken: SwitchState | null;
  /** Those that are handed over. */
  #frozen: readonly (Port & HandOver)[] = [];
  /** Lines for the log that wait until the ports are there; null: they are. */
  #toSay: (() => void)[] | null = [];

  /** `taken`: what another process hands over; left out: nothing. */
  private constructor(config: SwitchConfig, log: Logger, taken: SwitchState | null) {
    this.#taken = taken;
    this.#config = config;
    this.#log = log;
    this.#arena = reserveArena(config.arenaBytes);
    const fdbMemory = createFdbMemory({ capacity: config.fdb.capacity, maxPorts: PORTS_MAX });
    this.#fdb = new Fdb(fdbMemory);
    const sizeBytes = scratchBytes(config.cpus);
    this.#workers = new WorkerPool({
      cpus: config.cpus,
      poll: config.poll,
      idleUs: config.idleUs,
      arena: this.#arena.location,
      fdb: fdbMemory,
      scratchOffset: allocateScratch(this.#arena, { name: 'ringway-workers', sizeBytes }).offset,
      vlanLimit: config.vlanLimit,
      onQueueFailed: (portId, queueIndex) => this.#ports.withId(portId)?.queueFailed(queueIndex),
      onQueueWaits: (portId, queueIndex, misses) =>
        this.#ports.withId(portId)?.queueWaits?.(queueIndex, misses),
    });
    const arenaView = new ArenaView(this.#arena.location);
    // What there is to say of it is said once the ports are there: a start that fails is told in one line.
    const events: RecordsEvents = {
      info: (text) => this.#whenStarted(() => log.info(text)),
      warn: (text) => this.#whenStarted(() => log.warn(text)),
    };
    this.#records =
      config.positionsFile === null
        ? null
        : new RingRecords(
            config.positionsFile,
            this.#arena,
            arenaView,
            events,
            undefined,
            handedPositionsFd(config.positionsFile, taken),
          );
    this.#ports = new PortTable({
      arena: this.#arena,
      arenaView,
      records: this.#records,
      workers: this.#workers,
      handedTo: ({ name }) => taken?.ports[name] ?? null,
      controlSocket: config.controlSocket,
      eventsOf: (portId, name) => this.#eventsOf(portId, name),
      onForgotten: (port, counts) => this.#forget(port, counts),
    });
    this.#clock = setInterval(() => this.#onTick(), TICK_MS);
  }

  /**
   * Starts the workers and every port.
   * @throws ConfigError, SocketPathError or HostError when a port cannot be; then nothing is left behind
   */
  static async start(config: SwitchConfig, log: Logger, taken: SwitchState | null = null): Promise<Switch> {
    const created = new Switch(config, log, taken);
    try {
      for (const port of config.ports) await created.addPort(port);
    } catch (error) {
      // What was taken over is still the other process's, which goes on; this one comes to its end, and lets all lie.
      await (taken === null ? created.stop() : created.leave());
      throw error;
    }
    for (const say of created.#toSay?.splice(0) ?? []) say();
    created.#toSay = null;
    if (created.#arena.location.sizeBytes < config.arenaBytes) {
      log.warn(
        { bytes: created.#arena.location.sizeBytes },
        'the system allowed a smaller arena than asked for',
      );
    }
    if (!peerSignalsNeverWait()) {
      log.warn(
        'the system allows no asynchronous I/O (io_setup; see /proc/sys/fs/aio-max-nr): a front-end that means harm can stop a worker',
      );
    }
    return created;
  }

  /** Rejects when a worker died, which is a bug: the process should end with its message. */
  get failed(): Promise<never> {
    return this.#workers.failed;
  }

  /** As of Giver (takeover/give.ts), with `handOver`, `rest`, `positions` and `goOn`. */
  async freeze(): Promise<void> {
    this.#frozen = await this.#ports.freeze();
  }

  handOver(): SwitchState {
    const fd = this.#records?.fd ?? null;
    const nameOf = (id: number): string => this.#ports.withId(id)?.name ?? '';
    return {
      ports: Object.fromEntries(this.#frozen.map((port) => [port.name, port.handOver()])),
      positionsFile: this.#records === null || fd === null ? null : { path: resolve(this.#records.path), fd },
      fdb: this.#fdb
        .entries()
        .map(({ macLo, macHi, vlan, port, lastSeenTick }) => [
          macLo,
          macHi,
          vlan,
          nameOf(port),
          this.#tick - lastSeenTick,
        ]),
    };
  }

  /** First those that frames come from, so that none is on its way when the others let go. */
  async rest(): Promise<void> {
    for (const rest of ['senders', 'all'] as const)
      await Promise.all(this.#frozen.map((port) => port.setRest(rest)));
  }

  positions(): SwitchPositions {
    return Object.fromEntries(
      this.#frozen.map((port) => [
        port.name,
        { positions: port.positions(), workerCounts: [...this.#workers.countsOf(port.id)] },
      ]),
    );
  }

  async goOn(): Promise<void> {
    for (const rest of ['senders', 'none'] as const)
      await Promise.all(this.#frozen.map((port) => port.setRest(rest)));
    for (const port of this.#frozen) port.thaw();
    this.#frozen = [];
    this.#ports.thaw();
  }

  /** Resolves when every port that was handed over is there, at rest. @throws HandOverError when they are not the same */
  async takenOver(): Promise<void> {
    const taken = this.#taken?.ports ?? {};
    const own = this.#ports.ports.map(({ name }) => name);
    const other = own.find((name) => !Object.hasOwn(taken, name));
    if (other !== undefined)
      throw new HandOverError(
        `port ${other} is not there in the running Ringway: add it before, or afterwards`,
      );
    const missing = Object.keys(taken).find((name) => !own.includes(name));
    if (missing !== undefined)
      throw new HandOverError(
        `port ${missing} of the running Ringway is not in the settings: remove it before`,
      );
    await this.freeze();
    for (const [macLo, macHi, vlan, name, age] of this.#taken?.fdb ?? []) {
      const port = this.#ports.withName(name);
      if (port !== undefined) this.#fdb.learn(macLo, macHi, vlan, port.id, this.#tick - age);
    }
  }

  /** Every port stands where the other process left it, at rest; `goOn` is what comes next. @throws HandOverError */
  async goOnAt(handed: SwitchPositions): Promise<void> {
    for (const port of this.#frozen) {
      const { positions, workerCounts } = handed[port.name];
      this.#workers.takeOverCounts(port.id, workerCounts);
      await port.goOnAt(positions);
    }
  }

  /** As PortTable.add. @throws ConfigError, SocketPathError, HostError, PortConflictError */
  addPort(config: PortConfig): Promise<void> {
    return this.#ports.add(config);
  }

  /** As PortTable.change. What was learned behind the port is forgotten: it may be of another VLAN now. */
  async changePort(name: string, change: unknown): Promise<void> {
    this.#fdb.flushPort(await this.#ports.change(name, change));
  }

  /** Resolves when nothing of the port is left. @throws NoSuchPortError */
  removePort(name: string): Promise<void> {
    return this.#ports.remove(name);
  }

  ports(): PortReport[] {
    return this.#ports.ports.map((port) => this.#reportOf(port));
  }

  /** Null: there is none of that name. */
  port(name: string): PortReport | null {
    const port = this.#ports.withName(name);
    return port === undefined ? null : this.#reportOf(port);
  }

  /** The sum over all ports, with those that were removed. */
  totals(): Books {
    return sumBooks([this.#gone, ...this.#ports.ports.map((port) => this.#booksOf(port))]);
  }

  workers(): WorkReport[] {
    return this.#workers.work();
  }

  fdb(): FdbReport {
    const entries = this.#fdb.entries().map((entry) => ({
      mac: formatMac(entry.macLo, entry.macHi),
      vlan: entry.vlan,
      port: this.#ports.withId(entry.port)?.name ?? `#${entry.port}`,
      ageSeconds: this.#tick - entry.lastSeenTick,
    }));
    return { capacity: this.#fdb.capacity, ageSeconds: this.#config.fdb.ageSeconds, entries };
  }

  /** All is another process's: ends the workers, which use no ring, and touches nothing else. The process is to end. */
  async leave(): Promise<void> {
    clearInterval(this.#clock);
    await this.#workers.stop();
  }

  /** Stops every ring, removes the sockets and ends the workers. */
  async stop(): Promise<void> {
    clearInterval(this.#clock);
    await this.#ports.close();
    await this.#workers.stop();
    this.#records?.close();
    // The arena stays reserved until the process ends: a view of it could still be reachable.
  }

  #whenStarted(say: () => void): void {
    if (this.#toSay === null) say();
    else this.#toSay.push(say);
  }

  #forget(port: Port, counts: Float64Array): void {
    this.#fdb.flushPort(port.id);
    this.#gone = sumBooks([this.#gone, booksOf(port.counters, port.states, counts)]);
  }

  #onTick(): void {
    this.#tick++;
    this.#workers.setTick(this.#tick);
    if (this.#tick % AGEING_PERIOD_TICKS === 0) this.#fdb.age(this.#tick, this.#config.fdb.ageSeconds);
  }

  #eventsOf(id: number, port: string): PortEvents {
    const rate = new LogRate((level, message) => this.#log[level]({ port }, message));
    return {
      // Who lived behind it may turn up behind another port.
      disconnected: () => this.#fdb.flushPort(id),
      info: (message) => rate.note('info', message),
      warn: (message) => rate.note('warn', message),
    };
  }

  #reportOf(port: Port): PortReport {
    const queues = port.queues.map((queue) => this.#queueReport(port, queue));
    const { state, reason } = port.status;
    const settings = effectiveSettings(this.#ports.configOf(port.id));
    const reasons = [reason, this.#ports.remarkOn(port)].filter((text) => text !== null);
    return {
      name: port.name,
      kind: port.kind,
      endpoint: port.endpoint,
      state,
      reason: shown(reasons.length > 0 ? reasons.join('; ') : null),
      queuePairs: runningPairs(queues),
      mtu: smaller(port.mtu, settings.mtu),
      settings,
      details: port.details,
      queues,
      ...this.#booksOf(port),
    };
  }

  #queueReport(port: Port, queue: PortQueue): QueueReport {
    const { counts } = new QueueState(port.states, queue.index);
    return {
      ...queue,
      reason: shown(queue.reason),
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

/** Null: the file is not the one that another process hands over. */
function handedPositionsFd(path: string, taken: SwitchState | null): number | null {
  const file = taken?.positionsFile ?? null;
  return file !== null && file.path === resolve(path) ? file.fd : null;
}

/** Of two, where each may be unknown. */
function smaller(a: number | null, b: number | null): number | null {
  return a === null || b === null ? (a ?? b) : Math.min(a, b);
}

/** A reason may have words of a peer in it. */
function shown(reason: string | null): string | null {
  return reason === null ? null : printable(reason);
}

/** Pairs with both queues started, enabled and without a fault. */
function runningPairs(queues: readonly PortQueue[]): number {
  const isRunning = (index: number): boolean =>
    queues.some((queue) => queue.index === index && queue.inUse && queue.reason === null);
  return queues.filter(({ index }) => index % 2 === 0 && isRunning(index) && isRunning(index + 1)).length;
}

/** @throws ConfigError when not even the smallest is granted: whoever set that limit can raise it */
function reserveArena(sizeBytes: number): Arena {
  try {
    return Arena.reserve(sizeBytes);
  } catch (error) {
    if (!(error instanceof HostError)) throw error;
    throw new ConfigError(
      `there is no room for the smallest arena: raise the limit on addresses (ulimit -v, LimitAS=): ${error.message}`,
    );
  }
}
