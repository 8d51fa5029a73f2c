/**
 * One worker's state and loop: which queues it polls, which ports it can deliver to, and when it sleeps.
 * Worker thread only.
 */
import { receiveMessageOnPort } from 'node:worker_threads';
import { drainFd } from '../src/host/descriptor.ts';
import { EpollSet } from '../src/host/epoll.ts';
import { ArenaView } from '../src/memory/arena-view.ts';
import type { FromGuestQueue, RingAttachment, ToGuestQueue } from '../src/vring/contract.ts';
import { warmUpCopy } from '../src/vring/copy.ts';
import { SplitFromGuest } from '../src/vring/split-from-guest.ts';
import { SplitToGuest } from '../src/vring/split-to-guest.ts';
import { Fdb } from './fdb.ts';
import { Forwarder, ForwardingPort } from './forwarder.ts';
import {
  CONTROL_EPOCH,
  CONTROL_SLEEPING,
  CONTROL_TICK,
  type NumberedOrder,
  type WorkerOrder,
  type WorkerReport,
  type WorkerSetup,
} from './worker-orders.ts';

/** Turns of the loop between looks at the clock while idle. */
const TURNS_PER_STRETCH = 64;
/** A ring without a kick descriptor must be looked at: the longest sleep while there is one. */
const UNKICKED_SLEEP_MS = 1;

export class PollWorker {
  readonly #setup: WorkerSetup;
  readonly #arena: ArenaView;
  readonly #control: Int32Array;
  readonly #forwarder: Forwarder;
  readonly #epoll = new EpollSet();
  /** Queues that this worker polls. */
  #polled: FromGuestQueue[] = [];
  /** Every receive queue, also those that are not enabled. */
  #toGuest: ToGuestQueue[] = [];
  /** Queues whose fault the main thread was told of. */
  readonly #reported = new Set<FromGuestQueue | ToGuestQueue>();
  /** Kick pipes whose writer is gone; they are no longer in the epoll set. */
  readonly #deadKicks = new Set<number>();
  #epochSeen = 0;
  #idleSinceMs = 0;
  /** Stretches without work that are expected to take as long as `idleUs`. */
  #stretchesToIdle = 2;
  #running = true;

  constructor(setup: WorkerSetup) {
    this.#setup = setup;
    this.#arena = new ArenaView(setup.arena);
    this.#control = new Int32Array(setup.control);
    this.#forwarder = new Forwarder(this.#arena, new Fdb(setup.fdb), (queue) => this.#reportFault(queue));
    this.#epoll.add(setup.wakeFd);
    // Before the first order: the pool adds no port until every worker has answered one.
    warmUpCopy(this.#arena);
  }

  run(): void {
    let idleStretches = 0;
    while (this.#running) {
      const hadWork = pollStretch(
        this.#forwarder,
        this.#polled,
        this.#control,
        this.#epochSeen,
        TURNS_PER_STRETCH,
      );
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
    let mayBlock = Atomics.load(this.#control, CONTROL_EPOCH) === this.#epochSeen;
    let timeoutMs = -1;
    for (const queue of this.#polled) {
      if (!queue.armKick()) mayBlock = false;
      if (queue.kickFd < 0) timeoutMs = UNKICKED_SLEEP_MS;
    }
    const count = mayBlock ? this.#epoll.wait(timeoutMs) : 0;
    Atomics.store(this.#control, CONTROL_SLEEPING, 0);
    // The frame that ended the sleep first; a kick that is drained after it is not lost, as polling goes on.
    pollStretch(this.#forwarder, this.#polled, this.#control, this.#epochSeen, 1);
    for (let i = 0; i < count; i++) this.#drain(this.#epoll.readyFd(i));
    for (const queue of this.#polled) queue.disarmKick();
  }

  #drain(fd: number): void {
    if (drainFd(fd)) return;
    this.#epoll.remove(fd);
    this.#deadKicks.add(fd);
  }

  #takeOrders(): void {
    this.#epochSeen = Atomics.load(this.#control, CONTROL_EPOCH);
    for (;;) {
      const received = receiveMessageOnPort(this.#setup.orders);
      if (received === undefined) return;
      const { number, order } = received.message as NumberedOrder;
      this.#obey(order);
      this.#tell({ kind: 'done', number });
    }
  }

  #obey(order: WorkerOrder): void {
    switch (order.kind) {
      case 'addPort':
        this.#addPort(order.portId, order.drops);
        break;
      case 'removePort':
        this.#forwarder.removePort(order.portId);
        break;
      case 'attach':
        this.#attach(order.ring);
        break;
      case 'detach':
        this.#detach(order.portId, order.ringIndex);
        break;
      case 'setEnabled':
        this.#setEnabled(order.portId, order.ringIndex, order.enabled);
        break;
      case 'setCallFd':
        this.#setCallFd(order.portId, order.ringIndex, order.callFd);
        break;
      case 'setFrameLimit': {
        const port = this.#forwarder.port(order.portId);
        if (port !== undefined) port.frameBytesMax = order.frameBytesMax;
        break;
      }
      case 'stop':
        this.#running = false;
        break;
    }
  }

  #addPort(portId: number, drops: SharedArrayBuffer): void {
    const bytesPerWorker = drops.byteLength / this.#setup.workerCount;
    const own = new Float64Array(drops, this.#setup.index * bytesPerWorker, bytesPerWorker / 8);
    this.#forwarder.addPort(new ForwardingPort(portId, own));
  }

  #attach(ring: RingAttachment): void {
    if (ring.direction === 'fromGuest') {
      const queue = new SplitFromGuest(this.#arena, ring);
      this.#polled = [...this.#polled, queue];
      if (queue.kickFd >= 0) this.#epoll.add(queue.kickFd);
      return;
    }
    const queue = new SplitToGuest(this.#arena, ring, this.#setup.workerCount > 1);
    this.#toGuest = [...this.#toGuest, queue];
    this.#refreshTargets(ring.portId);
  }

  #detach(portId: number, ringIndex: number): void {
    const polled = this.#polled.find((queue) => isRing(queue, portId, ringIndex));
    if (polled !== undefined) {
      this.#polled = this.#polled.filter((queue) => queue !== polled);
      if (polled.kickFd >= 0 && !this.#deadKicks.delete(polled.kickFd)) this.#epoll.remove(polled.kickFd);
      this.#reported.delete(polled);
    }
    for (const queue of this.#toGuest) if (isRing(queue, portId, ringIndex)) this.#reported.delete(queue);
    this.#toGuest = this.#toGuest.filter((queue) => !isRing(queue, portId, ringIndex));
    this.#refreshTargets(portId);
  }

  #setEnabled(portId: number, ringIndex: number, enabled: boolean): void {
    for (const queue of [...this.#polled, ...this.#toGuest]) {
      if (isRing(queue, portId, ringIndex)) queue.enabled = enabled;
    }
    this.#refreshTargets(portId);
  }

  #setCallFd(portId: number, ringIndex: number, callFd: number): void {
    for (const queue of this.#polled) {
      if (isRing(queue, portId, ringIndex)) {
        queue.callFd = callFd;
        queue.signal();
      }
    }
    for (const queue of this.#toGuest) {
      if (!isRing(queue, portId, ringIndex)) continue;
      queue.begin();
      queue.callFd = callFd;
      queue.signal();
      queue.end();
    }
  }

  /** Which queues of a port get frames: those attached, enabled and without a fault, in ring order. */
  #refreshTargets(portId: number): void {
    const port = this.#forwarder.port(portId);
    if (port === undefined) return;
    port.queues = this.#toGuest
      .filter((queue) => queue.portId === portId && queue.enabled && queue.fault === 0)
      .sort((a, b) => a.ringIndex - b.ringIndex);
    port.queueCount = port.queues.length;
  }

  #reportFault(queue: FromGuestQueue | ToGuestQueue): void {
    if (this.#reported.has(queue)) return;
    this.#reported.add(queue);
    this.#tell({ kind: 'ringFailed', portId: queue.portId, ringIndex: queue.ringIndex });
  }

  #tell(report: WorkerReport): void {
    this.#setup.orders.postMessage(report);
  }
}

function isRing(queue: { portId: number; ringIndex: number }, portId: number, ringIndex: number): boolean {
  return queue.portId === portId && queue.ringIndex === ringIndex;
}

/**
 * Polls every queue for so many turns, or until an order waits. Answers whether any frame came. A
 * function of its own, so that V8 compiles it as a whole instead of replacing a loop that never ends.
 */
function pollStretch(
  forwarder: Forwarder,
  polled: readonly FromGuestQueue[],
  control: Int32Array,
  epochSeen: number,
  turns: number,
): boolean {
  let frames = 0;
  for (let turn = 0; turn < turns; turn++) {
    if (Atomics.load(control, CONTROL_EPOCH) !== epochSeen) break;
    forwarder.nowTick = control[CONTROL_TICK]!;
    for (let i = 0; i < polled.length; i++) frames += forwarder.forwardBurst(polled[i]!);
  }
  return frames !== 0;
}
