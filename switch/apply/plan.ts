/**
 * What has to be done so that a switch that runs becomes as a configuration says, and that in words. Only compares: carrying
 * it out is configuration.ts.
 */
import { resolve } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { changeableFields, endpointKeyOf, endpointOf, withWholePaths } from '../config/kinds/index.ts';
import { listenText } from '../config/kinds/values.ts';
import type { ListenerConfig, PortConfig, SwitchConfig } from '../config/resolve.ts';
import { isSettingMap } from '../config/settings.ts';
import type { PluginSpec } from '../plugin/bundle.ts';

/** The whole switch's settings that a configuration has; the files it names are compared only where it names them. */
export const SWITCH_SETTINGS = [
  'cpus',
  'poll',
  'idleUs',
  'fdb',
  'snooping',
  'arenaBytes',
  'vlanLimit',
] as const;
export const SWITCH_FILES = ['controlSocket', 'positionsFile', 'stateFile'] as const;
const SWITCH_LISTENERS = ['metrics', 'web'] as const;
type SwitchSetting = (typeof SWITCH_SETTINGS)[number] | (typeof SWITCH_FILES)[number];
type SwitchListener = (typeof SWITCH_LISTENERS)[number];

/** Whatever else a configuration can say of the whole switch must stand in one of the lists above. */
type Compared = SwitchSetting | SwitchListener | 'ports' | 'plugins' | 'controlObstacle';
true satisfies [Exclude<keyof SwitchConfig, Compared>] extends [never] ? true : false;

/** As they are called in a configuration, where the name is another one. */
const NAME_IN_FILE: Readonly<Partial<Record<SwitchSetting, string>>> = {
  arenaBytes: 'arena',
  controlSocket: 'control',
  positionsFile: 'positions',
  stateFile: 'state',
};

export type ValueChange = { readonly key: string; readonly from: unknown; readonly to: unknown };

/** One difference, as the control API tells it. `values`: of settings; undefined: as if left out. */
export type Difference =
  | { readonly what: 'port added' | 'port removed'; readonly name: string; readonly endpoint: string }
  /** replaced: its guest loses the link, because of settings that a running port keeps. */
  | {
      readonly what: 'port changed' | 'port replaced';
      readonly name: string;
      readonly values: readonly ValueChange[];
    }
  | { readonly what: 'plugin added' | 'plugin removed' | 'plugins reordered'; readonly name: string }
  | { readonly what: 'plugin changed'; readonly name: string; readonly values: readonly ValueChange[] }
  /** Only another process can have it. */
  | { readonly what: 'switch'; readonly name: string; readonly values: readonly ValueChange[] };

/** What runs, or what is to. */
export type Whole = {
  readonly config: Pick<SwitchConfig, SwitchSetting | SwitchListener>;
  readonly ports: readonly PortConfig[];
  readonly plugins: readonly PluginSpec[];
};

export type Plan = {
  readonly differences: readonly Difference[];
  readonly added: readonly PortConfig[];
  readonly removed: readonly PortConfig[];
  readonly replaced: readonly { readonly from: PortConfig; readonly to: PortConfig }[];
  readonly changed: readonly { readonly name: string; readonly values: readonly ValueChange[] }[];
  /** Null: they are as they should be. */
  readonly plugins: readonly PluginSpec[] | null;
};

/** `isNamed`: whether the configuration says anything of a file of the whole switch. */
export function planOf(running: Whole, wanted: Whole, isNamed: (name: string) => boolean): Plan {
  const before = new Map(running.ports.map((port) => [port.name, port]));
  const after = new Map(wanted.ports.map((port) => [port.name, port]));
  const added = wanted.ports.filter(({ name }) => !before.has(name));
  const removed = running.ports.filter(({ name }) => !after.has(name));
  const replaced: { from: PortConfig; to: PortConfig; values: ValueChange[] }[] = [];
  const changed: { name: string; values: ValueChange[] }[] = [];
  for (const to of wanted.ports) {
    const from = before.get(to.name);
    if (from === undefined) continue;
    const values = changesIn(plainPort(from), plainPort(to));
    if (values.length === 0) continue;
    const changeable = changeableFields(from.kind);
    if (values.every(({ key }) => Object.hasOwn(changeable, key))) changed.push({ name: to.name, values });
    else replaced.push({ from, to, values });
  }
  const plugins = pluginDifferences(running.plugins, wanted.plugins);
  const differences: Difference[] = [
    ...switchDifferences(running.config, wanted.config, isNamed),
    ...plugins,
    ...removed.map((port) => presence('port removed', port)),
    ...replaced.map(({ to, values }) => ({ what: 'port replaced' as const, name: to.name, values })),
    ...changed.map((port) => ({ what: 'port changed' as const, ...port })),
    ...added.map((port) => presence('port added', port)),
  ];
  return {
    differences,
    added,
    removed,
    replaced,
    changed,
    plugins: plugins.length === 0 ? null : wanted.plugins,
  };
}

/** One line each, as a person reads it. */
export function linesOf(differences: readonly Difference[]): string[] {
  return differences.map((difference) => LINE_OF[difference.what](difference as never));
}

type LineOf = { readonly [What in Difference['what']]: (of: Extract<Difference, { what: What }>) => string };

const LINE_OF: LineOf = {
  'port added': ({ name, endpoint }) => `+ port ${name}, ${endpoint}`,
  'port removed': ({ name, endpoint }) => `- port ${name}, ${endpoint}`,
  'port changed': ({ name, values }) => `~ port ${name}: ${valuesText(values)}`,
  'port replaced': ({ name, values }) =>
    `! port ${name}: ${valuesText(values)} (it is removed and added again: its link goes down for a moment)`,
  'plugin added': ({ name }) => `+ plugin ${name}`,
  'plugin removed': ({ name }) => `- plugin ${name}`,
  'plugin changed': ({ name, values }) => `~ plugin ${name}: ${valuesText(values)}`,
  'plugins reordered': ({ name }) => `~ plugins: frames pass them in the order ${name}`,
  switch: ({ name, values }) =>
    `x ${name}: ${valuesText(values)} (not while it runs: start another one with --takeover)`,
};

function valuesText(values: readonly ValueChange[]): string {
  return values
    .map(
      ({ key, from, to }) =>
        `${key === '' ? '' : `${key} `}${settingText(key, from)} -> ${settingText(key, to)}`,
    )
    .join(', ');
}

/** As it is written in a file, so far as a line has room for it. */
function settingText(key: string, value: unknown): string {
  if (key === 'mode' && typeof value === 'number') return value.toString(8).padStart(4, '0');
  if (key === 'owner' && isSettingMap(value)) return `${value.uid}:${value.gid}`;
  return valueText(value);
}

function valueText(value: unknown): string {
  if (value === undefined || value === null) return 'default';
  if (typeof value === 'boolean') return value ? 'on' : 'off';
  if (Array.isArray(value)) return `[${value.map(valueText).join(', ')}]`;
  if (!isSettingMap(value)) return String(value);
  return `{ ${Object.entries(value)
    .map(([key, part]) => `${key}: ${valueText(part)}`)
    .join(', ')} }`;
}

function presence(what: 'port added' | 'port removed', port: PortConfig): Difference {
  return { what, name: port.name, endpoint: `${endpointKeyOf(port.kind)} ${endpointOf(port)}` };
}

/** As it comes back from JSON, its paths whole. */
function plainPort(port: PortConfig): Readonly<Record<string, unknown>> {
  return withWholePaths(JSON.parse(JSON.stringify(port)) as Record<string, unknown>);
}

function changesIn(
  from: Readonly<Record<string, unknown>>,
  to: Readonly<Record<string, unknown>>,
): ValueChange[] {
  const keys = new Set([...Object.keys(from), ...Object.keys(to)]);
  return [...keys]
    .filter((key) => !isDeepStrictEqual(from[key], to[key]))
    .map((key) => ({ key, from: from[key], to: to[key] }));
}

function pluginDifferences(from: readonly PluginSpec[], to: readonly PluginSpec[]): Difference[] {
  const fromNames = from.map(({ name }) => name);
  const toNames = to.map(({ name }) => name);
  const changed = to.flatMap((spec) => {
    const old = from.find(({ name }) => name === spec.name);
    const values = old === undefined ? [] : changesIn(plainPlugin(old), plainPlugin(spec));
    return values.length === 0 ? [] : [{ what: 'plugin changed' as const, name: spec.name, values }];
  });
  const differences: Difference[] = [
    ...fromNames
      .filter((name) => !toNames.includes(name))
      .map((name) => ({ what: 'plugin removed' as const, name })),
    ...changed,
    ...toNames
      .filter((name) => !fromNames.includes(name))
      .map((name) => ({ what: 'plugin added' as const, name })),
  ];
  const stay = (names: readonly string[], others: readonly string[]) =>
    names.filter((name) => others.includes(name));
  if (!isDeepStrictEqual(stay(fromNames, toNames), stay(toNames, fromNames)))
    differences.push({ what: 'plugins reordered', name: toNames.join(', ') });
  return differences;
}

/** What is configured of it. */
function plainPlugin({
  name: _,
  isKept: __,
  settings,
  ...spec
}: PluginSpec): Readonly<Record<string, unknown>> {
  return { ...settings, ...spec };
}

function switchDifferences(
  from: Whole['config'],
  to: Whole['config'],
  isNamed: (name: string) => boolean,
): Difference[] {
  const files = SWITCH_FILES.filter((key) => isNamed(NAME_IN_FILE[key] ?? key));
  const listeners = SWITCH_LISTENERS.flatMap((name): Difference[] => {
    const values = [{ key: '', from: listenerText(from[name]), to: listenerText(to[name]) }];
    return values[0].from === values[0].to ? [] : [{ what: 'switch' as const, name, values }];
  });
  const others = [...SWITCH_SETTINGS, ...files].flatMap((key): Difference[] => {
    if (isDeepStrictEqual(wholePath(key, from[key]), wholePath(key, to[key]))) return [];
    const values =
      isSettingMap(from[key]) && isSettingMap(to[key])
        ? changesIn(from[key], to[key])
        : [{ key: '', from: from[key], to: to[key] }];
    return [{ what: 'switch' as const, name: NAME_IN_FILE[key] ?? key, values }];
  });
  return [...others, ...listeners];
}

/** Its address, and whether a token is needed. */
function listenerText(listener: ListenerConfig | undefined): string | undefined {
  if (listener === undefined) return undefined;
  const { address, tokenFile } = listener;
  const where = 'path' in address ? resolve(address.path) : listenText(address);
  return tokenFile === null ? where : `${where} with the token in ${resolve(tokenFile)}`;
}

function wholePath(key: SwitchSetting, value: unknown): unknown {
  return SWITCH_FILES.some((file) => file === key) && typeof value === 'string' ? resolve(value) : value;
}
