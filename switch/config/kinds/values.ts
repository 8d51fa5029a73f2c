/** Values that several settings share, as schemas from text; every message says what is allowed. */
import { readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { z } from 'zod';
import { MTU_MAX, MTU_MIN, parseMac } from '../../../protocol/ethernet.ts';
import { parseIp } from '../../../protocol/ip-text.ts';
import { pinnableCpus } from '../../../src/host/affinity.ts';
import { SOCKET_PATH_BYTES_MAX } from '../../../src/host/unix-socket.ts';
import { parseIpPrefix } from '../../../src/port/tap/ip-prefix.ts';

/** What the schemas ask of the machine; a parameter so that tests do not depend on it. */
export type HostFacts = {
  /** To which a worker can be pinned. */
  readonly pinnableCpus: () => readonly number[];
  /** Contents of /etc/passwd and /etc/group. */
  readonly passwd: () => string;
  readonly group: () => string;
};

export const THIS_HOST: HostFacts = {
  pinnableCpus,
  passwd: () => readFileSync('/etc/passwd', 'utf8'),
  group: () => readFileSync('/etc/group', 'utf8'),
};

const QUEUES_MAX = 127;
const PORT_MAX = 65_535;
const MODE_ALLOWED = 'permission bits in octal, 0000 to 0777, for example 0660';
const MAC_ALLOWED = 'the address of a single station, for example 02:00:00:00:00:01';

export function wholeNumber(min: number, max: number) {
  const allowed = `${min} to ${max}`;
  return z
    .string(allowed)
    .regex(/^\d{1,15}$/, allowed)
    .transform(Number)
    .pipe(z.int(allowed).min(min, allowed).max(max, allowed));
}

const QUANTITY_UNITS = ['', 'K', 'M', 'G', 'T'];

/** So many of `what`: a whole number, or one of thousands, millions and so on (K, M, G, T) as of rates on networks. */
export function quantity(min: number, max: number, what: string) {
  const allowed = `${inUnits(min)} to ${inUnits(max)} ${what}, for example 100M`;
  return z
    .string(allowed)
    .transform((text) => {
      const [, digits, unit] = /^(\d{1,13})([KMGT]?)$/i.exec(text) ?? [];
      return digits === undefined
        ? Number.NaN
        : Number(digits) * 1000 ** QUANTITY_UNITS.indexOf(unit.toUpperCase());
    })
    .pipe(z.int(allowed).min(min, allowed).max(max, allowed));
}

/** As `quantity` is written, as short as can be. */
export function inUnits(count: number): string {
  let power = 0;
  while (count >= 1000 && count % 1000 === 0 && power + 1 < QUANTITY_UNITS.length) {
    count /= 1000;
    power++;
  }
  return `${count}${QUANTITY_UNITS[power]}`;
}

export const queuePairs = wholeNumber(1, QUEUES_MAX);
export const mtu = wholeNumber(MTU_MIN, MTU_MAX);

const VLAN_MAX = 4095;
const VLANS_ALLOWED = 'VLANs, 0 to 4095: a list, in an option joined by +, for example 10+20+100-199';

export const vlan = wholeNumber(0, VLAN_MAX);

/** One VLAN, or those from one to another. */
const vlanRange = z.string(VLANS_ALLOWED).transform((text, context) => {
  const [, first, last = first] = /^(\d{1,4})(?:-(\d{1,4}))?$/.exec(text) ?? [];
  const range = { first: Number(first), last: Number(last) };
  if (first !== undefined && range.first <= range.last && range.last <= VLAN_MAX) return range;
  context.issues.push({ code: 'custom', message: VLANS_ALLOWED, input: text });
  return z.NEVER;
});

/** VLANs, each once and in order; a list, or one text. */
export const vlanList = z
  .preprocess(
    (value) => (typeof value === 'string' ? value.split(/[+, ]+/) : value),
    z.array(vlanRange, VLANS_ALLOWED).min(1, VLANS_ALLOWED),
  )
  .transform((ranges): number[] => {
    const vlans = new Set<number>();
    for (const { first, last } of ranges) {
      for (let number = first; number <= last; number++) vlans.add(number);
    }
    return [...vlans].sort((a, b) => a - b);
  });

const GROUP_SOURCES_ALLOWED =
  'an address of IPv4, one of IPv6 of the link (fe80::…), or both joined by +, for example 10.0.0.254+fe80::1';

/** Sources of queries about groups: one a family at most. */
export const querierAddresses = z
  .preprocess(
    (value) => (typeof value === 'string' ? value.split(/[+, ]+/) : value),
    z
      .array(z.string(GROUP_SOURCES_ALLOWED), GROUP_SOURCES_ALLOWED)
      .min(1, GROUP_SOURCES_ALLOWED)
      .max(2, GROUP_SOURCES_ALLOWED),
  )
  .refine((texts) => {
    const addresses = texts.map(parseIp);
    const isSource = (bytes: Uint8Array | null): boolean =>
      bytes !== null &&
      (bytes.length === 4 ? bytes[0] > 0 && bytes[0] < 224 : bytes[0] === 0xfe && (bytes[1] & 0xc0) === 0x80);
    return (
      addresses.every(isSource) && new Set(addresses.map((bytes) => bytes?.length)).size === texts.length
    );
  }, GROUP_SOURCES_ALLOWED);
const MACS_ALLOWED =
  'addresses of single stations: a list, in an option joined by +, for example 02:00:00:00:00:01+02:00:00:00:00:02';
const STATICS_ALLOWED =
  'addresses of single stations, each with @VLAN or without: a list, in an option joined by +, for example 02:00:00:00:00:01@10';
const IPS_ALLOWED =
  'IPv4 and IPv6 addresses or networks: a list, in an option joined by +, for example 10.0.0.5+2001:db8::/64';
const MACS_MAX = 256;
const IPS_MAX = 64;
const ADDRESSES_MAX = 65_535;

export const addressCount = wholeNumber(1, ADDRESSES_MAX);

/** A list of texts, each once; `normal` answers how one is written, or null where it is none. */
function textList(allowed: string, max: number, normal: (text: string) => string | null) {
  return z
    .preprocess(
      (value) => (typeof value === 'string' ? value.split(/[+, ]+/) : value),
      z.array(z.string(allowed), allowed).min(1, allowed).max(max, `at most ${max}`),
    )
    .transform((texts, context): string[] => {
      const written = texts.map((text) => normal(text.trim()));
      const right = written.filter((text) => text !== null);
      if (right.length === written.length) return [...new Set(right)];
      for (const [i, text] of written.entries()) {
        if (text === null)
          context.issues.push({ code: 'custom', message: allowed, input: texts[i], path: [i] });
      }
      return z.NEVER;
    });
}

export const macList = textList(MACS_ALLOWED, MACS_MAX, (text) =>
  isStationMac(text) ? text.toLowerCase() : null,
);

/** `02:00:00:00:00:01`, or with the VLAN that it is in, `02:00:00:00:00:01@10`. */
export const staticMacList = textList(STATICS_ALLOWED, MACS_MAX, (text) => {
  const [mac = '', vlanText, ...rest] = text.split('@');
  if (!isStationMac(mac) || rest.length > 0) return null;
  if (vlanText === undefined) return mac.toLowerCase();
  const isVlan = /^\d{1,4}$/.test(vlanText) && Number(vlanText) <= VLAN_MAX;
  return isVlan ? `${mac.toLowerCase()}@${Number(vlanText)}` : null;
});

/** IP addresses and networks, as they were written; `parseIpNetwork` reads each. */
export const ipList = textList(IPS_ALLOWED, IPS_MAX, (text) => (parseIpNetwork(text) === null ? null : text));

/** @returns null where the text is none */
export function parseIpNetwork(text: string): { bytes: number[]; prefixBits: number } | null {
  const prefix = parseIpPrefix(text.includes('/') ? text : `${text}/${text.includes(':') ? 128 : 32}`);
  return prefix === null ? null : { bytes: [...prefix.bytes], prefixBits: prefix.prefixBits };
}

export const GUARDS = ['dhcp', 'ra'] as const;
const GUARDS_ALLOWED = `${GUARDS.join(', ')}: a list, in an option joined by +`;
export const guardList = textList(GUARDS_ALLOWED, GUARDS.length, (text) =>
  GUARDS.some((each) => each === text) ? text : null,
);

export const socketPath = pathOf('path of a UNIX socket').refine(
  (path) => Buffer.byteLength(path) <= SOCKET_PATH_BYTES_MAX,
  {
    error: ({ input }) => `at most ${SOCKET_PATH_BYTES_MAX} bytes, not ${Buffer.byteLength(String(input))}`,
  },
);

/** Where something listens: an address and port, or the path of a UNIX socket. */
export type ListenAddress = { readonly host: string; readonly port: number } | { readonly path: string };

const LISTEN_ALLOWED =
  'ADDRESS:PORT, for example 127.0.0.1:9600 or [::1]:9600, the path of a UNIX socket, for example ./metrics.sock, or none';

/** Null: `none`. */
export const listenAddress = z.string(LISTEN_ALLOWED).transform((text, context): ListenAddress | null => {
  const address = text === 'none' ? null : parseListenAddress(text);
  if (address !== undefined) return address;
  context.issues.push({ code: 'custom', message: LISTEN_ALLOWED, input: text });
  return z.NEVER;
});

/** Undefined: it is none. */
function parseListenAddress(text: string): ListenAddress | undefined {
  if (text.includes('/')) {
    const isPath = !text.includes('\0') && Buffer.byteLength(text) <= SOCKET_PATH_BYTES_MAX;
    return isPath ? { path: text } : undefined;
  }
  const [, v6, v4, portText] = /^(?:\[([0-9a-f:.]+)\]|([0-9.]+)):(\d{1,5})$/i.exec(text) ?? [];
  const host = v6 ?? v4;
  const port = Number(portText);
  if (host === undefined || isIP(host) !== (v6 === undefined ? 4 : 6) || port < 1 || port > PORT_MAX)
    return undefined;
  return { host, port };
}

/** As it was written. */
export function listenText(address: ListenAddress): string {
  if ('path' in address) return address.path;
  return address.host.includes(':') ? `[${address.host}]:${address.port}` : `${address.host}:${address.port}`;
}

/** Only processes of this host come by it. */
export function isOfThisHost(address: ListenAddress): boolean {
  return 'path' in address || address.host.startsWith('127.') || address.host === '::1';
}

/** A path; `what` says of what. */
export function pathOf(what: string) {
  return z
    .string(what)
    .min(1, what)
    .refine((path) => !path.includes('\0'), 'no zero byte');
}

export const onOff = z
  .enum(['on', 'off', 'true', 'false'], 'on or off')
  .transform((text) => text === 'on' || text === 'true');

export const fileMode = z
  .string(MODE_ALLOWED)
  .regex(/^(0o?)?[0-7]{3}$/, MODE_ALLOWED)
  .transform((text) => Number.parseInt(text.replace('o', ''), 8));

export const stationMac = z
  .string(MAC_ALLOWED)
  .refine(isStationMac, MAC_ALLOWED)
  .transform((text) => text.toLowerCase());

export function owner(host: HostFacts) {
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
  return bytes !== null && (bytes[0] & 1) === 0 && bytes.some((byte) => byte !== 0);
}
