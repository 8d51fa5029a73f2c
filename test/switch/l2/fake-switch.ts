/**
 * A forwarder between queues without guests, as the tests of forwarding use it. After each burst it asks whether the
 * queues were called as their contract prescribes, and whether the books balance.
 */
import { expect } from 'vitest';
import { ETHERNET_HEADER_BYTES } from '../../../protocol/ethernet.ts';
import type { EgressQueue, IngressQueue } from '../../../src/queue/contract.ts';
import {
  type CopiesPolicy,
  DEFAULT_COPIES,
  DEFAULT_POLICY,
  type PortPolicy,
} from '../../../src/queue/policy.ts';
import { queueStates } from '../../../src/queue/state.ts';
import { Clock } from '../../../switch/l2/clock.ts';
import { DROP, DROP_REASONS, type DropReason } from '../../../switch/l2/drop-reasons.ts';
import { createFdbMemory, Fdb } from '../../../switch/l2/fdb/fdb.ts';
import { Forwarder } from '../../../switch/l2/forwarder.ts';
import { ForwardingPort } from '../../../switch/l2/forwarding-port.ts';
import type { Snoop } from '../../../switch/l2/groups/snoop.ts';
import { PORT_COUNTS } from '../../../switch/l2/port-counts.ts';
import { imbalancesOf } from './conservation.ts';
import { FakeEgressQueue, FakeIngressQueue, QueueLog, type Waiting } from './fake-queues.ts';
import { arenaView, SCRATCH_OFFSET } from './frames.ts';

/** One port: its forwarding state and its fake queues. */
export class FakePort {
  readonly state: ForwardingPort;
  readonly states: SharedArrayBuffer;
  readonly from: FakeIngressQueue;
  readonly to: FakeEgressQueue[];

  constructor(id: number, queueCount: number, log: QueueLog) {
    this.state = new ForwardingPort(id, new Float64Array(PORT_COUNTS));
    this.states = queueStates(2 * Math.max(1, queueCount));
    this.from = new FakeIngressQueue(id, this.states, log);
    this.to = Array.from(
      { length: queueCount },
      (_, pair) => new FakeEgressQueue(id, 2 * pair, this.states, log),
    );
    this.state.setQueues(this.to);
  }

  /** Drop counters that are not zero. */
  get drops(): Partial<Record<DropReason, number>> {
    const counted = DROP_REASONS.map(({ name }) => [name, this.state.counts[DROP[name]]] as const);
    return Object.fromEntries(counted.filter(([, count]) => count !== 0));
  }

  get received(): Uint8Array[] {
    return this.to.flatMap((queue) => queue.received);
  }
}

/** Goes on by hand. */
export class FakeClock extends Clock {
  atUs = 0;

  override us(): number {
    return this.atUs | 0;
  }
}

export class FakeSwitch {
  /** Of those made from now on. */
  static vlanLimit = 1;
  /** Of those made from now on; null: groups are flooded. */
  static snoop: Snoop | null = null;
  readonly log = new QueueLog();
  readonly clock = new FakeClock();
  readonly fdbMemory = createFdbMemory({ capacity: 256, maxPorts: 64, seed: [1, 2] });
  readonly fdb = new Fdb(this.fdbMemory);
  readonly faults: (IngressQueue | EgressQueue)[] = [];
  readonly forwarder: Forwarder;
  /** All that were ever added, by number; their ids need not be the same. */
  readonly ports: FakePort[] = [];

  /** Ports 0, 1, … that have this many receive queues each. */
  constructor(...queueCounts: number[]) {
    this.forwarder = new Forwarder(
      arenaView,
      this.fdb,
      (queue) => this.faults.push(queue),
      SCRATCH_OFFSET,
      FakeSwitch.vlanLimit,
      this.clock,
    );
    if (FakeSwitch.snoop !== null) this.forwarder.snoopBy(FakeSwitch.snoop);
    for (const [id, count] of queueCounts.entries()) this.addPort(id, count);
  }

  addPort(id: number, queueCount = 1): FakePort {
    const port = new FakePort(id, queueCount, this.log);
    this.ports.push(port);
    this.forwarder.addPort(port.state);
    return port;
  }

  /** A port that gets copies of the frames of these ports and nothing else. */
  addMirror(id: number, sourceIds: readonly number[]): FakePort {
    const port = this.addPort(id);
    this.setMirror(port, sourceIds);
    return port;
  }

  setMirror(port: FakePort, sourceIds: readonly number[], copies: Partial<CopiesPolicy> = {}): void {
    const copiesOf = sourceIds.map((portId) => ({ portId, name: `vm${portId}` }));
    this.follow(port, { copiesOf, copies: { ...DEFAULT_COPIES, ...copies } });
  }

  /** Has the port follow a policy as a worker does when it was posted one; what is not named is as by default. */
  follow({ state }: FakePort, change: Partial<PortPolicy>): void {
    const policy = { ...DEFAULT_POLICY, linkMtu: state.frameBytesMax - ETHERNET_HEADER_BYTES, ...change };
    state.follow(policy, this.clock.us());
    this.forwarder.setCopies(state.id, policy.copiesOf?.map(({ portId }) => portId) ?? null);
  }

  /** The port sends frames in one burst. Answers how many were taken. */
  send({ from }: FakePort, ...frames: readonly (Uint8Array | Waiting)[]): number {
    from.fill(...frames);
    const taken = this.forwarder.forwardBurst(from);
    this.check();
    return taken;
  }

  /** A burst of each port that has filled its queue. Answers how many frames were taken. */
  turn(): number {
    const taken = this.forwarder.forwardTurn(this.ports.map(({ from }) => from));
    this.check();
    return taken;
  }

  check(): void {
    const found = [...this.log.violations, ...[...this.log.open].map((queue) => `${queue} was left open`)];
    found.push(...imbalancesOf(this.ports));
    if (found.length > 0) expect.fail(found.join('\n'));
  }
}
