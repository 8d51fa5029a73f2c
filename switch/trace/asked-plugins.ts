/**
 * Plugins in a trace: loaded as a worker loads them, and asked by the workers' own stage, which notes whom it asks and with which
 * tags. They know nothing of what those in the workers have seen. The thread of a trace.
 */
import type { Batch } from '../../src/queue/batch.ts';
import type { ForwardingPort } from '../l2/forwarding-port.ts';
import {
  COUNT_MIRRORED,
  COUNT_NOWHERE,
  COUNT_REDIRECTED,
  COUNTS_FIRST,
  countsOf,
  type PluginBundle,
} from '../plugin/bundle.ts';
import type { PluginInstance } from '../plugin/instance.ts';
import { PluginStage } from '../plugin/stage.ts';
import { WorkerPlugins } from '../plugin/worker-plugins.ts';
import type { PluginFinding, TracedForwarder, TracedPlugins, TracedPort } from './trace-run.ts';

export type TracedPlugin = {
  readonly bundle: PluginBundle;
  /** Why it was taken out; null: it was not. */
  readonly reason: string | null;
};

type Asked = NonNullable<PluginFinding['asked']>;

class WatchedStage extends PluginStage {
  readonly asked = new Map<number, Asked>();

  protected override ask(instance: PluginInstance, batch: Batch): boolean {
    this.asked.set(instance.number, { outer: batch.tags.outerOf(0), inner: batch.tags.innerOf(0) });
    return super.ask(instance, batch);
  }
}

export class AskedPlugins implements TracedPlugins {
  readonly #plugins: readonly TracedPlugin[];
  readonly #countsOf = new Map<number, Float64Array>();
  readonly #faults = new Map<number, string>();
  #asked: ReadonlyMap<number, Asked> = new Map();

  constructor(plugins: readonly TracedPlugin[]) {
    this.#plugins = plugins;
  }

  begin(forwarder: TracedForwarder, ports: readonly TracedPort[]): void {
    const loaded = new WorkerPlugins(
      forwarder,
      0,
      new Int32Array(2),
      (report) => {
        if (report.kind !== 'pluginSaid') this.#faults.set(report.number, report.reason);
      },
      WatchedStage,
    );
    this.#asked = (loaded.stage as WatchedStage).asked;
    for (const { id, name } of ports) loaded.portAdded(id, name);
    for (const { bundle, reason } of this.#plugins) {
      const { number } = bundle;
      const counts = new SharedArrayBuffer(countsOf(bundle) * 8);
      this.#countsOf.set(number, new Float64Array(counts));
      loaded.obey({ kind: 'loadPlugin', bundle, counts });
      if (reason === null) continue;
      this.#faults.set(number, reason);
      loaded.obey({ kind: 'failPlugin', number });
    }
    loaded.obey({ kind: 'usePlugins', numbers: this.#plugins.map(({ bundle }) => bundle.number) });
  }

  findings({ plugins }: ForwardingPort): PluginFinding[] {
    const findings: PluginFinding[] = [];
    for (const { bundle } of this.#plugins) {
      if (plugins !== null && !plugins.includes(bundle.spec.name)) continue;
      const finding = this.#findingOf(bundle);
      if (finding === null) break;
      findings.push(finding);
      if (finding.drop !== null || finding.isNowhere) break;
      if (finding.fault !== null && finding.onFault === 'drop') break;
    }
    return findings;
  }

  /** Null: the frame did not come to it. */
  #findingOf({ number, spec, onFault, drops }: PluginBundle): PluginFinding | null {
    const asked = this.#asked.get(number);
    const fault = this.#faults.get(number) ?? null;
    if (asked === undefined && fault === null) return null;
    const counts = this.#countsOf.get(number) as Float64Array;
    return {
      name: spec.name,
      fault,
      onFault,
      drop: drops.find((_, i) => counts[COUNTS_FIRST + i] > 0) ?? null,
      isRedirected: counts[COUNT_REDIRECTED] > 0,
      isNowhere: counts[COUNT_NOWHERE] > 0,
      isMirrored: counts[COUNT_MIRRORED] > 0,
      asked: asked ?? null,
    };
  }
}
