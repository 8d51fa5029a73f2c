/**
 * What Ringway is to do: the types that the switch takes, and how text (configuration file, command line)
 * becomes them. Reading YAML is file.ts, the options are ../cli/options.ts; both go through the one schema of
 * schema.ts (limits and defaults), and here it is said where a refused setting stands. Main thread.
 *
 * A configuration file, with every setting (only `ports` with a socket each is needed):
 *
 *     ports:
 *       vm0:
 *         socket: /run/ringway/vm0.sock  # at most 107 bytes; relative to the folder Ringway is started in
 *         role: server                   # server: Ringway listens; client: QEMU listens, Ringway connects
 *         mode: 0660                     # permission bits of the socket file (server only)
 *         owner: libvirt-qemu:kvm        # user:group of the socket file, names or numbers (server only)
 *         queues: 16                     # queue pairs offered at most, 1 to 127
 *         configSpace: off               # offer the CONFIG protocol feature (User-Mode Linux wants it)
 *       uml0:
 *         socket: /run/ringway/uml0.sock
 *         configSpace: on
 *         mac: 02:00:00:00:00:01         # only with configSpace
 *         mtu: 1500                      # 68 to 65535, only with configSpace
 *     cpus: [2, 3]                       # one worker pinned to each; left out: one worker, not pinned
 *     poll: adaptive                     # or busy: never block
 *     idleUs: 100                        # adaptive: look for work this long before blocking
 *     fdb:
 *       capacity: 8192                   # addresses remembered at most
 *       ageSeconds: 300                  # and forgotten when silent this long
 *     arena: 1TiB                        # addresses reserved for guests' memory (not memory itself)
 *     control: /run/ringway/ringway.sock # or none; left out: ringway.sock beside the first port's socket
 *
 * A number's leading zeros and YAML's types do not matter: every value is read as text first.
 */
import { dirname, join, resolve } from 'node:path';
import type { z } from 'zod';
import { SOCKET_PATH_BYTES_MAX } from '../../src/host/unix-socket.ts';
import { endpointKeyOf, endpointOf, kindOf, type PortSettings } from './kinds/index.ts';
import { type HostFacts, THIS_HOST } from './kinds/values.ts';
import { CONFIG_DEFAULTS, configSchema, knownSettings, NAME_ALLOWED } from './schema.ts';

/** A port's name and its settings; `kind` says which there are. */
export type PortConfig = { readonly name: string } & PortSettings;

export type SwitchConfig = {
  ports: PortConfig[];
  /** One worker for each, pinned to it; null: one worker that is not pinned. */
  cpus: number[] | null;
  poll: 'adaptive' | 'busy';
  /** Adaptive polling: microseconds without work before a worker blocks. */
  idleUs: number;
  fdb: { capacity: number; ageSeconds: number };
  arenaBytes: number;
  /** Path of the control API's socket; null: no control API. */
  controlSocket: string | null;
};

/** A setting that cannot be; `message` is one line that names where it stands, the value and what is allowed. */
export class ConfigError extends Error {
  override name = 'ConfigError';
}

const VALUE_LENGTH_SHOWN = 200;

/** Settings as they were written: text, in maps and lists. */
export type SettingValue = string | readonly SettingValue[] | SettingMap;
export type SettingMap = { readonly [key: string]: SettingValue };

/** One place that settings come from: the file, or the options. */
export type SettingSource = {
  readonly values: SettingMap;
  /** What the user calls the setting at `path` and where it stands: `/etc/ringway.yaml:4: ports.vm0.queues`. */
  readonly subject: (path: readonly string[]) => string;
  /** How a key of the schema is spelled in this source. */
  readonly keyName: (key: string) => string;
};

/**
 * The configuration that the sources describe together; a later one adds to and overrides an earlier one,
 * ports as a whole. @throws ConfigError for the first setting that cannot be
 */
export function resolveConfig(sources: readonly SettingSource[], host: HostFacts = THIS_HOST): SwitchConfig {
  const values = sources.reduce<SettingMap>((merged, source) => mergeSettings(merged, source.values), {});
  const sourceOf = (path: readonly string[]) => sourceThatSet(values, sources, path);
  const parsed = configSchema(host).safeParse(values);
  if (!parsed.success) throw explain(parsed.error.issues, values, sourceOf);
  if (Object.keys(parsed.data.ports).length === 0) {
    throw new ConfigError('no port: give --port NAME=SOCKET, or ports in a file named with --config');
  }
  const config = assemble(parsed.data);
  const clash = findClash(config, host.allowedCpus());
  if (clash !== null) throw new ConfigError(`${sourceOf(clash.path).subject(clash.path)}: ${clash.text}`);
  return config;
}

/** One port from the JSON of its settings, numbers and switches as JSON has them or as text. @throws ConfigError */
export function resolvePort(name: string, settings: unknown, host: HostFacts = THIS_HOST): PortConfig {
  const source: SettingSource = {
    values: { ports: { [name]: asSetting(settings) } },
    subject: (path) => (path.length > 2 ? `port ${name}: ${path.slice(2).join('.')}` : `port ${name}`),
    keyName: (key) => key,
  };
  return resolveConfig([source], host).ports[0];
}

/** JSON as settings are written elsewhere: text, in maps and lists. */
function asSetting(value: unknown): SettingValue {
  if (Array.isArray(value)) return value.map(asSetting);
  if (typeof value !== 'object' || value === null) return String(value);
  return Object.fromEntries(Object.entries(value).map(([key, part]) => [key, asSetting(part)]));
}

function assemble(settings: z.output<ReturnType<typeof configSchema>>): SwitchConfig {
  const ports = Object.entries(settings.ports).map(([name, port]): PortConfig => ({ name, ...port }));
  const { cpus, poll, idleUs, fdb, arena: arenaBytes, control } = settings;
  const firstSocket = ports.map(socketOf).find((path) => path !== null) ?? null;
  const besidePort = firstSocket && join(dirname(firstSocket), CONFIG_DEFAULTS.controlSocketName);
  const controlSocket = control === 'none' ? null : (control ?? besidePort);
  return { ports, cpus: cpus ?? null, poll, idleUs, fdb, arenaBytes, controlSocket };
}

type Clash = { readonly path: readonly string[]; readonly text: string };

/** The first setting that is fine by itself but not with the others or on this machine. */
function findClash(config: SwitchConfig, allowed: readonly number[]): Clash | null {
  const portOfEndpoint = new Map<string, string>();
  for (const port of config.ports) {
    const endpoint = uniqueEndpoint(port);
    const other = portOfEndpoint.get(endpoint);
    if (other !== undefined) {
      const key = endpointKeyOf(port.kind);
      const text = `${endpointOf(port)} is not allowed (it is the ${key} of port ${other})`;
      return { path: ['ports', port.name, key], text };
    }
    portOfEndpoint.set(endpoint, port.name);
    if ('mirror' in port && port.mirror !== 'all' && port.mirror?.includes(port.name)) {
      const text = `${port.name} is not allowed (a port cannot mirror itself)`;
      return { path: ['ports', port.name, 'mirror'], text };
    }
  }
  for (const [i, cpu] of (config.cpus ?? []).entries()) {
    const path = ['cpus', String(i)];
    if (config.cpus!.indexOf(cpu) < i) return { path, text: `${cpu} is not allowed (it is named twice)` };
    if (!allowed.includes(cpu)) {
      return { path, text: `${cpu} is not allowed (this process may use ${allowed.join(', ')})` };
    }
  }
  return findControlClash(config.controlSocket, portOfEndpoint);
}

/** The path of the port's socket, or null when it has none. */
function socketOf(port: PortConfig): string | null {
  return 'socket' in port ? port.socket : null;
}

/** What no other port may have: paths made absolute, interfaces and devices by name. */
export function uniqueEndpoint(port: PortConfig): string {
  const socket = socketOf(port);
  if (socket !== null) return resolve(socket);
  if ('file' in port) return resolve(port.file);
  const namespace = 'namespace' in port ? (port.namespace ?? '') : '';
  return `${port.kind} ${endpointOf(port)} ${namespace}`;
}

function findControlClash(controlSocket: string | null, ports: ReadonlyMap<string, string>): Clash | null {
  if (controlSocket === null) return null;
  const bytes = Buffer.byteLength(controlSocket);
  const port = ports.get(resolve(controlSocket));
  const why =
    port !== undefined
      ? `it is the socket of port ${port}`
      : bytes > SOCKET_PATH_BYTES_MAX && `at most ${SOCKET_PATH_BYTES_MAX} bytes, not ${bytes}`;
  return why ? { path: ['control'], text: `${controlSocket} is not allowed (${why})` } : null;
}

function isMap(value: unknown): value is SettingMap {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** `over` on top of `base`; maps one level down (ports, fdb) are merged, what lies in them is replaced. */
function mergeSettings(base: SettingMap, over: SettingMap): SettingMap {
  const merged: Record<string, SettingValue> = { ...base };
  for (const [key, value] of Object.entries(over)) {
    const below = merged[key];
    if (isMap(below) && isMap(value)) merged[key] = { ...below, ...value };
    // A value of the wrong kind below stays, so that it is reported instead of hidden.
    else if (below === undefined || !isMap(value)) merged[key] = value;
  }
  return merged;
}

/** The value at `path`; undefined when there is none. */
function valueAt(values: SettingMap, path: readonly string[]): SettingValue | undefined {
  let value: SettingValue | undefined = values;
  for (const key of path) {
    if (typeof value === 'string' || value === undefined) return undefined;
    if (!Object.hasOwn(value, key)) return undefined;
    value = (value as SettingMap)[key];
  }
  return value;
}

/** Which source gave the value at `path`, or the map that it is missing from. */
function sourceThatSet(
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

function explain(
  issues: readonly z.core.$ZodIssue[],
  values: SettingMap,
  sourceOf: (path: readonly string[]) => SettingSource,
): ConfigError {
  // A misspelled key often makes another one missing: the misspelling is what helps.
  const issue = issues.find(({ code }) => code === 'unrecognized_keys') ?? issues[0];
  const path = issue.path.map(String);
  if (issue.code === 'unrecognized_keys') {
    const keyPath = [...path, issue.keys[0]];
    const source = sourceOf(keyPath);
    return new ConfigError(
      `${source.subject(keyPath)}: unknown setting (${hint(issue.keys[0], path, kindOf(valueAt(values, path)), source)})`,
    );
  }
  const subject = sourceOf(path).subject(path);
  if (issue.code === 'invalid_key') return new ConfigError(`${subject}: not allowed (${NAME_ALLOWED})`);
  // A list may have been written as one text: its parts have no place of their own.
  const around = valueAt(values, path.slice(0, -1));
  const value = valueAt(values, path) ?? (typeof around === 'string' ? around : undefined);
  if (value === undefined) return new ConfigError(`${subject}: missing (${issue.message})`);
  return new ConfigError(`${subject}: ${shown(value)} is not allowed (${issue.message})`);
}

function shown(value: SettingValue): string {
  if (value === '') return 'nothing';
  if (typeof value !== 'string') return isMap(value) ? 'a map' : 'a list';
  const text = value.length > VALUE_LENGTH_SHOWN ? `${value.slice(0, VALUE_LENGTH_SHOWN)}…` : value;
  // Quotes, and no control characters, where the text could be taken for something else.
  return /^[\x21-\x7e]+$/.test(text) ? text : JSON.stringify(text);
}

/** The known setting nearest to `key`, or all of them. */
function hint(key: string, path: readonly string[], kind: string, source: SettingSource): string {
  const names = knownSettings(path, kind).map((name) => source.keyName(name));
  const ranked = names.map((name) => ({ name, distance: editDistance(key, name) }));
  const nearest = ranked.reduce((best, candidate) => (candidate.distance < best.distance ? candidate : best));
  return nearest.distance <= 2 ? `did you mean ${nearest.name}?` : `there are ${names.join(', ')}`;
}

/** Insertions, deletions and replacements between two words (Levenshtein); case does not count. */
function editDistance(from: string, to: string): number {
  let row = Array.from({ length: to.length + 1 }, (_, i) => i);
  for (let i = 1; i <= Math.min(from.length, 64); i++) {
    const next = [i];
    for (let j = 1; j <= to.length; j++) {
      const same = from[i - 1].toLowerCase() === to[j - 1].toLowerCase();
      next[j] = Math.min(next[j - 1] + 1, row[j] + 1, row[j - 1] + (same ? 0 : 1));
    }
    row = next;
  }
  return row[to.length];
}
