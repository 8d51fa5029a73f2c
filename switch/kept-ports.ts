/**
 * What was said while the switch ran, kept in a file so that the next start, or who takes over, knows it: ports that were
 * added, with their settings as they were given, what `ringway set` changed of any port, addresses that stay, members of
 * groups by hand, and plugins that were added. The configuration wins: a port or a plugin that it names is there as it says,
 * whatever was added or removed under that name; and what was set of a port holds for as long as the configuration says of
 * it what it said then. Nothing in the file stops the start, and nothing of it is left out without a line in the log; but
 * for a plugin: without a rule that was to keep something out, frames would pass that must not. Main thread.
 */
import assert from 'node:assert/strict';
import { readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { isDeepStrictEqual } from 'node:util';
import { z } from 'zod';
import { formatIp, parseIp } from '../protocol/ip-text.ts';
import { withWholePaths } from './config/kinds/index.ts';
import { stationMac } from './config/kinds/values.ts';
import { pluginClash } from './config/plugins.ts';
import { type PortConfig, resolveChange, resolvePort, type SwitchConfig } from './config/resolve.ts';
import { isSettingMap } from './config/settings.ts';
import type { ControlSource, GroupChange } from './control/api.ts';
import type { Logger } from './log.ts';
import type { PluginSpec } from './plugin/bundle.ts';
import { NoSuchPortError } from './port-errors.ts';
import type { KeptAddress } from './static-addresses.ts';

/** Of the file; one of another format is not read. */
const STATE_FORMAT = 1;
const FILE_MODE = 0o600;
const FILE_BYTES_MAX = 2 ** 24;

/** Settings of one port by name, as JSON has them. */
type Settings = Readonly<Record<string, unknown>>;

const Vlan = z.int().min(0).max(4095);
const SettingsOfPorts = z.record(z.string(), z.record(z.string(), z.unknown()));
const State = z.object({
  format: z.int(),
  ports: SettingsOfPorts,
  /** Of ports of the configuration: what it said of them, and what was set. */
  configured: SettingsOfPorts.default({}),
  set: SettingsOfPorts.default({}),
  /** Addresses that were given to ports, or stick there. */
  addresses: z
    .array(z.object({ mac: stationMac, vlan: Vlan, port: z.string(), sticky: z.boolean() }))
    .default([]),
  /** Members of groups by hand. */
  groups: z
    .array(
      z.object({ vlan: Vlan, group: z.string().refine((text) => parseIp(text) !== null), port: z.string() }),
    )
    .default([]),
  /** In the order in which they were added. */
  plugins: z
    .array(
      z.object({
        name: z.string(),
        file: z.string(),
        settings: z.record(z.string(), z.union([z.string(), z.array(z.string()).readonly()])),
        folder: z.string(),
        onFault: z.enum(['drop', 'pass']).nullable(),
        budgetUs: z.int(),
      }),
    )
    .default([]),
});
type State = z.output<typeof State>;
type KeptGroup = State['groups'][number];
const NOTHING: State = {
  format: STATE_FORMAT,
  ports: {},
  configured: {},
  set: {},
  addresses: [],
  groups: [],
  plugins: [],
};

/** What a configuration names. */
type Configured = { readonly ports: readonly PortConfig[]; readonly plugins: readonly PluginSpec[] };

/** What ports, members and plugins are added to and taken from. */
export type PortHost = Pick<
  ControlSource,
  'addPort' | 'changePort' | 'removePort' | 'addGroup' | 'removeGroup' | 'addPlugin' | 'removePlugin'
> & {
  setPlugins(specs: readonly PluginSpec[]): Promise<void>;
  /** Those of before that went with their ports, which are there again. */
  restoreAddresses(before: readonly KeptAddress[]): void;
};

export class KeptPorts implements Omit<PortHost, 'restoreAddresses'> {
  readonly #path: string | null;
  readonly #log: Logger;
  #host: PortHost | null = null;
  /** Null: not read yet. */
  #state: State | null = null;
  readonly #ports = new Map<string, Settings>();
  /** The file has more than is here. */
  #isLess = false;
  /** As the configuration says. */
  readonly #configured = new Map<string, Settings>();
  /** Of those, what was set. */
  readonly #set = new Map<string, Settings>();
  #addresses: readonly KeptAddress[] = [];
  /** By VLAN, group and port; of ports that are not there too. */
  readonly #groups = new Map<string, KeptGroup>();
  readonly #plugins = new Map<string, PluginSpec>();
  /** Names of those of the configuration. */
  #configuredPlugins: readonly string[] = [];
  /** Ports of the file that could not be had again; they stay in it. */
  readonly #missing = new Set<string>();

  /** `path`: null where nothing is kept. */
  constructor(path: string | null, log: Logger) {
    this.#path = path;
    this.#log = log;
  }

  /**
   * The ports and plugins of the configuration as they are to be started: with what was set of those ports of which it says
   * the same still, and with the plugins that were added.
   */
  changed(
    { ports: configured, plugins: named }: Configured,
    isRestored: boolean,
  ): Pick<SwitchConfig, 'ports' | 'plugins'> {
    this.#state = isRestored ? this.#read() : NOTHING;
    this.#addresses = this.#state.addresses;
    for (const each of this.#state.groups) this.#groups.set(keyOf(each), each);
    this.#configuredPlugins = named.map(({ name }) => name);
    const { set, configured: before } = this.#state;
    const plugins = [...named, ...this.#pluginsBeside(named)];
    const pluginNames = plugins.map(({ name }) => name);
    for (const port of configured) this.#configured.set(port.name, jsonOf(port));
    const gone = Object.keys(set).filter((name) => !this.#configured.has(name));
    for (const port of gone)
      this.#log.info({ port }, 'was set at run time, and is not in the configuration any more');
    const ports = configured.map((port) =>
      Object.hasOwn(set, port.name)
        ? this.#asItWasSet(port, before[port.name] ?? {}, set[port.name], pluginNames)
        : port,
    );
    return { ports, plugins };
  }

  /** Those of the file that the configuration does not name. */
  #pluginsBeside(named: readonly PluginSpec[]): readonly PluginSpec[] {
    for (const spec of this.#state?.plugins ?? []) {
      if (named.some(({ name }) => name === spec.name)) {
        this.#log.info(
          { plugin: spec.name },
          'is as the configuration says, not as it was added at run time',
        );
        this.#isLess = true;
      } else this.#plugins.set(spec.name, { ...spec, isKept: true });
    }
    return [...this.#plugins.values()];
  }

  /** The port as it was set when the configuration said `before` of it; as it is, where that does not hold. */
  #asItWasSet(port: PortConfig, before: Settings, set: Settings, pluginNames: readonly string[]): PortConfig {
    const { name } = port;
    const now = this.#configured.get(name) ?? {};
    // What a later version knows besides was not known then, and nobody can have set it.
    const saysNew = Object.keys(set).some((key) => Object.hasOwn(now, key) && !Object.hasOwn(before, key));
    if (saysNew || !Object.entries(before).every(([key, value]) => isDeepStrictEqual(now[key], value))) {
      this.#log.info({ port: name }, 'is as the configuration says now, not as it was set at run time');
      return port;
    }
    try {
      const changed = resolveChange(port, set);
      const clash = pluginClash(changed, pluginNames);
      if (clash !== null) throw new Error(`plugins: ${clash.text}`);
      this.#set.set(name, set);
      this.#log.info({ port: name, set }, 'is as it was set at run time');
      return changed;
    } catch (error) {
      this.#log.warn({ port: name }, `was set at run time, and cannot be so again: ${messageOf(error)}`);
      return port;
    }
  }

  /** Adds the ports of the file that the configuration does not name; answers those that are there. Once, after `changed`. */
  async restore(host: PortHost): Promise<PortConfig[]> {
    this.#host = host;
    for (const plugin of this.#plugins.keys())
      this.#log.info({ plugin }, 'is there again, as it was added at run time');
    const restored: PortConfig[] = [];
    const { ports, set } = this.#state ?? NOTHING;
    this.#state = null;
    const kept = Object.entries(ports);
    for (const [name, settings] of kept) {
      if (this.#configured.has(name)) {
        this.#log.info({ port: name }, 'is as the configuration says, not as it was added at run time');
        continue;
      }
      this.#ports.set(name, settings);
      try {
        const config = resolvePort(name, settings);
        await host.addPort(config, settings);
        restored.push(config);
        this.#log.info({ port: name }, 'is there again, as it was added at run time');
      } catch (error) {
        this.#missing.add(name);
        this.#log.warn({ port: name }, `was added at run time, and cannot be had again: ${messageOf(error)}`);
      }
    }
    this.#isLess ||= this.#ports.size < kept.length || this.#set.size < Object.keys(set).length;
    return restored;
  }

  /** Has ports be members again that were by hand, once those are there that are to be; after `restore`. */
  restoreGroups(): void {
    for (const each of this.#groups.values()) this.#restoreGroup(each);
  }

  #restoreGroup(each: KeptGroup): void {
    const { vlan, port, group } = each;
    try {
      this.#running.addGroup(changeOf(each));
    } catch (error) {
      const text = `was made a member of ${group} in VLAN ${vlan} at run time, and cannot be one again`;
      this.#log.warn({ port }, `${text}: ${messageOf(error)}`);
    }
  }

  /** Addresses that stay behind ports; after `changed`. */
  get addresses(): readonly KeptAddress[] {
    return this.#addresses;
  }

  keepAddresses(addresses: readonly KeptAddress[]): void {
    this.#addresses = addresses;
    this.#write();
  }

  /** Nobody else goes on with the file any more: what of it does not hold here is forgotten. */
  forgetOthers(): void {
    if (this.#isLess) this.#write();
  }

  async addPort(config: PortConfig, settings: unknown): Promise<void> {
    await this.#running.addPort(config, settings);
    this.#missing.delete(config.name);
    for (const each of this.#groups.values()) if (each.port === config.name) this.#restoreGroup(each);
    this.#ports.set(config.name, withWholePaths(isSettingMap(settings) ? settings : {}));
    this.#write();
  }

  async changePort(name: string, change: unknown): Promise<void> {
    await this.#running.changePort(name, change);
    if (!isSettingMap(change)) return;
    const settings = this.#ports.get(name);
    if (settings !== undefined) {
      const changed = Object.entries({ ...settings, ...change }).filter(([, value]) => value != null);
      this.#ports.set(name, Object.fromEntries(changed));
    } else if (this.#configured.has(name)) {
      // null stays: the configuration says something there.
      this.#set.set(name, { ...this.#set.get(name), ...change });
    } else return;
    this.#write();
  }

  /** Also forgets a port of the file that could not be had again. @throws NoSuchPortError */
  async removePort(name: string): Promise<void> {
    try {
      await this.#running.removePort(name);
    } catch (error) {
      if (!(error instanceof NoSuchPortError) || !this.#missing.delete(name)) throw error;
    }
    const groups = [...this.#groups].filter(([, { port }]) => port === name);
    for (const [key] of groups) this.#groups.delete(key);
    const wasSet = this.#set.delete(name);
    if (this.#ports.delete(name) || wasSet || groups.length > 0) this.#write();
  }

  addGroup(change: GroupChange): void {
    this.#running.addGroup(change);
    const each = { vlan: change.vlan, group: formatIp(change.group), port: change.port };
    this.#groups.set(keyOf(each), each);
    this.#write();
  }

  removeGroup(change: GroupChange): void {
    this.#running.removeGroup(change);
    if (this.#groups.delete(keyOf({ ...change, group: formatIp(change.group) }))) this.#write();
  }

  async addPlugin(spec: PluginSpec): Promise<void> {
    await this.#running.addPlugin(spec);
    this.#plugins.set(spec.name, spec);
    this.#write();
  }

  /** Has these be the plugins, in this order. @throws ConfigError, PortConflictError */
  async setPlugins(specs: readonly PluginSpec[]): Promise<void> {
    await this.#running.setPlugins(specs);
    this.#plugins.clear();
    for (const spec of specs)
      if (!this.#configuredPlugins.includes(spec.name)) this.#plugins.set(spec.name, spec);
    this.#write();
  }

  /**
   * Answers what has all of these ports, and the plugins, be kept again as it is now, and what went with ports that are there
   * again. What is said of other ports meanwhile holds.
   */
  memento(portNames: ReadonlySet<string>): () => void {
    const isOne = (name: string): boolean => portNames.has(name);
    const ports = restorer(this.#ports, isOne);
    const set = restorer(this.#set, isOne);
    const plugins = restorer(this.#plugins, () => true);
    const missing = [...this.#missing].filter(isOne);
    const giveBack = this.belongingsOf(portNames);
    return () => {
      for (const restore of [ports, set, plugins]) restore();
      for (const name of missing) this.#missing.add(name);
      giveBack();
    };
  }

  /** Answers what gives these ports, which were removed and are there again, the addresses and members that they had by hand. */
  belongingsOf(portNames: ReadonlySet<string>): () => void {
    const groups = restorer(this.#groups, (_, { port }) => portNames.has(port));
    const addresses = this.#addresses.filter(({ port }) => portNames.has(port));
    return () => {
      for (const each of groups()) this.#restoreGroup(each);
      this.#running.restoreAddresses(addresses);
      this.#write();
    };
  }

  /** Settings of a port that was added, as they were given; undefined: it is of the configuration. */
  settingsOf(name: string): Settings | undefined {
    return this.#ports.get(name);
  }

  /** What was set of a port of the configuration; null: as if left out there. */
  setOf(name: string): Settings {
    return this.#set.get(name) ?? {};
  }

  /** All is as the configuration says, which says this now. */
  configuredAs({ ports, plugins }: Configured): void {
    this.#configured.clear();
    for (const port of ports) this.#configured.set(port.name, jsonOf(port));
    this.#configuredPlugins = plugins.map(({ name }) => name);
    for (const kept of [this.#ports, this.#set, this.#plugins, this.#missing]) kept.clear();
    this.#write();
  }

  async removePlugin(name: string): Promise<void> {
    await this.#running.removePlugin(name);
    if (this.#plugins.delete(name)) this.#write();
  }

  get #running(): PortHost {
    assert(this.#host !== null, 'ports are restored before anything is changed');
    return this.#host;
  }

  #read(): State {
    const path = this.#path;
    if (path === null) return NOTHING;
    try {
      const stat = statSync(path, { throwIfNoEntry: false });
      if (stat === undefined) return NOTHING;
      if (stat.uid !== process.geteuid?.() || (stat.mode & 0o022) !== 0)
        throw new Error('others may write to it');
      if (stat.size > FILE_BYTES_MAX) throw new Error(`it is larger than ${FILE_BYTES_MAX} bytes`);
      const state = parsed(readFileSync(path, 'utf8'));
      if (state.format !== STATE_FORMAT)
        throw new Error(`its format is ${state.format}, and this is ${STATE_FORMAT}`);
      return state;
    } catch (error) {
      this.#log.warn(`ports that were added at run time are not there again: ${path}: ${messageOf(error)}`);
      this.#setAside(path);
      return NOTHING;
    }
  }

  /** What cannot be understood is not written over. */
  #setAside(path: string): void {
    try {
      renameSync(path, `${path}.unread`);
      this.#log.warn(`it is now ${path}.unread`);
    } catch (error) {
      this.#log.warn(`and it cannot be put aside: ${messageOf(error)}`);
    }
  }

  /** Whole or not at all: a file beside it takes its place. */
  #write(): void {
    const path = this.#path;
    if (path === null) return;
    const sizes = [this.#ports, this.#set, this.#groups, this.#plugins].map(({ size }) => size);
    if (Math.max(...sizes, this.#addresses.length) === 0) {
      rmSync(path, { force: true });
      return;
    }
    const configured = [...this.#configured].filter(([name]) => this.#set.has(name));
    const state: State = {
      format: STATE_FORMAT,
      ports: Object.fromEntries(this.#ports),
      configured: Object.fromEntries(configured),
      set: Object.fromEntries(this.#set),
      addresses: [...this.#addresses],
      groups: [...this.#groups.values()],
      plugins: [...this.#plugins.values()].map(({ isKept: _, ...spec }) => ({
        ...spec,
        settings: { ...spec.settings },
      })),
    };
    try {
      writeFileSync(`${path}.new`, `${JSON.stringify(state, null, 2)}\n`, { mode: FILE_MODE });
      renameSync(`${path}.new`, path);
    } catch (error) {
      this.#log.warn(`ports will not be as they are now after a restart: ${path}: ${messageOf(error)}`);
    }
  }
}

/** Answers what has the map's entries of that kind be as they are now, in their places, and answers those that were gone. */
function restorer<Value>(
  map: Map<string, Value>,
  isOne: (key: string, value: Value) => boolean,
): () => readonly Value[] {
  const before = [...map];
  return () => {
    const now = new Map(map);
    map.clear();
    for (const [key, value] of before) {
      if (isOne(key, value)) map.set(key, value);
      else if (now.has(key)) map.set(key, now.get(key) as Value);
    }
    for (const [key, value] of now) if (!isOne(key, value) && !map.has(key)) map.set(key, value);
    return before.filter(([key, value]) => isOne(key, value) && !now.has(key)).map(([, value]) => value);
  };
}

function keyOf({ vlan, group, port }: KeptGroup): string {
  return `${vlan} ${group} ${port}`;
}

function changeOf({ vlan, group, port }: KeptGroup): GroupChange {
  const address = parseIp(group);
  assert(address !== null, 'the file is checked when it is read');
  return { vlan, port, group: address };
}

/** As it comes back from the file. */
function jsonOf(port: PortConfig): Settings {
  return JSON.parse(JSON.stringify(port)) as Settings;
}

function parsed(text: string): State {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    throw new Error('it is no JSON');
  }
  const { data } = State.safeParse(json);
  if (data === undefined) throw new Error('it is not of the form that Ringway writes');
  return data;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
