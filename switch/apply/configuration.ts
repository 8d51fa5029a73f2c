/**
 * What the switch that runs is configured to be: shown as a configuration, compared with another one, and changed into it
 * (plan.ts): all of it or nothing, and what does not differ is not touched. The settings are those of a file; options of the
 * command line add to them and override them, as at the start, but for ports and plugins where it is another file. Main thread.
 */
import { resolve } from 'node:path';
import { withWholePaths } from '../config/kinds/index.ts';
import { type PortConfig, resolveConfig, type SwitchConfig } from '../config/resolve.ts';
import {
  isSettingMap,
  mergedValues,
  type SettingMap,
  type SettingSource,
  type SettingValue,
  valueAt,
} from '../config/settings.ts';
import type { KeptPorts } from '../kept-ports.ts';
import type { Logger } from '../log.ts';
import { BUDGET_US_DEFAULT, type PluginSpec } from '../plugin/bundle.ts';
import { PortConflictError } from '../port-errors.ts';
import { type Difference, linesOf, type Plan, planOf, type ValueChange } from './plan.ts';

/** The switch, as far as it matters here. */
export type ConfiguredSwitch = {
  readonly portConfigs: readonly PortConfig[];
  readonly pluginSpecs: readonly PluginSpec[];
  /** @throws ConfigError with all that cannot be */
  tryPlugins(specs: readonly PluginSpec[]): Promise<void>;
};

/** What is told of a configuration that is to be applied, or was. */
export type ApplyReport = {
  readonly differences: readonly Difference[];
  /** Of these, a line each. */
  readonly lines: readonly string[];
  /** Whether the switch is now as they say. */
  readonly applied: boolean;
};

type Settings = Readonly<Record<string, unknown>>;

/** Settings of the whole switch that are paths; addresses may be. */
const PATHS: readonly string[] = ['control', 'positions', 'state', 'metricsToken', 'webToken'];
const ADDRESSES: readonly string[] = ['metrics', 'web'];
const SAID_BY_ANOTHER: readonly string[] = ['ports', 'plugins'];

export class Configuration {
  readonly #running: ConfiguredSwitch;
  readonly #kept: KeptPorts;
  readonly #log: Logger;
  /** As it was started. */
  readonly #started: SwitchConfig;
  readonly #options: SettingSource;
  /** Of the file that it was started with, or what took its place. */
  #file: SettingSource | null;
  /** One after the other. Never rejects. */
  #last: Promise<unknown> = Promise.resolve();

  /** `file`: null where there is none. */
  constructor(of: {
    readonly running: ConfiguredSwitch;
    readonly kept: KeptPorts;
    readonly log: Logger;
    readonly started: SwitchConfig;
    readonly file: SettingSource | null;
    readonly options: SettingSource;
  }) {
    this.#running = of.running;
    this.#kept = of.kept;
    this.#log = of.log;
    this.#started = of.started;
    this.#file = of.file;
    this.#options = of.options;
  }

  /** What runs, as settings that a start with them alone would come to. */
  shown(): SettingMap {
    const merged = mergedValues(this.#sources(this.#file));
    const { ports: _, plugins: __, ...whole } = merged;
    const ports = this.#running.portConfigs.map(({ name }) => [name, this.#givenOf(name, merged)] as const);
    const plugins = this.#running.pluginSpecs.map((spec) => [spec.name, shownPlugin(spec)] as const);
    return {
      ports: Object.fromEntries(ports),
      ...(plugins.length > 0 && { plugins: Object.fromEntries(plugins) }),
      ...Object.fromEntries(Object.entries(whole).map(([key, value]) => [key, fromTheRoot(key, value)])),
    };
  }

  /** The settings of a running port as they were given. */
  #givenOf(name: string, merged: SettingMap): SettingMap {
    const configured = valueAt(merged, ['ports', name]);
    const given = this.#kept.settingsOf(name) ?? {
      ...(isSettingMap(configured) ? configured : {}),
      ...this.#kept.setOf(name),
    };
    const present = Object.entries(given).filter(([, value]) => value != null);
    return textOf(withWholePaths(Object.fromEntries(present)));
  }

  /**
   * Has the switch be as this file says; `isOwn`: the next start reads it too. With `dryRun` it is only told what would be
   * done. @throws ConfigError, PortConflictError, SocketPathError, HostError, TuningError: then all is as it was
   */
  apply(file: SettingSource, dryRun: boolean, isOwn: boolean): Promise<ApplyReport> {
    const done = this.#last.then(() => this.#apply(file, dryRun, isOwn));
    this.#last = done.catch(() => {});
    return done;
  }

  /** Resolves when nothing is being applied; what is asked for afterwards has not begun. */
  async settled(): Promise<void> {
    for (let last: unknown; last !== this.#last; ) {
      last = this.#last;
      await last;
    }
  }

  async #apply(file: SettingSource, dryRun: boolean, isOwn: boolean): Promise<ApplyReport> {
    const sources = isOwn ? this.#sources(file) : this.#sourcesOfAnother(file);
    const wanted = resolveConfig(sources);
    const merged = mergedValues(sources);
    const plan = planOf(
      { config: this.#started, ports: this.#running.portConfigs, plugins: this.#running.pluginSpecs },
      { config: wanted, ports: wanted.ports, plugins: wanted.plugins },
      (name) => valueAt(merged, [name]) !== undefined,
    );
    const lines = linesOf(plan.differences);
    if (dryRun) {
      if (plan.plugins !== null) await this.#running.tryPlugins(plan.plugins);
      return { differences: plan.differences, lines, applied: false };
    }
    const fixed = plan.differences.filter(({ what }) => what === 'switch');
    if (fixed.length > 0)
      throw new PortConflictError(
        `nothing was changed, because a running switch keeps ${fixed.map(({ name }) => name).join(', ')}: start another one with these settings and --takeover`,
      );
    await this.#carryOut(plan, merged);
    if (isOwn) {
      this.#file = file;
      this.#kept.configuredAs(wanted);
    }
    for (const line of lines) this.#log.info(`applied: ${line}`);
    return { differences: plan.differences, lines, applied: true };
  }

  #sources(file: SettingSource | null): SettingSource[] {
    return file === null ? [this.#options] : [file, this.#options];
  }

  /**
   * A file that the next start does not read says by itself which ports and plugins there are, as whoever types `ringway add`
   * and `ringway set` does: `--port` does not go before it.
   */
  #sourcesOfAnother(file: SettingSource): SettingSource[] {
    const saysItself = (key: string): boolean => SAID_BY_ANOTHER.includes(key) && key in file.values;
    const values = Object.entries(this.#options.values).filter(([key]) => !saysItself(key));
    return [file, { ...this.#options, values: Object.fromEntries(values) }];
  }

  /** Each step is noted with the one that takes it back. What may be refused comes before what a guest would notice. */
  async #carryOut(plan: Plan, merged: SettingMap): Promise<void> {
    const kept = this.#kept;
    const before = mergedValues(this.#sources(this.#file));
    const undo: (() => Promise<void>)[] = [];
    const keepAsBefore = kept.memento(namesIn(plan));
    const giveBack = kept.belongingsOf(new Set(plan.replaced.map(({ to }) => to.name)));
    const oldPlugins = this.#running.pluginSpecs;
    const remove = async (port: PortConfig): Promise<void> => {
      const settings = this.#givenOf(port.name, before);
      await kept.removePort(port.name);
      undo.push(() => kept.addPort(port, settings));
    };
    const add = async (port: PortConfig): Promise<void> => {
      await kept.addPort(port, valueAt(merged, ['ports', port.name]));
      undo.push(() => kept.removePort(port.name));
    };
    try {
      if (plan.plugins !== null) {
        // Ports may still name those that go.
        const names = plan.plugins.map(({ name }) => name);
        await kept.setPlugins([...plan.plugins, ...oldPlugins.filter(({ name }) => !names.includes(name))]);
        undo.push(() => kept.setPlugins(oldPlugins));
      }
      for (const { name, values } of plan.changed) {
        const old = this.#givenOf(name, before);
        await kept.changePort(name, changeTo(values, valueAt(merged, ['ports', name])));
        undo.push(() => kept.changePort(name, changeTo(values, old)));
      }
      const freed = [...plan.removed, ...plan.replaced.map(({ from }) => from)];
      for (const port of freed) await remove(port);
      for (const port of [...plan.replaced.map(({ to }) => to), ...plan.added]) await add(port);
      giveBack();
      if (plan.plugins !== null) await kept.setPlugins(plan.plugins);
    } catch (error) {
      for (const back of undo.reverse())
        await back().catch((failure: Error) =>
          this.#log.error(`could not be taken back: ${failure.message}`),
        );
      keepAsBefore();
      throw error;
    }
  }
}

/** Of the ports that are touched. */
function namesIn({ added, removed, replaced, changed }: Plan): ReadonlySet<string> {
  const all = [...added, ...removed, ...replaced.map(({ to }) => to), ...changed];
  return new Set(all.map(({ name }) => name));
}

/** As `ringway set` would say it, with the settings as they are written; null: as if left out. */
function changeTo(values: readonly ValueChange[], written: unknown): Settings {
  const settings = isSettingMap(written) ? written : {};
  return Object.fromEntries(values.map(({ key }) => [key, settings[key] ?? null]));
}

/** A path of the whole switch's from the root on: whoever reads it may be in another folder. */
function fromTheRoot(key: string, value: SettingValue): SettingValue {
  if (typeof value !== 'string' || value === 'none') return value;
  const isPath = PATHS.includes(key) || (ADDRESSES.includes(key) && value.includes('/'));
  return isPath ? resolve(value) : value;
}

function shownPlugin({ file, onFault, budgetUs, settings }: PluginSpec): SettingMap {
  return {
    file,
    ...(onFault !== null && { onFault }),
    ...(budgetUs !== BUDGET_US_DEFAULT && { budgetUs: String(budgetUs) }),
    ...settings,
  };
}

/** Settings as they are written in a file. */
function textOf(settings: Settings): SettingMap {
  const text = (value: unknown): SettingMap[string] => {
    if (Array.isArray(value)) return value.map(text);
    if (typeof value === 'object' && value !== null)
      return Object.fromEntries(Object.entries(value).map(([key, part]) => [key, text(part)]));
    return typeof value === 'boolean' ? (value ? 'on' : 'off') : String(value);
  };
  return Object.fromEntries(Object.entries(settings).map(([key, value]) => [key, text(value)]));
}
