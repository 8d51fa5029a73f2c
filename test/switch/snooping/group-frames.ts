/** Frames of IGMP and MLD and to groups, for the tests of snooping; built byte by byte, apart from the parser's own code. */
import { parseIp } from '../../../protocol/ip-text.ts';
import { ethernet } from '../l2/frames.ts';

const be16 = (value: number): number[] => [(value >> 8) & 255, value & 255];
export const ip = (text: string): number[] => [...(parseIp(text) as Uint8Array)];

export function macOfGroup(text: string): number[] {
  const bytes = ip(text);
  return bytes.length === 4
    ? [1, 0, 0x5e, bytes[1] & 127, bytes[2], bytes[3]]
    : [0x33, 0x33, ...bytes.slice(12)];
}

function sum(bytes: readonly number[]): number {
  let total = 0;
  for (let at = 0; at < bytes.length; at += 2) total += bytes[at] * 256 + (bytes[at + 1] ?? 0);
  while (total > 0xffff) total = (total & 0xffff) + Math.floor(total / 65_536);
  return 0xffff - total;
}

function withSum(bytes: readonly number[], at: number, before: readonly number[] = []): number[] {
  const checksum = be16(sum([...before, ...bytes]));
  return [...bytes.slice(0, at), ...checksum, ...bytes.slice(at + 2)];
}

export type Ways = {
  readonly src?: string;
  readonly mac?: number;
  readonly tags?: readonly number[];
  readonly ttl?: number;
};

/** IGMP within IPv4, with the option that tells routers to look. */
export function igmp(
  to: string,
  message: readonly number[],
  { src = '10.0.0.9', mac = 9, tags = [], ttl = 1 }: Ways = {},
) {
  const whole = withSum(message, 2);
  const header = [
    0x46,
    0xc0,
    ...be16(24 + whole.length),
    0,
    0,
    0,
    0,
    ttl,
    2,
    0,
    0,
    ...ip(src),
    ...ip(to),
    0x94,
    4,
    0,
    0,
  ];
  return ethernet(macOfGroup(to), mac, { type: 0x0800, tags, payload: [...withSum(header, 10), ...whole] });
}

/** MLD within IPv6, behind a hop-by-hop header. */
export function mld(
  to: string,
  message: readonly number[],
  { src = 'fe80::9', mac = 9, tags = [], ttl = 1 }: Ways = {},
) {
  const pseudo = [...ip(src), ...ip(to), 0, 0, ...be16(message.length), 0, 0, 0, 58];
  const payload = [58, 0, 5, 2, 0, 0, 1, 0, ...withSum(message, 2, pseudo)];
  const header = [0x60, 0, 0, 0, ...be16(payload.length), 0, ttl, ...ip(src), ...ip(to)];
  return ethernet(macOfGroup(to), mac, { type: 0x86dd, tags, payload: [...header, ...payload] });
}

export const isV4 = (group: string): boolean => !group.includes(':');

export function join(group: string, ways: Ways = {}): Uint8Array {
  return isV4(group)
    ? igmp(group, [0x16, 0, 0, 0, ...ip(group)], ways)
    : mld(group, [131, 0, 0, 0, 0, 0, 0, 0, ...ip(group)], ways);
}

export function leave(group: string, ways: Ways = {}): Uint8Array {
  return isV4(group)
    ? igmp('224.0.0.2', [0x17, 0, 0, 0, ...ip(group)], ways)
    : mld('ff02::2', [132, 0, 0, 0, 0, 0, 0, 0, ...ip(group)], ways);
}

export type GroupRecord = {
  readonly type: number;
  readonly group: string;
  readonly sources?: readonly string[];
};

/** IGMPv3 and MLDv2; `claimed`: records, in place of as many as there are. */
export function records(list: readonly GroupRecord[], ways: Ways = {}, claimed = list.length): Uint8Array {
  const bytes = list.flatMap(({ type, group, sources = [] }) => [
    type,
    0,
    ...be16(sources.length),
    ...ip(group),
    ...sources.flatMap(ip),
  ]);
  return isV4(list[0].group)
    ? igmp('224.0.0.22', [0x22, 0, 0, 0, 0, 0, ...be16(claimed), ...bytes], ways)
    : mld('ff02::16', [143, 0, 0, 0, 0, 0, ...be16(claimed), ...bytes], ways);
}

/** A query of version 2 (MLD: 1); of all groups, or of one. */
export function query(family: 4 | 6, group: string | null = null, ways: Ways = {}): Uint8Array {
  return family === 4
    ? igmp(group ?? '224.0.0.1', [0x11, 100, 0, 0, ...ip(group ?? '0.0.0.0')], ways)
    : mld(group ?? 'ff02::1', [130, 0, 0, 0, 0, 100, 0, 0, ...ip(group ?? '::')], ways);
}

/** UDP to a group. */
export function data(group: string, { mac = 8, tags = [] }: Ways = {}): Uint8Array {
  const payload = isV4(group)
    ? [0x45, 0, 0, 28, 0, 0, 0, 0, 8, 17, 0, 0, ...ip('10.0.0.8'), ...ip(group), 0, 1, 0, 1, 0, 8, 0, 0]
    : [0x60, 0, 0, 0, 0, 8, 17, 8, ...ip('fe80::8'), ...ip(group), 0, 1, 0, 1, 0, 8, 0, 0];
  return ethernet(macOfGroup(group), mac, { type: isV4(group) ? 0x0800 : 0x86dd, tags, payload });
}

/** From the IP header on. */
export const packetOf = (frame: Uint8Array): Uint8Array => frame.subarray(14);
