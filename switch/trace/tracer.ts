/**
 * What would become of a frame, and why: a forwarder as the workers have one, with the same policies and tables, forwards
 * it between queues that only note what they are given. The stages are the workers' own; what they decided is read from
 * what they leave behind: the batch, the table's answers, the counters, the frames that were placed. Nothing is learned,
 * counted or sent. Main thread; a trace holds it for about a millisecond.
 */
import { FRAME_BYTES_MAX } from '../../protocol/ethernet.ts';
import type { Arena } from '../../src/memory/arena.ts';
import type { ArenaView } from '../../src/memory/arena-view.ts';
import { allocateScratch } from '../../src/memory/scratch.ts';
import { AT_TARGET } from '../../src/queue/batch.ts';
import { FORWARDER_SCRATCH_BYTES, Forwarder } from '../l2/forwarder.ts';
import { ForwardingPort } from '../l2/forwarding-port.ts';
import { createMessageRing, MessageRing } from '../l2/groups/message-ring.ts';
import { Snoop } from '../l2/groups/snoop.ts';
import { GroupTable } from '../l2/groups/table.ts';
import { PORT_COUNTS } from '../l2/port-counts.ts';
import { egressOfWorker } from '../worker/placement.ts';
import type { PortView } from '../worker/pool.ts';
import { Explainer } from './explain.ts';
import { PLACED_HEAD_BYTES, type PlacedFrame, TraceEgress, TraceIngress } from './queues.ts';
import type { TraceQuestion, TraceReport } from './report.ts';
import { requestOf } from './request-of.ts';
import { SeenFdb } from './seen-fdb.ts';

/** Before the frame, for tags; and so that it lies where frames lie best. */
const ROOM_BYTES = 64;
const FRAME_AREA_BYTES = ROOM_BYTES + Math.ceil(FRAME_BYTES_MAX / 64) * 64;

/** A port as a trace is told of it. */
export type TracedPort = {
  readonly id: number;
  readonly name: string;
  /** One line on what it is and how it is. */
  readonly text: string;
  readonly view: PortView;
};

/** What is traced on. */
export type TraceHost = {
  readonly arena: Arena;
  readonly arenaView: ArenaView;
  readonly fdb: SharedArrayBuffer;
  /** Null, or left out: groups are flooded. */
  readonly groupTable?: SharedArrayBuffer | null;
  readonly vlanLimit: number;
  readonly workerCount: number;
};

/** What a forwarder left behind. */
export type TraceFindings = {
  readonly sender: ForwardingPort;
  readonly ports: ReadonlyMap<number, ForwardingPort>;
  readonly fdb: SeenFdb;
  readonly placed: readonly PlacedFrame[];
  /** Tags of the frame inside the switch. */
  readonly outer: number;
  readonly inner: number;
  /** Where it goes: a port's id, or a code of look-up or of the stage that knows groups. */
  readonly target: number;
  /** Of a group: it goes to members and routers, not to all. */
  readonly isToMembers: boolean;
};

/** Whose batch can be looked at. */
class TracedForwarder extends Forwarder {
  get outer(): number {
    return this.batch.tags.outerOf(0);
  }

  isToMembers(snoop: Snoop): boolean {
    return snoop.receiversOf(this.batch, 0) !== null;
  }

  get target(): number {
    return this.batch.records[AT_TARGET];
  }

  get inner(): number {
    return this.batch.tags.innerOf(0);
  }
}

export class Tracer {
  readonly #host: TraceHost;
  /** Made for the first trace. */
  #scratchOffset: number | null = null;

  constructor(host: TraceHost) {
    this.#host = host;
  }

  /** `ports`: all of the switch, `question.port` among them; `tick`: the seconds clock by which addresses age. */
  trace(question: TraceQuestion, ports: readonly TracedPort[], tick: number): TraceReport {
    const from = ports.find(({ name }) => name === question.port) as TracedPort;
    const findings = this.#forward(question, from, ports, tick);
    return new Explainer(question, from, ports, findings, tick).report();
  }

  #forward(
    { frame, segmentBytes }: TraceQuestion,
    from: TracedPort,
    ports: readonly TracedPort[],
    tick: number,
  ): TraceFindings {
    const { arena, arenaView, workerCount, vlanLimit } = this.#host;
    this.#scratchOffset ??= allocateScratch(arena, {
      name: 'ringway-trace',
      sizeBytes: FORWARDER_SCRATCH_BYTES + FRAME_AREA_BYTES + PLACED_HEAD_BYTES,
    }).offset;
    const frameOffset = this.#scratchOffset + FORWARDER_SCRATCH_BYTES + ROOM_BYTES;
    const headOffset = this.#scratchOffset + FORWARDER_SCRATCH_BYTES + FRAME_AREA_BYTES;
    const fdb = new SeenFdb(this.#host.fdb);
    const forwarder = new TracedForwarder(arenaView, fdb, () => {}, this.#scratchOffset, vlanLimit);
    forwarder.nowTick = tick;
    const groupTable = this.#host.groupTable ?? null;
    // Whatever the frame says of groups ends here.
    const snoop =
      groupTable === null
        ? null
        : new Snoop(arenaView, new GroupTable(groupTable), new MessageRing(createMessageRing()), () => {});
    if (snoop !== null) forwarder.snoopBy(snoop);
    const placed: PlacedFrame[] = [];
    const states = new Map<number, ForwardingPort>();
    for (const { id, view } of ports) {
      const port = new ForwardingPort(id, new Float64Array(PORT_COUNTS), view.meters);
      states.set(id, port);
      forwarder.addPort(port);
      forwarder.follow(port, view.policy);
      const queues = view.egress.map((index) => new TraceEgress(id, index, arenaView, headOffset, placed));
      port.setQueues(egressOfWorker(queues, from.view.worker ?? 0, workerCount));
    }
    for (const { id, view } of ports)
      forwarder.setCopies(id, view.policy.copiesOf?.map(({ portId }) => portId) ?? null);
    arenaView.u8.set(frame, frameOffset);
    const request = segmentBytes === null ? null : requestOf(frame, segmentBytes);
    forwarder.forwardBurst(new TraceIngress(from.id, arenaView, frameOffset, frame.length, request));
    const sender = states.get(from.id) as ForwardingPort;
    const { outer, inner, target } = forwarder;
    const isToMembers = snoop !== null && forwarder.isToMembers(snoop);
    return { sender, ports: states, fdb, placed, outer, inner, target, isToMembers };
  }
}
