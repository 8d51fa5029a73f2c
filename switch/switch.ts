/**
 * The switch as one object: the arena, the forwarding table, the poll workers and the ports on them. What a
 * process starts, asks and stops; the command line and the control API stand on it. Main thread.
 */
import { bitNames } from '../protocol/bits.ts';
import { formatMac, parseMac } from '../protocol/ethernet.ts';
import { PROTOCOL_FEATURE } from '../protocol/vhost-user/features.ts';
import { VIRTIO_FEATURE } from '../protocol/virtio/features.ts';
import type { Device } from '../src/device/device.ts';
import type { Ring } from '../src/device/ring.ts';
import { Arena } from '../src/memory/arena.ts';
import { ArenaView } from '../src/memory/arena-view.ts';
import type { PortEvents } from '../src/port/contract.ts';
import { VhostUserPort } from '../src/port/vhost-user.ts';
import { COUNT_BYTES, COUNT_CALLS, COUNT_FRAMES, RingState } from '../src/vring/ring-state.ts';
import { ConfigError, type PortConfig, type SwitchConfig } from './config.ts';
import { createFdbMemory, Fdb } from './fdb.ts';
import type { Logger } from './log.ts';
import type { FdbReport, PortReport, QueueReport } from './report.ts';
import { WorkerPool } from './worker-pool.ts';

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
  readonly #ports = new Map<number, VhostUserPort>();
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
      onRingFailed: (portId, ringIndex) => this.#ports.get(portId)?.ringFailed(ringIndex),
    });
    this.#clock = setInterval(() => this.#onTick(), TICK_MS);
  }

  /**
   * Starts the workers and every port.
   * @throws ConfigError or SocketPathError when a port cannot be; then nothing is left behind
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

  /** @throws ConfigError (its name is taken, there are too many), SocketPathError */
  async addPort(config: PortConfig): Promise<void> {
    if (this.#portNamed(config.name) !== undefined) {
      throw new ConfigError(`port ${config.name} exists already`);
    }
    const id = this.#freeId();
    const port = new VhostUserPort(
      {
        id,
        name: config.name,
        socketPath: config.socket,
        role: config.role,
        listen: {
          ...(config.mode === undefined ? {} : { mode: config.mode }),
          ...(config.owner === undefined ? {} : { owner: config.owner }),
        },
        device: {
          queuePairsMax: config.queues,
          configSpace: config.configSpace,
          mac: config.mac === undefined ? null : parseMac(config.mac),
          mtu: config.mtu ?? null,
        },
      },
      {
        arena: this.#arena,
        arenaView: this.#arenaView,
        dataPath: this.#workers,
        events: this.#eventsOf(id, config.name),
      },
    );
    this.#ports.set(id, port);
    await this.#workers.addPort(id);
    try {
      port.start();
    } catch (error) {
      await this.#forget(port);
      throw error;
    }
  }

  /** @throws ConfigError when there is no such port */
  async removePort(name: string): Promise<void> {
    const port = this.#portNamed(name);
    if (port === undefined) throw new ConfigError(`there is no port ${name}`);
    await port.stop();
    await this.#forget(port);
  }

  ports(): PortReport[] {
    return [...this.#ports.values()].map((port) => this.#reportOf(port));
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
      await port.stop();
      await this.#forget(port);
    }
    await this.#workers.stop();
    // The arena stays reserved until the process ends: a view of it could still be reachable.
  }

  async #forget(port: VhostUserPort): Promise<void> {
    await this.#workers.removePort(port.id);
    this.#fdb.flushPort(port.id);
    this.#ports.delete(port.id);
  }

  #onTick(): void {
    this.#tick++;
    this.#workers.setTick(this.#tick);
    if (this.#tick % AGEING_PERIOD_TICKS === 0) this.#fdb.age(this.#tick, this.#config.fdb.ageSeconds);
  }

  #portNamed(name: string): VhostUserPort | undefined {
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

  #reportOf(port: VhostUserPort): PortReport {
    const { device, options } = port;
    const queues = device === null ? [] : device.rings.map((ring) => this.#queueReport(port, device, ring));
    const isPairRunning = (pair: number): boolean =>
      [2 * pair, 2 * pair + 1].every((index) =>
        queues.some(
          (queue) => queue.index === index && queue.started && queue.enabled && queue.reason === null,
        ),
      );
    const pairs = Array.from({ length: options.device.queuePairsMax }, (_, pair) => pair);
    return {
      name: port.name,
      socket: options.socketPath,
      role: options.role,
      ...port.status,
      queuePairs: pairs.filter(isPairRunning).length,
      features: bitNames(device?.features ?? 0n, VIRTIO_FEATURE),
      protocolFeatures: bitNames(device?.protocolFeatures ?? 0n, PROTOCOL_FEATURE),
      mtu: device?.mtu ?? null,
      memoryBytes: device?.memoryBytes ?? 0,
      queues,
      counters: countersOf(port),
      drops: this.#workers.dropsOf(port.id),
    };
  }

  #queueReport(port: VhostUserPort, device: Device, ring: Ring): QueueReport {
    const { counts } = ring.state;
    return {
      index: ring.index,
      direction: device.directionOf(ring),
      size: ring.size,
      started: ring.started,
      enabled: ring.enabled,
      worker: this.#workers.workerOf(port.id, ring.index),
      frames: counts[COUNT_FRAMES]!,
      bytes: counts[COUNT_BYTES]!,
      calls: counts[COUNT_CALLS]!,
      reason: ring.reason,
    };
  }
}

/** Frames and bytes over all rings since the port was added; the control virtqueue's commands left out. */
function countersOf(port: VhostUserPort): PortReport['counters'] {
  const sums = { fromGuestFrames: 0, fromGuestBytes: 0, toGuestFrames: 0, toGuestBytes: 0 };
  const pairCount = port.options.device.queuePairsMax;
  for (let index = 0; index < 2 * pairCount; index++) {
    if (port.device?.rings.find((ring) => ring.index === index)?.user === 'control') continue;
    const { counts } = new RingState(port.states, index);
    const side = index % 2 === 0 ? 'toGuest' : 'fromGuest';
    sums[`${side}Frames`] += counts[COUNT_FRAMES]!;
    sums[`${side}Bytes`] += counts[COUNT_BYTES]!;
  }
  return sums;
}
