/**
 * The shape of the settings and what each may be, as a schema from text to values: the one table of limits
 * and defaults. Every message says what is allowed; config.ts adds where the setting stands. Main thread.
 */
import { readFileSync } from 'node:fs';
import { z } from 'zod';
import { parseMac } from '../protocol/ethernet.ts';
import { allowedCpus } from '../src/host/affinity.ts';
import { SOCKET_PATH_BYTES_MAX } from '../src/host/unix-socket.ts';
import { ARENA_BYTES_DEFAULT, ARENA_BYTES_MIN } from '../src/memory/arena.ts';
import { DEFAULT_FDB_CAPACITY, MAX_FDB_CAPACITY } from './fdb-layout.ts';

export const CONFIG_DEFAULTS = {
  queues: 16,
  idleUs: 100,
  fdb: { capacity: DEFAULT_FDB_CAPACITY, ageSeconds: 300 },
  arenaBytes: ARENA_BYTES_DEFAULT,
  controlSocketName: 'ringway.sock',
} as const;

const QUEUES_MAX = 127;
const IDLE_US_MAX = 1_000_000;
const AGE_SECONDS_MAX = 1_000_000;
/** The largest view of memory that was tried. */
const ARENA_BYTES_MAX = 2 ** 42;
/** What the schema asks of the machine; a parameter so that tests do not depend on it. */
export type HostFacts = {
  readonly allowedCpus: () => readonly number[];
  /** Contents of /etc/passwd and /etc/group. */
  readonly passwd: () => string;
  readonly group: () => string;
};

export const THIS_HOST: HostFacts = {
  allowedCpus,
  passwd: () => readFileSync('/etc/passwd', 'utf8'),
  group: () => readFileSync('/etc/group', 'utf8'),
};

function wholeNumber(min: number, max: number) {
  const allowed = `${min} to ${max}`;
  return z
    .string(allowed)
    .regex(/^\d{1,15}$/, allowed)
    .transform(Number)
    .pipe(z.int(allowed).min(min, allowed).max(max, allowed));
}

const MODE_ALLOWED = 'three octal digits, for example 0660';
const MAC_ALLOWED = 'the address of a single station, for example 02:00:00:00:00:01';
const SIZE_UNITS = ['K', 'M', 'G', 'T'];
const ARENA_ALLOWED = `${formatSize(ARENA_BYTES_MIN)} to ${formatSize(ARENA_BYTES_MAX)}, for example 512GiB`;
const CPUS_ALLOWED = 'a list of CPU numbers, for example 2,3';
const CPU_NUMBER = z.string(CPUS_ALLOWED).regex(/^\d{1,5}$/, CPUS_ALLOWED);
export const NAME_ALLOWED = 'port names are 1 to 31 letters, digits, dots, dashes and underscores';
const NAME_PATTERN = /^[A-Za-z0-9][A-Za-z0-9._-]{0,30}$/;

const socketPath = z
  .string('path of a UNIX socket')
  .min(1, 'path of a UNIX socket')
  .refine((path) => !path.includes('\0'), 'no zero byte')
  .refine((path) => Buffer.byteLength(path) <= SOCKET_PATH_BYTES_MAX, {
    error: ({ input }) => `at most ${SOCKET_PATH_BYTES_MAX} bytes, not ${Buffer.byteLength(String(input))}`,
  });

function portSchema(host: HostFacts) {
  return z
    .strictObject(
      {
        socket: socketPath,
        role: z.enum(['server', 'client'], 'server or client').default('server'),
        mode: z
          .string(MODE_ALLOWED)
          .regex(/^(0o?)?[0-7]{3}$/, MODE_ALLOWED)
          .transform((text) => Number.parseInt(text.replace('o', ''), 8))
          .optional(),
        owner: ownerSchema(host).optional(),
        queues: wholeNumber(1, QUEUES_MAX).default(CONFIG_DEFAULTS.queues),
        configSpace: z
          .enum(['on', 'off', 'true', 'false'], 'on or off')
          .transform((text) => text === 'on' || text === 'true')
          .default(false),
        mac: z
          .string(MAC_ALLOWED)
          .refine(isStationMac, MAC_ALLOWED)
          .transform((text) => text.toLowerCase())
          .optional(),
        mtu: wholeNumber(68, 65_535).optional(),
      },
      'a map of settings, with socket at least',
    )
    .check(({ value: port, issues }) => {
      const refuse = (key: string, message: string) =>
        issues.push({ code: 'custom', path: [key], message, input: port });
      if (port.role === 'client' && port.mode !== undefined) refuse('mode', 'only with role server');
      if (port.role === 'client' && port.owner !== undefined) refuse('owner', 'only with role server');
      if (!port.configSpace && port.mac !== undefined)
        refuse('mac', 'only with config-space=on, in a file configSpace: on');
      if (!port.configSpace && port.mtu !== undefined)
        refuse('mtu', 'only with config-space=on, in a file configSpace: on');
    });
}

export function configSchema(host: HostFacts) {
  return z.strictObject({
    ports: z
      .record(z.string().regex(NAME_PATTERN, NAME_ALLOWED), portSchema(host), 'a map of port names')
      .default({}),
    cpus: z
      .preprocess(
        (value) => (typeof value === 'string' ? value.split(',') : value),
        z.array(CPU_NUMBER.transform(Number), CPUS_ALLOWED).min(1, CPUS_ALLOWED),
      )
      .optional(),
    poll: z.enum(['adaptive', 'busy'], 'adaptive or busy').default('adaptive'),
    idleUs: wholeNumber(0, IDLE_US_MAX).default(CONFIG_DEFAULTS.idleUs),
    fdb: z
      .strictObject(
        {
          capacity: wholeNumber(1, MAX_FDB_CAPACITY).default(CONFIG_DEFAULTS.fdb.capacity),
          ageSeconds: wholeNumber(1, AGE_SECONDS_MAX).default(CONFIG_DEFAULTS.fdb.ageSeconds),
        },
        'a map with capacity and ageSeconds',
      )
      .default(CONFIG_DEFAULTS.fdb),
    arena: z
      .string(ARENA_ALLOWED)
      .transform(parseSize)
      .pipe(z.int(ARENA_ALLOWED).min(ARENA_BYTES_MIN, ARENA_ALLOWED).max(ARENA_BYTES_MAX, ARENA_ALLOWED))
      .default(CONFIG_DEFAULTS.arenaBytes),
    control: socketPath.optional(),
  });
}

function ownerSchema(host: HostFacts) {
  return z.string('USER:GROUP, names or numbers').transform((text, context) => {
    const [user, group, ...rest] = text.split(':');
    const refuse = (message: string) => {
      context.issues.push({ code: 'custom', message, input: text });
      return z.NEVER;
    };
    if (!user || !group || rest.length > 0) return refuse('USER:GROUP, names or numbers');
    const uid = idOf(user, host.passwd());
    if (uid === null) return refuse(`there is no user ${user}`);
    const gid = idOf(group, host.group());
    if (gid === null) return refuse(`there is no group ${group}`);
    return { uid, gid };
  });
}

/** Number of a user or group: what `text` says, or the third field of its line in passwd or group. */
function idOf(text: string, table: string): number | null {
  if (/^\d{1,10}$/.test(text)) return Number(text) < 2 ** 32 - 1 ? Number(text) : null;
  const line = table.split('\n').find((entry) => entry.startsWith(`${text}:`));
  const id = line?.split(':')[2];
  return id !== undefined && /^\d+$/.test(id) ? Number(id) : null;
}

function isStationMac(text: string): boolean {
  const bytes = parseMac(text);
  return bytes !== null && (bytes[0]! & 1) === 0 && bytes.some((byte) => byte !== 0);
}

/** Bytes of `4294967296`, `512G`, `512GiB`; NaN of anything else. Units are powers of 1,024, as QEMU's. */
function parseSize(text: string): number {
  const [, digits, unit] = /^(\d{1,15})(?:([KMGT])(?:iB)?)?$/i.exec(text) ?? [];
  if (digits === undefined) return Number.NaN;
  const power = unit === undefined ? 0 : SIZE_UNITS.indexOf(unit.toUpperCase()) + 1;
  return Number(digits) * 1024 ** power;
}

function formatSize(sizeBytes: number): string {
  const power = Math.min(Math.floor(Math.log2(sizeBytes) / 10), SIZE_UNITS.length);
  return `${sizeBytes / 1024 ** power}${SIZE_UNITS[power - 1]}iB`;
}

/** Names of the settings that may stand in the map at `path`. */
export function knownSettings(path: readonly string[]): string[] {
  if (path[0] === 'ports') return Object.keys(portSchema(THIS_HOST).shape);
  return Object.keys(path[0] === 'fdb' ? CONFIG_DEFAULTS.fdb : configSchema(THIS_HOST).shape);
}
