/** Packets byte by byte for the tests of guards: headers that may lie about everything. */
import { macBytes } from '../frames.ts';

export const be16 = (value: number): number[] => [(value >> 8) & 255, value & 255];
export const ip4 = (text: string): number[] => text.split('.').map(Number);
/** Of full or shortened text with one `::`. */
export function ip6(text: string): number[] {
  const [head = '', tail = ''] = text.split('::');
  const groups = (part: string): number[] =>
    part === '' ? [] : part.split(':').map((group) => Number.parseInt(group, 16));
  const [before, after] = [groups(head), groups(tail)];
  const zeros = new Array<number>(text.includes('::') ? 8 - before.length - after.length : 0).fill(0);
  return [...before, ...zeros, ...after].flatMap(be16);
}
/** The link-local address made of a MAC address. */
export const linkLocal = (mac: readonly number[]): number[] => [
  ...ip6('fe80::').slice(0, 8),
  ...[mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]],
];
export const mac = (last: number): number[] => [...macBytes(last)];

export const udp = (from: number, to: number, payload: readonly number[] = [1, 1, 6, 0]): number[] => [
  ...be16(from),
  ...be16(to),
  ...be16(8 + payload.length),
  ...be16(0),
  ...payload,
];

export function ipv4(
  src: readonly number[],
  protocol: number,
  payload: readonly number[],
  { fragment = 0, options = [] as readonly number[], version = 4, lengthBytes = -1 } = {},
): number[] {
  const header = 20 + options.length;
  const length = lengthBytes >= 0 ? lengthBytes : header + payload.length;
  return [
    (version << 4) | (header >> 2),
    ...[0, ...be16(length), ...be16(1), ...be16(fragment), 64, protocol, ...be16(0)],
    ...src,
    ...ip4('10.0.0.99'),
    ...options,
    ...payload,
  ];
}

export type Extension = { readonly type: number; readonly bytes: readonly number[] };
export const hopByHop = (eights = 1): Extension => ({
  type: 0,
  bytes: [eights - 1, ...new Array<number>(8 * eights - 2).fill(0)],
});
export const destination = (eights = 1): Extension => ({ ...hopByHop(eights), type: 60 });
/** Offset in bytes. */
export const fragment = (offset: number, more: boolean): Extension => ({
  type: 44,
  bytes: [0, ...be16((offset & 0xfff8) | (more ? 1 : 0)), 0, 0, 0, 7],
});

export function ipv6(
  src: readonly number[],
  protocol: number,
  payload: readonly number[],
  { extensions = [] as readonly Extension[], dst = ip6('ff02::1'), version = 6, lengthBytes = -1 } = {},
): number[] {
  const types = [...extensions.map(({ type }) => type), protocol];
  const chain = extensions.flatMap(({ bytes }, i) => [types[i + 1], ...bytes]);
  const length = lengthBytes >= 0 ? lengthBytes : chain.length + payload.length;
  return [version << 4, 0, 0, 0, ...be16(length), types[0], 255, ...src, ...dst, ...chain, ...payload];
}

/** Link-layer address options, 1: source, 2: target. */
export const linkOption = (type: number, of: readonly number[]): number[] => [type, 1, ...of];
export const icmp6 = (type: number, rest: readonly number[]): number[] => [type, 0, 0, 0, ...rest];
export const solicitation = (target: readonly number[], options: readonly number[] = []): number[] =>
  icmp6(135, [0, 0, 0, 0, ...target, ...options]);
export const advertisement = (target: readonly number[], options: readonly number[] = []): number[] =>
  icmp6(136, [0x20, 0, 0, 0, ...target, ...options]);
export const routerSolicitation = (options: readonly number[] = []): number[] =>
  icmp6(133, [0, 0, 0, 0, ...options]);
export const routerAdvertisement = (options: readonly number[] = []): number[] =>
  icmp6(134, [64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0, ...options]);

export const arp = (
  senderMac: readonly number[],
  senderIp: readonly number[],
  { operation = 1, sizes = 0x0604, hardware = 1, target = ip4('10.0.0.99') } = {},
): number[] => [
  ...be16(hardware),
  ...be16(0x0800),
  ...be16(sizes),
  ...be16(operation),
  ...senderMac,
  ...senderIp,
  ...[0, 0, 0, 0, 0, 0],
  ...target,
];
