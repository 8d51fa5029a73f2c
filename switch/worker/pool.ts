/**
 * The poll workers as the main thread drives them: starts and stops their threads, places queues on them,
 * and is the data path that devices talk to. Every order goes to all workers that it concerns and resolves
 * when each has answered. Main thread.
 */
import { MessageChannel, type MessagePort, Worker } from 'node:worker_threads';
import { closeFd, createEventFd, signalFd } from '../../src/host/descriptor.ts';
import type { ArenaLocation } from '../../src/memory/arena.ts';
import type { AddressMap } from '../../src/memory/gpa-translator.ts';
import type { AddressMiss } from '../../src/memory/iotlb.ts';
import type { QueueAttachment } from '../../src/port/kinds.ts';
import type { DataPath } from '../../src/queue/data-path.ts';
import { DEFAULT_POLICY, type PortPolicy } from '../../src/queue/policy.ts';
import { QueueState, STATE_FAULT } from '../../src/queue/state.ts';
import type { RingLog } from '../../src/vring/dirty-log.ts';
import type { WorkReport } from '../control/report.ts';
import type { CaptureSetup } from '../l2/capture-ring.ts';
import type { Flapping } from '../l2/fdb/moves.ts';
import { createMessageRing, MessageRing, type SnoopedMessage } from '../l2/groups/message-ring.ts';
import type { ProbeSeen } from '../l2/loop-probes.ts';
import { PORT_COUNTS } from '../l2/port-counts.ts';
import { PORT_METERS_BYTES } from '../l2/port-meters.ts';
import type { PluginWorkers } from '../plugin/plugin-table.ts';
import { PluginWatch } from '../plugin/plugin-watch.ts';
import type { PluginOrder, PluginReport } from '../plugin/worker-plugins.ts';
import { WorkerFailure } from './failure.ts';
import {
  CONTROL_BYTES,
  CONTROL_EMPTY_TURNS,
  CONTROL_EPOCH,
  CONTROL_HOLDS_FRAMES,
  CONTROL_NEVER_BLOCKS,
  CONTROL_PLUGIN,
  CONTROL_PLUGIN_CALLS,
  CONTROL_SLEEPING,
  CONTROL_TICK,
  type NumberedOrder,
  type OrderMessage,
  type PollMode,
  WORKER_SCRATCH_BYTES,
  type WorkerOrder,
  type WorkerReport,
  type WorkerSetup,
} from './orders.ts';
import { type PlacedQueue, workerForQueue } from './placement.ts';
import { workerThreadName } from './thread-name.ts';
import { setWorkerFlags } from './v8-flags.ts';
import { readWorkerCounts, WORKER_FIGURES_BYTES, type WorkerCounts } from './worker-figures.ts';

export type WorkerPoolOptions = {
  /** One worker for each, pinned; null: one worker, not pinned. */
  readonly cpus: readonly number[] | null;
  /** Not before `pin`: who else uses these processors is not to be disturbed until then. */
  readonly pinsLater?: boolean;
  readonly poll: PollMode;
  readonly idleUs: number;
  readonly arena: ArenaLocation;
  readonly fdb: SharedArrayBuffer;
  /** Of `scratchBytes` in the arena. */
  readonly scratchOffset: number;
  readonly vlanLimit: number;
  /** Where groups of IP go; left out, or null: they are flooded. */
  readonly groupTable?: SharedArrayBuffer | null;
  /** A worker has messages about groups, see `takeMessages`. */
  readonly onSnooped?: () => void;
  /** Of MOVES_BYTES. */
  readonly moves: SharedArrayBuffer;
  readonly probeMac: Uint8Array;
  /** Workers saw signs of a loop. */
  readonly onLoops: (probes: readonly ProbeSeen[], flapping: readonly Flapping[]) => void;
  readonly onQueueFailed: (portId: number, queueIndex: number) => void;
  readonly onQueueWaits: (portId: number, queueIndex: number, misses: readonly AddressMiss[]) => void;
  /** What a worker tells of a plugin. */
  readonly onPlugin: (report: PluginReport) => void;
};

const LOOK_AGAIN_MS = 1;

/** A port as the workers see it. */
export type PortView = {
  readonly policy: PortPolicy;
  /** Indices of the egress queues that can be given frames, in order. */
  readonly egress: readonly number[];
  /** Who polls its first ingress queue; null: nobody, as while its other side is not there. */
  readonly worker: number | null;
  /** A copy of its buckets, of PORT_METERS_BYTES. */
  readonly meters: SharedArrayBuffer;
};

/** What so many workers need of the arena for themselves. */
export function scratchBytes(cpus: readonly number[] | null): number {
  return WORKER_SCRATCH_BYTES * (cpus?.length ?? 1);
}

export class WorkerPool implements DataPath, PluginWorkers {
  /** Rejects with WorkerFailure when a worker dies: a bug of ours that must end the process. */
  readonly failed: Promise<never>;
  readonly #threads: WorkerThread[];
  readonly #cpus: readonly number[];
  readonly #countsOfPort = new Map<number, SharedArrayBuffer>();
  readonly #metersOfPort = new Map<number, SharedArrayBuffer>();
  /** Of each worker; none where groups are flooded. */
  readonly #messages: readonly MessageRing[];
  readonly #policies = new Map<number, PortPolicy>();
  /** Egress queues that all workers have, by `portId:queueIndex`. */
  readonly #egress = new Map<string, QueueAttachment>();
  /** Worker that polls each ingress queue, by `portId:queueIndex`. */
  readonly #placement = new Map<string, PlacedQueue>();

  constructor(options: WorkerPoolOptions) {
    const cpus = options.cpus ?? [null];
    this.#cpus = options.cpus ?? [];
    setWorkerFlags();
    const table = options.groupTable ?? null;
    const rings = table === null ? [] : cpus.map(() => createMessageRing());
    this.#messages = rings.map((memory) => new MessageRing(memory));
    this.#threads = cpus.map(
      (cpu, index) =>
        new WorkerThread(
          {
            index,
            workerCount: cpus.length,
            cpu: options.pinsLater === true ? null : cpu,
            poll: options.poll,
            idleUs: options.idleUs,
            arena: options.arena,
            fdb: options.fdb,
            moves: options.moves,
            probeMac: options.probeMac,
            scratchOffset: options.scratchOffset + index * WORKER_SCRATCH_BYTES,
            vlanLimit: options.vlanLimit,
            groups: table === null ? null : { table, messages: rings[index] },
          },
          options,
        ),
    );
    this.failed = Promise.race(this.#threads.map((thread) => thread.failed));
    // Whoever starts the pool awaits `failed`; until then it must not count as unhandled.
    this.failed.catch(() => {});
    // Node joins its threads before it exits, and would wait for ever for one that blocks.
    process.once('exit', this.#neverBlock);
  }

  /** Pins each worker to its processor. */
  async pin(): Promise<void> {
    await Promise.all(this.#cpus.map((cpu, i) => this.#threads[i].order({ kind: 'pin', cpu })));
  }

  async addPort(portId: number, name: string): Promise<void> {
    const counts = new SharedArrayBuffer(PORT_COUNTS * 8 * this.#threads.length);
    this.#countsOfPort.set(portId, counts);
    const meters = new SharedArrayBuffer(PORT_METERS_BYTES);
    this.#metersOfPort.set(portId, meters);
    await this.#orderAll({ kind: 'addPort', portId, name, counts, meters });
  }

  /** What workers of another process counted about the port, which no frame has come to here. */
  takeOverCounts(portId: number, handed: Float64Array): void {
    const counts = this.#countsOfPort.get(portId);
    if (counts !== undefined) new Float64Array(counts).set(handed);
  }

  async orderPlugins(order: PluginOrder): Promise<void> {
    await this.#orderAll(order);
  }

  /** The number of a plugin that a worker has been in for too long; null: there is none. Call once a second. */
  stuckPlugin(): { readonly worker: number; readonly plugin: number } | null {
    for (const [worker, thread] of this.#threads.entries()) {
      const plugin = thread.stuckPlugin();
      if (plugin !== null) return { worker, plugin };
    }
    return null;
  }

  /** Resolves when every worker's loop has turned, a sleeping one's too. */
  async allTurn(): Promise<void> {
    await this.#orderAll({ kind: 'answer' });
  }

  /** Answers what the workers counted about it, to the last frame. */
  async removePort(portId: number): Promise<Float64Array> {
    await this.#orderAll({ kind: 'removePort', portId });
    const counts = this.countsOf(portId);
    this.#countsOfPort.delete(portId);
    this.#metersOfPort.delete(portId);
    this.#policies.delete(portId);
    return counts;
  }

  async attach(queue: QueueAttachment): Promise<void> {
    if (queue.direction === 'egress') {
      this.#egress.set(queueKey(queue.portId, queue.queueIndex), queue);
      await this.#orderAll({ kind: 'attach', queue });
      return;
    }
    const { portId, queueIndex } = queue;
    const worker = workerForQueue(this.#placement.values(), portId, this.#threads.length);
    this.#placement.set(queueKey(portId, queueIndex), { portId, worker });
    await this.#threads[worker].order({ kind: 'attach', queue });
  }

  async detach(portId: number, queueIndex: number): Promise<void> {
    await this.#orderAll({ kind: 'detach', portId, queueIndex });
    this.#egress.delete(queueKey(portId, queueIndex));
    this.#placement.delete(queueKey(portId, queueIndex));
  }

  async setCallFd(portId: number, queueIndex: number, callFd: number): Promise<void> {
    await this.#orderAll({ kind: 'setCallFd', portId, queueIndex, callFd });
  }

  async setMemory(
    portId: number,
    map: AddressMap,
    isLonger: boolean,
    paused: readonly number[] = [],
  ): Promise<void> {
    await this.#orderAll({ kind: 'setMemory', portId, map, isLonger, paused });
  }

  async setLog(portId: number, queueIndex: number, log: RingLog | null): Promise<void> {
    await this.#orderAll({ kind: 'setLog', portId, queueIndex, log });
  }

  /** By a worker that polls the port, if one does: so it comes before what its guest sends from now on. */
  async announce(portId: number, mac: readonly number[]): Promise<void> {
    const placed = [...this.#placement.values()].find((queue) => queue.portId === portId);
    await this.#threads[placed?.worker ?? 0].order({ kind: 'announce', portId, mac });
  }

  /** Sends a frame of the switch's own in a VLAN to these ports; null: to all. */
  async emitInVlan(frame: Uint8Array, vlan: number, portIds: readonly number[] | null): Promise<void> {
    await this.#threads[0].order({ kind: 'emitInVlan', frame, vlan, portIds });
  }

  /** Messages about groups that came since the last call. */
  takeMessages(): SnoopedMessage[] {
    return this.#messages.flatMap((ring) => ring.take());
  }

  /** Those that were lost because too many came. */
  get lostMessages(): number {
    return this.#messages.reduce((sum, { lost }) => sum + lost, 0);
  }

  /** Sends a frame of the switch's own out of the port. */
  async emit(portId: number, frame: Uint8Array): Promise<void> {
    await this.#threads[0].order({ kind: 'emit', portId, frame });
  }

  async setPolicy(portId: number, change: Partial<PortPolicy>): Promise<void> {
    const policy = { ...(this.#policies.get(portId) ?? DEFAULT_POLICY), ...change };
    this.#policies.set(portId, policy);
    await this.#orderAll({ kind: 'setPolicy', portId, policy });
  }

  /** Resolves when every worker copies frames for it; again, with the same id: for other ports. */
  async startCapture(capture: CaptureSetup): Promise<void> {
    await this.#orderAll({ kind: 'startCapture', capture });
  }

  /** Resolves when no worker touches its memory any more. */
  async endCapture(id: number): Promise<void> {
    await this.#orderAll({ kind: 'endCapture', id });
  }

  /**
   * Orders that `begin` gives before it waits for any reach each worker as one message: what lets go of all queues takes as
   * long as one order, and no frame goes astray between them. Resolves as `begin` does.
   */
  async together<T>(begin: () => Promise<T>): Promise<T> {
    for (const thread of this.#threads) thread.hold();
    const done = begin();
    await new Promise(setImmediate);
    for (const thread of this.#threads) thread.release();
    return done;
  }

  /**
   * Resolves at a moment at which no worker holds frames that were taken from queues, as when a receiver offers no buffers;
   * after that time at the latest.
   */
  async heldNothing(timeoutMs: number): Promise<void> {
    const deadlineMs = performance.now() + timeoutMs;
    while (this.#threads.some((thread) => thread.holdsFrames) && performance.now() < deadlineMs)
      await new Promise((resolve) => setTimeout(resolve, LOOK_AGAIN_MS));
  }

  /** Moves the clock by which addresses age. */
  setTick(seconds: number): void {
    for (const thread of this.#threads) thread.setTick(seconds);
  }

  /** The worker that polls a queue; null when none does. */
  workerOf(portId: number, queueIndex: number): number | null {
    return this.#placement.get(queueKey(portId, queueIndex))?.worker ?? null;
  }

  get workerCount(): number {
    return this.#threads.length;
  }

  viewOf(portId: number): PortView {
    const egress = [...this.#egress.values()].filter((queue) => queue.portId === portId);
    const usable = egress.filter(
      ({ states, queueIndex }) => new QueueState(states, queueIndex).words[STATE_FAULT] <= 0,
    );
    return {
      policy: this.#policies.get(portId) ?? DEFAULT_POLICY,
      egress: usable.map(({ queueIndex }) => queueIndex).sort((a, b) => a - b),
      worker: [...this.#placement.values()].find((queue) => queue.portId === portId)?.worker ?? null,
      meters: this.#metersOfPort.get(portId)?.slice(0) ?? new SharedArrayBuffer(PORT_METERS_BYTES),
    };
  }

  /** What all workers counted about a port (l2/port-counts.ts), added up. */
  countsOf(portId: number): Float64Array {
    const sums = new Float64Array(PORT_COUNTS);
    const counts = new Float64Array(this.#countsOfPort.get(portId) ?? new SharedArrayBuffer(0));
    for (let at = 0; at < counts.length; at++) sums[at % PORT_COUNTS] += counts[at];
    return sums;
  }

  /** What each worker counted about itself. */
  workerCounts(): WorkerCounts[] {
    return this.#threads.map((thread) => thread.counts);
  }

  /** How busy each worker was so far. */
  work(): WorkReport[] {
    return this.#threads.map((thread, index) => ({
      index,
      atMs: performance.now(),
      emptyTurns: thread.emptyTurns,
    }));
  }

  async stop(): Promise<void> {
    await Promise.all(this.#threads.map((thread) => thread.stop()));
    process.off('exit', this.#neverBlock);
  }

  readonly #neverBlock = (): void => {
    for (const thread of this.#threads) thread.neverBlock();
  };

  async #orderAll(order: WorkerOrder): Promise<void> {
    await Promise.all(this.#threads.map((thread) => thread.order(order)));
  }
}

function queueKey(portId: number, queueIndex: number): string {
  return `${portId}:${queueIndex}`;
}

/** The program of a worker: beside this file, TypeScript in the checkout and JavaScript when built. */
const PROGRAM = new URL(import.meta.url.endsWith('.ts') ? './thread.ts' : './thread.js', import.meta.url);

/** One worker: its thread, its control block, and the orders that it has not answered yet. */
class WorkerThread {
  readonly failed: Promise<never>;
  readonly #worker: Worker;
  readonly #orders: MessagePort;
  readonly #control = new SharedArrayBuffer(CONTROL_BYTES);
  readonly #figures = new SharedArrayBuffer(WORKER_FIGURES_BYTES);
  readonly #words = new Int32Array(this.#control);
  readonly #wakeFd = createEventFd();
  readonly #waiting = new Map<number, () => void>();
  #lastNumber = 0;
  /** Orders that wait to be posted together; null: they are posted at once. */
  #held: NumberedOrder[] | null = null;
  #stopping = false;

  constructor(
    setup: Omit<WorkerSetup, 'control' | 'figures' | 'wakeFd' | 'orders'>,
    {
      onLoops,
      onPlugin,
      onQueueFailed,
      onQueueWaits,
      onSnooped,
    }: Pick<WorkerPoolOptions, 'onLoops' | 'onPlugin' | 'onQueueFailed' | 'onQueueWaits' | 'onSnooped'>,
  ) {
    const { port1, port2 } = new MessageChannel();
    this.#orders = port1;
    const own = { control: this.#control, figures: this.#figures, wakeFd: this.#wakeFd, orders: port2 };
    const workerData: WorkerSetup = { ...setup, ...own };
    this.#worker = new Worker(PROGRAM, {
      workerData,
      transferList: [port2],
      name: workerThreadName(setup.index),
    });
    port1.on('message', (report: WorkerReport) => {
      if (report.kind === 'queueFailed') onQueueFailed(report.portId, report.queueIndex);
      else if (report.kind === 'snooped') onSnooped?.();
      else if (report.kind === 'queueWaits') onQueueWaits(report.portId, report.queueIndex, report.misses);
      else if (report.kind === 'loops') onLoops(report.probes, report.flapping);
      else if (report.kind === 'done') for (const number of report.numbers) this.#answered(number);
      else onPlugin(report);
    });
    this.failed = new Promise((_, reject) => {
      this.#worker.on('error', (error) => reject(WorkerFailure.ofEnd(error)));
      this.#worker.on('exit', (code) => {
        if (!this.#stopping) reject(WorkerFailure.ofEnd(`worker ${setup.index} ended with code ${code}`));
      });
    });
    this.failed.catch(() => {});
  }

  /** Resolves when the worker has done it. */
  order(order: WorkerOrder): Promise<void> {
    const number = ++this.#lastNumber;
    const done = new Promise<void>((resolve) => this.#waiting.set(number, resolve));
    if (this.#held === null) this.#post([{ number, order }]);
    else this.#held.push({ number, order });
    return done;
  }

  /** Orders wait until `release`. */
  hold(): void {
    this.#held ??= [];
  }

  release(): void {
    const held = this.#held ?? [];
    this.#held = null;
    if (held.length > 0) this.#post(held);
  }

  #post(message: OrderMessage): void {
    this.#orders.postMessage(message);
    Atomics.add(this.#words, CONTROL_EPOCH, 1);
    if (Atomics.load(this.#words, CONTROL_SLEEPING) === 1) signalFd(this.#wakeFd);
  }

  setTick(seconds: number): void {
    Atomics.store(this.#words, CONTROL_TICK, seconds);
  }

  readonly #watch = new PluginWatch();

  /** As WorkerPool.stuckPlugin. */
  stuckPlugin(): number | null {
    const words = this.#words;
    return this.#watch.look(Atomics.load(words, CONTROL_PLUGIN), Atomics.load(words, CONTROL_PLUGIN_CALLS));
  }

  /** Running, 32 bits without a sign. */
  get emptyTurns(): number {
    return Atomics.load(this.#words, CONTROL_EMPTY_TURNS) >>> 0;
  }

  get counts(): WorkerCounts {
    return readWorkerCounts(new Float64Array(this.#figures), this.emptyTurns);
  }

  get holdsFrames(): boolean {
    return Atomics.load(this.#words, CONTROL_HOLDS_FRAMES) === 1;
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    const exited = new Promise<void>((resolve) => this.#worker.once('exit', () => resolve()));
    if (this.#worker.threadId !== -1) {
      void this.order({ kind: 'stop' });
      await exited;
    }
    this.#orders.close();
    closeFd(this.#wakeFd);
  }

  /** Ends a block, whatever for; there is no other one. */
  neverBlock(): void {
    Atomics.store(this.#words, CONTROL_NEVER_BLOCKS, 1);
    signalFd(this.#wakeFd);
  }

  #answered(number: number): void {
    this.#waiting.get(number)?.();
    this.#waiting.delete(number);
  }
}
