/** The options of `ringway run` as settings: the same names and the same text as in a configuration file. */

import { endpointKeyOf, joinedKeys, kindByLook, PORT_KINDS } from '../config/kinds/index.ts';
import { pluginNameOf } from '../config/plugins.ts';
import { ConfigError, type SettingMap, type SettingSource, type SettingWords } from '../config/settings.ts';
import { nearestName, OPTION_SPELLING, toOptionKey, toSettingKey } from '../config/spelling.ts';

/** What commander hands over for `run`. */
export type RunOptions = {
  readonly config?: string;
  readonly port?: readonly string[];
  readonly plugin?: readonly string[];
  readonly cpus?: string;
  readonly poll?: string;
  readonly idleUs?: string;
  readonly arena?: string;
  readonly fdbCapacity?: string;
  readonly fdbAge?: string;
  readonly snooping?: true;
  readonly querier?: string;
  readonly floodUnregistered?: string;
  readonly vlanLimit?: string;
  readonly control?: string;
  readonly positions?: string;
  readonly state?: string;
  readonly metrics?: string;
  readonly metricsToken?: string;
  /** False: `--no-restore`. */
  readonly restore?: boolean;
  readonly takeover?: boolean;
};

/** A word of so many letters is another one with two of them changed. */
const LETTERS_FOR_ONE_SLIP = 3;

const OPTION_BY_SETTING: Readonly<Record<string, string>> = {
  cpus: '--cpus',
  poll: '--poll',
  idleUs: '--idle-us',
  arena: '--arena',
  vlanLimit: '--vlan-limit',
  control: '--control',
  positions: '--positions',
  state: '--state',
  metrics: '--metrics',
  metricsToken: '--metrics-token',
  'snooping.enabled': '--snooping',
  'snooping.querier': '--querier',
  'snooping.floodUnregistered': '--flood-unregistered',
  'fdb.capacity': '--fdb-capacity',
  'fdb.ageSeconds': '--fdb-age',
};

/** @throws ConfigError when a --port is not NAME=[KIND:]ENDPOINT[,key=value]… or names a port twice */
export function settingsOf(options: RunOptions): SettingSource {
  const fdb = withoutAbsent({ capacity: options.fdbCapacity, ageSeconds: options.fdbAge });
  const snooping = withoutAbsent({
    enabled: options.snooping === true ? 'on' : undefined,
    querier: options.querier,
    floodUnregistered: options.floodUnregistered,
  });
  const ports = portSettings(options.port ?? [], '--port');
  const plugins = pluginSettings(options.plugin ?? [], '--plugin');
  return {
    values: {
      ...withoutAbsent({
        cpus: options.cpus,
        poll: options.poll,
        idleUs: options.idleUs,
        arena: options.arena,
        vlanLimit: options.vlanLimit,
        control: options.control,
        positions: options.positions,
        state: options.state,
        metrics: options.metrics,
        metricsToken: options.metricsToken,
      }),
      ...(Object.keys(fdb).length > 0 && { fdb }),
      ...(Object.keys(snooping).length > 0 && { snooping }),
      ...(Object.keys(ports).length > 0 && { ports }),
      ...(Object.keys(plugins).length > 0 && { plugins }),
    },
    ...OPTION_SPELLING,
    subject: subjectOf,
  };
}

/** Of `ringway add` and `ringway set`, which are about one port. */
export const CHANGE_WORDS: SettingWords = {
  ...OPTION_SPELLING,
  subject: ([, name, key]) =>
    key === undefined ? `port ${name}` : `port ${name}: ${OPTION_SPELLING.keyName(key)}`,
};

/** What the user calls a setting of `ringway run`. */
function subjectOf(path: readonly string[]): string {
  const [top = '', name, key] = path;
  if (top === 'plugins' && name !== undefined)
    return key === undefined ? `--plugin ${name}` : `--plugin ${name}: ${toOptionKey(key)}`;
  if (top !== 'ports') return OPTION_BY_SETTING[path.join('.')] ?? OPTION_BY_SETTING[top] ?? `--${top}`;
  if (name === undefined) return '--port';
  return key === undefined ? `--port ${name}` : `--port ${name}: ${toOptionKey(key)}`;
}

/** The ports by name, of `--port` options or of `ringway add`, where it is only `port`. @throws ConfigError */
export function portSettings(
  texts: readonly string[],
  noun: '--port' | 'port',
): Readonly<Record<string, SettingMap>> {
  const ports: Record<string, SettingMap> = Object.create(null);
  for (const text of texts) {
    const [first = '', ...rest] = text.split(',');
    const [name, attachedTo] = splitPair(first, `${noun} ${text}`, 'NAME=SOCKET[,key=value]…');
    if (Object.hasOwn(ports, name)) throw new ConfigError(`${noun} ${name}: given twice`);
    ports[name] = portFields(`${noun} ${name}`, attachedTo, rest);
  }
  return ports;
}

/** The plugins by name, of `--plugin` options or of `ringway plugin add`, where it is only `plugin`. @throws ConfigError */
export function pluginSettings(
  texts: readonly string[],
  noun: '--plugin' | 'plugin',
): Readonly<Record<string, SettingMap>> {
  const plugins: Record<string, SettingMap> = Object.create(null);
  for (const text of texts) {
    const [file = '', ...pairs] = text.split(',');
    const fields: Record<string, string> = Object.assign(Object.create(null), { file });
    for (const [i, pair] of pairs.entries()) {
      const [key, value] = splitPair(pair, `${noun} ${file}: ${pair}`, formOfPair(pairs, i));
      const setting = toSettingKey(key);
      if (Object.hasOwn(fields, setting)) throw new ConfigError(`${noun} ${file}: ${key}: given twice`);
      fields[setting] = value;
    }
    const { as: name = pluginNameOf(file), ...settings } = fields;
    if (Object.hasOwn(plugins, name))
      throw new ConfigError(`${noun} ${name}: given twice (as=NAME gives one another name)`);
    plugins[name] = settings;
  }
  return plugins;
}

/** The settings of `ringway set`; nothing behind `=` takes one back. @throws ConfigError */
export function changedSettings(pairs: readonly string[]): Readonly<Record<string, string | null>> {
  const changed: Record<string, string | null> = Object.create(null);
  for (const [i, pair] of pairs.entries()) {
    const [key, value] = splitPair(pair, pair, formOfPair(pairs, i));
    const setting = toSettingKey(key);
    if (Object.hasOwn(changed, setting)) throw new ConfigError(`${key}: given twice`);
    changed[setting] = value === '' ? null : value;
  }
  return changed;
}

function portFields(subject: string, attachedTo: string, pairs: readonly string[]): SettingMap {
  const fields: Record<string, string> = Object.assign(
    Object.create(null),
    endpointFields(subject, attachedTo),
  );
  for (const [i, pair] of pairs.entries()) {
    const [key, value] = splitPair(pair, `${subject}: ${pair}`, formOfPair(pairs, i));
    const setting = toSettingKey(key);
    if (Object.hasOwn(fields, setting)) throw new ConfigError(`${subject}: ${key}: given twice`);
    fields[setting] = value;
  }
  return fields;
}

/** `tap:tap0` names the kind and, in a setting of its own, what it is attached to; a path is a vhost-user socket. */
function endpointFields(subject: string, text: string): Record<string, string> {
  const kind = PORT_KINDS.find((each) => text.startsWith(`${each}:`));
  if (kind !== undefined) return { kind, [endpointKeyOf(kind)]: text.slice(kind.length + 1) };
  const meant = meantOtherwise(text);
  if (meant !== null) throw new ConfigError(`${subject}: ${text} is not allowed (${meant})`);
  return { [endpointKeyOf('vhost-user')]: text };
}

/** Why a text that names no kind is hardly the path of a vhost-user socket; null: it may well be. */
function meantOtherwise(text: string): string | null {
  const word = /^([^:/]+):/.exec(text)?.[1];
  const kind = word === undefined ? null : kindMeantBy(word);
  if (word !== undefined && kind !== null) {
    const meant = `${kind}${text.slice(word.length)}`;
    return `there is no kind of port ${word}: did you mean ${meant}? A socket of that name is ./${text}`;
  }
  const look = kindByLook(text);
  if (look === null) return null;
  return `did you mean ${look}:${text}? A vhost-user socket of that name is vhost-user:${text}`;
}

/** Of `PCAP`, `tapp`, `vhost` and `pcapng`. */
function kindMeantBy(word: string): string | null {
  const { name, distance } = nearestName(word, PORT_KINDS);
  if (distance <= (name.length > LETTERS_FOR_ONE_SLIP ? 2 : 1)) return name;
  const lower = word.toLowerCase();
  const isPart = (kind: string): boolean =>
    lower.startsWith(kind) || (lower.length >= LETTERS_FOR_ONE_SLIP && kind.startsWith(lower));
  return PORT_KINDS.find(isPart) ?? null;
}

/** What the pair is to look like; a word alone behind a list was meant to be in it. */
function formOfPair(pairs: readonly string[], at: number): string {
  const before = pairs[at - 1] ?? '';
  const key = before.slice(0, before.indexOf('='));
  if (pairs[at].includes('=') || !joinedKeys().includes(toSettingKey(key))) return 'key=value';
  const end = pairs.findIndex((pair, i) => i > at && pair.includes('='));
  const words = pairs.slice(at, end < 0 ? pairs.length : end);
  return `key=value (a list is joined by +: ${[before, ...words].join('+')})`;
}

function splitPair(text: string, subject: string, form: string): [string, string] {
  const at = text.indexOf('=');
  // `__proto__` is no name: the schema would pass over it in silence.
  if (at <= 0 || text.startsWith('__proto__=')) throw new ConfigError(`${subject}: not of the form ${form}`);
  return [text.slice(0, at), text.slice(at + 1)];
}

function withoutAbsent(settings: Readonly<Record<string, string | undefined>>): Record<string, string> {
  const present = Object.entries(settings).filter(
    (entry): entry is [string, string] => entry[1] !== undefined,
  );
  return Object.fromEntries(present);
}
