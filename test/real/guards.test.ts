/**
 * What a port's guard forbids, tried by a real Linux guest in QEMU: false addresses by its own kernel, and any frame by a
 * packet socket. Each is dropped by its name and does not arrive at the host behind a TAP port; what is allowed does.
 */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { DropReason } from '../../switch/l2/drop-reasons.ts';
import { LinuxGuest, peersForTests, vhostUserArgs } from '../peers/index.ts';
import { TestNamespace, tapUnavailable, titleWith } from '../port/tap-world.ts';
import * as P from '../switch/l2/guard/packets.ts';
import { RawFrames } from './raw-frames.ts';
import { RingwayProcess } from './ringway-process.ts';

const peers = await peersForTests(['qemu']);
const unavailable = tapUnavailable();
const HOST = '10.57.0.1';
const GUEST = '10.57.0.2';
const GUEST6 = '2001:db8:57::2';
const HOST_MAC = '02:00:00:00:00:01';
const MAC = '52:54:00:00:00:02';
const ME = [0x52, 0x54, 0, 0, 0, 2];
const OTHER = [0x52, 0x54, 0, 0, 0, 9];
const ALL = [255, 255, 255, 255, 255, 255];
const ROUTER6 = P.ip6('fe80::1');
const NOTHING = { macs: null, macsMax: null, macsSticky: null, ips: null, guard: null };

/** Broadcast, from the guest's address or another one. */
function frame(type: number, payload: readonly number[], source = ME): number[] {
  const bytes = [...ALL, ...source, ...P.be16(type), ...payload];
  return [...bytes, ...new Array<number>(Math.max(0, 60 - bytes.length)).fill(0)];
}
const icmp6 = (from: readonly number[], message: readonly number[], more = {}): number[] =>
  frame(0x86dd, P.ipv6(from, 58, message, more));

const ONE_MAC = { macs: MAC };
const ITS_IPS = { macs: MAC, ips: `${GUEST}+${GUEST6}` };
const DHCP = { guard: 'dhcp' };
const RA = { guard: 'ra' };
type Settings = Readonly<Record<string, string | number>>;

/** What it tries under which settings, and the name of the drop. */
const ATTEMPTS: readonly [string, Settings, readonly number[], DropReason][] = [
  ['a false source', ONE_MAC, frame(0x88b5, [], OTHER), 'macNotAllowed'],
  ['ARP with another’s MAC address', ONE_MAC, frame(0x0806, P.arp(OTHER, P.ip4(GUEST))), 'arpNotAllowed'],
  [
    'NA with another’s MAC address',
    ONE_MAC,
    icmp6(P.ip6(GUEST6), P.advertisement(P.ip6(GUEST6), P.linkOption(2, OTHER))),
    'ndNotAllowed',
  ],
  [
    'a false IPv4 source',
    ITS_IPS,
    frame(0x0800, P.ipv4(P.ip4('10.57.0.77'), 17, P.udp(1, 2))),
    'ipNotAllowed',
  ],
  [
    'a false IPv6 source',
    ITS_IPS,
    frame(0x86dd, P.ipv6(P.ip6('2001:db8:57::77'), 17, P.udp(1, 2))),
    'ipNotAllowed',
  ],
  ['ARP as the host', ITS_IPS, frame(0x0806, P.arp(ME, P.ip4(HOST), { operation: 2 })), 'arpNotAllowed'],
  [
    'NA as the router',
    ITS_IPS,
    icmp6(P.ip6(GUEST6), P.advertisement(ROUTER6, P.linkOption(2, ME))),
    'ndNotAllowed',
  ],
  ['DAD for the router’s address', ITS_IPS, icmp6(P.ip6('::'), P.solicitation(ROUTER6)), 'ndNotAllowed'],
  [
    'an answer of a DHCP server',
    DHCP,
    frame(0x0800, P.ipv4(P.ip4(GUEST), 17, P.udp(67, 68, [2, 1, 6, 0]))),
    'dhcpServer',
  ],
  [
    'an answer of a DHCPv6 server',
    DHCP,
    frame(0x86dd, P.ipv6(P.linkLocal(ME), 17, P.udp(547, 546))),
    'dhcpServer',
  ],
  ['a router advertisement', RA, icmp6(P.linkLocal(ME), P.routerAdvertisement()), 'routerAdvertisement'],
  [
    'one behind a destination option',
    RA,
    icmp6(P.linkLocal(ME), P.routerAdvertisement(), { extensions: [P.destination()] }),
    'routerAdvertisement',
  ],
  [
    'one behind a tag',
    RA,
    [
      ...ALL,
      ...ME,
      0x81,
      0,
      0,
      5,
      0x81,
      0,
      0,
      6,
      ...icmp6(P.linkLocal(ME), P.routerAdvertisement()).slice(12),
    ],
    'routerAdvertisement',
  ],
  [
    'one behind more headers than are looked at',
    RA,
    icmp6(P.linkLocal(ME), P.routerAdvertisement(), { extensions: [P.destination(10)] }),
    'guardUnreadable',
  ],
  [
    'a redirect',
    RA,
    icmp6(P.linkLocal(ME), P.icmp6(137, new Array<number>(36).fill(0))),
    'routerAdvertisement',
  ],
];

describe.skipIf(peers.skip || unavailable !== null)(
  peers.title(titleWith('a QEMU guest that tries what its guard forbids', unavailable)),
  () => {
    const namespace = new TestNamespace();
    let ringway: RingwayProcess;
    let guest: LinuxGuest;
    let raw: RawFrames;

    const dropsOf = async (name: string): Promise<Partial<Record<DropReason, number>>> => {
      const { drops } = await ringway.port(name);
      return Object.fromEntries(Object.entries(drops).filter(([, count]) => count > 0));
    };
    /** What of the drops came since. */
    const since = (now: object, before: object): Record<string, number> =>
      Object.fromEntries(
        Object.entries(now)
          .map(([name, count]) => [name, count - ((before as Record<string, number>)[name] ?? 0)] as const)
          .filter(([, count]) => count !== 0),
      );

    beforeAll(async () => {
      namespace.add();
      const tap = `tap:tap0,namespace=${namespace.name},mac=${HOST_MAC},addresses=${HOST}/24`;
      ringway = await RingwayProcess.start({ ports: ['vm'], args: ['--port', `host=${tap}`] });
      guest = await LinuxGuest.start({
        name: 'guest',
        qemuArgs: vhostUserArgs({
          socketPath: ringway.socket('vm'),
          mac: MAC,
          queuePairs: 1,
          memoryMiB: 256,
        }),
      });
      await guest.configureNetwork(`${GUEST}/24`);
      expect((await guest.ping(HOST)).received).toBe(5);
      raw = await RawFrames.prepare(guest, 'eth0');
    });

    beforeEach(() => ringway.set('vm', NOTHING));

    afterAll(async () => {
      await guest?.stop();
      try {
        expect(await ringway?.stop()).toBe(0);
      } finally {
        namespace.remove();
      }
    });

    test.each(ATTEMPTS)('%s', async (_, settings, bytes, reason) => {
      const sent = async (): Promise<number> => (await ringway.port('vm')).counters.ingressFrames;
      // Without the guard it passes.
      const before = await dropsOf('vm');
      const [first] = [await sent()];
      await raw.send(bytes);
      await ringway.until(async () => (await sent()) > first);
      expect(since(await dropsOf('vm'), before)).toEqual({});
      await ringway.set('vm', settings);
      await raw.send(bytes);
      await ringway.until(async () => Object.keys(since(await dropsOf('vm'), before)).length > 0);
      expect(since(await dropsOf('vm'), before)).toEqual({ [reason]: 1 });
    });

    test('its own addresses pass all guards', async () => {
      await ringway.set('vm', { ...ITS_IPS, guard: 'dhcp+ra', macsMax: 1 });
      await guest.runOk('ip neigh flush dev eth0');
      expect((await guest.ping(HOST)).received).toBe(5);
    });

    test('a false IP address of its own kernel is neither asked from nor answered', async () => {
      await ringway.set('vm', ITS_IPS);
      const before = await dropsOf('vm');
      await guest.runOk('ip addr add 10.57.0.77/24 dev eth0');
      await guest.run(`ping -c 2 -w 2 -I 10.57.0.77 ${HOST}`);
      await guest.runOk('ip addr del 10.57.0.77/24 dev eth0');
      const drops = since(await dropsOf('vm'), before);
      expect((drops.ipNotAllowed ?? 0) + (drops.arpNotAllowed ?? 0)).toBeGreaterThan(0);
      expect((await guest.ping(HOST)).received).toBe(5);
    });

    test('a false MAC address of its own kernel reaches nobody', async () => {
      await ringway.set('vm', ONE_MAC);
      const before = await dropsOf('vm');
      await guest.runOk(
        `ip link set eth0 down && ip link set eth0 address 52:54:00:00:00:99 && ip link set eth0 up`,
      );
      expect((await guest.ping(HOST, { count: 2, waitS: 1 })).received).toBe(0);
      await guest.runOk(`ip link set eth0 down && ip link set eth0 address ${MAC} && ip link set eth0 up`);
      expect(since(await dropsOf('vm'), before).macNotAllowed).toBeGreaterThan(0);
      expect((await guest.ping(HOST)).received).toBe(5);
    });

    test('one address more than it may have is dropped, and those that stick stay', async () => {
      await ringway.set('vm', { macsMax: 2, macsSticky: 'on' });
      const before = await dropsOf('vm');
      for (const last of [0x21, 0x22, 0x23, 0x21, 0x24])
        await raw.send(frame(0x88b5, [], [0x52, 0x54, 0, 0, 0, last]));
      await ringway.until(async () => since(await dropsOf('vm'), before).macsExceeded === 2);
    });
  },
);
