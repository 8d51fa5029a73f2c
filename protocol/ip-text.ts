/** Addresses of IPv4 and IPv6 as text and as bytes: RFC 791, 4291 and 5952. No hot path. */

/** The four bytes of `10.0.0.1`, the sixteen of `fe80::1`; null: it is neither. */
export function parseIp(text: string): Uint8Array | null {
  return text.includes(':') ? parseIpv6(text) : parseIpv4(text);
}

function parseIpv4(text: string): Uint8Array | null {
  const parts = text.split('.');
  if (parts.length !== 4 || !parts.every((part) => /^\d{1,3}$/.test(part) && Number(part) < 256)) return null;
  return Uint8Array.from(parts, Number);
}

function parseIpv6(text: string): Uint8Array | null {
  const halves = text.split('::');
  if (halves.length > 2) return null;
  const groupsOf = (half: string): string[] => (half === '' ? [] : half.split(':'));
  const before = groupsOf(halves[0]);
  const behind = groupsOf(halves[1] ?? '');
  const zeros = 8 - before.length - behind.length;
  if (halves.length === 2 ? zeros < 1 : zeros !== 0) return null;
  const groups = [...before, ...new Array<string>(zeros).fill('0'), ...behind];
  if (!groups.every((group) => /^[0-9a-f]{1,4}$/i.test(group))) return null;
  return Uint8Array.from(
    groups.flatMap((group) => [Number.parseInt(group, 16) >> 8, Number.parseInt(group, 16) & 255]),
  );
}

/** Of four or sixteen bytes. */
export function formatIp(bytes: Uint8Array): string {
  if (bytes.length === 4) return bytes.join('.');
  const groups = Array.from({ length: 8 }, (_, i) => (bytes[2 * i] << 8) | bytes[2 * i + 1]);
  let longest = { start: 0, count: 1 };
  for (let start = 0; start < 8; start++) {
    let count = 0;
    while (start + count < 8 && groups[start + count] === 0) count++;
    if (count > longest.count) longest = { start, count };
  }
  const text = (from: number, to: number): string =>
    groups
      .slice(from, to)
      .map((group) => group.toString(16))
      .join(':');
  if (longest.count === 1) return text(0, 8);
  return `${text(0, longest.start)}::${text(longest.start + longest.count, 8)}`;
}
