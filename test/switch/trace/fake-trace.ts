/** Traces on a FakeSwitch: the same policies, tables and queues that its forwarder has. */
import { DEFAULT_POLICY, type PortPolicy } from '../../../src/queue/policy.ts';
import { PORT_METERS_BYTES } from '../../../switch/l2/port-meters.ts';
import type { TracedPlugin } from '../../../switch/trace/asked-plugins.ts';
import type { TraceReport } from '../../../switch/trace/report.ts';
import type { TracedPort } from '../../../switch/trace/trace-run.ts';
import { Tracer } from '../../../switch/trace/tracer.ts';
import { FakeSwitch } from '../l2/fake-switch.ts';
import { arena, arenaView } from '../l2/frames.ts';

type TracedOptions = {
  readonly vlanLimit?: number;
  readonly queues?: number;
  /** In place of one of its own; it has the policies already. */
  readonly fake?: FakeSwitch | null;
  readonly groupTable?: SharedArrayBuffer | null;
  readonly pluginsMs?: number;
};

export class TracedSwitch {
  readonly fake: FakeSwitch;
  readonly #policies: readonly PortPolicy[];
  readonly #tracer: Tracer;

  constructor(
    policies: readonly Partial<PortPolicy>[],
    { vlanLimit = 1, queues = 1, fake = null, groupTable = null, pluginsMs }: TracedOptions = {},
  ) {
    FakeSwitch.vlanLimit = vlanLimit;
    this.fake = fake ?? new FakeSwitch(...policies.map(() => queues));
    this.#policies = policies.map((policy) => ({ ...DEFAULT_POLICY, ...policy }));
    for (const [id, policy] of this.#policies.entries()) this.fake.follow(this.fake.ports[id], policy);
    for (const [id, policy] of this.#policies.entries())
      this.fake.forwarder.setCopies(id, policy.copiesOf?.map(({ portId }) => portId) ?? null);
    this.#tracer = new Tracer(
      { arena, arenaView, fdb: this.fake.fdbMemory, groupTable, vlanLimit, workerCount: 1 },
      pluginsMs,
    );
  }

  /** Ports are named `p0` and so on. */
  trace(port: number, frame: Uint8Array, segmentBytes: number | null = null): TraceReport {
    return this.#tracer.trace({ port: `p${port}`, frame, segmentBytes }, this.#ports, this.#tick);
  }

  traceWith(plugins: readonly TracedPlugin[], port: number, frame: Uint8Array): Promise<TraceReport> {
    const question = { port: `p${port}`, frame, segmentBytes: null };
    return this.#tracer.traceWith(plugins, question, this.#ports, this.#tick);
  }

  get #tick(): number {
    return this.fake.forwarder.nowTick;
  }

  get #ports(): TracedPort[] {
    return this.#policies.map((policy, id) => ({
      id,
      name: `p${id}`,
      text: `p${id}: vhost-user, running`,
      view: {
        policy,
        egress: this.fake.ports[id].to.map(({ queueIndex }) => queueIndex),
        worker: 0,
        meters: new SharedArrayBuffer(PORT_METERS_BYTES),
      },
    }));
  }
}
