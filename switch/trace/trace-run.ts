/**
 * Has a forwarder as the workers have one, with the same policies and tables, forward one frame between queues that only note what
 * they are given. The stages are the workers' own; what they decided is read from what they leave behind: the batch, the
 * table's answers, the counters, the frames that were placed. Nothing is learned, counted or sent. In any thread: that of
 * a trace that asks plugins has a memory of its own.
 */
import { FRAME_BYTES_MAX } from '../../protocol/ethernet.ts';
import type { ArenaView } from '../../src/memory/arena-view.ts';
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
/** Of memory, within one window, for whoever runs one trace after the other. */
export const TRACE_BYTES = FORWARDER_SCRATCH_BYTES + FRAME_AREA_BYTES + PLACED_HEAD_BYTES;

/** A port as a trace is told of it. */
export type TracedPort = {
  readonly id: number;
  readonly name: string;
  /** One line on what it is and how it is. */
  readonly text: string;
  readonly view: PortView;
};

/** What a trace looks at; plain data that can be posted. */
export type TraceInput = {
  readonly question: TraceQuestion;
  /** All of the switch, the one of the question among them. */
  readonly ports: readonly TracedPort[];
  /** The seconds clock by which addresses age. */
  readonly tick: number;
  readonly fdb: SharedArrayBuffer;
  /** Null, or left out: groups are flooded. */
  readonly groupTable?: SharedArrayBuffer | null;
  readonly vlanLimit: number;
  readonly workerCount: number;
};

/** What a plugin that the frame came to said of it. */
export type PluginFinding = {
  readonly name: string;
  /** Why it was taken out before, or would be for what it did with this frame; null: neither. */
  readonly fault: string | null;
  readonly onFault: 'drop' | 'pass';
  /** Null: it does not drop it. */
  readonly drop: { readonly name: string; readonly text: string } | null;
  readonly isRedirected: boolean;
  /** To a port that is not there. */
  readonly isNowhere: boolean;
  readonly isMirrored: boolean;
  /** Tags of the frame when it was asked; null: it was not. */
  readonly asked: { readonly outer: number; readonly inner: number } | null;
};

/** Beside a forwarder that is about to forward the frame. */
export interface TracedPlugins {
  /** After all ports were added. */
  begin(forwarder: TracedForwarder, ports: readonly TracedPort[]): void;
  /** Of those that frames of the port pass, in order. */
  findings(port: ForwardingPort): PluginFinding[];
}

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
  readonly plugins: readonly PluginFinding[];
  /** Why plugins that it would have come to were not asked; null: there are none, or they were. */
  readonly unasked: string | null;
};

/** Whose batch can be looked at. */
export class TracedForwarder extends Forwarder {
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

/** `offset`: of TRACE_BYTES in the arena. `plugins`: what asks them, or why they are not asked, or null: there are none. */
export function runTrace(
  input: TraceInput,
  arena: ArenaView,
  offset: number,
  plugins: TracedPlugins | string | null,
): TraceReport {
  const { question, ports, tick } = input;
  const from = ports.find(({ name }) => name === question.port) as TracedPort;
  const findings = forward(input, from, arena, offset, plugins);
  return new Explainer(question, from, ports, findings, tick).report();
}

function forward(
  { question, ports, tick, fdb: fdbMemory, groupTable = null, vlanLimit, workerCount }: TraceInput,
  from: TracedPort,
  arena: ArenaView,
  offset: number,
  plugins: TracedPlugins | string | null,
): TraceFindings {
  const { frame, segmentBytes } = question;
  const frameOffset = offset + FORWARDER_SCRATCH_BYTES + ROOM_BYTES;
  const headOffset = offset + FORWARDER_SCRATCH_BYTES + FRAME_AREA_BYTES;
  const fdb = new SeenFdb(fdbMemory);
  const forwarder = new TracedForwarder(arena, fdb, () => {}, offset, vlanLimit);
  forwarder.nowTick = tick;
  // Whatever the frame says of groups ends here.
  const snoop =
    groupTable === null
      ? null
      : new Snoop(arena, new GroupTable(groupTable), new MessageRing(createMessageRing()), () => {});
  if (snoop !== null) forwarder.snoopBy(snoop);
  const placed: PlacedFrame[] = [];
  const states = new Map<number, ForwardingPort>();
  for (const { id, view } of ports) {
    const port = new ForwardingPort(id, new Float64Array(PORT_COUNTS), view.meters);
    states.set(id, port);
    forwarder.addPort(port);
    forwarder.follow(port, view.policy);
    const queues = view.egress.map((index) => new TraceEgress(id, index, arena, headOffset, placed));
    port.setQueues(egressOfWorker(queues, from.view.worker ?? 0, workerCount));
  }
  for (const { id, view } of ports)
    forwarder.setCopies(id, view.policy.copiesOf?.map(({ portId }) => portId) ?? null);
  const asking = typeof plugins === 'string' ? null : plugins;
  asking?.begin(forwarder, ports);
  arena.u8.set(frame, frameOffset);
  const request = segmentBytes === null ? null : requestOf(frame, segmentBytes);
  forwarder.forwardBurst(new TraceIngress(from.id, arena, frameOffset, frame.length, request));
  const sender = states.get(from.id) as ForwardingPort;
  const { outer, inner, target } = forwarder;
  const isToMembers = snoop !== null && forwarder.isToMembers(snoop);
  return {
    ...{ sender, ports: states, fdb, placed, outer, inner, target, isToMembers },
    plugins: asking?.findings(sender) ?? [],
    unasked: typeof plugins === 'string' ? plugins : null,
  };
}
