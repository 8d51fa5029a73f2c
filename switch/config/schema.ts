/**
 * The shape of the settings and what each may be, as a schema from text to values: the one table of limits
 * and defaults. Every message says what is allowed; parse.ts adds where the setting stands. Main thread.
 */
import { z } from 'zod';
import { ARENA_BYTES_DEFAULT, ARENA_BYTES_MIN } from '../../src/memory/arena.ts';
import type { PortKind } from '../../src/port/contract.ts';
import { DEFAULT_FDB_CAPACITY, MAX_FDB_CAPACITY } from '../l2/fdb/layout.ts';
import { GROUPS_MAX, SNOOPING_DEFAULTS, type SnoopingSettings } from '../snooping/settings.ts';
import { changeableFields, knownPortSettings, portSchema } from './kinds/index.ts';
import { checkedPort } from './kinds/port-object.ts';
import {
  type HostFacts,
  listenAddress,
  onOff,
  pathOf,
  querierAddresses,
  socketPath,
  THIS_HOST,
  vlanList,
  wholeNumber,
} from './kinds/values.ts';
import { VHOST_USER_QUEUES } from './kinds/vhost-user.ts';
import { pluginMap } from './plugins.ts';

export const CONFIG_DEFAULTS = {
  queues: VHOST_USER_QUEUES,
  idleUs: 100,
  fdb: { capacity: DEFAULT_FDB_CAPACITY, ageSeconds: 300 },
  arenaBytes: ARENA_BYTES_DEFAULT,
  vlanLimit: 1,
  controlSocketName: 'ringway.sock',
  /** Where a port has that name. */
  controlSocketOtherName: 'ringway-control.sock',
  /** Beside the control socket, by its name without `.sock`; this is the name where there is none. */
  filesName: 'ringway',
  positionsEnding: '.positions',
  stateEnding: '.ports.json',
} as const;

/** Tags that are looked at at most. */
const VLAN_LIMIT_MAX = 2;
const IDLE_US_MAX = 1_000_000;
const AGE_SECONDS_MAX = 1_000_000;
/** The largest view of memory that was tried. */
const ARENA_BYTES_MAX = 2 ** 42;
const SIZE_UNITS = ['K', 'M', 'G', 'T'];
const ARENA_ALLOWED = `${formatSize(ARENA_BYTES_MIN)} to ${formatSize(ARENA_BYTES_MAX)}, for example 512GiB`;
const CPUS_ALLOWED = 'a list of CPU numbers, for example 2,3';
const CPU_NUMBER = z.string(CPUS_ALLOWED).regex(/^\d{1,5}$/, CPUS_ALLOWED);
export const NAME_ALLOWED = 'port names are 1 to 31 letters, digits, dots, dashes and underscores';
const NAME_PATTERN = /^[A-Za-z0-9][A-Za-z0-9._-]{0,30}$/;

/** Ports alone, without the settings of the switch around them. */
export function portsSchema(host: HostFacts) {
  return z.strictObject({ ports: portMap(host) });
}

/** Of ports of that kind that run: what can be changed of them. */
export function changeSchema(kind: PortKind) {
  const port = z.strictObject(changeableFields(kind));
  return z.strictObject({
    ports: z.record(
      z.string(),
      z.unknown().transform((value, context) => checkedPort(port, value, context)),
    ),
  });
}

function portMap(host: HostFacts) {
  return z.record(z.string().regex(NAME_PATTERN, NAME_ALLOWED), portSchema(host), 'a map of port names');
}

export function configSchema(host: HostFacts) {
  return z.strictObject({
    ports: portMap(host).default({}),
    plugins: pluginMap.default({}),
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
    snooping: z
      .preprocess(
        // One word for all.
        (value) => (typeof value === 'string' ? { enabled: value } : value),
        z.strictObject(
          {
            enabled: onOff.default(true),
            floodUnregistered: onOff.default(SNOOPING_DEFAULTS.floodUnregistered),
            vlans: vlanList.optional(),
            querier: querierAddresses.optional(),
            ageSeconds: wholeNumber(1, AGE_SECONDS_MAX).default(SNOOPING_DEFAULTS.ageSeconds),
            groups: wholeNumber(1, GROUPS_MAX).default(SNOOPING_DEFAULTS.groups),
          },
          'on, off, or a map with enabled, floodUnregistered, vlans, querier, ageSeconds and groups',
        ),
      )
      .transform(
        (settings): SnoopingSettings => ({
          ...settings,
          vlans: settings.vlans ?? null,
          querier: settings.querier ?? [],
        }),
      )
      .default(SNOOPING_DEFAULTS),
    arena: z
      .string(ARENA_ALLOWED)
      .transform(parseSize)
      .pipe(z.int(ARENA_ALLOWED).min(ARENA_BYTES_MIN, ARENA_ALLOWED).max(ARENA_BYTES_MAX, ARENA_ALLOWED))
      .default(CONFIG_DEFAULTS.arenaBytes),
    vlanLimit: z
      .enum(['0', '1', '2'], '1 or 2, or 0 for as many as can be')
      .transform((text) => (text === '0' ? VLAN_LIMIT_MAX : Number(text)))
      .default(CONFIG_DEFAULTS.vlanLimit),
    control: socketPath.optional(),
    positions: pathOf('path of a file, or none').optional(),
    state: pathOf('path of a file, or none').optional(),
    metrics: listenAddress.optional(),
    metricsToken: pathOf('path of a file with the token').optional(),
  });
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

/** Names of the settings that may stand in the map at `path`, which is written for a port of `kind` if for one. */
export function knownSettings(path: readonly string[], kind: string): readonly string[] {
  if (path[0] === 'ports') return knownPortSettings(kind, path[2]);
  if (path[0] === 'snooping') return Object.keys(SNOOPING_DEFAULTS);
  return Object.keys(path[0] === 'fdb' ? CONFIG_DEFAULTS.fdb : configSchema(THIS_HOST).shape);
}
