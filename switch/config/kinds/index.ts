/**
 * Every kind of port that can be configured. A new kind is a file beside this one, a line in each list here,
 * and a case in src/port/kinds.ts.
 */
import { z } from 'zod';
import type { Port, PortContext, PortKind } from '../../../src/port/contract.ts';
import { DPDK, type DpdkSettings } from './dpdk.ts';
import { PCAP, type PcapSettings } from './pcap.ts';
import { TAP, type TapSettings } from './tap.ts';
import { UNIX, type UnixSettings } from './unix.ts';
import { type HostFacts, THIS_HOST } from './values.ts';
import { VHOST_USER, type VhostUserSettings } from './vhost-user.ts';

/** The settings of one port, whatever its kind; `kind` says which. */
export type PortSettings = VhostUserSettings | TapSettings | UnixSettings | PcapSettings | DpdkSettings;

const SPECS = { 'vhost-user': VHOST_USER, tap: TAP, unix: UNIX, pcap: PCAP, dpdk: DPDK } as const;

export const PORT_KINDS = Object.keys(SPECS) as PortKind[];
const DEFAULT_KIND = 'vhost-user';
const KIND_ALLOWED = PORT_KINDS.join(', ');

export function createPort(settings: PortSettings, context: PortContext): Port {
  switch (settings.kind) {
    case 'vhost-user':
      return VHOST_USER.create(settings, context);
    case 'pcap':
      return PCAP.create(settings, context);
    case 'unix':
      return UNIX.create(settings, context);
    case 'tap':
      return TAP.create(settings, context);
    case 'dpdk':
      return DPDK.create(settings, context);
  }
}

/** The setting that says what a port of that kind is attached to. */
export function endpointKeyOf(kind: string): string {
  return isKind(kind) ? SPECS[kind].endpointKey : SPECS[DEFAULT_KIND].endpointKey;
}

/** What the port is attached to: the path of a socket or file, an interface, a device. */
export function endpointOf(settings: PortSettings): string {
  return String(settings[endpointKeyOf(settings.kind) as keyof PortSettings]);
}

/** Names of a port's settings; of a port of kind `vhost-user` when none is named. */
export function knownPortSettings(kind: string): string[] {
  return Object.keys(SPECS[isKind(kind) ? kind : DEFAULT_KIND].schema(THIS_HOST).shape);
}

/** The schema of one port: its `kind`, or its absence, decides which settings it may have. */
export function portSchema(host: HostFacts) {
  return z.unknown().transform((value, context): PortSettings => {
    const kind = kindOf(value);
    if (!isKind(kind)) {
      context.issues.push({ code: 'custom', path: ['kind'], message: KIND_ALLOWED, input: kind });
      return z.NEVER;
    }
    const parsed = SPECS[kind].schema(host).safeParse(value);
    if (parsed.success) return parsed.data;
    // As they are: their paths lie within this port, and their messages say what is allowed.
    for (const issue of parsed.error.issues) context.issues.push(issue as z.core.$ZodRawIssue);
    return z.NEVER;
  });
}

/** The kind that settings, not yet checked, are written for. */
export function kindOf(settings: unknown): string {
  if (typeof settings !== 'object' || settings === null || !('kind' in settings)) return DEFAULT_KIND;
  return String(settings.kind);
}

function isKind(kind: string): kind is PortKind & keyof typeof SPECS {
  return Object.hasOwn(SPECS, kind);
}
