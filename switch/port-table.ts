/**
 * The ports of the switch, each with one life cycle that cannot be entered twice: adding, running, removing, gone.
 * Removing may begin while the port is still being added; then adding ends with an error, and in every case
 * nothing is left. A port's name, number and endpoint are its own from the call that adds it until every worker has
 * forgotten it. Main thread.
 */
import { HandOverError } from '../src/device/hand-over.ts';
import type { RingRecords } from '../src/device/ring-records.ts';
import type { Arena } from '../src/memory/arena.ts';
import type { ArenaView } from '../src/memory/arena-view.ts';
import type { Port, PortEvents } from '../src/port/contract.ts';
import {
  type HandedPort,
  type HandOver,
  type KeepPort,
  movable,
  type PortNote,
  type PortPositions,
  takenUp,
} from '../src/port/hand-over.ts';
import type { DataPath } from '../src/queue/data-path.ts';
import { Claims } from './config/clashes.ts';
import { policyOf, tuningOf } from './config/common-port.ts';
import type { CopiedPorts } from './config/kinds/contract.ts';
import { copiesOf, createPort } from './config/kinds/index.ts';
import { pluginClash } from './config/plugins.ts';
import { type PortConfig, resolveChange } from './config/resolve.ts';
import { ConfigError, faultError, portSubject } from './config/settings.ts';
import { NoSuchPortError, PortConflictError } from './port-errors.ts';
import { PORTS_MAX } from './ports-max.ts';

/** @throws HandOverError, which names the port */
function takeOver(port: Port, handed: HandedPort): void {
  try {
    movable(port).takeOver(handed);
  } catch (error) {
    throw error instanceof HandOverError ? new HandOverError(`port ${port.name}: ${error.message}`) : error;
  }
}

/** The workers, as far as ports need them. */
export type PortWorkers = DataPath & {
  addPort(portId: number, name: string): Promise<void>;
  /** Resolves when every worker has forgotten the port, with what they counted about it to the last frame. */
  removePort(portId: number): Promise<Float64Array>;
};

export type PortTableOptions = {
  readonly arena: Arena;
  readonly arenaView: ArenaView;
  /** Where guests' rings are noted; left out: nowhere. */
  readonly records?: RingRecords | null;
  readonly workers: PortWorkers;
  /** What another process had as the port of that name; left out, or null: nothing. */
  readonly handedTo?: (config: PortConfig) => HandedPort | null;
  /** What a process that came to a sudden end left of that port; left out, or null: nothing. Asked before `keeperOf`. */
  readonly leftOf?: (config: PortConfig) => PortNote | null;
  /** Who notes it for the next process; left out, or null: nobody. */
  readonly keeperOf?: (config: PortConfig) => KeepPort | null;
  /** Names of the plugins that there are; left out: of none. */
  readonly pluginNames?: () => readonly string[];
  /** Path of the control socket, which no port may have; null: there is none. */
  readonly controlSocket: string | null;
  readonly eventsOf: (portId: number, name: string) => PortEvents;
  /** The port has its number, and no worker knows it yet; or its settings have changed. */
  readonly onSettings?: (port: Port, config: PortConfig) => void;
  /** No worker knows the port any more; `counts` is what they counted about it. */
  readonly onForgotten: (port: Port, counts: Float64Array) => void;
};

type Entry = {
  readonly port: Port;
  config: PortConfig;
  /** Set right after the entry is made. Rejects when the port cannot be. */
  added: Promise<void>;
  /** The last change so far. Never rejects. */
  changed: Promise<void>;
  /** Not null: the port is being removed. Resolves when it is gone. */
  removed: Promise<void> | null;
  /** Not null: it waits, at rest, to go on from there. */
  left: PortPositions | null;
};

export class PortTable {
  readonly #options: PortTableOptions;
  readonly #entries = new Map<number, Entry>();
  readonly #claims = new Claims();
  #isClosed = false;
  #isFrozen = false;

  constructor(options: PortTableOptions) {
    this.#options = options;
    if (options.controlSocket !== null) this.#claims.claimControlSocket(options.controlSocket);
  }

  /** All that are not gone, those that are being added or removed too. */
  get ports(): Port[] {
    return [...this.#entries.values()].map(({ port }) => port);
  }

  /** Those that are there, the oldest first, with their settings. */
  get settled(): { readonly port: Port; readonly config: PortConfig; readonly isSwitched: boolean }[] {
    return [...this.#entries.values()]
      .filter(({ removed }) => removed === null)
      .map(({ port, config }) => ({ port, config, isSwitched: copiesOf(config) === null }));
  }

  withId(id: number): Port | undefined {
    return this.#entries.get(id)?.port;
  }

  withName(name: string): Port | undefined {
    return this.#named(name)?.port;
  }

  /** What is to be said of a port's place among the others: of whom it should get copies and cannot; null: nothing. */
  remarkOn(port: Port): string | null {
    const entry = this.#entries.get(port.id);
    const names = entry === undefined ? [] : (copiesOf(entry.config) ?? []);
    if (names === 'all') return null;
    const missing = names.filter((name) => this.#named(name)?.removed !== null);
    if (missing.length === 0) return null;
    return missing.length === 1
      ? `${missing[0]} is not there: it is mirrored once it is added`
      : `${missing.join(', ')} are not there: they are mirrored once they are added`;
  }

  /**
   * Resolves when the port has started to serve; then it waits for its other side, or has it.
   * @throws ConfigError, SocketPathError, HostError when it cannot be; PortConflictError when another of that name
   * is there, or it was removed meanwhile. Then nothing of it is left.
   */
  async add(config: PortConfig): Promise<void> {
    const entry = this.#enter(config);
    try {
      await entry.added;
    } catch (error) {
      await this.#remove(entry);
      throw error;
    }
    if (entry.removed === null) return;
    await entry.removed;
    throw new PortConflictError(`port ${config.name} was removed while it was added`);
  }

  /** @throws NoSuchPortError */
  configOf(id: number): PortConfig {
    const entry = this.#entries.get(id);
    if (entry === undefined) throw new NoSuchPortError(String(id));
    return entry.config;
  }

  /**
   * Changes settings of a running port (resolveChange); resolves when every worker follows them. The port is not
   * interrupted. Answers its id. @throws ConfigError, TuningError, then nothing has changed; NoSuchPortError
   */
  async change(name: string, change: unknown): Promise<number> {
    this.refuseWhileFrozen();
    const entry = this.#named(name);
    if (entry === undefined || entry.removed !== null) throw new NoSuchPortError(name);
    await entry.added;
    if (entry.removed !== null) throw new NoSuchPortError(name);
    // One at a time: each is a change of what the one before it left.
    const done = entry.changed.then(() => this.#apply(entry, change));
    entry.changed = done.catch(() => {});
    await done;
    return entry.port.id;
  }

  async #apply(entry: Entry, change: unknown): Promise<void> {
    const { port } = entry;
    if (entry.removed !== null) throw new NoSuchPortError(port.name);
    const config = resolveChange(entry.config, change);
    this.#checkPlugins(config);
    const tuning = tuningOf(config);
    if (tuning.mtu !== null && tuning.mtu > port.mtuMax) {
      const path = ['ports', port.name, 'mtu'];
      const text = `${tuning.mtu} is not allowed (at most ${port.mtuMax} while the port runs: remove it and add it again)`;
      throw faultError(portSubject(path), { path, text });
    }
    await port.tune(tuning);
    entry.config = config;
    // In one, so that it gets no frame by what it was and is not.
    const names = copiesOf(config);
    const copied = { copiesOf: names === null ? null : this.#sourcesOf(entry, names) };
    await this.#options.workers.setPolicy(port.id, { ...policyOf(config), ...copied });
    this.#options.onSettings?.(port, config);
  }

  /** Resolves when nothing of the port is left. @throws NoSuchPortError also when it is being removed already */
  async remove(name: string): Promise<void> {
    this.refuseWhileFrozen();
    const entry = this.#named(name);
    if (entry === undefined || entry.removed !== null) throw new NoSuchPortError(name);
    await this.#remove(entry);
  }

  /**
   * Resolves with all ports when each is there and is frozen; none can be added, changed or removed until `thaw`.
   * @throws HandOverError, PortConflictError
   */
  async freeze(): Promise<(Port & HandOver)[]> {
    this.#isFrozen = true;
    const entries = [...this.#entries.values()];
    const removed = entries.find((entry) => entry.removed !== null);
    if (removed !== undefined) throw new PortConflictError(`port ${removed.port.name} is being removed`);
    const ports = entries.map(({ port }) => movable(port));
    await Promise.all(entries.map(({ added, changed }) => Promise.all([added, changed])));
    await Promise.all(ports.map((port) => port.freeze()));
    return ports;
  }

  /**
   * Has the ports that a process left which came to a sudden end stand where it left them, at rest and frozen; answers
   * those. `tell` is called of each with a peer that had to be let go of.
   */
  async takeUp(tell: (portName: string, why: string) => void): Promise<readonly (Port & HandOver)[]> {
    const entries = [...this.#entries.values()].filter(({ left }) => left !== null);
    const ports = entries.map(({ port }) => takenUp(port));
    for (const [i, port] of ports.entries()) {
      const { left } = entries[i];
      entries[i].left = null;
      const why = left === null ? null : await port.takeUp(left);
      if (why !== null) tell(port.name, why);
    }
    return ports;
  }

  /** They can be again. */
  thaw(): void {
    this.#isFrozen = false;
  }

  /** What another process was told is not changed here. @throws PortConflictError */
  refuseWhileFrozen(): void {
    if (this.#isFrozen) throw new PortConflictError('the switch is being taken over');
  }

  /** Removes every port; none can be added from now on. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await Promise.all([...this.#entries.values()].map((entry) => this.#remove(entry)));
  }

  /** Takes name, number and endpoint, and begins to add: nothing is awaited before they are taken. */
  #enter(config: PortConfig): Entry {
    const { name } = config;
    this.refuseWhileFrozen();
    if (this.#isClosed) throw new PortConflictError('the switch is being stopped');
    const other = this.#named(name);
    if (other !== undefined) {
      throw new PortConflictError(
        `port ${name} ${other.removed === null ? 'exists already' : 'is being removed'}`,
      );
    }
    this.#checkPlugins(config);
    const id = this.#freeId();
    const clash = this.#claims.claim(config);
    if (clash !== null) throw faultError(portSubject(clash.path), clash);
    const { arena, arenaView, workers, eventsOf, records = null } = this.#options;
    const handed = this.#options.handedTo?.(config) ?? null;
    const left = handed === null ? (this.#options.leftOf?.(config) ?? null) : null;
    const port = createPort(config, {
      id,
      name,
      arena,
      arenaView,
      dataPath: workers,
      records,
      keep: this.#options.keeperOf?.(config) ?? null,
      events: eventsOf(id, name),
    });
    if (handed !== null) takeOver(port, handed);
    if (left !== null) takenUp(port).takeUpLater(left.handed);
    const entry: Entry = {
      port,
      config,
      added: Promise.resolve(),
      changed: Promise.resolve(),
      removed: null,
      left: left?.positions ?? null,
    };
    this.#entries.set(id, entry);
    this.#options.onSettings?.(port, config);
    entry.added = this.#bringUp(entry);
    return entry;
  }

  /** @throws ConfigError */
  #checkPlugins(config: PortConfig): void {
    const clash = pluginClash(config, this.#options.pluginNames?.() ?? []);
    if (clash !== null) throw faultError(portSubject(clash.path), clash);
  }

  /** Names of the ports that name the plugin. */
  namingPlugin(name: string): string[] {
    return [...this.#entries.values()]
      .filter(({ config }) => config.plugins?.includes(name) === true)
      .map(({ port }) => port.name);
  }

  async #bringUp({ port, config }: Entry): Promise<void> {
    const { workers } = this.#options;
    // They follow orders one after the other, so what the port has them do comes after these.
    const told = [
      workers.addPort(port.id, port.name),
      workers.setPolicy(port.id, policyOf(config)),
      this.#tellCopied(),
    ];
    // Does nothing if the port was stopped meanwhile.
    await Promise.all([...told, port.start()]);
  }

  #remove(entry: Entry): Promise<void> {
    entry.removed ??= this.#takeDown(entry);
    return entry.removed;
  }

  async #takeDown({ port, config, added }: Entry): Promise<void> {
    // At once, whatever it is waiting for; `add` tells what went wrong with adding.
    const stopped = port.stop();
    await added.catch(() => {});
    await stopped;
    // Who gets copies must not get those of the next port of this number.
    await this.#tellCopied();
    const counts = await this.#options.workers.removePort(port.id);
    this.#options.onForgotten(port, counts);
    this.#entries.delete(port.id);
    this.#claims.release(config);
  }

  /** Tells the workers which ports there are now of those that others get copies of. */
  async #tellCopied(): Promise<void> {
    // All at once: ports come and go while this waits.
    const told: Promise<void>[] = [];
    for (const entry of this.#entries.values()) {
      const names = copiesOf(entry.config);
      if (names === null || entry.removed !== null) continue;
      told.push(this.#options.workers.setPolicy(entry.port.id, { copiesOf: this.#sourcesOf(entry, names) }));
    }
    await Promise.all(told);
  }

  #sourcesOf(entry: Entry, names: CopiedPorts): { portId: number; name: string }[] {
    return [...this.#entries.values()]
      .filter((other) => other !== entry && other.removed === null)
      .filter(({ port }) => names === 'all' || names.includes(port.name))
      .map(({ port }) => ({ portId: port.id, name: port.name }));
  }

  #named(name: string): Entry | undefined {
    for (const entry of this.#entries.values()) if (entry.port.name === name) return entry;
    return undefined;
  }

  /** At most so many that no port has. */
  freeIds(count: number): number[] {
    const free: number[] = [];
    for (let id = 0; id < PORTS_MAX && free.length < count; id++) if (!this.#entries.has(id)) free.push(id);
    return free;
  }

  #freeId(): number {
    const [id] = this.freeIds(1);
    if (id === undefined) throw new ConfigError(`there are ${PORTS_MAX} ports already`);
    return id;
  }
}
