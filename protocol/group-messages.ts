/**
 * What IGMP (v1 to v3: RFC 1112, 2236, 3376) and MLD (v1, v2: RFC 2710, 3810) say, read from a packet of which nothing is
 * believed; and PIM's hello (RFC 7761), by which a router is known. Filters of sources are read as far as they tell whether
 * anything of the group is wanted. Pure; not for the hot path.
 */
import { ETHERTYPE_IPV4, ETHERTYPE_IPV6 } from './ethernet.ts';
import { IPV4_FRAGMENT_MASK, IPV4_HEADER_BYTES_MIN, IPV6_HEADER_BYTES, PROTOCOL_HOP_BY_HOP } from './ip.ts';

export const PROTOCOL_IGMP = 2;
export const PROTOCOL_ICMPV6 = 58;
export const PROTOCOL_PIM = 103;

export const IGMP = { QUERY: 0x11, REPORT_V1: 0x12, REPORT_V2: 0x16, LEAVE: 0x17, REPORT_V3: 0x22 } as const;
export const MLD = { QUERY: 130, REPORT_V1: 131, DONE: 132, REPORT_V2: 143 } as const;
/** Records of IGMPv3 and MLDv2. */
const RECORD = { IS_INCLUDE: 1, TO_INCLUDE: 3, BLOCK_OLD: 6 } as const;
const PIM_HELLO = 0x20;

const IGMP_BYTES_MIN = 8;
const IGMP_V3_QUERY_BYTES_MIN = 12;
const MLD_BYTES_MIN = 24;
const MLD_V2_QUERY_BYTES_MIN = 28;
/** Without sources; behind it are sources, and words that nobody uses. */
const IGMP_RECORD_BYTES = 8;
const MLD_RECORD_BYTES = 20;
export const ALL_HOSTS_IPV4 = Uint8Array.from([224, 0, 0, 1]);
export const ALL_HOSTS_IPV6 = Uint8Array.from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
const OPTION_PAD1 = 0;
const OPTION_ROUTER_ALERT = 5;

export type IpFamily = 4 | 6;

/** Four or sixteen bytes. */
export type GroupChange = { readonly group: Uint8Array; readonly isLeave: boolean };

export type GroupMessage =
  | {
      readonly kind: 'query';
      readonly family: IpFamily;
      readonly version: 1 | 2 | 3;
      readonly source: Uint8Array;
      /** Null: a general query. */
      readonly group: Uint8Array | null;
    }
  | { readonly kind: 'report'; readonly family: IpFamily; readonly changes: readonly GroupChange[] }
  /** A router is there. */
  | { readonly kind: 'router' }
  /** Nothing that concerns groups. */
  | { readonly kind: 'other' }
  | { readonly kind: 'bad'; readonly why: BadMessage };

/** `why`: what is wrong with it. */
export type BadMessage =
  | 'length'
  | 'checksum'
  | 'timeToLive'
  | 'source'
  | 'destination'
  | 'routerAlert'
  | 'group'
  | 'records';

const OTHER: GroupMessage = { kind: 'other' };

function bad(why: BadMessage): GroupMessage {
  return { kind: 'bad', why };
}

/**
 * Whether a frame with a query goes to those whom it asks: a general one to all hosts, another to the group. What is addressed
 * otherwise they need not get, and would not answer. `frame`: as `readGroupMessage` read it from its 14th byte on.
 */
export function isQueryToWhomItAsks(frame: Uint8Array, family: IpFamily, group: Uint8Array | null): boolean {
  const to = group ?? (family === 4 ? ALL_HOSTS_IPV4 : ALL_HOSTS_IPV6);
  const at = 14 + (family === 4 ? 16 : 24);
  const isEqual = (bytes: Uint8Array, start: number): boolean =>
    bytes.every((byte, i) => byte === frame[start + i]);
  return isEqual(to, at) && isEqual(groupMac(to), 0);
}

/** `packet`: from the IP header on, with padding behind it as it may have; what is cut off is as if it were not there. */
export function readGroupMessage(etherType: number, packet: Uint8Array): GroupMessage {
  if (etherType === ETHERTYPE_IPV4) return readIpv4(packet);
  return etherType === ETHERTYPE_IPV6 ? readIpv6(packet) : OTHER;
}

function readIpv4(packet: Uint8Array): GroupMessage {
  if (packet.length < IPV4_HEADER_BYTES_MIN || packet[0] >> 4 !== 4) return bad('length');
  const headerBytes = (packet[0] & 15) << 2;
  const totalBytes = be16(packet, 2);
  if (headerBytes < IPV4_HEADER_BYTES_MIN || totalBytes < headerBytes || totalBytes > packet.length)
    return bad('length');
  if ((be16(packet, 6) & IPV4_FRAGMENT_MASK) !== 0) return bad('length');
  const protocol = packet[9];
  const message = packet.subarray(headerBytes, totalBytes);
  if (protocol === PROTOCOL_PIM) return readPim(message);
  if (protocol !== PROTOCOL_IGMP) return OTHER;
  if (packet[8] !== 1) return bad('timeToLive');
  if (message.length < IGMP_BYTES_MIN) return bad('length');
  if (sumOf(message) !== 0xffff || sumOf(packet.subarray(0, headerBytes)) !== 0xffff) return bad('checksum');
  const group = message.subarray(4, 8);
  switch (message[0]) {
    case IGMP.QUERY:
      return readIgmpQuery(packet.subarray(12, 16), message, group);
    case IGMP.REPORT_V1:
    case IGMP.REPORT_V2:
      return isIpv4Group(group) ? report(4, [{ group, isLeave: false }]) : bad('group');
    case IGMP.LEAVE:
      return isIpv4Group(group) ? report(4, [{ group, isLeave: true }]) : bad('group');
    case IGMP.REPORT_V3:
      return readRecords(4, message, IGMP_RECORD_BYTES, 4, isIpv4Group);
    default:
      return OTHER;
  }
}

function readIgmpQuery(source: Uint8Array, message: Uint8Array, group: Uint8Array): GroupMessage {
  // Between the two lengths there is no query (RFC 3376, 7.1).
  if (message.length > IGMP_BYTES_MIN && message.length < IGMP_V3_QUERY_BYTES_MIN) return bad('length');
  const version = message.length >= IGMP_V3_QUERY_BYTES_MIN ? 3 : message[1] === 0 ? 1 : 2;
  const isGeneral = group.every((byte) => byte === 0);
  if (!isGeneral && !isIpv4Group(group)) return bad('group');
  return { kind: 'query', family: 4, version, source, group: isGeneral ? null : group };
}

function readPim(message: Uint8Array): GroupMessage {
  if (message.length < 4) return bad('length');
  if (message[0] !== PIM_HELLO) return OTHER;
  return sumOf(message) === 0xffff ? { kind: 'router' } : bad('checksum');
}

function readIpv6(packet: Uint8Array): GroupMessage {
  if (packet.length < IPV6_HEADER_BYTES || packet[0] >> 4 !== 6) return bad('length');
  const end = IPV6_HEADER_BYTES + be16(packet, 4);
  if (end > packet.length) return bad('length');
  if (packet[6] !== PROTOCOL_HOP_BY_HOP) return OTHER;
  const options = packet.subarray(IPV6_HEADER_BYTES, end);
  const optionsBytes = options.length < 8 ? 0 : (options[1] + 1) << 3;
  if (optionsBytes === 0 || optionsBytes > options.length) return bad('length');
  if (options[0] !== PROTOCOL_ICMPV6) return OTHER;
  const message = options.subarray(optionsBytes);
  const type = message[0];
  if (type !== MLD.QUERY && type !== MLD.REPORT_V1 && type !== MLD.DONE && type !== MLD.REPORT_V2)
    return OTHER;
  if (packet[7] !== 1) return bad('timeToLive');
  if (!hasRouterAlert(options.subarray(2, optionsBytes))) return bad('routerAlert');
  const source = packet.subarray(8, 24);
  const isLinkLocal = source[0] === 0xfe && (source[1] & 0xc0) === 0x80;
  // A host that has no address yet reports from none; nobody asks from none.
  if (!isLinkLocal && (type === MLD.QUERY || source.some((byte) => byte !== 0))) return bad('source');
  if (message.length < (type === MLD.REPORT_V2 ? 8 : MLD_BYTES_MIN)) return bad('length');
  if (sumOf(message, pseudoSumOf(packet, message.length)) !== 0xffff) return bad('checksum');
  if (type === MLD.REPORT_V2) return readRecords(6, message, MLD_RECORD_BYTES, 16, isIpv6Group);
  const group = message.subarray(8, 24);
  if (type === MLD.QUERY) {
    if (message.length > MLD_BYTES_MIN && message.length < MLD_V2_QUERY_BYTES_MIN) return bad('length');
    const isGeneral = group.every((byte) => byte === 0);
    if (!isGeneral && !isIpv6Group(group)) return bad('group');
    const version = message.length >= MLD_V2_QUERY_BYTES_MIN ? 3 : 2;
    return { kind: 'query', family: 6, version, source, group: isGeneral ? null : group };
  }
  return isIpv6Group(group) ? report(6, [{ group, isLeave: type === MLD.DONE }]) : bad('group');
}

/** Every option is two bytes at least, but for padding of one. */
function hasRouterAlert(options: Uint8Array): boolean {
  for (let at = 0; at < options.length; ) {
    if (options[at] === OPTION_PAD1) {
      at++;
      continue;
    }
    if (options[at] === OPTION_ROUTER_ALERT) return at + 4 <= options.length && be16(options, at + 2) === 0;
    at += 2 + (options[at + 1] ?? 0);
  }
  return false;
}

/** A report of version 3 (MLD: 2); its length bounds the loop, whatever number of records it claims. */
function readRecords(
  family: IpFamily,
  message: Uint8Array,
  recordBytes: number,
  addressBytes: number,
  isGroup: (bytes: Uint8Array) => boolean,
): GroupMessage {
  const changes: GroupChange[] = [];
  let at = 8;
  for (let left = be16(message, 6); left > 0; left--) {
    if (at + recordBytes > message.length) return bad('records');
    const type = message[at];
    const sources = be16(message, at + 2);
    const group = message.subarray(at + 4, at + 4 + addressBytes);
    at += recordBytes + sources * addressBytes + message[at + 1] * 4;
    if (at > message.length) return bad('records');
    if (!isGroup(group)) return bad('group');
    // What it no longer wants of some sources says nothing about the others; a type that there is none of says nothing.
    if (type < RECORD.IS_INCLUDE || type >= RECORD.BLOCK_OLD) continue;
    const isInclude = type === RECORD.IS_INCLUDE || type === RECORD.TO_INCLUDE;
    changes.push({ group, isLeave: isInclude && sources === 0 });
  }
  return report(family, changes);
}

function report(family: IpFamily, changes: readonly GroupChange[]): GroupMessage {
  return { kind: 'report', family, changes };
}

export function isIpv4Group(address: Uint8Array): boolean {
  return address[0] >> 4 === 14;
}

export function isIpv6Group(address: Uint8Array): boolean {
  return address[0] === 0xff;
}

/** The Ethernet address of a group (RFC 1112, 6.4; RFC 2464, 7), of four or sixteen bytes. */
export function groupMac(address: Uint8Array): Uint8Array {
  return address.length === 4
    ? Uint8Array.from([1, 0, 0x5e, address[1] & 0x7f, address[2], address[3]])
    : Uint8Array.from([0x33, 0x33, ...address.subarray(12)]);
}

/** Folded sum of 16-bit words, 0xffff where a checksum among them is right (RFC 1071). */
export function sumOf(bytes: Uint8Array, start = 0): number {
  let sum = start;
  for (let at = 0; at < bytes.length; at += 2) sum += (bytes[at] << 8) | (bytes[at + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return sum;
}

/** Of an IPv6 packet whose ICMPv6 message has so many bytes (RFC 8200, 8.1). */
export function pseudoSumOf(packet: Uint8Array, messageBytes: number): number {
  return sumOf(packet.subarray(8, 40)) + messageBytes + PROTOCOL_ICMPV6;
}

function be16(bytes: Uint8Array, at: number): number {
  return (bytes[at] << 8) | bytes[at + 1];
}
