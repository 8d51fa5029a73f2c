/**
 * Frames in which a querier asks who wants a group, or any: IGMPv3 (RFC 3376, 4.1) and MLDv2 (RFC 3810, 5.1), which hosts of
 * older versions understand as well. Pure.
 */
import { ETHERTYPE_IPV4, ETHERTYPE_IPV6 } from './ethernet.ts';
import {
  ALL_HOSTS_IPV4,
  ALL_HOSTS_IPV6,
  groupMac,
  IGMP,
  MLD,
  PROTOCOL_ICMPV6,
  PROTOCOL_IGMP,
  pseudoSumOf,
  sumOf,
} from './group-messages.ts';

const FRAME_BYTES_MIN = 60;
/** Tells routers to look into the packet: RFC 2113, 2711. */
const ROUTER_ALERT_IPV4 = [0x94, 4, 0, 0];
const ROUTER_ALERT_IPV6 = [PROTOCOL_ICMPV6, 0, 5, 2, 0, 0, 1, 0];

export type GroupQuery = {
  /** Of four or sixteen bytes; IPv6: of the link. */
  readonly source: Uint8Array;
  readonly sourceMac: readonly number[];
  /** Null: who wants any. */
  readonly group: Uint8Array | null;
  readonly maxResponseMs: number;
  /** The querier's interval and how many losses are to be coped with, for other queriers. */
  readonly intervalSeconds: number;
  readonly robustness: number;
};

/** The frame, without a tag. */
export function groupQueryFrame(query: GroupQuery): Uint8Array {
  return query.source.length === 4 ? igmpQuery(query) : mldQuery(query);
}

function igmpQuery(query: GroupQuery): Uint8Array {
  const to = query.group ?? ALL_HOSTS_IPV4;
  const group = query.group ?? new Uint8Array(4);
  const message = withSum(
    [
      IGMP.QUERY,
      floatCode(query.maxResponseMs / 100),
      0,
      0,
      ...group,
      query.robustness & 7,
      queryIntervalOf(query),
      0,
      0,
    ],
    2,
    0,
  );
  const header = withSum(
    [
      0x46,
      0xc0,
      0,
      24 + message.length,
      0,
      0,
      0x40,
      0,
      1,
      PROTOCOL_IGMP,
      0,
      0,
      ...query.source,
      ...to,
      ...ROUTER_ALERT_IPV4,
    ],
    10,
    0,
  );
  return frameOf(query, to, ETHERTYPE_IPV4, [...header, ...message]);
}

function mldQuery(query: GroupQuery): Uint8Array {
  const to = query.group ?? ALL_HOSTS_IPV6;
  const group = query.group ?? new Uint8Array(16);
  const { maxResponseMs } = query;
  const bytes = [
    ...[MLD.QUERY, 0, 0, 0, maxResponseMs >> 8, maxResponseMs & 255, 0, 0],
    ...group,
    ...[query.robustness & 7, queryIntervalOf(query), 0, 0],
  ];
  const header = [0x60, 0, 0, 0, 0, 8 + bytes.length, 0, 1, ...query.source, ...to];
  const message = withSum(bytes, 2, pseudoSumOf(Uint8Array.from(header), bytes.length));
  return frameOf(query, to, ETHERTYPE_IPV6, [...header, ...ROUTER_ALERT_IPV6, ...message]);
}

function queryIntervalOf({ intervalSeconds }: GroupQuery): number {
  return floatCode(intervalSeconds);
}

/** As it is below 128; above with three bits of exponent and four of mantissa. */
function floatCode(value: number): number {
  const whole = Math.round(value);
  if (whole < 128) return whole;
  const exponent = Math.min(7, 31 - Math.clz32(whole) - 7);
  return 0x80 | (exponent << 4) | ((whole >> (exponent + 3)) & 15);
}

function withSum(bytes: number[], at: number, start: number): number[] {
  const sum = ~sumOf(Uint8Array.from(bytes), start) & 0xffff;
  bytes[at] = sum >> 8;
  bytes[at + 1] = sum & 255;
  return bytes;
}

function frameOf(
  { sourceMac }: GroupQuery,
  to: Uint8Array,
  type: number,
  packet: readonly number[],
): Uint8Array {
  const bytes = [...groupMac(to), ...sourceMac, type >> 8, type & 255, ...packet];
  const frame = new Uint8Array(Math.max(FRAME_BYTES_MIN, bytes.length));
  frame.set(bytes);
  return frame;
}
