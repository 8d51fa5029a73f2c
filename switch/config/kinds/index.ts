/**
 * The registry of kinds of ports: their settings, and the port that comes of them. A new kind is a file beside this
 * one and a line in each of the two lists here; its queues are registered in src/port/kinds.ts.
 */
import { resolve } from 'node:path';
import { z } from 'zod';
import type { Port, PortContext, PortKind } from '../../../src/port/contract.ts';
import { COMMON_LIST_KEYS, COMMON_PORT_FIELDS } from '../common-port.ts';
import type { CopiedPorts, PortKindSpec } from './contract.ts';
import { DPDK, type DpdkSettings } from './dpdk.ts';
import { PCAP, type PcapSettings } from './pcap.ts';
import { checkedPort } from './port-object.ts';
import { TAP, type TapSettings } from './tap.ts';
import { UNIX, type UnixSettings } from './unix.ts';
import { type HostFacts, THIS_HOST } from './values.ts';
import { VHOST_USER, type VhostUserSettings } from './vhost-user.ts';

/** The settings that each kind of port has. */
type SettingsOfKind = {
  readonly 'vhost-user': VhostUserSettings;
  readonly tap: TapSettings;
  readonly unix: UnixSettings;
  readonly pcap: PcapSettings;
  readonly dpdk: DpdkSettings;
};

/** The settings of one port, whatever its kind; `kind` says which. */
export type PortSettings<Kind extends PortKind = PortKind> = {
  [K in Kind]: SettingsOfKind[K] & { readonly kind: K };
}[Kind];

const SPECS: { readonly [Kind in PortKind]: PortKindSpec<PortSettings<Kind>> } = {
  'vhost-user': VHOST_USER,
  tap: TAP,
  unix: UNIX,
  pcap: PCAP,
  dpdk: DPDK,
};

export const PORT_KINDS: readonly PortKind[] = Object.keys(SPECS).filter(isKind);
const DEFAULT_KIND = 'vhost-user';
const KIND_ALLOWED = PORT_KINDS.join(', ');

export function createPort<Kind extends PortKind>(settings: PortSettings<Kind>, context: PortContext): Port {
  return SPECS[settings.kind].create(settings, context);
}

/** What the port has for itself alone; no two ports may have the same. */
export function claimOf<Kind extends PortKind>(settings: PortSettings<Kind>): string {
  return SPECS[settings.kind].claimOf(settings);
}

/** The path of the port's socket, or null when it has none. */
export function socketOf<Kind extends PortKind>(settings: PortSettings<Kind>): string | null {
  return SPECS[settings.kind].socketOf(settings);
}

/**
 * Of which ports a port gets copies, instead of frames that are switched to it. Null: frames are switched to it as
 * to any other.
 */
export function copiesOf<Kind extends PortKind>(settings: PortSettings<Kind>): CopiedPorts | null {
  if (getsNothing(settings)) return [];
  return settings.mirror ?? null;
}

/** Neither frames nor copies go to the port. */
export function getsNothing<Kind extends PortKind>(settings: PortSettings<Kind>): boolean {
  return SPECS[settings.kind].getsNothing(settings);
}

/** The setting that says what a port of that kind is attached to. */
export function endpointKeyOf(kind: string): string {
  return specOf(kind).endpointKey;
}

/** The kind that what a port is attached to looks like, though none was named; null: there is no telling. */
export function kindByLook(endpoint: string): PortKind | null {
  return PORT_KINDS.find((kind) => SPECS[kind].endpointLook?.test(endpoint)) ?? null;
}

/** What the port is attached to: the path of a socket or file, an interface, a device. */
export function endpointOf(settings: PortSettings): string {
  return String(settings[endpointKeyOf(settings.kind) as keyof PortSettings]);
}

/** Settings of that kind that are paths. */
function pathKeysOf(kind: string): readonly string[] {
  return specOf(kind).pathKeys;
}

/** A port's settings with its paths from the root on: whoever reads them may be in another folder than who wrote them. */
export function withWholePaths<Value>(
  settings: Readonly<Record<string, Value>>,
): Record<string, Value | string> {
  const pathKeys = pathKeysOf(kindOf(settings));
  return Object.fromEntries(
    Object.entries(settings).map(([key, value]) => [
      key,
      pathKeys.includes(key) && typeof value === 'string' && value !== '' ? resolve(value) : value,
    ]),
  );
}

/**
 * Names of what a port's settings may hold, of a port of kind `vhost-user` when none is named: the settings, or with
 * `key` what stands in that one.
 */
export function knownPortSettings(kind: string, key?: string): readonly string[] {
  const spec = specOf(kind);
  const keys = key === undefined ? undefined : spec.mapKeys[key];
  return keys ?? Object.keys(spec.schema(THIS_HOST).shape);
}

/** What can be switched off by `offloads` of a port of that kind. */
export function offloadNamesOf(kind: PortKind): readonly string[] {
  return SPECS[kind].mapKeys.offloads ?? [];
}

/** Settings of any kind whose parts are joined by + on a command line. */
export function joinedKeys(): readonly string[] {
  const own = PORT_KINDS.flatMap((kind) => [...SPECS[kind].listKeys, ...Object.keys(SPECS[kind].mapKeys)]);
  return [...COMMON_LIST_KEYS, ...own];
}

/** The settings of a port of that kind that can be changed while it runs. */
export function changeableFields(kind: PortKind): Readonly<Record<string, z.ZodType>> {
  return { ...COMMON_PORT_FIELDS, ...SPECS[kind].changeable };
}

/** What a port of that kind may be told, for who describes it; one is checked by `portSchema`. */
export function settingsSchemaOf(kind: PortKind, host: HostFacts): z.ZodType {
  return SPECS[kind].schema(host);
}

/** The schema of one port: its `kind`, or its absence, decides which settings it may have. */
export function portSchema(host: HostFacts) {
  // Of thousands of ports most are of one kind, and to make its schema takes longer than to use it.
  const made = new Map<PortKind, z.ZodType<PortSettings>>();
  const schemaOf = (kind: PortKind): z.ZodType<PortSettings> => {
    const schema = made.get(kind) ?? SPECS[kind].schema(host);
    made.set(kind, schema);
    return schema;
  };
  return z.unknown().transform((value, context): PortSettings => {
    const kind = kindOf(value);
    if (!isKind(kind)) {
      context.issues.push({ code: 'custom', path: ['kind'], message: KIND_ALLOWED, input: kind });
      return z.NEVER;
    }
    return checkedPort<PortSettings>(schemaOf(kind), value, context);
  });
}

/** The kind that settings, not yet checked, are written for. */
export function kindOf(settings: unknown): string {
  if (typeof settings !== 'object' || settings === null || !('kind' in settings)) return DEFAULT_KIND;
  return String(settings.kind);
}

/** What does not depend on the settings of a port; of kind `vhost-user` when none is named. */
function specOf(kind: string): (typeof SPECS)[PortKind] {
  return SPECS[isKind(kind) ? kind : DEFAULT_KIND];
}

function isKind(kind: string): kind is PortKind {
  return Object.hasOwn(SPECS, kind);
}
