/**
 * Makes the frame that `ringway trace` was told of in words: addresses, tags, and an ARP request or an IP packet with
 * good checksums. Pure.
 */
import { ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_QINQ, ETHERTYPE_VLAN } from '../../protocol/ethernet.ts';
import { PROTOCOL_TCP, PROTOCOL_UDP } from '../../protocol/ip.ts';

export type FrameWords = {
  /** Six bytes each. */
  readonly src: Uint8Array;
  readonly dst: Uint8Array;
  /** Of the tags, the outermost one first; of several all but the last are 802.1ad. */
  readonly vlans: readonly number[];
  /** Of all tags, 0 to 7. */
  readonly priority: number;
  /** Null: that of what is in it, or that of an experiment. */
  readonly type: number | null;
  readonly arp: { readonly sender: Uint8Array; readonly target: Uint8Array } | null;
  readonly ip: IpWords | null;
  /** Bytes that the frame is filled up to; an IP packet fills it. */
  readonly sizeBytes: number;
};

export type IpWords = {
  readonly src: Uint8Array;
  readonly dst: Uint8Array;
  readonly protocol: 'tcp' | 'udp' | 'icmp' | number;
  readonly srcPort: number;
  readonly dstPort: number;
};

const ETHERTYPE_ARP = 0x0806;
/** For local experiments (IEEE 802). */
const ETHERTYPE_EXPERIMENT = 0x88b5;
const TTL = 64;
const ICMP_ECHO = 8;
const ICMPV6_ECHO = 128;

export function frameOf(words: FrameWords): Uint8Array {
  const { src, dst, vlans, priority, arp, ip } = words;
  const type = words.type ?? typeOf(words);
  const tags = vlans.flatMap((vlan, i) => [
    ...be16(i < vlans.length - 1 ? ETHERTYPE_QINQ : ETHERTYPE_VLAN),
    ...be16((priority << 13) | vlan),
  ]);
  const head = [...dst, ...src, ...tags, ...be16(type)];
  const leftBytes = words.sizeBytes - head.length;
  const payload = ip !== null ? packetOf(ip, leftBytes) : arp !== null ? arpOf(src, arp) : [];
  const frame = new Uint8Array(Math.max(words.sizeBytes, head.length + payload.length));
  frame.set(head);
  frame.set(payload, head.length);
  return frame;
}

function typeOf({ arp, ip }: FrameWords): number {
  if (arp !== null) return ETHERTYPE_ARP;
  if (ip === null) return ETHERTYPE_EXPERIMENT;
  return ip.src.length === 4 ? ETHERTYPE_IPV4 : ETHERTYPE_IPV6;
}

function arpOf(src: Uint8Array, { sender, target }: { sender: Uint8Array; target: Uint8Array }): number[] {
  return [
    ...be16(1),
    ...be16(ETHERTYPE_IPV4),
    6,
    4,
    ...be16(1),
    ...src,
    ...sender,
    0,
    0,
    0,
    0,
    0,
    0,
    ...target,
  ];
}

/** Filled with zeros up to `sizeBytes`, if it is shorter. */
function packetOf(ip: IpWords, sizeBytes: number): number[] {
  const isIpv4 = ip.src.length === 4;
  const headerBytes = isIpv4 ? 20 : 40;
  const start = transportOf(ip, isIpv4);
  const fill = new Array<number>(Math.max(0, sizeBytes - headerBytes - start.length)).fill(0);
  const transport = [...start, ...fill];
  const protocol = protocolOf(ip, isIpv4);
  if (protocol === PROTOCOL_UDP) transport.splice(4, 2, ...be16(transport.length));
  const at = { [PROTOCOL_TCP]: 16, [PROTOCOL_UDP]: 6, 1: 2, 58: 2 }[protocol];
  const isPseudo = protocol !== 1;
  const pseudo = [...ip.src, ...ip.dst, ...be16(0), ...be16(transport.length), 0, 0, 0, protocol];
  if (at !== undefined)
    transport.splice(at, 2, ...be16(checksumOf([...(isPseudo ? pseudo : []), ...transport])));
  if (!isIpv4)
    return [0x60, 0, 0, 0, ...be16(transport.length), protocol, TTL, ...ip.src, ...ip.dst, ...transport];
  const header = [
    0x45,
    0,
    ...be16(20 + transport.length),
    0,
    0,
    0,
    0,
    TTL,
    protocol,
    0,
    0,
    ...ip.src,
    ...ip.dst,
  ];
  header.splice(10, 2, ...be16(checksumOf(header)));
  return [...header, ...transport];
}

function protocolOf({ protocol }: IpWords, isIpv4: boolean): number {
  if (typeof protocol === 'number') return protocol;
  return { tcp: PROTOCOL_TCP, udp: PROTOCOL_UDP, icmp: isIpv4 ? 1 : 58 }[protocol];
}

function transportOf({ protocol, srcPort, dstPort }: IpWords, isIpv4: boolean): number[] {
  const ports = [...be16(srcPort), ...be16(dstPort)];
  switch (protocol) {
    case 'tcp':
      return [...ports, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0];
    case 'udp':
      return [...ports, 0, 0, 0, 0];
    case 'icmp':
      return [isIpv4 ? ICMP_ECHO : ICMPV6_ECHO, 0, 0, 0, 0, 1, 0, 1];
    default:
      return [];
  }
}

/** RFC 1071; of UDP no sum is sent as 0, which an empty one would be, and no packet here has that. */
function checksumOf(bytes: readonly number[]): number {
  let sum = 0;
  for (const [i, byte] of bytes.entries()) sum += i % 2 === 0 ? byte << 8 : byte;
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  const checksum = ~sum & 0xffff;
  return checksum === 0 ? 0xffff : checksum;
}

function be16(value: number): [number, number] {
  return [(value >> 8) & 255, value & 255];
}
