/**
 * One worker's state and loop: which queues it polls, which ports it can deliver to, and when it sleeps.
 * Worker thread only.
 */
import assert from 'node:assert/strict';
import { receiveMessageOnPort } from 'node:worker_threads';
import { pinThread } from '../../src/host/affinity.ts';
import { drainFd } from '../../src/host/descriptor.ts';
import { EpollSet } from '../../src/host/epoll.ts';
import { closePeerSignals } from '../../src/host/peer-signal.ts';
import { ArenaView } from '../../src/memory/arena-view.ts';
import type { AddressMap } from '../../src/memory/gpa-translator.ts';
import type { AddressMiss } from '../../src/memory/iotlb.ts';
import { openEgress, openIngress, type QueueAttachment } from '../../src/port/kinds.ts';
import type { EgressQueue, IngressQueue } from '../../src/queue/contract.ts';
import { warmUpCopy } from '../../src/queue/copy.ts';
import type { MirrorSource, PortPolicy } from '../../src/queue/policy.ts';
import type { RingLog } from '../../src/vring/dirty-log.ts';
import { Clock } from '../l2/clock.ts';
import { Fdb } from '../l2/fdb/fdb.ts';
import { Moves } from '../l2/fdb/moves.ts';
import { FORWARDER_SCRATCH_BYTES, Forwarder } from '../l2/forwarder.ts';
import { ForwardingPort } from '../l2/forwarding-port.ts';
import { MessageRing } from '../l2/groups/message-ring.ts';
import { Snoop } from '../l2/groups/snoop.ts';
import { GroupTable } from '../l2/groups/table.ts';
import { PORT_COUNTS } from '../l2/port-counts.ts';
import { WorkerPlugins } from '../plugin/worker-plugins.ts';
import {
  CONTROL_EMPTY_TURNS,
  CONTROL_EPOCH,
  CONTROL_HOLDS_FRAMES,
  CONTROL_NEVER_BLOCKS,
  CONTROL_PLUGIN,
  CONTROL_SLEEPING,
  CONTROL_TICK,
  type NumberedOrder,
  type OrderMessage,
  WORKER_SCRATCH_BYTES,
  type WorkerOrder,
  type WorkerReport,
  type WorkerSetup,
} from './orders.ts';
import { egressOfWorker } from './placement.ts';
import { TIMED_TURNS, WorkerFigures } from './worker-figures.ts';

/** Turns of the loop between looks at the clock while idle. */
const TURNS_PER_STRETCH = 64;
const NO_MISSES: readonly AddressMiss[] = [];
/** What nothing tells of must be looked at: the longest sleep while there is such a queue, or frames wait for buffers. */
const UNTOLD_SLEEP_MS = 1;

export class PollWorker {
  readonly #setup: WorkerSetup;
  readonly #arena: ArenaView;
  readonly #control: Int32Array;
  readonly #forwarder: Forwarder;
  readonly #plugins: WorkerPlugins;
  readonly #moves: Moves;
  readonly #figures: WorkerFigures;
  readonly #epoll = new EpollSet();
  /** Queues that this worker polls. */
  #polled: IngressQueue[] = [];
  /** Every egress queue. */
  #egress: EgressQueue[] = [];
  /** The ports whose frames are copied to a port. */
  readonly #sources = new Map<number, readonly MirrorSource[]>();
  /** Queues whose fault the main thread was told of, with what they waited for. */
  readonly #reported = new Map<IngressQueue | EgressQueue, readonly AddressMiss[]>();
  /** Polled queues by the descriptor that tells of their frames, as it stands in the epoll set. */
  readonly #queueOfFd = new Map<number, IngressQueue>();
  #epochSeen = 0;
  #idleSinceMs = 0;
  /** Stretches without work that are expected to take as long as `idleUs`. */
  #stretchesToIdle = 2;
  #running = true;

  constructor(setup: WorkerSetup) {
    this.#setup = setup;
    this.#arena = new ArenaView(setup.arena);
    this.#control = new Int32Array(setup.control);
    const fdb = new Fdb(setup.fdb);
    this.#moves = new Moves(setup.moves);
    fdb.moves = this.#moves;
    const onFault = (queue: IngressQueue | EgressQueue): void => this.#reportFault(queue);
    this.#forwarder = new Forwarder(
      this.#arena,
      fdb,
      onFault,
      setup.scratchOffset,
      setup.vlanLimit,
      new Clock(),
      setup.probeMac,
    );
    this.#figures = new WorkerFigures(setup.figures);
    this.#forwarder.bursts = this.#figures.bursts;
    if (setup.groups !== null) {
      const ring = new MessageRing(setup.groups.messages);
      const tell = (): void => this.#tell({ kind: 'snooped' });
      this.#forwarder.snoopBy(new Snoop(this.#arena, new GroupTable(setup.groups.table), ring, tell));
    }
    const callWords = this.#control.subarray(CONTROL_PLUGIN, CONTROL_PLUGIN + 2);
    this.#plugins = new WorkerPlugins(this.#forwarder, setup.index, callWords, (report) =>
      this.#tell(report),
    );
    this.#epoll.add(setup.wakeFd);
    assert(FORWARDER_SCRATCH_BYTES <= WORKER_SCRATCH_BYTES, 'there is room for what the forwarder needs');
    // In its own part of the arena: ports may be there already, and guests.
    warmUpCopy(this.#arena, setup.scratchOffset);
  }

  run(): void {
    let idleStretches = 0;
    while (this.#running) {
      const hadWork = this.#pollStretch();
      this.#tellOfLoops();
      this.#control[CONTROL_HOLDS_FRAMES] = this.#holdsFrames ? 1 : 0;
      if (Atomics.load(this.#control, CONTROL_EPOCH) !== this.#epochSeen) {
        this.#takeOrders();
        continue;
      }
      idleStretches = hadWork || this.#setup.poll === 'busy' ? 0 : idleStretches + 1;
      if (idleStretches > 0 && this.#idleLongEnough(idleStretches)) {
        this.#sleep();
        idleStretches = 0;
      }
    }
    this.#epoll.close();
    closePeerSignals();
  }

  /** A stretch, or a shorter one whose time is taken. */
  #pollStretch(): boolean {
    const figures = this.#figures;
    figures.at(this.#control[CONTROL_TICK]);
    if (!figures.wantsTime)
      return pollStretch(this.#forwarder, this.#polled, this.#control, this.#epochSeen, TURNS_PER_STRETCH);
    const startMs = figures.begin();
    const hadWork = pollStretch(this.#forwarder, this.#polled, this.#control, this.#epochSeen, TIMED_TURNS);
    figures.end(startMs, !hadWork && Atomics.load(this.#control, CONTROL_EPOCH) === this.#epochSeen);
    return hadWork;
  }

  get #holdsFrames(): boolean {
    if (this.#forwarder.hasBacklogs) return true;
    for (const { held } of this.#polled) if (held !== null && !held.isEmpty) return true;
    return false;
  }

  /**
   * Whether so many stretches without work take as long as a worker waits before it blocks. Reading the clock
   * makes garbage, so it is read when idleness begins and when, by the pace so far, the time should be over.
   */
  #idleLongEnough(idleStretches: number): boolean {
    if (idleStretches === 1) {
      this.#idleSinceMs = performance.now();
      return false;
    }
    if (idleStretches < this.#stretchesToIdle) return false;
    const idleMs = Math.max(performance.now() - this.#idleSinceMs, 0.001);
    const wantedMs = this.#setup.idleUs / 1000;
    if (idleMs >= wantedMs) {
      this.#stretchesToIdle = Math.max(2, Math.floor((idleStretches * wantedMs) / idleMs));
      return true;
    }
    this.#stretchesToIdle = idleStretches + Math.ceil((idleStretches * (wantedMs - idleMs)) / idleMs);
    return false;
  }

  /** Asks every guest for a kick and blocks until one comes, or an order. */
  #sleep(): void {
    Atomics.store(this.#control, CONTROL_SLEEPING, 1);
    let mayBlock =
      Atomics.load(this.#control, CONTROL_EPOCH) === this.#epochSeen &&
      Atomics.load(this.#control, CONTROL_NEVER_BLOCKS) === 0;
    let timeoutMs = this.#forwarder.hasBacklogs ? UNTOLD_SLEEP_MS : -1;
    for (const queue of this.#polled) {
      if (!queue.armWake()) mayBlock = false;
      if (queue.wakeFd < 0) timeoutMs = UNTOLD_SLEEP_MS;
    }
    const count = mayBlock ? this.#block(timeoutMs) : 0;
    Atomics.store(this.#control, CONTROL_SLEEPING, 0);
    // The frame that ended the sleep first; a signal that is forgotten after it is not lost, as polling goes on.
    pollStretch(this.#forwarder, this.#polled, this.#control, this.#epochSeen, 1);
    for (let i = 0; i < count; i++) this.#acknowledge(this.#epoll.readyFd(i));
    for (const queue of this.#polled) queue.disarmWake();
  }

  #block(timeoutMs: number): number {
    this.#figures.fallsAsleep();
    const count = this.#epoll.wait(timeoutMs);
    this.#figures.wakesUp();
    return count;
  }

  #acknowledge(fd: number): void {
    const queue = this.#queueOfFd.get(fd);
    if (queue === undefined) drainFd(this.#setup.wakeFd);
    else if (!queue.acknowledgeWake()) this.#unwatch(queue);
  }

  #unwatch(queue: IngressQueue): void {
    if (this.#queueOfFd.delete(queue.wakeFd)) this.#epoll.remove(queue.wakeFd);
  }

  #takeOrders(): void {
    this.#epochSeen = Atomics.load(this.#control, CONTROL_EPOCH);
    for (;;) {
      const received = receiveMessageOnPort(this.#setup.orders);
      if (received === undefined) return;
      const orders = received.message as OrderMessage;
      for (const order of orders) if (this.#letsGoOfSender(order)) this.#obey(order.order);
      for (const order of orders) if (!this.#letsGoOfSender(order)) this.#obey(order.order);
      this.#tell({ kind: 'done', numbers: orders.map(({ number }) => number) });
    }
  }

  /** What such a queue holds goes to receivers that are still there. */
  #letsGoOfSender({ order }: NumberedOrder): boolean {
    return order.kind === 'detach' && order.queueIndex % 2 === 1;
  }

  #obey(order: WorkerOrder): void {
    switch (order.kind) {
      case 'addPort':
        this.#addPort(order.portId, order.name, order.counts, order.meters);
        break;
      case 'removePort':
        this.#forwarder.removePort(order.portId);
        this.#plugins.portRemoved(order.portId);
        this.#moves.setGuarded(order.portId, false);
        this.#sources.delete(order.portId);
        break;
      case 'attach':
        this.#attach(order.queue);
        break;
      case 'detach':
        this.#detach(order.portId, order.queueIndex);
        break;
      case 'setCallFd':
        this.#setCallFd(order.portId, order.queueIndex, order.callFd);
        break;
      case 'setMemory':
        this.#setMemory(order.portId, order.map, order.isLonger, order.paused);
        break;
      case 'setLog':
        this.#setLog(order.portId, order.queueIndex, order.log);
        break;
      case 'announce':
        this.#forwarder.announce(order.portId, order.mac);
        break;
      case 'emit':
        this.#forwarder.emit(order.portId, order.frame);
        break;
      case 'emitInVlan':
        this.#forwarder.emitInVlan(order.frame, order.vlan, order.portIds);
        break;
      case 'setPolicy':
        this.#setPolicy(order.portId, order.policy);
        break;
      case 'startCapture':
        this.#forwarder.startCapture(order.capture, this.#setup.index);
        break;
      case 'endCapture':
        this.#forwarder.endCapture(order.id);
        break;
      case 'loadPlugin':
      case 'usePlugins':
      case 'failPlugin':
      case 'tickPlugins':
        this.#plugins.obey(order);
        break;
      case 'answer':
        break;
      case 'pin':
        pinThread(order.cpu);
        break;
      case 'stop':
        this.#running = false;
        break;
    }
  }

  #addPort(portId: number, name: string, counts: SharedArrayBuffer, meters: SharedArrayBuffer): void {
    const own = new Float64Array(counts, this.#setup.index * PORT_COUNTS * 8, PORT_COUNTS);
    this.#forwarder.addPort(new ForwardingPort(portId, own, meters));
    this.#plugins.portAdded(portId, name);
  }

  #attach(attachment: QueueAttachment): void {
    if (attachment.direction === 'ingress') {
      const queue = openIngress(this.#arena, attachment);
      this.#polled = [...this.#polled, queue];
      if (queue.wakeFd >= 0) {
        if (queue.wakesBySignal) this.#epoll.addSignals(queue.wakeFd);
        else this.#epoll.add(queue.wakeFd);
        this.#queueOfFd.set(queue.wakeFd, queue);
      }
      return;
    }
    const queue = openEgress(this.#arena, attachment, this.#setup.workerCount > 1);
    this.#egress = [...this.#egress, queue];
    this.#refreshTargets(attachment.portId);
  }

  #detach(portId: number, queueIndex: number): void {
    const polled = this.#polled.find((queue) => isQueue(queue, portId, queueIndex));
    if (polled !== undefined) {
      this.#forwarder.drain(polled);
      this.#polled = this.#polled.filter((queue) => queue !== polled);
      this.#unwatch(polled);
      this.#reported.delete(polled);
    }
    for (const queue of this.#egress) {
      if (!isQueue(queue, portId, queueIndex)) continue;
      this.#reported.delete(queue);
      this.#forwarder.forget(queue);
    }
    this.#egress = this.#egress.filter((queue) => !isQueue(queue, portId, queueIndex));
    this.#refreshTargets(portId);
  }

  #setPolicy(portId: number, policy: PortPolicy): void {
    const port = this.#forwarder.port(portId);
    if (port === undefined) return;
    this.#forwarder.follow(port, policy);
    this.#plugins.portChanged(portId);
    this.#moves.setGuarded(portId, policy.loopGuard === 'on' && !policy.isShut);
    this.#sources.set(portId, policy.copiesOf ?? []);
    this.#forwarder.setCopies(portId, policy.copiesOf?.map((source) => source.portId) ?? null);
    this.#refreshTargets(portId);
  }

  #setCallFd(portId: number, queueIndex: number, callFd: number): void {
    for (const queue of [...this.#polled, ...this.#egress]) {
      if (isQueue(queue, portId, queueIndex)) queue.setCallFd(callFd);
    }
  }

  #setLog(portId: number, queueIndex: number, log: RingLog | null): void {
    for (const queue of [...this.#polled, ...this.#egress]) {
      if (isQueue(queue, portId, queueIndex)) queue.setLog(log);
    }
  }

  #setMemory(portId: number, map: AddressMap, isLonger: boolean, paused: readonly number[]): void {
    if (!isLonger)
      for (const queue of this.#polled) if (queue.portId === portId) this.#forwarder.drain(queue);
    for (const queue of [...this.#polled, ...this.#egress]) {
      if (queue.portId !== portId) continue;
      queue.setMemory(map, paused.includes(queue.queueIndex));
      // It may wait once more, for something else; and what was said of it the main thread may have taken for settled by this.
      if (queue.fault <= 0) this.#reported.delete(queue);
    }
  }

  /** Which queues of a port get this worker's frames: of those attached and without a fault; one that waits will go on. */
  #refreshTargets(portId: number): void {
    const port = this.#forwarder.port(portId);
    if (port === undefined) return;
    const usable = this.#egress
      .filter((queue) => queue.portId === portId && queue.fault <= 0)
      .sort((a, b) => a.queueIndex - b.queueIndex);
    for (const queue of usable) queue.nameSources(this.#sources.get(portId) ?? []);
    port.setQueues(egressOfWorker(usable, this.#setup.index, this.#setup.workerCount));
  }

  #reportFault(queue: IngressQueue | EgressQueue): void {
    const { portId, queueIndex, misses = NO_MISSES } = queue;
    // What is paused is so by the main thread's own will.
    if (this.#reported.get(queue) === misses || (queue.fault < 0 && misses.length === 0)) return;
    this.#reported.set(queue, misses);
    if (queue.fault > 0) this.#tell({ kind: 'queueFailed', portId, queueIndex });
    else this.#tell({ kind: 'queueWaits', portId, queueIndex, misses });
  }

  #tellOfLoops(): void {
    const { seen } = this.#forwarder.loopProbes;
    const { flapping } = this.#moves;
    if (seen.length === 0 && flapping.length === 0) return;
    this.#tell({ kind: 'loops', probes: seen.splice(0), flapping: flapping.splice(0) });
  }

  #tell(report: WorkerReport): void {
    this.#setup.orders.postMessage(report);
  }
}

function isQueue(queue: { portId: number; queueIndex: number }, portId: number, queueIndex: number): boolean {
  return queue.portId === portId && queue.queueIndex === queueIndex;
}

/**
 * Polls every queue for so many turns, or until an order waits. Answers whether any frame came. A
 * function of its own, so that V8 compiles it as a whole instead of replacing a loop that never ends.
 */
function pollStretch(
  forwarder: Forwarder,
  polled: readonly IngressQueue[],
  control: Int32Array,
  epochSeen: number,
  turns: number,
): boolean {
  let frames = 0;
  let emptyTurns = 0;
  for (let turn = 0; turn < turns; turn++) {
    forwarder.nowTick = control[CONTROL_TICK];
    const taken = forwarder.forwardTurn(polled);
    if (taken === 0) emptyTurns++;
    frames += taken;
    // After the turn, so that orders without pause, which front-ends cause, do not keep frames waiting.
    if (Atomics.load(control, CONTROL_EPOCH) !== epochSeen) break;
  }
  control[CONTROL_EMPTY_TURNS] = (control[CONTROL_EMPTY_TURNS] + emptyTurns) | 0;
  return frames !== 0;
}
