/**
 * What would become of a frame, and why (trace-run.ts). A trace holds the main thread for about a millisecond; one that asks
 * plugins is run in a thread of its own, since nobody knows when they come to an end. Main thread.
 */
import type { Arena } from '../../src/memory/arena.ts';
import type { ArenaView } from '../../src/memory/arena-view.ts';
import { allocateScratch } from '../../src/memory/scratch.ts';
import { answerOf, NoAnswerError } from '../plugin/short-thread.ts';
import type { TracedPlugin } from './asked-plugins.ts';
import type { TraceQuestion, TraceReport } from './report.ts';
import { runTrace, TRACE_BYTES, type TracedPort, type TraceInput } from './trace-run.ts';

/** What is traced on. */
export type TraceHost = Pick<TraceInput, 'fdb' | 'groupTable' | 'vlanLimit' | 'workerCount'> & {
  readonly arena: Arena;
  readonly arenaView: ArenaView;
};

/** A trace of which a plugin is part. */
export type PluginTraceInput = TraceInput & { readonly plugins: readonly TracedPlugin[] };

const PLUGINS_MS = 10_000;
const PROGRAM = new URL(
  import.meta.url.endsWith('.ts') ? './trace-thread.ts' : './trace-thread.js',
  import.meta.url,
);

export class Tracer {
  readonly #host: TraceHost;
  readonly #pluginsMs: number;
  /** Made for the first trace. */
  #scratchOffset: number | null = null;

  /** `pluginsMs`: they may take so long. */
  constructor(host: TraceHost, pluginsMs = PLUGINS_MS) {
    this.#host = host;
    this.#pluginsMs = pluginsMs;
  }

  /** Without plugins. `ports`: all of the switch, `question.port` among them; `tick`: the seconds clock by which addresses age. */
  trace(question: TraceQuestion, ports: readonly TracedPort[], tick: number): TraceReport {
    return this.#here(this.#inputOf(question, ports, tick), null);
  }

  /** With `plugins`, those of the switch, in their order: each as it is before it has seen a frame. */
  async traceWith(
    plugins: readonly TracedPlugin[],
    question: TraceQuestion,
    ports: readonly TracedPort[],
    tick: number,
  ): Promise<TraceReport> {
    const names = ports.find(({ name }) => name === question.port)?.view.policy.plugins ?? null;
    if (!plugins.some(({ bundle: { spec } }) => names === null || names.includes(spec.name)))
      return this.trace(question, ports, tick);
    const input = this.#inputOf(question, ports, tick);
    const withPlugins: PluginTraceInput = { ...input, plugins };
    try {
      const limits = { name: 'trace', limitMs: this.#pluginsMs, when: 'asked' };
      return await answerOf<TraceReport>(PROGRAM, withPlugins, limits);
    } catch (error) {
      if (error instanceof NoAnswerError) return this.#here(input, error.message);
      throw error;
    }
  }

  #inputOf(question: TraceQuestion, ports: readonly TracedPort[], tick: number): TraceInput {
    const { fdb, groupTable = null, vlanLimit, workerCount } = this.#host;
    return { question, ports, tick, fdb, groupTable, vlanLimit, workerCount };
  }

  #here(input: TraceInput, unasked: string | null): TraceReport {
    const { arena, arenaView } = this.#host;
    this.#scratchOffset ??= allocateScratch(arena, { name: 'ringway-trace', sizeBytes: TRACE_BYTES }).offset;
    return runTrace(input, arenaView, this.#scratchOffset, unasked);
  }
}
