/** IP addresses with the length of their network, as text and as bytes. Any thread. */
import { isIPv4, isIPv6 } from 'node:net';

export type IpPrefix = {
  readonly family: 4 | 6;
  /** 4 or 16 bytes, in network order. */
  readonly bytes: Uint8Array;
  readonly prefixBits: number;
  /** As it was written: `10.0.0.1/24`. */
  readonly text: string;
};

/** Reads `10.0.0.1/24` or `fd00::1/64`; null when the text is neither. The prefix must be there. */
export function parseIpPrefix(text: string): IpPrefix | null {
  const [address, prefix, ...rest] = text.split('/');
  if (address === undefined || prefix === undefined || rest.length > 0) return null;
  if (!/^\d{1,3}$/.test(prefix)) return null;
  const bytes = addressBytes(address);
  const prefixBits = Number(prefix);
  if (bytes === null || prefixBits > bytes.length * 8) return null;
  return { family: bytes.length === 4 ? 4 : 6, bytes, prefixBits, text };
}

function addressBytes(address: string): Uint8Array | null {
  if (isIPv4(address)) return Uint8Array.from(address.split('.'), Number);
  // A zone (`fe80::1%eth0`) names an interface of this machine and has no place here.
  if (!isIPv6(address) || address.includes('%')) return null;
  // URL writes any form, also that with an IPv4 tail, as groups of hexadecimal digits with at most one `::`.
  const [head = '', tail] = new URL(`http://[${address}]`).hostname.slice(1, -1).split('::');
  const before = groupsOf(head);
  const after = groupsOf(tail ?? '');
  const groups = [...before, ...new Array<number>(8 - before.length - after.length).fill(0), ...after];
  return Uint8Array.from(groups.flatMap((group) => [group >> 8, group & 0xff]));
}

function groupsOf(text: string): number[] {
  return text === '' ? [] : text.split(':').map((group) => Number.parseInt(group, 16));
}
