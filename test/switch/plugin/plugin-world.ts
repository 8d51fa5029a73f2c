/** A switch of fake queues (../l2/fake-switch.ts) whose frames pass plugins that are given as objects, or as files. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { BUDGET_US_DEFAULT, COUNTS_FIRST, countsOf, type PluginSpec } from '../../../switch/plugin/bundle.ts';
import {
  Context,
  checkedPlugin,
  Declared,
  type NamedPort,
  NamedPorts,
  PluginInstance,
} from '../../../switch/plugin/instance.ts';
import type { PluginFactory } from '../../../switch/plugin/interface.ts';
import { SettingReader } from '../../../switch/plugin/settings.ts';
import type { PluginStage } from '../../../switch/plugin/stage.ts';
import { runTrial } from '../../../switch/plugin/trial-run.ts';
import { installTurns } from '../../../switch/plugin/turn-budget.ts';
import { instanceOf } from '../../../switch/plugin/worker-plugins.ts';
import { type FakePort, FakeSwitch } from '../l2/fake-switch.ts';

const DECLARED_MAX = 32;

export type Fault = { readonly name: string; readonly reason: string };

/** Ports 0, 1, … are called vm0, vm1, …; all their frames pass the plugins, in the order in which they were added. */
export class PluginWorld extends FakeSwitch {
  readonly names = new NamedPorts();
  readonly pluginFaults: Fault[] = [];
  readonly stage: PluginStage;
  /** The clock by which calls are measured. */
  nowUs = 0;
  readonly #instances: PluginInstance[] = [];

  constructor(...queueCounts: number[]) {
    super(...queueCounts);
    installTurns();
    this.stage = this.forwarder.addPlugins(
      new Int32Array(2),
      ({ name }, reason) => this.pluginFaults.push({ name, reason }),
      () => this.nowUs,
    );
    for (const port of this.ports) this.names.add(port.state.id, `vm${port.state.id}`);
  }

  nameOf(port: FakePort): NamedPort {
    return this.names.named(`vm${port.state.id}`);
  }

  /** Frames pass it from now on. */
  plug(factory: PluginFactory, onFault: 'drop' | 'pass' = 'drop', settings = {}): PluginInstance {
    const name = `plugin${this.#instances.length}`;
    // Where its own counters begin is known only when it has declared its reasons: here they come behind as many as can be.
    const counts = new Float64Array(COUNTS_FIRST + 2 * DECLARED_MAX);
    const declared = new Declared();
    const context = new Context(name, this.names, declared, DECLARED_MAX, counts);
    const plugin = checkedPlugin(factory(new SettingReader(settings, '/', new Map()), context));
    const instance = new PluginInstance(plugin, context, counts, {
      number: this.#instances.length + 1,
      readsHeaders: plugin.reads === 'headers',
      onFault,
      reasonCount: declared.drops.length,
      budgetUs: BUDGET_US_DEFAULT,
    });
    this.#instances.push(instance);
    for (const port of this.ports) this.stage.setRun(port.state, this.nameOf(port), this.#instances);
    return instance;
  }
}

/** Loads a plugin's file as a worker does, and has the frames of all ports pass it. `texts`: files that it reads, by path. */
export function plugFile(
  world: PluginWorld,
  spec: PluginSpec,
  texts: Readonly<Record<string, string>> = {},
): PluginInstance {
  const result = runTrial({ number: ++lastNumber, spec }, new Map(Object.entries(texts)));
  if ('faults' in result)
    throw new Error(result.faults.map(({ name, text }) => `${name}: ${text}`).join('; '));
  const bundle = { ...result.bundle, number: ++lastNumber };
  const instance = instanceOf(bundle, world.names, new Float64Array(countsOf(bundle)));
  for (const port of world.ports) {
    world.stage.setRun(port.state, world.nameOf(port), [instance]);
    instance.plugin.portAdded?.(world.nameOf(port));
  }
  return instance;
}

/** Other than those of trials in threads. */
let lastNumber = 1_000_000;

/** A folder of files of plugins. */
export class PluginFolder {
  readonly path = mkdtempSync(join(tmpdir(), 'ringway-plugins-'));

  write(name: string, text: string): string {
    const path = join(this.path, name);
    writeFileSync(path, text);
    return path;
  }

  close(): void {
    rmSync(this.path, { recursive: true });
  }
}

export function specOf(
  file: string,
  settings: PluginSpec['settings'] = {},
  change: Partial<PluginSpec> = {},
): PluginSpec {
  return { name: 'rule', file, settings, folder: '/', onFault: null, budgetUs: 1_000_000, ...change };
}
