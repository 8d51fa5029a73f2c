/**
 * Settings as they were written, before anybody knows what they mean: text in maps and lists, from one or several
 * sources that know what the user calls each of them. Main thread.
 */

import { MAP_SPELLING, type Spelling } from './spelling.ts';

/** Which setting, and what is wrong with it, without saying where it stands: that each source says its own way. */
export type SettingFault = {
  readonly path: readonly string[];
  readonly text: string;
  /** The text in the words of the command line, where those are others. */
  readonly optionText?: string;
};

/** Settings that cannot be; `message` is one line that names of each where it stands, the value and what is allowed. */
export class ConfigError extends Error {
  override name = 'ConfigError';
  /** Empty: it is not about settings. */
  readonly faults: readonly SettingFault[];

  constructor(message: string, faults: readonly SettingFault[] = []) {
    super(message);
    this.faults = faults;
  }
}

/** `subject` is what the source calls the setting. */
export function faultError(subject: string, fault: SettingFault): ConfigError {
  return new ConfigError(`${subject}: ${fault.text}`, [fault]);
}

/** All of these, at least one; `subjectOf` says what the source calls the setting at a path. */
export function faultsError(
  subjectOf: (path: readonly string[]) => string,
  faults: readonly SettingFault[],
): ConfigError {
  return new ConfigError(faults.map(({ path, text }) => `${subjectOf(path)}: ${text}`).join('; '), faults);
}

/** Settings as they were written: text, in maps and lists. */
export type SettingValue = string | readonly SettingValue[] | SettingMap;
export type SettingMap = { readonly [key: string]: SettingValue };

/** How a place that settings come from speaks of them. */
export type SettingWords = Spelling & {
  /** What the user calls the setting at `path` and where it stands: `/etc/ringway.yaml:4: ports.vm0.queues`. */
  readonly subject: (path: readonly string[]) => string;
};

/** One place that settings come from: the file, or the options. */
export type SettingSource = SettingWords & { readonly values: SettingMap };

/** Maps and lists in maps and lists; no setting of a port has more than two. */
const DEPTH_MAX = 8;

/** As the control API and programs speak of a port's settings. */
const JSON_WORDS: SettingWords = { ...MAP_SPELLING, subject: portSubject };

/** One port's settings from JSON, numbers and switches as JSON has them or as text. @throws ConfigError */
export function jsonPortSource(name: string, settings: unknown): SettingSource {
  const subject = portSubject(['ports', name]);
  return { ...JSON_WORDS, values: { ports: { [name]: asSetting(settings, DEPTH_MAX, subject) } } };
}

/** A whole configuration from JSON, numbers and switches as JSON has them or as text. @throws ConfigError */
export function jsonSource(settings: unknown): SettingSource {
  if (!isSettingMap(settings)) throw new ConfigError('a configuration is needed, as a JSON object');
  const values = asSetting(settings, DEPTH_MAX, 'the configuration') as SettingMap;
  return { ...MAP_SPELLING, subject: (path) => path.join('.'), values };
}

/** What a setting of a port is called where nobody wrote it in a file or on a command line. */
export function portSubject([, name, ...keys]: readonly string[]): string {
  return keys.length > 0 ? `port ${name}: ${keys.join('.')}` : `port ${name}`;
}

/** JSON as settings are written elsewhere: text, in maps and lists. @throws ConfigError */
export function settingOfJson(value: unknown, subject: string): SettingValue {
  return asSetting(value, DEPTH_MAX, subject);
}

function asSetting(value: unknown, depthLeft: number, subject: string): SettingValue {
  if (typeof value !== 'object' || value === null) return String(value);
  if (depthLeft === 0)
    throw new ConfigError(`${subject}: not allowed (lists and maps in one another too deeply)`);
  if (Array.isArray(value)) return value.map((part) => asSetting(part, depthLeft - 1, subject));
  return Object.fromEntries(
    Object.entries(value).map(([key, part]) => [key, asSetting(part, depthLeft - 1, subject)]),
  );
}

export function isSettingMap(value: unknown): value is SettingMap {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** What the sources say together: a later one adds to and overrides an earlier one, ports as a whole. */
export function mergedValues(sources: readonly SettingSource[]): SettingMap {
  return sources.reduce<SettingMap>((merged, source) => mergeSettings(merged, source.values), {});
}

/** `over` on top of `base`; maps one level down (ports, fdb) are merged, what lies in them is replaced. */
function mergeSettings(base: SettingMap, over: SettingMap): SettingMap {
  const merged: Record<string, SettingValue> = { ...base };
  for (const [key, value] of Object.entries(over)) {
    const below = merged[key];
    if (isSettingMap(below) && isSettingMap(value)) merged[key] = { ...below, ...value };
    // A value of the wrong kind below stays, so that it is reported instead of hidden.
    else if (below === undefined || !isSettingMap(value)) merged[key] = value;
  }
  return merged;
}

/** The value at `path`; undefined when there is none. */
export function valueAt(values: SettingMap, path: readonly string[]): SettingValue | undefined {
  let value: SettingValue | undefined = values;
  for (const key of path) {
    if (typeof value === 'string' || value === undefined) return undefined;
    if (!Object.hasOwn(value, key)) return undefined;
    value = (value as SettingMap)[key];
  }
  return value;
}

/** Which source gave the value at `path`, or the map that it is missing from. */
export function sourceThatSet(
  values: SettingMap,
  sources: readonly SettingSource[],
  path: readonly string[],
): SettingSource {
  for (let depth = path.length; depth > 0; depth--) {
    const prefix = path.slice(0, depth);
    const value = valueAt(values, prefix);
    const source =
      value !== undefined && sources.findLast((candidate) => valueAt(candidate.values, prefix) === value);
    if (source) return source;
  }
  return sources[0];
}
