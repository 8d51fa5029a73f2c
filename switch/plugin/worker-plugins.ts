/**
 * The plugins of one worker: loads what the main thread tried, exchanges it between two bursts, calls the hooks, and decides which
 * plugins frames of which port pass. A worker's thread.
 */
import type { Forwarder } from '../l2/forwarder.ts';
import { COUNTS_FIRST, countsOf, type PluginBundle } from './bundle.ts';
import {
  Context,
  checkAnswer,
  checkedPlugin,
  Declared,
  type NamedPort,
  NamedPorts,
  PluginError,
  PluginInstance,
  reasonOf,
} from './instance.ts';
import { loadModules } from './modules.ts';
import { SettingReader } from './settings.ts';
import type { PluginFaultListener, PluginStage } from './stage.ts';
import { factoryOf } from './trial-run.ts';
import { allowTurns, LOAD_TURNS_MAX } from './turn-budget.ts';

/** What the main thread orders of plugins. */
export type PluginOrder =
  /** Loads it beside those in use; what goes wrong is reported before the order is answered. */
  | { readonly kind: 'loadPlugin'; readonly bundle: PluginBundle; readonly counts: SharedArrayBuffer }
  /** Those, in this order, decide from now on; all others are forgotten. */
  | { readonly kind: 'usePlugins'; readonly numbers: readonly number[] }
  /** It failed, in another worker or by what the main thread noticed. */
  | { readonly kind: 'failPlugin'; readonly number: number }
  /** A second is over. */
  | { readonly kind: 'tickPlugins'; readonly seconds: number };

export type PluginReport =
  | { readonly kind: 'pluginRefused'; readonly number: number; readonly reason: string }
  | { readonly kind: 'pluginFailed'; readonly number: number; readonly reason: string }
  | {
      readonly kind: 'pluginSaid';
      readonly number: number;
      readonly lines: readonly string[];
      readonly notes: readonly (readonly [key: string, value: string | null])[];
    };

export class WorkerPlugins {
  readonly #forwarder: Forwarder;
  readonly stage: PluginStage;
  readonly #tell: (report: PluginReport) => void;
  readonly #workerIndex: number;
  readonly #ports = new NamedPorts();
  /** By number, those in use and those that are about to be. */
  readonly #loaded = new Map<number, PluginInstance>();
  #used: readonly PluginInstance[] = [];

  /** `callWords`: as of PluginStage; `Stage`: who asks them. */
  constructor(
    forwarder: Forwarder,
    workerIndex: number,
    callWords: Int32Array,
    tell: (report: PluginReport) => void,
    Stage?: typeof PluginStage,
  ) {
    this.#forwarder = forwarder;
    this.#workerIndex = workerIndex;
    this.#tell = tell;
    const onFault: PluginFaultListener = ({ number }, reason) =>
      tell({ kind: 'pluginFailed', number, reason });
    this.stage = forwarder.addPlugins(callWords, onFault, undefined, Stage);
  }

  obey(order: PluginOrder): void {
    switch (order.kind) {
      case 'loadPlugin':
        this.#load(order.bundle, order.counts);
        break;
      case 'usePlugins':
        this.#use(order.numbers);
        break;
      case 'failPlugin': {
        const instance = this.#loaded.get(order.number);
        if (instance !== undefined) instance.isFailed = true;
        break;
      }
      case 'tickPlugins':
        this.#tick(order.seconds);
        break;
    }
  }

  /** Call after the forwarder has it. Without a name it is none of the user's, and no plugin's business. */
  portAdded(id: number, name: string): void {
    if (name === '') return;
    const port = this.#ports.add(id, name);
    for (const instance of this.#used) this.#call(instance, 'portAdded', port);
    this.#refresh(port);
  }

  /** The port follows another policy now. */
  portChanged(id: number): void {
    const port = this.#ports.withId(id);
    if (port !== undefined) this.#refresh(port);
  }

  portRemoved(id: number): void {
    const port = this.#ports.remove(id);
    if (port === undefined) return;
    for (const instance of this.#used) this.#call(instance, 'portRemoved', port);
  }

  #load(bundle: PluginBundle, counts: SharedArrayBuffer): void {
    const { number } = bundle;
    try {
      const size = countsOf(bundle);
      const own = new Float64Array(counts, this.#workerIndex * size * 8, size);
      this.#loaded.set(number, instanceOf(bundle, this.#ports, own));
    } catch (error) {
      this.#tell({ kind: 'pluginRefused', number, reason: reasonOf(error) });
    }
  }

  #use(numbers: readonly number[]): void {
    const before = this.#used;
    this.#used = numbers
      .map((number) => this.#loaded.get(number))
      .filter((instance) => instance !== undefined);
    for (const instance of before) this.#tellSayings(instance);
    for (const number of [...this.#loaded.keys()]) if (!numbers.includes(number)) this.#loaded.delete(number);
    for (const instance of this.#used) {
      if (before.includes(instance)) continue;
      for (const port of this.#ports.all) this.#call(instance, 'portAdded', port);
    }
    for (const port of this.#ports.all) this.#refresh(port);
  }

  #refresh(name: NamedPort): void {
    const port = this.#forwarder.port(name.id);
    if (port === undefined) return;
    const { plugins } = port;
    const run = this.#used.filter((instance) => plugins === null || plugins.includes(instance.name));
    this.stage.setRun(port, name, run);
  }

  #tick(seconds: number): void {
    for (const instance of this.#used) {
      this.#call(instance, 'tick', seconds);
      this.#tellSayings(instance);
    }
  }

  #tellSayings({ number, context }: PluginInstance): void {
    const sayings = context.takeSayings();
    if (sayings !== null) this.#tell({ kind: 'pluginSaid', number, ...sayings });
  }

  /** A hook: what it throws is the plugin's fault. */
  #call(instance: PluginInstance, hook: 'portAdded' | 'portRemoved', port: NamedPort): void;
  #call(instance: PluginInstance, hook: 'tick', seconds: number): void;
  #call(instance: PluginInstance, hook: 'portAdded' | 'portRemoved' | 'tick', of: NamedPort | number): void {
    if (instance.isFailed) return;
    const call = instance.plugin[hook] as ((of: NamedPort | number) => unknown) | undefined;
    if (call === undefined) return;
    try {
      this.stage.callHook(instance, () => checkAnswer(hook, call.call(instance.plugin, of)));
    } catch (error) {
      instance.isFailed = true;
      this.#tell({ kind: 'pluginFailed', number: instance.number, reason: reasonOf(error) });
    }
  }
}

/** `counts`: of countsOf(bundle). @throws whatever the plugin's code does, and when it is not what was tried */
export function instanceOf(bundle: PluginBundle, ports: NamedPorts, counts: Float64Array): PluginInstance {
  const { number, spec, modules, drops, counters } = bundle;
  allowTurns(LOAD_TURNS_MAX);
  const module = loadModules(number, spec.file, (path) => {
    const source = modules[path];
    if (source === undefined) throw new PluginError(`it imports ${path} only at times`);
    return source;
  });
  const declared = new Declared();
  const settings = new SettingReader(spec.settings, spec.folder, new Map(bundle.texts));
  const context = new Context(spec.name, ports, declared, drops.length, counts);
  const plugin = checkedPlugin(factoryOf(module)(settings, context));
  declared.isClosed = true;
  const isAsTried =
    declared.drops.length === drops.length &&
    declared.drops.every(({ name }, i) => name === drops[i].name) &&
    declared.counters.length === counters.length &&
    declared.counters.every((name, i) => name === counters[i]) &&
    COUNTS_FIRST + drops.length + counters.length === counts.length;
  if (!isAsTried) throw new PluginError('it declares other reasons and counters than when it was tried');
  return new PluginInstance(plugin, context, counts, {
    number,
    readsHeaders: bundle.readsHeaders,
    onFault: bundle.onFault,
    reasonCount: drops.length,
    budgetUs: spec.budgetUs,
  });
}
