/**
 * The switch as one object: the arena, the forwarding table, the poll workers and the ports on them. What a
 * process starts, asks and stops; the command line and the control API stand on it. Main thread.
 */
import { resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { formatMac } from '../protocol/ethernet.ts';
import { formatIp } from '../protocol/ip-text.ts';
import { namedAdvice } from '../src/advice.ts';
import { adviceOnReason } from '../src/advice-on-reasons.ts';
import { type RecordsEvents, RingRecords } from '../src/device/ring-records.ts';
import { HostError } from '../src/host/errors.ts';
import { peerSignalsNeverWait } from '../src/host/peer-signal.ts';
import { printable } from '../src/host/printable.ts';
import { SocketPathError } from '../src/host/unix-socket.ts';
import { Arena } from '../src/memory/arena.ts';
import { ArenaView } from '../src/memory/arena-view.ts';
import { allocateScratch } from '../src/memory/scratch.ts';
import type { Port, PortEvents, PortQueue } from '../src/port/contract.ts';
import { type HandedPort, type HandOver, isMovable } from '../src/port/hand-over.ts';
import {
  COUNT_BYTES,
  COUNT_CALLS,
  COUNT_FRAMES,
  QueueState,
  queueStates,
  sumCounters,
} from '../src/queue/state.ts';
import { type CaptureReport, Captures, type StartedCapture } from './capture/captures.ts';
import { captureRequestOf } from './capture/request.ts';
import {
  effectiveSettings,
  loopRulesOf,
  snoopingOf,
  staticMacsOf,
  untaggedVlanOf,
  vlanOf,
} from './config/common-port.ts';
import { offloadNamesOf } from './config/kinds/index.ts';
import type { PortConfig, SwitchConfig } from './config/resolve.ts';
import { ConfigError } from './config/settings.ts';
import type { GroupChange } from './control/api.ts';
import { type Books, booksOf, NO_BOOKS, sumBooks } from './control/books.ts';
import type { FdbReport, PortReport, QueueReport, WorkReport } from './control/report.ts';
import { FiguresKeeper } from './figures/keeper.ts';
import type { FiguresReport } from './figures/report.ts';
import type { FiguresSnapshot } from './figures/snapshot.ts';
import { createFdbMemory, Fdb } from './l2/fdb/fdb.ts';
import { MOVES_BYTES, Moves } from './l2/fdb/moves.ts';
import { createGroupMemory, GroupTable } from './l2/groups/table.ts';
import { countsNamed, namedCounts } from './l2/port-counts.ts';
import type { Logger } from './log.ts';
import { LogRate } from './log-rate.ts';
import { type GuardedPort, LoopGuard, type LoopGuardHost, probeMac } from './loop-guard.ts';
import type { PluginSpec } from './plugin/bundle.ts';
import { type PluginNotes, type PluginReport, PluginTable } from './plugin/plugin-table.ts';
import { NoSuchPortError, PortConflictError } from './port-errors.ts';
import { PortTable } from './port-table.ts';
import { PORTS_MAX } from './ports-max.ts';
import type { DescriptorStore } from './service/store.ts';
import { ROUTER_VLANS_MAX } from './snooping/members.ts';
import type { MdbReport } from './snooping/report.ts';
import { SNOOPING_DEFAULTS } from './snooping/settings.ts';
import { Snooping } from './snooping/snooping.ts';
import { type KeptAddress, StaticAddresses } from './static-addresses.ts';
import { endHanded } from './takeover/end-handed.ts';
import type { SwitchPositions, SwitchState } from './takeover/format.ts';
import type { TraceQuestion, TraceReport } from './trace/report.ts';
import type { Tracer } from './trace/tracer.ts';
import { WorkerFailure } from './worker/failure.ts';
import { scratchBytes, WorkerPool } from './worker/pool.ts';

const TICK_MS = 1000;
/** How long a takeover waits for guests that offer no buffers; about as long as frames wait for them. */
const HELD_MS = 2000;
/** How long a stop waits for them: whoever asked for it waits. */
const STOP_HELD_MS = 200;
/** How long an end takes at most where a worker does not go on. */
const STOP_AFTER_FAILURE_MS = 2000;
/** Addresses are aged this often; one pass over a million of them takes some 20 ms of the main thread. */
const AGEING_PERIOD_TICKS = 10;

export class Switch {
  /** Rejects with WorkerFailure when a worker died, or does not come back from a plugin: the process should end. */
  readonly failed: Promise<never>;
  readonly #config: SwitchConfig;
  readonly #log: Logger;
  readonly #arena: Arena;
  readonly #arenaView: ArenaView;
  readonly #records: RingRecords | null;
  readonly #fdb: Fdb;
  readonly #statics: StaticAddresses;
  readonly #workers: WorkerPool;
  readonly #loopGuard: LoopGuard;
  /** As the workers have it. */
  readonly #moves: Moves;
  readonly #ports: PortTable;
  /** Made by the first question. */
  #tracer: Tracer | null = null;
  readonly #fdbMemory: SharedArrayBuffer;
  readonly #groupMemory: SharedArrayBuffer | null;
  /** Null: groups are flooded. */
  readonly #snooping: Snooping | null;
  readonly #captures: Captures;
  readonly #plugins: PluginTable;
  readonly #stuck = Promise.withResolvers<never>();
  readonly #figures: FiguresKeeper;
  readonly #clock: NodeJS.Timeout;
  /** The books of ports that were removed. */
  #gone: Books = NO_BOOKS;
  #tick = 0;
  /** How often any port's settings were changed. */
  #settingsChanges = 0;
  /** When the rings of this process, or of the one that is taken over from, began to rest. */
  #restNs = 0n;
  readonly #taken: SwitchState | null;
  /** Of these, the ports that nobody has taken over yet. */
  readonly #handed: Map<string, HandedPort>;
  /** Those that are handed over. */
  #frozen: readonly (Port & HandOver)[] = [];
  /** Lines for the log that wait until the ports are there; null: they are. */
  #toSay: (() => void)[] | null = [];
  /** Ports that are started once another process is gone; null: there is none. */
  #late: PortConfig[] | null;

  /**
   * `taken`: what another process hands over, null: nothing; `store`: where ports are kept for the next one, and what the one
   * before left is; null: nowhere.
   */
  private constructor(
    config: SwitchConfig,
    log: Logger,
    taken: SwitchState | null,
    store: DescriptorStore | null,
    kept: readonly KeptAddress[],
  ) {
    this.#taken = taken;
    this.#handed = new Map(Object.entries(taken?.ports ?? {}));
    this.#late = taken === null ? null : [];
    this.#config = config;
    this.#log = log;
    this.#arena = reserveArena(config.arenaBytes);
    const fdbMemory = createFdbMemory({ capacity: config.fdb.capacity, maxPorts: PORTS_MAX });
    this.#fdb = new Fdb(fdbMemory);
    this.#fdbMemory = fdbMemory;
    const { snooping } = config;
    const groupTable = !snooping.enabled
      ? null
      : createGroupMemory({
          capacity: snooping.groups + ROUTER_VLANS_MAX,
          portsMax: PORTS_MAX,
          floodsUnregistered: snooping.floodUnregistered,
          vlans: snooping.vlans,
        });
    this.#groupMemory = groupTable;
    this.#statics = new StaticAddresses(this.#fdb, kept);
    const sizeBytes = scratchBytes(config.cpus);
    const mac = probeMac();
    const moves = new SharedArrayBuffer(MOVES_BYTES);
    this.#loopGuard = new LoopGuard(this.#loopGuardHost(), mac);
    this.#moves = new Moves(moves);
    this.#workers = new WorkerPool({
      moves,
      probeMac: mac,
      onLoops: (probes, flapping) => {
        for (const probe of probes) this.#loopGuard.probeSeen(probe);
        for (const each of flapping) this.#loopGuard.flapping(each);
      },
      cpus: config.cpus,
      poll: config.poll,
      idleUs: config.idleUs,
      // There the other process's workers are at work.
      pinsLater: taken !== null,
      arena: this.#arena.location,
      fdb: fdbMemory,
      scratchOffset: allocateScratch(this.#arena, { name: 'ringway-workers', sizeBytes }).offset,
      vlanLimit: config.vlanLimit,
      groupTable,
      onSnooped: () => this.#snooping?.read(),
      onQueueFailed: (portId, queueIndex) => this.#ports.withId(portId)?.queueFailed(queueIndex),
      onQueueWaits: (portId, queueIndex, misses) =>
        this.#ports.withId(portId)?.queueWaits?.(queueIndex, misses),
      onPlugin: (report) => this.#plugins.heard(report),
    });
    this.#plugins = new PluginTable(this.#workers, log);
    this.failed = Promise.race([this.#workers.failed, this.#stuck.promise]);
    // It may fail before anybody waits for it.
    this.failed.catch(() => {});
    const arenaView = new ArenaView(this.#arena.location);
    this.#arenaView = arenaView;
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
      // Once: a port that is added by this name later is another one.
      handedTo: ({ name }) => {
        const handed = this.#handed.get(name) ?? null;
        this.#handed.delete(name);
        return handed;
      },
      leftOf: (port) => store?.leftOf(port) ?? null,
      keeperOf: (port) => store?.keeperOf(port) ?? null,
      pluginNames: () => this.#plugins.names,
      controlSocket: config.controlSocket,
      eventsOf: (portId, name) => this.#eventsOf(portId, name),
      onSettings: (port, settings) => {
        this.#settingsChanges++;
        this.#followAddresses(port.id, settings);
      },
      onForgotten: (port, counts) => this.#forget(port, counts),
    });
    this.#snooping = groupTable === null ? null : this.#snoopingOn(new GroupTable(groupTable));
    this.#captures = new Captures({
      arena: this.#arena,
      arenaView,
      workers: this.#workers,
      workerCount: config.cpus?.length ?? 1,
      ports: () => this.#ports.ports,
    });
    this.#figures = new FiguresKeeper({
      ports: () => this.#ports.ports,
      isShut: (portId) => this.#loopGuard.shutOf(portId) !== null,
      mtuOf: (port) => smaller(port.mtu, this.#ports.configOf(port.id).mtu ?? null),
      countsOf: (portId) => this.#workers.countsOf(portId),
      workers: () => this.#workers.workerCounts(),
      plugins: () => this.#plugins.reports(),
      fdb: () => ({ ...this.#fdb.counters, entries: this.#fdb.size, capacity: this.#fdb.capacity }),
      gone: () => this.#gone,
    });
    this.#clock = setInterval(() => this.#onTick(), TICK_MS);
  }

  /**
   * Starts the workers and every port. `kept`: addresses that were given to ports before, or stick there.
   * @throws ConfigError, SocketPathError or HostError when a port cannot be, WorkerFailure; then nothing is left behind
   */
  static async start(
    config: SwitchConfig,
    log: Logger,
    taken: SwitchState | null = null,
    store: DescriptorStore | null = null,
    kept: readonly KeptAddress[] = [],
  ): Promise<Switch> {
    const created = new Switch(config, log, taken, store, kept);
    try {
      await Promise.race([created.#begin(), created.failed]);
    } catch (error) {
      // What was taken over is still the other process's, which goes on; this one comes to its end, and lets all lie.
      await (taken === null ? created.stop() : created.leave()).catch(() => {});
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

  async #begin(): Promise<void> {
    // Before any port: no frame passes that they do not decide on.
    await this.#plugins.start(this.#config.plugins);
    // Their sockets are there while workers still load their program; which of two faults is told does not hang on chance.
    const added = this.#config.ports.map((port) => this.addPort(port));
    for (const each of added) each.catch(() => {});
    for (const each of added) await each;
  }

  /** Resolves when every worker's loop has turned. */
  allTurn(): Promise<void> {
    return this.#workers.allTurn();
  }

  /** As of Giver (takeover/give.ts), with `handOver`, `rest`, `positions` and `goOn`. */
  async freeze(): Promise<void> {
    // What they have copied is not handed over.
    this.#captures.endAll('the switch is being taken over');
    this.#frozen = await this.#ports.freeze();
  }

  handOver(): Omit<SwitchState, 'service'> {
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
      ...(this.#snooping !== null && { groups: this.#snooping.handOver() as SwitchState['groups'] }),
      shut: this.#shutPorts(),
    };
  }

  #shutPorts(): NonNullable<SwitchState['shut']> {
    const shut = this.#ports.ports.map(({ id, name }) => [name, this.#loopGuard.shutOf(id)] as const);
    return Object.fromEntries(
      shut.flatMap(([name, report]) => (report === null ? [] : [[name, report] as const])),
    );
  }

  async rest(): Promise<void> {
    // What a worker holds when it lets go of a queue is dropped. Frames flow meanwhile.
    await this.#workers.heldNothing(HELD_MS);
    this.#restNs = process.hrtime.bigint();
    await this.#setResting(this.#frozen, true);
  }

  async #setResting(ports: readonly (Port & HandOver)[], isResting: boolean): Promise<void> {
    await this.#workers.together(() => Promise.all(ports.map((port) => port.setResting(isResting))));
  }

  positions(): SwitchPositions {
    const ports = this.#frozen.map((port) => [
      port.name,
      { positions: port.positions(), workerCounts: namedCounts(this.#workers.countsOf(port.id)) },
    ]);
    return { ports: Object.fromEntries(ports), gone: this.#gone, restNs: String(this.#restNs) };
  }

  async goOn(): Promise<void> {
    await this.#setResting(this.#frozen, false);
    for (const port of this.#frozen) port.thaw();
    this.#frozen = [];
    this.#ports.thaw();
  }

  /** How long rings have rested by now. */
  get restMs(): number {
    return Number(process.hrtime.bigint() - this.#restNs) / 1e6;
  }

  /** Resolves when every port that is taken over is there, at rest. @throws HandOverError */
  async takenOver(): Promise<void> {
    await this.freeze();
    for (const [macLo, macHi, vlan, name, age] of this.#taken?.fdb ?? []) {
      const port = this.#ports.withName(name);
      if (port !== undefined) this.#fdb.learn(macLo, macHi, vlan, port.id, this.#tick - age);
    }
    for (const [name, report] of Object.entries(this.#taken?.shut ?? {})) {
      const port = this.#ports.withName(name);
      if (port !== undefined) this.#loopGuard.takeOver(port.id, report);
    }
    const groups = this.#taken?.groups;
    if (groups !== undefined)
      this.#snooping?.takeOver(groups, (name) => this.#ports.withName(name)?.id ?? null);
  }

  /** Once `takenOver`: what takes up the rings and uses them is compiled and has run. */
  async warmUp(): Promise<void> {
    if (this.#taken === null) return;
    const portIds = this.#ports.freeIds(2);
    const arena = this.#arena;
    const workers = this.#workers;
    const workerCount = this.#config.cpus?.length ?? 1;
    const host = { arena, arenaView: this.#arenaView, workers, workerCount, fdb: this.#fdb, portIds };
    // With the embedded guest, which nobody else needs.
    const { warmUp } = await import('./takeover/warm-up.ts');
    if (portIds.length === 2) await warmUp(host, this.#taken);
    await this.#arena.enterPages();
    await workers.pin();
  }

  /** The ports go on that a process left which came to a sudden end. All ports are there. */
  async takeUp(): Promise<void> {
    this.#frozen = await this.#ports.takeUp((port, why) =>
      this.#log.warn({ port }, `its front-end has to connect again after the sudden end: ${why}`),
    );
    // All at once, so that none sends to one that is not there yet.
    await this.goOn();
  }

  /** Every port stands where the other process left it, at rest; `goOn` is what comes next. @throws HandOverError */
  async goOnAt({ ports, gone, restNs }: SwitchPositions): Promise<void> {
    this.#restNs = BigInt(restNs);
    const ended = Object.entries(ports).filter(([name]) => this.#ports.withName(name) === undefined);
    this.#gone = sumBooks([gone, ...ended.map(([, port]) => booksOfHanded(port))]);
    const all = this.#frozen.map((port) => {
      const { positions, workerCounts } = ports[port.name];
      this.#workers.takeOverCounts(port.id, countsNamed(workerCounts));
      return port.goOnAt(positions);
    });
    await Promise.all(all);
  }

  /**
   * As PortTable.add. While another process is taken over from, a port that it has not is only noted, for `startLate`.
   * @throws ConfigError, SocketPathError, HostError, PortConflictError
   */
  async addPort(config: PortConfig): Promise<void> {
    const taken = this.#taken?.ports ?? null;
    if (this.#late === null || taken === null || Object.hasOwn(taken, config.name)) {
      await this.#ports.add(config);
      return;
    }
    this.#late.push(config);
  }

  /**
   * Once frames flow here and the other process is gone: starts the ports that it had not, and ends those that only it
   * had. What cannot be is said in the log: guests are served already.
   */
  async startLate(): Promise<void> {
    const late = this.#late ?? [];
    this.#late = null;
    for (const [name, port] of this.#handed) {
      endHanded(port);
      this.#log.warn({ port: name }, 'is not in the settings, and has ended');
    }
    this.#handed.clear();
    for (const config of late) {
      try {
        await this.#ports.add(config);
        this.#log.info({ port: config.name }, 'is new');
      } catch (error) {
        if (
          ![ConfigError, SocketPathError, HostError, PortConflictError].some((type) => error instanceof type)
        )
          throw error;
        this.#log.error({ port: config.name }, `cannot be added: ${(error as Error).message}`);
      }
    }
  }

  /** As PortTable.change. What was learned behind the port is forgotten: it may be of another VLAN now. */
  async changePort(name: string, change: unknown): Promise<void> {
    const id = await this.#ports.change(name, change);
    this.#fdb.flushPort(id);
    this.#snooping?.forgetPort(id, false);
    if (typeof change === 'object' && change !== null && 'loopGuard' in change) this.#loopGuard.settle(id);
  }

  plugins(): PluginReport[] {
    return this.#plugins.reports();
  }

  /** @throws NoSuchPluginError */
  pluginNotes(name: string): PluginNotes {
    return this.#plugins.notes(name);
  }

  /** Frames pass it from now on, after those that are there. @throws ConfigError, PortConflictError */
  async addPlugin(spec: PluginSpec): Promise<void> {
    this.#ports.refuseWhileFrozen();
    await this.#plugins.add(spec);
  }

  /** As PluginTable.reload. @throws PortConflictError besides */
  async reloadPlugins(names?: readonly string[]): Promise<void> {
    this.#ports.refuseWhileFrozen();
    await this.#plugins.reload(names);
  }

  /** @throws NoSuchPluginError; PortConflictError when ports name it */
  async removePlugin(name: string): Promise<void> {
    this.#ports.refuseWhileFrozen();
    const ports = this.#ports.namingPlugin(name);
    if (ports.length > 0) throw new PortConflictError(`plugin ${name} is named by ${ports.join(', ')}`);
    await this.#plugins.remove(name);
  }

  /** As PluginTable.replaceAll. @throws PortConflictError besides */
  async setPlugins(specs: readonly PluginSpec[]): Promise<void> {
    this.#ports.refuseWhileFrozen();
    await this.#plugins.replaceAll(specs);
  }

  /** As PluginTable.try. */
  tryPlugins(specs: readonly PluginSpec[]): Promise<void> {
    return this.#plugins.try(specs);
  }

  get pluginSpecs(): readonly PluginSpec[] {
    return this.#plugins.specs;
  }

  get portConfigs(): readonly PortConfig[] {
    return this.#ports.settled.map(({ config }) => config);
  }

  /** Resolves when nothing of the port is left. @throws NoSuchPortError */
  async removePort(name: string): Promise<void> {
    await this.#ports.remove(name);
    this.#statics.dropPort(name);
  }

  /** Is called with the addresses that are to be given to `start` the next time, whenever they change. */
  set onKeptAddresses(listener: (kept: readonly KeptAddress[]) => void) {
    this.#statics.onKept = listener;
  }

  /** Of those, what is not any more is there again: their ports were removed and came back. */
  restoreAddresses(before: readonly KeptAddress[]): void {
    this.#statics.restore(before, this.#tick);
  }

  /** The VLAN of the port's frames without a tag. @throws NoSuchPortError */
  untaggedVlanOf(portName: string): number {
    return untaggedVlanOf(this.#ports.configOf(this.#idOf(portName)));
  }

  /** @throws NoSuchPortError, PortConflictError */
  addAddress(mac: string, vlan: number, portName: string): void {
    this.#ports.refuseWhileFrozen();
    this.#statics.add(mac, vlan, portName, this.#tick);
  }

  /** @throws PortConflictError */
  removeAddress(mac: string, vlan: number | null): void {
    this.#ports.refuseWhileFrozen();
    this.#statics.remove(mac, vlan);
  }

  /** Null: of any. Answers how many there were. @throws NoSuchPortError, PortConflictError */
  flushAddresses(portName: string | null, vlan: number | null, isAll: boolean): number {
    this.#ports.refuseWhileFrozen();
    return this.#statics.flush(portName, vlan, isAll);
  }

  /** As Captures.start, of what was asked for. @throws ConfigError besides */
  async startCapture(query: unknown): Promise<StartedCapture> {
    this.#ports.refuseWhileFrozen();
    return this.#captures.start(captureRequestOf(query));
  }

  captures(): CaptureReport[] {
    return this.#captures.reports();
  }

  /** False: there is none of that number. */
  endCapture(id: number): boolean {
    return this.#captures.end(id, 'whoever asked for it ended it');
  }

  /** How many ports there are, and of how many frames may pass. */
  portCounts(): { readonly running: number; readonly all: number } {
    const { ports } = this.#ports;
    return { running: ports.filter(({ status }) => status.state === 'running').length, all: ports.length };
  }

  ports(): PortReport[] {
    return [...this.portReports()];
  }

  /** As `ports`, each when it is taken, for whoever lets others have their turn in between. */
  *portReports(): Generator<PortReport> {
    for (const { id } of this.#ports.ports) {
      const port = this.#ports.withId(id);
      if (port !== undefined) yield this.#reportOf(port);
    }
  }

  /**
   * Of each port a text that is another one when a person would notice something of the port, or settings were changed. Costs
   * little beside its report, for it is asked each second of all.
   */
  *portGlances(): Generator<string> {
    for (const { id } of this.#ports.ports) {
      const port = this.#ports.withId(id);
      if (port === undefined) continue;
      const { state, reason } = port.status;
      const pairs = runningPairs(port.queues);
      const notes = [reason, this.#ports.remarkOn(port), this.#loopGuard.shutOf(id)?.why];
      yield JSON.stringify([port.name, state, pairs, port.mtu, this.#settingsChanges, ...notes]);
    }
  }

  /** Null: there is none of that name. */
  port(name: string): PortReport | null {
    const port = this.#ports.withName(name);
    return port === undefined ? null : this.#reportOf(port);
  }

  /** The sum over all ports, with those that were removed. */
  totals(): Books {
    return this.#figures.totals();
  }

  figures(version: string): FiguresSnapshot {
    return this.#figures.snapshot(version);
  }

  figuresReport(version: string): FiguresReport {
    return this.#figures.report(version);
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
      static: entry.isStatic,
    }));
    const moved = Object.fromEntries(
      this.#ports.ports.map(({ id, name }) => [name, this.#fdb.movesTo(id)] as const),
    );
    return { capacity: this.#fdb.capacity, ageSeconds: this.#config.fdb.ageSeconds, moved, entries };
  }

  mdb(): MdbReport {
    return (
      this.#snooping?.report() ?? {
        enabled: false,
        capacity: this.#config.snooping.groups,
        ageSeconds: SNOOPING_DEFAULTS.ageSeconds,
        floodUnregistered: true,
        groups: [],
        routers: [],
        queriers: [],
        lostMessages: 0,
        evicted: 0,
      }
    );
  }

  /** Has the port be a member for good. @throws NoSuchPortError, PortConflictError */
  addGroup({ port, vlan, group }: GroupChange): void {
    this.#ports.refuseWhileFrozen();
    const id = this.#idOf(port);
    if (!this.#snoopingOrRefusal().add(vlan, group, id))
      throw new PortConflictError('there is no room for another group');
  }

  /** @throws NoSuchPortError, PortConflictError */
  removeGroup({ port, vlan, group }: GroupChange): void {
    this.#ports.refuseWhileFrozen();
    const id = this.#idOf(port);
    if (!this.#snoopingOrRefusal().remove(vlan, group, id))
      throw new PortConflictError(`${port} is no member of ${formatIp(group)} in VLAN ${vlan}`);
  }

  /** Forgets what was learned; null: of all. @throws NoSuchPortError, PortConflictError */
  flushGroups({ port, vlan }: { readonly port: string | null; readonly vlan: number | null }): void {
    this.#ports.refuseWhileFrozen();
    const id = port === null ? null : this.#idOf(port);
    this.#snoopingOrRefusal().flush(vlan, id);
  }

  #idOf(name: string): number {
    const port = this.#ports.withName(name);
    if (port === undefined) throw new NoSuchPortError(name);
    return port.id;
  }

  #snoopingOrRefusal(): Snooping {
    if (this.#snooping === null)
      throw new PortConflictError('groups are not looked at: snooping is off (ringway run --snooping)');
    return this.#snooping;
  }

  #snoopingOn(table: GroupTable): Snooping {
    return new Snooping(this.#config.snooping, {
      table,
      takeMessages: () => this.#workers.takeMessages(),
      lostMessages: () => this.#workers.lostMessages,
      emit: (frame, vlan, portIds) => void this.#workers.emitInVlan(frame, vlan, portIds),
      settingsOf: (portId) =>
        this.#ports.withId(portId) === undefined ? null : snoopingOf(this.#ports.configOf(portId)),
      nameOf: (portId) => this.#ports.withId(portId)?.name ?? null,
      portIds: () => this.#ports.ports.map(({ id }) => id),
      vlansInUse: () => this.#vlansInUse(),
    });
  }

  /** VLANs that ports are set to, and 0, which frames without a tag are in elsewhere. */
  #vlansInUse(): number[] {
    const vlans = new Set([0]);
    for (const { id } of this.#ports.ports) {
      const { tag, trunks } = vlanOf(this.#ports.configOf(id));
      vlans.add(tag);
      for (const vlan of trunks ?? []) vlans.add(vlan);
    }
    return [...vlans].sort((a, b) => a - b);
  }

  /** What would become of a frame; nothing is changed by it. @throws NoSuchPortError */
  async trace(question: TraceQuestion): Promise<TraceReport> {
    // With a forwarder of its own, whose program only workers have otherwise.
    const { Tracer } = await import('./trace/tracer.ts');
    this.#tracer ??= new Tracer({
      arena: this.#arena,
      arenaView: this.#arenaView,
      fdb: this.#fdbMemory,
      groupTable: this.#groupMemory,
      vlanLimit: this.#config.vlanLimit,
      workerCount: this.#workers.workerCount,
    });
    if (this.#ports.withName(question.port) === undefined) throw new NoSuchPortError(question.port);
    const ports = this.#ports.ports.map((port) => ({
      id: port.id,
      name: port.name,
      text: [`${port.name}: ${port.kind}, ${port.status.state}`, shown(port.status.reason)]
        .filter((text) => text !== null)
        .join(': '),
      view: this.#workers.viewOf(port.id),
    }));
    return this.#tracer.traceWith(this.#plugins.loaded, question, ports, this.#tick);
  }

  /**
   * All is another process's: ends the workers, which use no ring, and touches nothing else. The process is to end. Rejects as
   * `stop` does.
   */
  async leave(): Promise<void> {
    clearInterval(this.#clock);
    this.#snooping?.close();
    await this.#unlessFailed(this.#workers.stop());
  }

  /**
   * Stops every ring, removes the sockets and ends the workers. Rejects with WorkerFailure when one does not go on; most is let
   * go of by then.
   */
  async stop(): Promise<void> {
    clearInterval(this.#clock);
    await this.#unlessFailed(this.#stopAll());
  }

  async #stopAll(): Promise<void> {
    // What does not need the worker that failed is done still.
    const orFailure = (work: Promise<unknown>): Promise<unknown> =>
      Promise.race([work, this.failed.catch(() => {})]);
    this.#snooping?.close();
    await orFailure(this.#captures.close());
    // One port after the other, a frame would come to one that is gone from one that is not yet. So it stays in its ring.
    await this.#workers.heldNothing(STOP_HELD_MS);
    await orFailure(this.#setResting(this.#ports.ports.filter(isMovable), true));
    await orFailure(this.#ports.close());
    await this.#workers.stop();
    this.#records?.close();
    // The arena stays reserved until the process ends: a view of it could still be reachable.
  }

  /** What waits for answers of workers: one that does not go on never answers. */
  async #unlessFailed(work: Promise<void>): Promise<void> {
    const watch = setInterval(() => this.#lookForStuck(), TICK_MS);
    let failure: unknown = null;
    const failed = this.failed.catch((error) => {
      failure = error;
      return sleep(STOP_AFTER_FAILURE_MS);
    });
    await Promise.race([work, failed]).finally(() => clearInterval(watch));
    if (failure !== null) throw failure;
  }

  #whenStarted(say: () => void): void {
    if (this.#toSay === null) say();
    else this.#toSay.push(say);
  }

  #forget(port: Port, counts: Float64Array): void {
    this.#loopGuard.forget(port.id);
    this.#fdb.forgetMoves(this.#moves, port.id);
    this.#snooping?.forgetPort(port.id, true);
    this.#captures.forgetPort(port.id);
    this.#figures.forgetPort(port.id);
    this.#statics.forgetPort(port.id, port.name);
    this.#gone = sumBooks([this.#gone, booksOf(port.counters, port.states, counts)]);
  }

  #onTick(): void {
    this.#tick++;
    this.#workers.setTick(this.#tick);
    this.#snooping?.tick(this.#tick);
    this.#statics.noteSticky();
    this.#figures.tick();
    this.#plugins.tick(this.#tick);
    this.#lookForStuck();
    this.#loopGuard.onTick(this.#tick);
    if (this.#tick % AGEING_PERIOD_TICKS === 0) this.#fdb.age(this.#tick, this.#config.fdb.ageSeconds);
  }

  #lookForStuck(): void {
    const stuck = this.#workers.stuckPlugin();
    if (stuck === null) return;
    this.#stuck.reject(WorkerFailure.ofPlugin(this.#plugins.nameOf(stuck.plugin), stuck.worker));
  }

  #followAddresses(id: number, config: PortConfig): void {
    const { name, macsSticky } = config;
    const port = { id, name, staticMacs: staticMacsOf(config), sticks: macsSticky === true };
    for (const { mac, vlan } of this.#statics.followPort(port, this.#tick)) {
      this.#log.warn({ port: name, mac, vlan }, 'is not static: half of the forwarding table is already');
    }
  }

  #loopGuardHost(): LoopGuardHost {
    return {
      ports: () =>
        this.#ports.settled.map(({ port, config, isSwitched }): GuardedPort => {
          const { loopGuard, loopShutSeconds } = loopRulesOf(config);
          const { id, name, status } = port;
          const isRunning = status.state === 'running' && isSwitched;
          return {
            id,
            name,
            guard: loopGuard,
            shutSeconds: loopShutSeconds,
            vlan: config.tag ?? 0,
            isRunning,
          };
        }),
      send: (portId, frame) => void this.#workers.emit(portId, frame),
      setShut: (portId, isShut) => void this.#setShut(portId, isShut),
      warn: (port, text) => this.#log.warn({ port }, text),
      info: (port, text) => this.#log.info({ port }, text),
    };
  }

  /** What was learned behind a port that is shut is forgotten once no worker learns there any more. */
  async #setShut(portId: number, isShut: boolean): Promise<void> {
    await this.#workers.setPolicy(portId, { isShut });
    if (isShut) this.#fdb.flushPort(portId);
  }

  #eventsOf(id: number, port: string): PortEvents {
    const rate = new LogRate((level, message) => this.#log[level]({ port }, message));
    return {
      // Who lived behind it may turn up behind another port.
      disconnected: () => {
        this.#fdb.flushPort(id);
        this.#snooping?.forgetPort(id, false);
      },
      info: (message) => rate.note('info', message),
      warn: (message) => rate.note('warn', message),
    };
  }

  #reportOf(port: Port): PortReport {
    const queues = port.queues.map((queue) => this.#queueReport(port, queue));
    const { state, reason } = port.status;
    const config = this.#ports.configOf(port.id);
    const settings = effectiveSettings(config, offloadNamesOf(config.kind));
    const shut = this.#loopGuard.shutOf(port.id);
    const shutText = shut === null ? null : `shut for ${shut.secondsLeft} s because of a loop: ${shut.why}`;
    const reasons = [shutText, reason, this.#ports.remarkOn(port)].filter((text) => text !== null);
    const whole = reasons.length > 0 ? reasons.join('; ') : null;
    return {
      name: port.name,
      kind: port.kind,
      endpoint: port.endpoint,
      state,
      reason: shown(whole),
      advice: whole === null ? null : namedAdvice(adviceOnReason(port.kind, whole)),
      shut,
      queuePairs: runningPairs(queues),
      mtu: smaller(port.mtu, settings.mtu),
      settings,
      details: port.details,
      ...(this.#snooping !== null && { groups: this.#snooping.groupsOf(port.id) }),
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

function booksOfHanded({ positions, workerCounts }: SwitchPositions['ports'][string]): Books {
  const { counts } = positions;
  const states = queueStates(counts.length);
  for (const [i, queue] of counts.entries()) new QueueState(states, i).counts.set(queue);
  return booksOf(sumCounters(states, counts.length >> 1), states, countsNamed(workerCounts));
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
