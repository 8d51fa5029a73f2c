/** The options of `ringway run` as settings: the same names and the same text as in a configuration file. */

import { endpointKeyOf, PORT_KINDS } from '../config/kinds/index.ts';
import { ConfigError, type SettingMap, type SettingSource } from '../config/settings.ts';

/** What commander hands over for `run`. */
export type RunOptions = {
  readonly config?: string;
  readonly port?: readonly string[];
  readonly cpus?: string;
  readonly poll?: string;
  readonly idleUs?: string;
  readonly arena?: string;
  readonly fdbCapacity?: string;
  readonly fdbAge?: string;
  readonly vlanLimit?: string;
  readonly control?: string;
};

const OPTION_BY_SETTING: Readonly<Record<string, string>> = {
  cpus: '--cpus',
  poll: '--poll',
  idleUs: '--idle-us',
  arena: '--arena',
  vlanLimit: '--vlan-limit',
  control: '--control',
  'fdb.capacity': '--fdb-capacity',
  'fdb.ageSeconds': '--fdb-age',
};

/** @throws ConfigError when a --port is not NAME=[KIND:]ENDPOINT[,key=value]… or names a port twice */
export function settingsOf(options: RunOptions): SettingSource {
  const fdb = withoutAbsent({ capacity: options.fdbCapacity, ageSeconds: options.fdbAge });
  const ports = portSettings(options.port ?? []);
  return {
    values: {
      ...withoutAbsent({
        cpus: options.cpus,
        poll: options.poll,
        idleUs: options.idleUs,
        arena: options.arena,
        vlanLimit: options.vlanLimit,
        control: options.control,
      }),
      ...(Object.keys(fdb).length > 0 && { fdb }),
      ...(Object.keys(ports).length > 0 && { ports }),
    },
    subject: subjectOf,
    keyName: toOptionKey,
  };
}

/** What the user calls a setting of the command line. */
export function subjectOf(path: readonly string[]): string {
  const [top = '', name, key] = path;
  if (top !== 'ports') return OPTION_BY_SETTING[path.join('.')] ?? OPTION_BY_SETTING[top] ?? `--${top}`;
  if (name === undefined) return '--port';
  return key === undefined ? `--port ${name}` : `--port ${name}: ${toOptionKey(key)}`;
}

/** The ports of `--port` options, by name. @throws ConfigError */
export function portSettings(texts: readonly string[]): Readonly<Record<string, SettingMap>> {
  const ports: Record<string, SettingMap> = Object.create(null);
  for (const text of texts) {
    const [first = '', ...rest] = text.split(',');
    const [name, attachedTo] = splitPair(first, `--port ${text}`, 'NAME=SOCKET[,key=value]…');
    if (Object.hasOwn(ports, name)) throw new ConfigError(`--port ${name}: given twice`);
    ports[name] = portFields(name, attachedTo, rest);
  }
  return ports;
}

/** The settings of `ringway set`; nothing behind `=` takes one back. @throws ConfigError */
export function changedSettings(pairs: readonly string[]): Readonly<Record<string, string | null>> {
  const changed: Record<string, string | null> = Object.create(null);
  for (const pair of pairs) {
    const [key, value] = splitPair(pair, pair, 'key=value');
    const setting = toSettingKey(key);
    if (Object.hasOwn(changed, setting)) throw new ConfigError(`${key}: given twice`);
    changed[setting] = value === '' ? null : value;
  }
  return changed;
}

function portFields(name: string, attachedTo: string, pairs: readonly string[]): SettingMap {
  const fields: Record<string, string> = Object.assign(Object.create(null), endpointFields(attachedTo));
  for (const pair of pairs) {
    const [key, value] = splitPair(pair, `--port ${name}: ${pair}`, 'key=value');
    const setting = toSettingKey(key);
    if (Object.hasOwn(fields, setting)) throw new ConfigError(`--port ${name}: ${key}: given twice`);
    fields[setting] = value;
  }
  return fields;
}

/** `tap:tap0` names the kind and, in a setting of its own, what it is attached to; a path is a vhost-user socket. */
function endpointFields(text: string): Record<string, string> {
  const kind = PORT_KINDS.find((name) => text.startsWith(`${name}:`));
  if (kind === undefined) return { [endpointKeyOf('vhost-user')]: text };
  return { kind, [endpointKeyOf(kind)]: text.slice(kind.length + 1) };
}

function splitPair(text: string, subject: string, form: string): [string, string] {
  const at = text.indexOf('=');
  // `__proto__` is no name: the schema would pass over it in silence.
  if (at <= 0 || text.startsWith('__proto__=')) throw new ConfigError(`${subject}: not of the form ${form}`);
  return [text.slice(0, at), text.slice(at + 1)];
}

/** `config-space` to `configSpace`. */
function toSettingKey(key: string): string {
  return key.replace(/-([a-z])/g, (_, letter: string) => letter.toUpperCase());
}

export function toOptionKey(key: string): string {
  return key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

function withoutAbsent(settings: Readonly<Record<string, string | undefined>>): Record<string, string> {
  const present = Object.entries(settings).filter(
    (entry): entry is [string, string] => entry[1] !== undefined,
  );
  return Object.fromEntries(present);
}
