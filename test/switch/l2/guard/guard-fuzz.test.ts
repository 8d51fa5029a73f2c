/**
 * Frames of guests that mean harm, built of headers in any order and then bent, through a forwarder with any guard, against
 * the naive guard: which pass, and which are dropped by which name.
 */
import { afterAll, describe, expect, it } from 'vitest';
import { type GuardPolicy, NO_GUARD } from '../../../../src/queue/policy.ts';
import { Random, seeds } from '../../../vring/random.ts';
import type { Waiting } from '../fake-queues.ts';
import { FakeSwitch } from '../fake-switch.ts';
import { arena, ethernet } from '../frames.ts';
import { naiveVerdict } from './naive-guard.ts';
import * as P from './packets.ts';

const BURSTS = 60;
const IP4S = ['10.0.0.5', '10.0.0.6', '0.0.0.0', '192.168.3.4'].map(P.ip4);
const IP6S = ['2001:db8::5', '2001:db8:0:1::5', '::', 'fe80::1', 'fe80::ff:fe00:1', 'fe80::ff:fe00:2'].map(
  P.ip6,
);
const MACS = [1, 2, 3].map(P.mac);
const NETWORKS = [
  { bytes: IP4S[0], prefixBits: 32 },
  { bytes: IP4S[3], prefixBits: 13 },
  { bytes: IP4S[0], prefixBits: 0 },
  { bytes: IP6S[0], prefixBits: 64 },
  { bytes: IP6S[0], prefixBits: 128 },
  { bytes: IP6S[3], prefixBits: 10 },
];

afterAll(() => arena.release());

const some = <T>(random: Random, items: readonly T[]): T[] => items.filter(() => random.chance(40));

function randomGuard(random: Random): GuardPolicy {
  return {
    ...NO_GUARD,
    macs: random.chance(40) ? some(random, MACS) : null,
    addresses: random.chance(50) ? some(random, NETWORKS) : null,
    dhcp: random.chance(50),
    ra: random.chance(50),
  };
}

function randomPacket(random: Random): { type: number; payload: number[] } {
  const ports = [67, 68, 546, 547, 53];
  const udp = P.udp(random.pick(ports), random.pick(ports), [random.between(0, 3), 1, 6, 0]);
  if (random.chance(20)) {
    const payload = P.arp(random.pick(MACS), random.pick(IP4S), {
      sizes: random.pick([0x0604, 0x0604, 0x0804]),
    });
    return { type: random.pick([0x0806, 0x0806, 0x8035]), payload };
  }
  if (random.chance(40)) {
    const protocol = random.pick([17, 17, 17, 1, 2, 6, 103]);
    const rest = protocol < 3 ? [random.pick([5, 8, 9, 0x11, 0x16, 0x30]), 0, 0, 0] : udp;
    const fragment = random.pick([0, 0, 0, 0x2000, 0x4000, 3, 0x2003]);
    const options = new Array<number>(random.pick([0, 0, 4, 40])).fill(1);
    const lengthBytes = random.chance(20) ? random.between(0, 40 + options.length) : -1;
    const more = { fragment, options, lengthBytes };
    return { type: 0x0800, payload: P.ipv4(random.pick(IP4S), protocol, rest, more) };
  }
  const options = Array.from({ length: random.pick([0, 1, 1, 2]) }, () =>
    random.chance(80)
      ? P.linkOption(random.between(1, 3), random.pick(MACS))
      : [14, random.between(0, 2), ...random.bytes(random.pick([6, 14]))],
  ).flat();
  const message = random.pick([
    () => P.solicitation(random.pick(IP6S), options),
    () => P.advertisement(random.pick(IP6S), options),
    () => P.routerSolicitation(options),
    () => P.routerAdvertisement(options),
    () => P.icmp6(random.pick([128, 130, 131, 132, 137, 143, 151]), [...random.bytes(40)]),
  ])();
  const isUdp = random.chance(30);
  const extensions = Array.from({ length: random.pick([0, 0, 0, 1, 2, 9]) }, () =>
    random.pick([
      P.hopByHop(random.between(1, 3)),
      P.destination(random.pick([1, 1, 2, 12])),
      P.fragment(0, random.chance(50)),
      P.fragment(random.pick([8, 1200]), false),
      { type: 51, bytes: [random.between(1, 4), ...random.bytes(random.pick([14, 18]))] },
    ]),
  );
  const lengthBytes = random.chance(10) ? random.between(0, 200) : -1;
  const protocol = isUdp ? 17 : random.pick([58, 58, 58, 58, 58, 59, 6, 103]);
  return {
    type: 0x86dd,
    payload: P.ipv6(random.pick(IP6S), protocol, isUdp ? udp : message, { extensions, lengthBytes }),
  };
}

function randomFrame(random: Random): Uint8Array {
  const { type, payload } = randomPacket(random);
  let inner: { type: number; payload: readonly number[] } = { type, payload };
  if (random.chance(10)) {
    const snap = [0xaa, 0xaa, random.pick([3, 3, 4]), 0, 0, random.pick([0, 0, 1, 0xf8])];
    const tag = random.chance(20) ? [0x81, 0, 0, 5] : [];
    inner = { type: 200, payload: [...snap, ...tag, ...P.be16(type), ...payload] };
  }
  for (let tags = random.pick([0, 0, 0, 0, 1, 2, 3, 4]); tags > 0; tags--)
    inner = { type: random.pick([0x8100, 0x88a8]), payload: [0, 5, ...P.be16(inner.type), ...inner.payload] };
  const sizeBytes = random.pick([0, 60, 60, 200, 1514]);
  const frame = ethernet(random.between(1, 9), random.between(1, 3), { ...inner, sizeBytes });
  // A bit that is wrong, or an end that comes too early.
  if (random.chance(20)) frame[random.between(12, frame.length - 1)] ^= 1 << random.between(0, 7);
  return random.chance(15) ? frame.slice(0, random.between(14, frame.length)) : frame;
}

/** The first tag leaves the frame before the guard looks. */
function withoutTag(frame: Uint8Array): readonly number[] {
  const type = (frame[12] << 8) | frame[13];
  return type === 0x8100 || type === 0x88a8 ? [...frame.subarray(0, 12), ...frame.subarray(16)] : [...frame];
}

const textOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

describe('hostile frames', () => {
  const seen = new Set<string>();

  it.each(seeds(40))('pass or are dropped as by the naive guard (seed %i)', (seed) => {
    const random = new Random(seed);
    const world = new FakeSwitch(1, 1);
    const [port, other] = world.ports;
    const guard = randomGuard(random);
    world.follow(port, { guard });
    const drops: Record<string, number> = {};
    const passed: string[] = [];
    for (let burst = 0; burst < BURSTS; burst++) {
      const one = randomFrame(random);
      const frames = Array.from({ length: random.pick([1, 3, 40]) }, () =>
        random.chance(20) ? one : randomFrame(random),
      );
      const waiting = frames.map(
        (bytes): Waiting =>
          random.chance(20) && bytes.length > 40
            ? { bytes, pieces: [random.between(1, 30), 5] }
            : { bytes, misalignment: random.pick([0, 0, 0, 2, 3]) },
      );
      world.send(port, ...waiting);
      for (const frame of frames) {
        const type = (frame[12] << 8) | frame[13];
        const isTagged = type === 0x8100 || type === 0x88a8;
        const why = isTagged && frame.length < 18 ? 'truncatedTag' : naiveVerdict(guard, withoutTag(frame));
        seen.add(why ?? 'passed');
        if (why === null) passed.push(textOf(frame));
        else drops[why] = (drops[why] ?? 0) + 1;
      }
    }
    // What goes to an address that is known on the port itself is no business of the guard.
    const found = { ...port.drops };
    const toItself = found.samePort ?? 0;
    delete found.samePort;
    expect(found).toEqual(drops);
    const received = other.received.map((bytes) => textOf(bytes));
    expect(received.length + toItself).toBe(passed.length);
    const rest = [...passed];
    for (const text of received) {
      const at = rest.indexOf(text);
      expect(at, text).toBeGreaterThanOrEqual(0);
      rest.splice(0, at + 1);
    }
  });

  it('had every verdict', () => {
    const names = ['passed', 'macNotAllowed', 'ipNotAllowed', 'arpNotAllowed', 'ndNotAllowed'];
    expect([...seen]).toEqual(
      expect.arrayContaining([...names, 'dhcpServer', 'routerAdvertisement', 'guardUnreadable']),
    );
  });
});
