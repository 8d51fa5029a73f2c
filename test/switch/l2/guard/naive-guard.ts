/**
 * The guard as simply as it can be said: one frame at a time, with slices and loops over bits, and nothing shared with
 * switch/l2/guard/. What it sees of a frame are its first 128 bytes, as there.
 */
import type { GuardPolicy } from '../../../../src/queue/policy.ts';
import type { DropReason } from '../../../../switch/l2/drop-reasons.ts';

class Unreadable extends Error {}
class Refused extends Error {
  readonly reason: DropReason;
  constructor(reason: DropReason) {
    super(reason);
    this.reason = reason;
  }
}

/** Bytes that can end: whoever reads behind them cannot tell what the frame is. */
class Reader {
  readonly #bytes: readonly number[];
  constructor(bytes: readonly number[]) {
    this.#bytes = bytes;
  }
  get length(): number {
    return this.#bytes.length;
  }
  slice(from: number, count: number): number[] {
    if (from + count > this.#bytes.length) throw new Unreadable();
    return this.#bytes.slice(from, from + count);
  }
  byte(at: number): number {
    return this.slice(at, 1)[0];
  }
  word(at: number): number {
    const [a, b] = this.slice(at, 2);
    return a * 256 + b;
  }
  /** The first so many bytes, which may be fewer; 0: all. */
  upTo(count: number): Reader {
    return new Reader(count === 0 ? this.#bytes : this.#bytes.slice(0, count));
  }
  from(at: number): Reader {
    return new Reader(this.#bytes.slice(at));
  }
}

const EXTENSIONS = [0, 43, 44, 51, 60, 135, 139, 140];
const same = (a: readonly number[], b: readonly number[]): boolean => a.join() === b.join();
const bitOf = (bytes: readonly number[], bit: number): number => (bytes[bit >> 3] >> (7 - (bit & 7))) & 1;

/** Why the frame may not pass; null: it may. Limits on the number of addresses are not among it. */
export function naiveVerdict(policy: GuardPolicy, frame: readonly number[]): DropReason | null {
  const source = frame.slice(6, 12);
  if (policy.macs !== null && !policy.macs.some((each) => same(each, source))) return 'macNotAllowed';
  const inspects =
    policy.macs !== null || policy.macsMax !== null || policy.addresses !== null || policy.dhcp || policy.ra;
  if (!inspects) return null;
  try {
    look(policy, source, frame);
    return null;
  } catch (error) {
    if (error instanceof Unreadable) return 'guardUnreadable';
    if (error instanceof Refused) return error.reason;
    throw error;
  }
}

function look(policy: GuardPolicy, source: readonly number[], frame: readonly number[]): void {
  const seen = new Reader(frame.slice(0, 128));
  let at = 12;
  for (let tags = 0; [0x8100, 0x88a8].includes(seen.word(at)); tags++, at += 4) {
    if (tags === 2) throw new Unreadable();
    seen.word(at + 4);
  }
  let type = seen.word(at);
  at += 2;
  if (type < 1536) {
    if (seen.length < at + 8) return;
    const isSnap = [0, 0xf8].some((last) => same(seen.slice(at, 6), [0xaa, 0xaa, 3, 0, 0, last]));
    if (!isSnap) return;
    type = seen.word(at + 6);
    at += 8;
    if (type === 0x8100 || type === 0x88a8) throw new Unreadable();
  }
  const packet = seen.from(at);
  const bindsMacs = policy.macs !== null || policy.macsMax !== null;
  if (type === 0x0800) lookAtIpv4(policy, packet);
  if (type === 0x86dd) lookAtIpv6(policy, bindsMacs, source, packet, frame.length - at);
  if ((type === 0x0806 || type === 0x8035) && (bindsMacs || policy.addresses !== null)) {
    const [kind, sender, ip] = [packet.slice(0, 6), packet.slice(8, 6), packet.slice(14, 4)];
    packet.slice(0, 28);
    if (!same(kind, [0, 1, 8, 0, 6, 4])) throw new Unreadable();
    if (bindsMacs && !same(sender, source)) throw new Refused('arpNotAllowed');
    const isMine = policy.addresses === null || same(ip, [0, 0, 0, 0]) || isListed(policy, ip);
    if (!isMine) throw new Refused('arpNotAllowed');
  }
}

function isListed(policy: GuardPolicy, address: readonly number[]): boolean {
  return (policy.addresses ?? []).some(({ bytes, prefixBits }) => {
    if (bytes.length !== address.length) return false;
    for (let bit = 0; bit < prefixBits; bit++) if (bitOf(bytes, bit) !== bitOf(address, bit)) return false;
    return true;
  });
}

function lookAtIpv4(policy: GuardPolicy, packet: Reader): void {
  if (policy.addresses === null && !policy.dhcp && !policy.ra) return;
  packet.slice(0, 20);
  const headerBytes = (packet.byte(0) % 16) * 4;
  if (packet.byte(0) >> 4 !== 4 || headerBytes < 20) throw new Unreadable();
  const protocol = packet.byte(9);
  const fragment = packet.word(6) % 0x4000;
  const rest = packet.upTo(packet.word(2)).from(headerBytes);
  const source = packet.slice(12, 4);
  if (policy.addresses !== null && !isListed(policy, source)) {
    const isNone = same(source, [0, 0, 0, 0]);
    if (!isNone || fragment !== 0 || protocol !== 17) throw new Refused('ipNotAllowed');
  }
  if (policy.addresses !== null && same(source, [0, 0, 0, 0])) {
    if (fragment !== 0 || protocol !== 17) throw new Refused('ipNotAllowed');
    rest.slice(0, 8);
    if (rest.word(0) !== 68 || rest.word(2) !== 67) throw new Refused('ipNotAllowed');
  }
  if (policy.ra && protocol === 103) throw new Refused('routerAdvertisement');
  if (fragment % 0x2000 !== 0) return;
  if (policy.dhcp && protocol === 17) {
    rest.slice(0, 8);
    if (rest.word(0) === 67 || rest.word(2) === 68) throw new Refused('dhcpServer');
    if (rest.word(2) === 67 && rest.byte(8) === 2) throw new Refused('dhcpServer');
  }
  if (policy.ra && protocol === 1 && [5, 9].includes(rest.byte(0))) throw new Refused('routerAdvertisement');
  if (policy.ra && protocol === 2 && [0x11, 0x30].includes(rest.byte(0)))
    throw new Refused('routerAdvertisement');
}

function lookAtIpv6(
  policy: GuardPolicy,
  bindsMacs: boolean,
  source: readonly number[],
  frameRest: Reader,
  packetBytes: number,
): void {
  frameRest.slice(0, 40);
  const payloadBytes = frameRest.word(4);
  const packet = frameRest.upTo(payloadBytes === 0 ? 0 : 40 + payloadBytes);
  if (packet.byte(0) >> 4 !== 6) throw new Unreadable();
  const [a, b, c, d, e, f] = source;
  const own = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f];
  const mayBe = (address: readonly number[]): boolean => same(address, own) || isListed(policy, address);
  const from = packet.slice(8, 16);
  const isNone = from.every((byte) => byte === 0);
  const checks = policy.addresses !== null;
  if (checks && !isNone && !mayBe(from)) throw new Refused('ipNotAllowed');
  let next = packet.byte(6);
  let at = 40;
  let isFragment = false;
  for (let count = 0; EXTENSIONS.includes(next); count++) {
    if (count === 8) throw new Unreadable();
    packet.slice(at, 8);
    if (next === 44) {
      isFragment = true;
      if (packet.word(at + 2) >> 3 !== 0) {
        if (checks && isNone) throw new Refused('ipNotAllowed');
        return;
      }
    }
    const units = packet.byte(at + 1);
    const bytes = next === 44 ? 8 : next === 51 ? (units + 2) * 4 : (units + 1) * 8;
    next = packet.byte(at);
    at += bytes;
  }
  const rest = packet.from(at);
  if (policy.ra && next === 103) throw new Refused('routerAdvertisement');
  if (next !== 58) {
    if (checks && isNone) throw new Refused('ipNotAllowed');
    if (next !== 17 || !policy.dhcp) return;
    rest.slice(0, 8);
    if (rest.word(0) === 547 || rest.word(2) === 546) throw new Refused('dhcpServer');
    return;
  }
  const type = rest.byte(0);
  if (policy.ra && [130, 134, 137, 151].includes(type)) throw new Refused('routerAdvertisement');
  if (!bindsMacs && !checks) return;
  if (checks && isNone && ![131, 132, 133, 135, 143].includes(type)) throw new Refused('ipNotAllowed');
  if (type < 133 || type > 137) return;
  const icmpBytes = 40 + packet.word(4) - at;
  if (isFragment || 40 + packet.word(4) > packetBytes) throw new Unreadable();
  const message = new Reader(rest.slice(0, Math.max(0, icmpBytes)));
  const fixed = { 133: 8, 134: 16, 135: 24, 136: 24, 137: 40 }[type] ?? 0;
  message.slice(0, fixed);
  if (checks && (type === 136 || (type === 135 && isNone)) && !mayBe(message.slice(8, 16)))
    throw new Refused('ndNotAllowed');
  for (let option = fixed; option < message.length; ) {
    if (option + 2 > message.length) throw new Unreadable();
    const size = message.byte(option + 1) * 8;
    if (size === 0) throw new Unreadable();
    const bytes = message.slice(option, size);
    const isLink = bytes[0] === 1 || bytes[0] === 2;
    if (isLink && type !== 137 && !same(bytes.slice(2, 8), source)) throw new Refused('ndNotAllowed');
    option += size;
  }
}
