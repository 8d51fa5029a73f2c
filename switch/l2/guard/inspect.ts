/**
 * What a guard decides of one frame by what lies behind its Ethernet addresses: whether it names only addresses that are
 * its sender's (IPv4, IPv6, ARP, neighbour discovery), and whether it plays a DHCP server or a router. Looked at is the
 * copy of the frame's beginning (../head-copies.ts), so nothing changes meanwhile and nothing beyond 128 bytes is seen:
 * where more is needed to decide, the frame is dropped as one that the guard cannot read. So are headers that are cut
 * short or contradict themselves, tags inside tags, and fragments that hide what they are.
 *
 * RFC 826, 5227 (ARP); 8200, 4861, 4862 (IPv6, neighbour discovery); 6105, 7113 (RA guard), 6980, 7112 (fragments); 2131,
 * 8415 (DHCP). Hot path of one worker; functions over bytes. Every loop is bounded by the copy or a constant.
 */
import * as ETHERNET from '../../../protocol/ethernet.ts';
import * as IP from '../../../protocol/ip.ts';
import { ETHERTYPE_RARP } from '../../../protocol/rarp.ts';
import { DROP } from '../drop-reasons.ts';
import type { PortGuard } from './port-guard.ts';

// V8 folds a module's own constants, and loads imported ones again at each use.
const { ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_QINQ, ETHERTYPE_VLAN } = ETHERNET;
const { IPV6_HEADER_BYTES, IPV4_HEADER_BYTES_MIN, UDP_HEADER_BYTES } = IP;
const { PROTOCOL_AH, PROTOCOL_DESTINATION_OPTIONS, PROTOCOL_FRAGMENT, PROTOCOL_HIP, PROTOCOL_HOP_BY_HOP } =
  IP;
const { PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_MOBILITY, PROTOCOL_ROUTING, PROTOCOL_SHIM6, PROTOCOL_UDP } =
  IP;

/** The frame may pass; otherwise a verdict is one more than the index of its drop reason. */
const PASSES = 0;
const UNREADABLE = DROP.guardUnreadable + 1;
const BAD_IP = DROP.ipNotAllowed + 1;
const BAD_ARP = DROP.arpNotAllowed + 1;
const BAD_ND = DROP.ndNotAllowed + 1;
const DHCP_SERVER = DROP.dhcpServer + 1;
const ROUTER = DROP.routerAdvertisement + 1;

/** Tags that are left in the frame and looked behind. */
const TAGS_MAX = 2;
/** Below, the field is a length, and an LLC header follows (IEEE 802.3). */
const ETHERTYPE_MIN = 0x600;
const SNAP_BYTES = 8;
const ORGANISATION_BRIDGES = 0x00f8;
const EXTENSIONS_MAX = 8;
const ARP_BYTES = 28;

const PORT_DHCP_SERVER = 67;
const PORT_DHCP_CLIENT = 68;
const PORT_DHCPV6_CLIENT = 546;
const PORT_DHCPV6_SERVER = 547;
const BOOTP_REPLY = 2;

const PROTOCOL_IGMP = 2;
const PROTOCOL_PIM = 103;
const IGMP_QUERY = 0x11;
/** RFC 4286: that a router for groups is there. */
const IGMP_ROUTER = 0x30;
const MLD_ROUTER = 151;
const MLD_QUERY = 130;

const ICMP_REDIRECT = 5;
const ICMP_ROUTER_ADVERTISEMENT = 9;
const MLD_REPORT = 131;
const MLD_DONE = 132;
const ROUTER_SOLICITATION = 133;
const ROUTER_ADVERTISEMENT = 134;
const NEIGHBOUR_SOLICITATION = 135;
const NEIGHBOUR_ADVERTISEMENT = 136;
const ND_REDIRECT = 137;
const MLD2_REPORT = 143;
const OPTION_SOURCE_LINK = 1;
const OPTION_TARGET_LINK = 2;

/**
 * @param at of the frame's first byte in `bytes`
 * @param end behind the last byte of it that may be looked at
 * @param frameEnd behind its last byte, if it were all there
 */
export function verdictOf(
  guard: PortGuard,
  bytes: Uint8Array,
  at: number,
  end: number,
  frameEnd: number,
): number {
  let next = at + 14;
  let type = be16(bytes, next - 2);
  for (let tag = 0; type === ETHERTYPE_VLAN || type === ETHERTYPE_QINQ; tag++) {
    if (tag === TAGS_MAX || next + 4 > end) return UNREADABLE;
    type = be16(bytes, next + 2);
    next += 4;
  }
  if (type < ETHERTYPE_MIN) {
    if (next + SNAP_BYTES > end || !isSnap(bytes, next)) return PASSES;
    type = be16(bytes, next + 6);
    next += SNAP_BYTES;
    // No tag to most, but to some, and so is what follows.
    if (type === ETHERTYPE_VLAN || type === ETHERTYPE_QINQ) return UNREADABLE;
  }
  switch (type) {
    case ETHERTYPE_IPV4:
      return ipv4(guard, bytes, next, end);
    case ETHERTYPE_IPV6:
      return ipv6(guard, bytes, at, next, end, frameEnd);
    case ETHERTYPE_ARP:
    case ETHERTYPE_RARP:
      return arp(guard, bytes, at, next, end);
    default:
      return PASSES;
  }
}

function isSnap(bytes: Uint8Array, at: number): boolean {
  // DSAP, SSAP, control, and an organisation after which an EtherType follows: none (RFC 1042), or that of bridges (802.1H).
  if (be16(bytes, at) !== 0xaaaa || bytes[at + 2] !== 3) return false;
  const organisation = be16(bytes, at + 4);
  return bytes[at + 3] === 0 && (organisation === 0 || organisation === ORGANISATION_BRIDGES);
}

function arp(guard: PortGuard, bytes: Uint8Array, at: number, arpAt: number, end: number): number {
  if (!guard.bindsMacs && !guard.checksAddresses) return PASSES;
  if (arpAt + ARP_BYTES > end) return UNREADABLE;
  const isEthernetIpv4 =
    be16(bytes, arpAt) === 1 &&
    be16(bytes, arpAt + 2) === ETHERTYPE_IPV4 &&
    be16(bytes, arpAt + 4) === 0x0604;
  if (!isEthernetIpv4) return UNREADABLE;
  if (guard.bindsMacs && !isSource(bytes, at, arpAt + 8)) return BAD_ARP;
  if (!guard.checksAddresses) return PASSES;
  const sender = be32(bytes, arpAt + 14);
  // A probe, or a station that has no address yet.
  return sender === 0 || guard.hasIpv4(sender) ? PASSES : BAD_ARP;
}

function ipv4(guard: PortGuard, bytes: Uint8Array, ipAt: number, end: number): number {
  if (!guard.checksAddresses && !guard.dhcp && !guard.ra) return PASSES;
  if (ipAt + IPV4_HEADER_BYTES_MIN > end || bytes[ipAt] >> 4 !== 4) return UNREADABLE;
  const headerBytes = (bytes[ipAt] & 15) << 2;
  if (headerBytes < IPV4_HEADER_BYTES_MIN) return UNREADABLE;
  const next = ipAt + headerBytes;
  const protocol = bytes[ipAt + 9];
  const fragment = be16(bytes, ipAt + 6);
  const isFirst = (fragment & 0x1fff) === 0;
  const isWhole = (fragment & 0x3fff) === 0;
  if (guard.checksAddresses) {
    const source = be32(bytes, ipAt + 12);
    if (source === 0) {
      if (!isWhole || protocol !== PROTOCOL_UDP) return BAD_IP;
      if (next + UDP_HEADER_BYTES > endOf(ipAt, be16(bytes, ipAt + 2), end)) return UNREADABLE;
      const isClient = be16(bytes, next) === PORT_DHCP_CLIENT && be16(bytes, next + 2) === PORT_DHCP_SERVER;
      if (!isClient) return BAD_IP;
    } else if (!guard.hasIpv4(source)) return BAD_IP;
  }
  if (guard.ra && protocol === PROTOCOL_PIM) return ROUTER;
  if (!isFirst) return PASSES;
  const packetEnd = endOf(ipAt, be16(bytes, ipAt + 2), end);
  if (guard.dhcp && protocol === PROTOCOL_UDP) {
    if (next + UDP_HEADER_BYTES > packetEnd) return UNREADABLE;
    const from = be16(bytes, next);
    const to = be16(bytes, next + 2);
    if (from === PORT_DHCP_SERVER || to === PORT_DHCP_CLIENT) return DHCP_SERVER;
    if (to === PORT_DHCP_SERVER) {
      if (next + UDP_HEADER_BYTES >= packetEnd) return UNREADABLE;
      if (bytes[next + UDP_HEADER_BYTES] === BOOTP_REPLY) return DHCP_SERVER;
    }
  }
  if (guard.ra && (protocol === PROTOCOL_ICMP || protocol === PROTOCOL_IGMP)) {
    if (next >= packetEnd) return UNREADABLE;
    const type = bytes[next];
    const isOfRouter =
      protocol === PROTOCOL_ICMP
        ? type === ICMP_REDIRECT || type === ICMP_ROUTER_ADVERTISEMENT
        : type === IGMP_QUERY || type === IGMP_ROUTER;
    if (isOfRouter) return ROUTER;
  }
  return PASSES;
}

/**
 * Behind the last byte of a packet that says to have so many, as far as it may be looked at. What stands behind it in the
 * frame is nobody's: a first fragment could show there what its next one replaces. Of 0, which some leave to whoever cuts a
 * packet into segments, all is looked at; without that nobody takes it.
 */
function endOf(ipAt: number, sizeBytes: number, end: number): number {
  return sizeBytes === 0 ? end : Math.min(end, ipAt + sizeBytes);
}

function ipv6(
  guard: PortGuard,
  bytes: Uint8Array,
  at: number,
  ipAt: number,
  seenEnd: number,
  frameEnd: number,
): number {
  if (ipAt + IPV6_HEADER_BYTES > seenEnd || bytes[ipAt] >> 4 !== 6) return UNREADABLE;
  const isUnspecified =
    (be32(bytes, ipAt + 8) | be32(bytes, ipAt + 12) | be32(bytes, ipAt + 16) | be32(bytes, ipAt + 20)) === 0;
  if (guard.checksAddresses && !isUnspecified && !mayBe(guard, bytes, at, ipAt + 8)) return BAD_IP;
  const payloadBytes = be16(bytes, ipAt + 4);
  const end = endOf(ipAt, payloadBytes === 0 ? 0 : IPV6_HEADER_BYTES + payloadBytes, seenEnd);
  let next = ipAt + IPV6_HEADER_BYTES;
  let protocol = bytes[ipAt + 6];
  let hasFragment = false;
  for (let extension = 0; isExtension(protocol); extension++) {
    if (extension === EXTENSIONS_MAX || next + 8 > end) return UNREADABLE;
    const following = bytes[next];
    if (protocol === PROTOCOL_FRAGMENT) {
      // Of a later fragment nothing but its addresses can be told.
      if ((be16(bytes, next + 2) & 0xfff8) !== 0)
        return isUnspecified && guard.checksAddresses ? BAD_IP : PASSES;
      hasFragment = true;
      next += 8;
    } else if (protocol === PROTOCOL_AH) next += (bytes[next + 1] + 2) << 2;
    else next += (bytes[next + 1] + 1) << 3;
    protocol = following;
  }
  if (protocol === PROTOCOL_UDP) {
    if (isUnspecified && guard.checksAddresses) return BAD_IP;
    if (!guard.dhcp) return PASSES;
    if (next + UDP_HEADER_BYTES > end) return UNREADABLE;
    const isServer = be16(bytes, next) === PORT_DHCPV6_SERVER || be16(bytes, next + 2) === PORT_DHCPV6_CLIENT;
    return isServer ? DHCP_SERVER : PASSES;
  }
  if (guard.ra && protocol === PROTOCOL_PIM) return ROUTER;
  if (protocol !== PROTOCOL_ICMPV6) return isUnspecified && guard.checksAddresses ? BAD_IP : PASSES;
  if (next >= end) return UNREADABLE;
  const type = bytes[next];
  if (guard.ra && isOfRouters(type)) return ROUTER;
  if (!guard.bindsMacs && !guard.checksAddresses) return PASSES;
  if (isUnspecified && guard.checksAddresses && !mayBeUnspecified(type)) return BAD_IP;
  if (type < ROUTER_SOLICITATION || type > ND_REDIRECT) return PASSES;
  // Nobody is to take neighbour discovery in fragments (RFC 6980).
  if (hasFragment) return UNREADABLE;
  const icmpEnd = ipAt + IPV6_HEADER_BYTES + payloadBytes;
  if (icmpEnd > end || icmpEnd > frameEnd) return UNREADABLE;
  return discovery(guard, bytes, at, next, icmpEnd, type, isUnspecified);
}

/** Neighbour discovery that ends at `end`, all of which may be looked at. */
function discovery(
  guard: PortGuard,
  bytes: Uint8Array,
  at: number,
  icmpAt: number,
  end: number,
  type: number,
  isUnspecified: boolean,
): number {
  const targetAt = icmpAt + 8;
  let options = icmpAt + 24;
  if (type === ROUTER_SOLICITATION) options = icmpAt + 8;
  else if (type === ROUTER_ADVERTISEMENT) options = icmpAt + 16;
  else if (type === ND_REDIRECT) options = icmpAt + 40;
  if (options > end) return UNREADABLE;
  if (guard.checksAddresses) {
    // Who asks without an address is about to take the one that he asks for.
    const claims = type === NEIGHBOUR_ADVERTISEMENT || (type === NEIGHBOUR_SOLICITATION && isUnspecified);
    if (claims && !mayBe(guard, bytes, at, targetAt)) return BAD_ND;
  }
  while (options + 2 <= end) {
    const sizeBytes = bytes[options + 1] << 3;
    if (sizeBytes === 0 || options + sizeBytes > end) return UNREADABLE;
    // Of a redirect the target is somebody else by design.
    const isLink = bytes[options] === OPTION_SOURCE_LINK || bytes[options] === OPTION_TARGET_LINK;
    if (isLink && type !== ND_REDIRECT && !isSource(bytes, at, options + 2)) return BAD_ND;
    options += sizeBytes;
  }
  return options === end ? PASSES : UNREADABLE;
}

/** Whether the IPv6 address at `address` may be the sender's: one of those allowed, or link-local, made of its source. */
function mayBe(guard: PortGuard, bytes: Uint8Array, at: number, address: number): boolean {
  const [word0, word1] = [be32(bytes, address), be32(bytes, address + 4)];
  const [word2, word3] = [be32(bytes, address + 8), be32(bytes, address + 12)];
  if (guard.hasIpv6(word0, word1, word2, word3)) return true;
  if (word0 !== 0xfe800000 >> 0 || word1 !== 0) return false;
  // EUI-64 (RFC 4291, appendix A): ff:fe in the middle, and the bit for a locally given address turned round.
  const source = at + 6;
  return (
    bytes[address + 8] === (bytes[source] ^ 2) &&
    be16(bytes, address + 9) === be16(bytes, source + 1) &&
    be16(bytes, address + 11) === 0xfffe &&
    bytes[address + 13] === bytes[source + 3] &&
    be16(bytes, address + 14) === be16(bytes, source + 4)
  );
}

function isOfRouters(icmpv6Type: number): boolean {
  return (
    icmpv6Type === ROUTER_ADVERTISEMENT ||
    icmpv6Type === ND_REDIRECT ||
    icmpv6Type === MLD_QUERY ||
    icmpv6Type === MLD_ROUTER
  );
}

function mayBeUnspecified(type: number): boolean {
  return (
    type === NEIGHBOUR_SOLICITATION ||
    type === ROUTER_SOLICITATION ||
    type === MLD_REPORT ||
    type === MLD_DONE ||
    type === MLD2_REPORT
  );
}

function isExtension(protocol: number): boolean {
  switch (protocol) {
    case PROTOCOL_HOP_BY_HOP:
    case PROTOCOL_ROUTING:
    case PROTOCOL_FRAGMENT:
    case PROTOCOL_AH:
    case PROTOCOL_DESTINATION_OPTIONS:
    case PROTOCOL_MOBILITY:
    case PROTOCOL_HIP:
    case PROTOCOL_SHIM6:
      return true;
    default:
      return false;
  }
}

/** Whether the address at `mac` is the frame's source. */
function isSource(bytes: Uint8Array, at: number, mac: number): boolean {
  return be16(bytes, mac) === be16(bytes, at + 6) && be32(bytes, mac + 2) === be32(bytes, at + 8);
}

function be16(bytes: Uint8Array, at: number): number {
  return (bytes[at] << 8) | bytes[at + 1];
}

function be32(bytes: Uint8Array, at: number): number {
  return (bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3];
}
