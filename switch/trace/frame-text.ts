/** What stands in a frame, as words: its addresses, its tags, and what of IP people look for. Pure, for people. */
import {
  ETHERNET_HEADER_BYTES,
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  ETHERTYPE_QINQ,
  ETHERTYPE_VLAN,
  formatMac,
  macHiOf,
  macLoOf,
  VLAN_TAG_BYTES,
} from '../../protocol/ethernet.ts';
import {
  IPV4_FRAGMENT_MASK,
  IPV4_HEADER_BYTES_MIN,
  IPV6_HEADER_BYTES,
  PROTOCOL_HOP_BY_HOP,
  PROTOCOL_SCTP,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
} from '../../protocol/ip.ts';
import { formatIp } from '../../protocol/ip-text.ts';

export type FrameTag = {
  readonly kind: '802.1q' | '802.1ad';
  readonly vlan: number;
  readonly priority: number;
};

const ETHERTYPE_ARP = 0x0806;
/** A smaller number is a length (IEEE 802.3). */
const ETHERTYPE_MIN = 0x0600;
const TYPE_NAMES: Readonly<Record<number, string>> = {
  32821: 'reverse ARP',
  34824: 'flow control',
  34825: 'slow protocols (LACP)',
  34958: '802.1X',
  35020: 'LLDP',
};
const PROTOCOL_NAMES: Readonly<Record<number, string>> = {
  1: 'ICMP',
  2: 'IGMP',
  [PROTOCOL_TCP]: 'TCP',
  [PROTOCOL_UDP]: 'UDP',
  58: 'ICMPv6',
  103: 'PIM',
  [PROTOCOL_SCTP]: 'SCTP',
};
const TAGS_MAX = 8;
const ARP_BYTES = 28;

export function macText(bytes: Uint8Array, at: number): string {
  const mac = bytes.subarray(at, at + 6);
  return formatMac(macLoOf(mac), macHiOf(mac));
}

/** The tags that follow the addresses. */
export function tagsOf(frame: Uint8Array): FrameTag[] {
  const tags: FrameTag[] = [];
  for (
    let at = ETHERNET_HEADER_BYTES - 2;
    tags.length < TAGS_MAX && at + 6 <= frame.length;
    at += VLAN_TAG_BYTES
  ) {
    const type = be16(frame, at);
    if (type !== ETHERTYPE_VLAN && type !== ETHERTYPE_QINQ) break;
    const kind = type === ETHERTYPE_VLAN ? '802.1q' : '802.1ad';
    tags.push({ kind, vlan: be16(frame, at + 2) & 0xfff, priority: frame[at + 2] >> 5 });
  }
  return tags;
}

/** `802.1Q tag of VLAN 10, priority 3`. */
export function tagText({ kind, vlan, priority }: FrameTag): string {
  const name = kind === '802.1q' ? '802.1Q' : '802.1ad';
  return `${name} tag of VLAN ${vlan}${priority === 0 ? '' : `, priority ${priority}`}`;
}

/** One line a layer. `sizeBytes`: of the whole frame, of which there may be less. */
export function frameTexts(frame: Uint8Array, sizeBytes: number): string[] {
  if (frame.length < ETHERNET_HEADER_BYTES) return [`${sizeBytes} bytes, less than an Ethernet header has`];
  const tags = tagsOf(frame);
  const at = ETHERNET_HEADER_BYTES + tags.length * VLAN_TAG_BYTES;
  const type = be16(frame, at - 2);
  return [
    `${macText(frame, 6)} > ${macText(frame, 0)}, ${sizeBytes} bytes`,
    ...tags.map(tagText),
    payloadText(type, frame.subarray(at)),
  ];
}

function payloadText(type: number, bytes: Uint8Array): string {
  if (type === ETHERTYPE_IPV4 && bytes.length >= IPV4_HEADER_BYTES_MIN) return ipv4Text(bytes);
  if (type === ETHERTYPE_IPV6 && bytes.length >= IPV6_HEADER_BYTES) return ipv6Text(bytes);
  if (type === ETHERTYPE_ARP && bytes.length >= ARP_BYTES) return arpText(bytes);
  if (type < ETHERTYPE_MIN) return `LLC, ${type} bytes`;
  const name = TYPE_NAMES[type];
  return `type 0x${type.toString(16).padStart(4, '0')}${name === undefined ? '' : `, ${name}`}`;
}

function arpText(bytes: Uint8Array): string {
  const sender = formatIp(bytes.subarray(14, 18));
  const target = formatIp(bytes.subarray(24, 28));
  return be16(bytes, 6) === 1
    ? `ARP: who has ${target}, tell ${sender}`
    : `ARP: ${sender} is at ${macText(bytes, 8)}`;
}

function ipv4Text(bytes: Uint8Array): string {
  const headerBytes = (bytes[0] & 15) << 2;
  const isFragment = (be16(bytes, 6) & IPV4_FRAGMENT_MASK) !== 0;
  const ways = `IPv4 ${formatIp(bytes.subarray(12, 16))} > ${formatIp(bytes.subarray(16, 20))}`;
  const transport = isFragment ? 'a fragment' : transportText(bytes[9], bytes.subarray(headerBytes));
  return `${ways}, TTL ${bytes[8]}, ${transport}`;
}

function ipv6Text(bytes: Uint8Array): string {
  const ways = `IPv6 ${formatIp(bytes.subarray(8, 24))} > ${formatIp(bytes.subarray(24, 40))}`;
  let protocol = bytes[6];
  let at = IPV6_HEADER_BYTES;
  if (protocol === PROTOCOL_HOP_BY_HOP && bytes.length >= at + 8) {
    protocol = bytes[at];
    at += (bytes[at + 1] + 1) << 3;
  }
  return `${ways}, hop limit ${bytes[7]}, ${transportText(protocol, bytes.subarray(at))}`;
}

function transportText(protocol: number, bytes: Uint8Array): string {
  const name = PROTOCOL_NAMES[protocol] ?? `protocol ${protocol}`;
  const hasPorts = protocol === PROTOCOL_TCP || protocol === PROTOCOL_UDP || protocol === PROTOCOL_SCTP;
  return hasPorts && bytes.length >= 4 ? `${name} ${be16(bytes, 0)} > ${be16(bytes, 2)}` : name;
}

function be16(bytes: Uint8Array, at: number): number {
  return (bytes[at] << 8) | bytes[at + 1];
}
