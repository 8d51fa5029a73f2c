/** What a guard lets pass and what it drops by which name, case by case, through a forwarder; limits on addresses; protected ports. */
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import { type GuardPolicy, NO_GUARD } from '../../../../src/queue/policy.ts';
import { parseIpNetwork } from '../../../../switch/config/kinds/values.ts';
import type { DropReason } from '../../../../switch/l2/drop-reasons.ts';
import { type FakePort, FakeSwitch } from '../fake-switch.ts';
import { arena, arenaView, ethernet, type Mac } from '../frames.ts';
import * as P from './packets.ts';

const ALL: Mac = [255, 255, 255, 255, 255, 255];
/** The guest's, and its addresses. */
const ME = 1;
const MY_IP = P.ip4('10.0.0.5');
const MY_IP6 = P.ip6('2001:db8::5');
const MY_LINK_LOCAL = P.linkLocal(P.mac(ME));
const ROUTER_LINK_LOCAL = P.ip6('fe80::1');
const NOBODY6 = P.ip6('::');

afterAll(() => arena.release());

let world: FakeSwitch;
let port: FakePort;
let other: FakePort;

beforeEach(() => {
  world = new FakeSwitch(1, 1, 1);
  [port, other] = world.ports;
});

const networks = (...texts: string[]): NonNullable<GuardPolicy['addresses']> =>
  texts.map((text) => parseIpNetwork(text)).filter((each) => each !== null);
const GUARDS: Readonly<Record<string, GuardPolicy>> = {
  macs: { ...NO_GUARD, macs: [P.mac(ME), P.mac(7)] },
  addresses: {
    ...NO_GUARD,
    macs: [P.mac(ME)],
    addresses: networks('10.0.0.5', '192.168.0.0/16', '2001:db8::/64'),
  },
  dhcp: { ...NO_GUARD, dhcp: true },
  ra: { ...NO_GUARD, ra: true },
};

const frame = (type: number, payload: readonly number[], src: Mac = ME, sizeBytes = 60): Uint8Array =>
  ethernet(ALL, src, { type, payload, sizeBytes });
const v4 = (payload: readonly number[], src: Mac = ME): Uint8Array => frame(0x0800, payload, src);
const v6 = (payload: readonly number[], src: Mac = ME): Uint8Array => frame(0x86dd, payload, src);
const icmp = (src: readonly number[], message: readonly number[], more = {}): Uint8Array =>
  v6(P.ipv6(src, 58, message, more));

const CASES: readonly [string, keyof typeof GUARDS, Uint8Array, DropReason | null][] = [
  ['an allowed source', 'macs', v4(P.ipv4(P.ip4('1.2.3.4'), 17, P.udp(1, 2))), null],
  ['another allowed source', 'macs', v4(P.ipv4(MY_IP, 17, P.udp(1, 2)), 7), null],
  ['a false source', 'macs', v4(P.ipv4(MY_IP, 17, P.udp(1, 2)), 8), 'macNotAllowed'],
  ['a group as its source', 'macs', v4(P.ipv4(MY_IP, 17, []), [3, 0, 0, 0, 0, 1]), 'macNotAllowed'],
  ['ARP in another MAC address’s name', 'macs', frame(0x0806, P.arp(P.mac(7), MY_IP)), 'arpNotAllowed'],
  ['ARP in its own name', 'macs', frame(0x0806, P.arp(P.mac(ME), P.ip4('1.1.1.1'))), null],
  [
    'ARP cut short',
    'macs',
    ethernet(ALL, ME, { type: 0x0806, payload: [0, 1, 8, 0], sizeBytes: 0 }),
    'guardUnreadable',
  ],
  [
    'NA with another link-layer address',
    'macs',
    icmp(MY_IP6, P.advertisement(MY_IP6, P.linkOption(2, P.mac(7)))),
    'ndNotAllowed',
  ],
  [
    'NS with another link-layer address',
    'macs',
    icmp(MY_IP6, P.solicitation(MY_IP6, P.linkOption(1, P.mac(7)))),
    'ndNotAllowed',
  ],
  [
    'RS with another link-layer address',
    'macs',
    icmp(MY_IP6, P.routerSolicitation(P.linkOption(1, P.mac(7)))),
    'ndNotAllowed',
  ],
  ['anything that is no IP', 'addresses', frame(0x88cc, [1, 2, 3]), null],
  ['its IPv4 address', 'addresses', v4(P.ipv4(MY_IP, 6, P.udp(1, 2))), null],
  ['one of its network', 'addresses', v4(P.ipv4(P.ip4('192.168.77.1'), 6, P.udp(1, 2))), null],
  ['another IPv4 address', 'addresses', v4(P.ipv4(P.ip4('10.0.0.6'), 6, P.udp(1, 2))), 'ipNotAllowed'],
  [
    'the same in a fragment',
    'addresses',
    v4(P.ipv4(P.ip4('10.0.0.6'), 6, [1, 2], { fragment: 100 })),
    'ipNotAllowed',
  ],
  ['a DHCP client that has none yet', 'addresses', v4(P.ipv4(P.ip4('0.0.0.0'), 17, P.udp(68, 67))), null],
  [
    'no address for anything else',
    'addresses',
    v4(P.ipv4(P.ip4('0.0.0.0'), 17, P.udp(1000, 67))),
    'ipNotAllowed',
  ],
  ['IPv4 that is no IPv4', 'addresses', v4(P.ipv4(MY_IP, 6, P.udp(1, 2), { version: 5 })), 'guardUnreadable'],
  ['ARP for its address', 'addresses', frame(0x0806, P.arp(P.mac(ME), MY_IP, { operation: 2 })), null],
  ['an ARP probe', 'addresses', frame(0x0806, P.arp(P.mac(ME), P.ip4('0.0.0.0'))), null],
  [
    'ARP for another’s',
    'addresses',
    frame(0x0806, P.arp(P.mac(ME), P.ip4('10.0.0.1'), { operation: 2 })),
    'arpNotAllowed',
  ],
  [
    'ARP of another kind of network',
    'addresses',
    frame(0x0806, P.arp(P.mac(ME), MY_IP, { sizes: 0x0804 })),
    'guardUnreadable',
  ],
  ['RARP for another’s', 'addresses', frame(0x8035, P.arp(P.mac(ME), P.ip4('10.0.0.1'))), 'arpNotAllowed'],
  ['its IPv6 address', 'addresses', v6(P.ipv6(MY_IP6, 17, P.udp(1, 2))), null],
  ['another IPv6 address', 'addresses', v6(P.ipv6(P.ip6('2001:db9::5'), 17, P.udp(1, 2))), 'ipNotAllowed'],
  ['its link-local address', 'addresses', v6(P.ipv6(MY_LINK_LOCAL, 17, P.udp(546, 547))), null],
  [
    'the router’s link-local address',
    'addresses',
    v6(P.ipv6(ROUTER_LINK_LOCAL, 17, P.udp(1, 2))),
    'ipNotAllowed',
  ],
  ['DAD for its address', 'addresses', icmp(NOBODY6, P.solicitation(MY_IP6)), null],
  ['DAD for another’s', 'addresses', icmp(NOBODY6, P.solicitation(ROUTER_LINK_LOCAL)), 'ndNotAllowed'],
  [
    'MLD without an address',
    'addresses',
    icmp(NOBODY6, P.icmp6(143, [0, 0, 0, 0]), { extensions: [P.hopByHop()] }),
    null,
  ],
  ['UDP without an address', 'addresses', v6(P.ipv6(NOBODY6, 17, P.udp(1, 2))), 'ipNotAllowed'],
  [
    'asking for another’s',
    'addresses',
    icmp(MY_IP6, P.solicitation(ROUTER_LINK_LOCAL, P.linkOption(1, P.mac(ME)))),
    null,
  ],
  ['NA of its own', 'addresses', icmp(MY_IP6, P.advertisement(MY_IP6, P.linkOption(2, P.mac(ME)))), null],
  [
    'NA of the router’s',
    'addresses',
    icmp(MY_IP6, P.advertisement(ROUTER_LINK_LOCAL, P.linkOption(2, P.mac(ME)))),
    'ndNotAllowed',
  ],
  [
    'the same behind extension headers',
    'addresses',
    icmp(MY_IP6, P.advertisement(ROUTER_LINK_LOCAL), { extensions: [P.hopByHop(), P.destination()] }),
    'ndNotAllowed',
  ],
  [
    'NA in a fragment',
    'addresses',
    icmp(MY_IP6, P.advertisement(MY_IP6), { extensions: [P.fragment(0, true)] }),
    'guardUnreadable',
  ],
  [
    'NA with an empty option',
    'addresses',
    icmp(MY_IP6, P.advertisement(MY_IP6, [2, 0, 1, 2, 3, 4, 5, 6])),
    'guardUnreadable',
  ],
  [
    'NA longer than can be looked at',
    'addresses',
    icmp(MY_IP6, P.advertisement(MY_IP6, [14, 9, ...new Array<number>(70).fill(0)])),
    'guardUnreadable',
  ],
  [
    'NA that says it is longer than the frame',
    'addresses',
    icmp(MY_IP6, P.advertisement(MY_IP6), { lengthBytes: 200 }),
    'guardUnreadable',
  ],
  ['a DHCP client', 'dhcp', v4(P.ipv4(P.ip4('0.0.0.0'), 17, P.udp(68, 67))), null],
  ['a DHCP server', 'dhcp', v4(P.ipv4(MY_IP, 17, P.udp(67, 68, [2, 1, 6, 0]))), 'dhcpServer'],
  ['one that uses another port', 'dhcp', v4(P.ipv4(MY_IP, 17, P.udp(1067, 68, [2]))), 'dhcpServer'],
  ['one that answers a relay', 'dhcp', v4(P.ipv4(MY_IP, 17, P.udp(1067, 67, [2]))), 'dhcpServer'],
  [
    'one behind IP options',
    'dhcp',
    v4(P.ipv4(MY_IP, 17, P.udp(67, 68, [2]), { options: [1, 1, 1, 1] })),
    'dhcpServer',
  ],
  [
    'a first fragment without UDP header',
    'dhcp',
    ethernet(ALL, ME, { payload: P.ipv4(MY_IP, 17, [0, 67], { fragment: 0x2000 }), sizeBytes: 0 }),
    'guardUnreadable',
  ],
  ['a later fragment', 'dhcp', v4(P.ipv4(MY_IP, 17, P.udp(67, 68), { fragment: 3 })), null],
  ['a DHCPv6 client', 'dhcp', v6(P.ipv6(MY_LINK_LOCAL, 17, P.udp(546, 547))), null],
  ['a DHCPv6 server', 'dhcp', v6(P.ipv6(ROUTER_LINK_LOCAL, 17, P.udp(547, 546))), 'dhcpServer'],
  [
    'one behind an extension header',
    'dhcp',
    v6(P.ipv6(MY_IP6, 17, P.udp(9, 546), { extensions: [P.destination(2)] })),
    'dhcpServer',
  ],
  ['other UDP', 'dhcp', v4(P.ipv4(P.ip4('9.9.9.9'), 17, P.udp(53, 5353))), null],
  ['an RA', 'ra', icmp(ROUTER_LINK_LOCAL, P.routerAdvertisement()), 'routerAdvertisement'],
  [
    'one behind extension headers',
    'ra',
    icmp(MY_IP6, P.routerAdvertisement(), { extensions: [P.hopByHop(), P.destination(3)] }),
    'routerAdvertisement',
  ],
  [
    'one in a first fragment',
    'ra',
    icmp(MY_IP6, P.routerAdvertisement(), { extensions: [P.fragment(0, true)] }),
    'routerAdvertisement',
  ],
  [
    'one behind more headers than are looked at',
    'ra',
    icmp(MY_IP6, P.routerAdvertisement(), { extensions: new Array(9).fill(P.destination()) }),
    'guardUnreadable',
  ],
  [
    'one behind longer headers than are looked at',
    'ra',
    icmp(MY_IP6, P.routerAdvertisement(), { extensions: [P.destination(12)] }),
    'guardUnreadable',
  ],
  [
    'a first fragment without all headers',
    'ra',
    ethernet(ALL, ME, {
      type: 0x86dd,
      payload: P.ipv6(MY_IP6, 60, [], { extensions: [P.fragment(0, true)] }),
      sizeBytes: 0,
    }),
    'guardUnreadable',
  ],
  ['a redirect', 'ra', icmp(MY_IP6, P.icmp6(137, new Array<number>(36).fill(0))), 'routerAdvertisement'],
  ['an ICMP redirect', 'ra', v4(P.ipv4(MY_IP, 1, [5, 1, 0, 0])), 'routerAdvertisement'],
  ['an RS', 'ra', icmp(MY_LINK_LOCAL, P.routerSolicitation()), null],
  ['an NA', 'ra', icmp(MY_LINK_LOCAL, P.advertisement(MY_LINK_LOCAL)), null],
  [
    'an RA behind a tag',
    'ra',
    frame(0x8100, [0, 5, 0x86, 0xdd, ...P.ipv6(MY_IP6, 58, P.routerAdvertisement())]),
    'routerAdvertisement',
  ],
  [
    'one behind two tags',
    'ra',
    frame(0x88a8, [0, 5, 0x81, 0, 0, 6, 0x86, 0xdd, ...P.ipv6(MY_IP6, 58, P.routerAdvertisement())]),
    'routerAdvertisement',
  ],
  [
    'four tags',
    'ra',
    frame(0x88a8, [0, 5, 0x81, 0, 0, 6, 0x81, 0, 0, 7, 0x81, 0, 0, 8, 0x86, 0xdd]),
    'guardUnreadable',
  ],
  [
    'one in an LLC frame',
    'ra',
    frame(100, [0xaa, 0xaa, 3, 0, 0, 0, 0x86, 0xdd, ...P.ipv6(MY_IP6, 58, P.routerAdvertisement())]),
    'routerAdvertisement',
  ],
  [
    'who asks who wants groups',
    'ra',
    v4(P.ipv4(MY_IP, 2, [0x11, 100, 0, 0, 0, 0, 0, 0])),
    'routerAdvertisement',
  ],
  ['who says what groups it wants', 'ra', v4(P.ipv4(MY_IP, 2, [0x16, 0, 0, 0, 239, 1, 1, 1])), null],
  [
    'who asks by IPv6, behind headers that not all look behind',
    'ra',
    icmp(MY_LINK_LOCAL, P.icmp6(130, new Array<number>(20).fill(0)), {
      extensions: [P.hopByHop(), P.destination()],
    }),
    'routerAdvertisement',
  ],
  [
    'who asks in a frame to all',
    'ra',
    v4(P.ipv4(MY_IP, 2, [0x11, 0, 0, 0, 0, 0, 0, 0])),
    'routerAdvertisement',
  ],
  ['PIM', 'ra', v4(P.ipv4(MY_IP, 103, [0x20, 0, 0, 0])), 'routerAdvertisement'],
  ['PIM by IPv6', 'ra', v6(P.ipv6(MY_LINK_LOCAL, 103, [0x20, 0, 0, 0])), 'routerAdvertisement'],
  [
    'one of those that bridges make',
    'ra',
    frame(100, [0xaa, 0xaa, 3, 0, 0, 0xf8, 0x86, 0xdd, ...P.ipv6(MY_IP6, 58, P.routerAdvertisement())]),
    'routerAdvertisement',
  ],
  [
    'a tag in an LLC frame',
    'ra',
    frame(100, [
      ...[0xaa, 0xaa, 3, 0, 0, 0, 0x81, 0, 0, 0, 0x86, 0xdd],
      ...P.ipv6(MY_IP6, 58, P.routerAdvertisement()),
    ]),
    'guardUnreadable',
  ],
  // What stands behind the packet's end is not what the next fragment says in its place.
  [
    'a first fragment that shows a harmless message behind its end',
    'ra',
    v6(
      P.ipv6(MY_IP6, 58, P.icmp6(128, [0, 0, 0, 0]), {
        extensions: [P.fragment(0, true), P.destination()],
        lengthBytes: 16,
      }),
    ),
    'guardUnreadable',
  ],
  [
    'a first fragment that shows another header behind its end',
    'dhcp',
    v6(
      P.ipv6(MY_IP6, 59, [], {
        extensions: [P.fragment(0, true), P.destination(), P.destination()],
        lengthBytes: 16,
      }),
    ),
    'guardUnreadable',
  ],
  [
    'a first fragment that shows a request behind its end',
    'dhcp',
    v4(P.ipv4(MY_IP, 17, P.udp(1067, 67, [1]), { fragment: 0x2000, lengthBytes: 28 })),
    'guardUnreadable',
  ],
  [
    'IPv4 that ends before its UDP header',
    'dhcp',
    v4(P.ipv4(MY_IP, 17, P.udp(53, 53), { lengthBytes: 24 })),
    'guardUnreadable',
  ],
  [
    'IPv4 that ends before its ICMP message',
    'ra',
    v4(P.ipv4(MY_IP, 1, [8, 0, 0, 0], { fragment: 0x2000, lengthBytes: 20 })),
    'guardUnreadable',
  ],
  [
    'no address for a packet that ends before its ports',
    'addresses',
    v4(P.ipv4(P.ip4('0.0.0.0'), 17, P.udp(68, 67), { lengthBytes: 24 })),
    'guardUnreadable',
  ],
  [
    'a packet whose length is left to whoever cuts it into segments',
    'dhcp',
    v4(P.ipv4(MY_IP, 17, P.udp(53, 53), { lengthBytes: 0 })),
    null,
  ],
];

describe('a guard', () => {
  it.each(CASES)('%s (%s)', (_, name, bytes, reason) => {
    world.follow(port, { guard: GUARDS[name] });
    // Behind others that pass, so that it is not the first one, and alone.
    const harmless = ethernet(2, ME, { type: 0x88cc });
    world.send(port, harmless, bytes, harmless);
    world.send(port, bytes);
    expect(port.drops).toEqual(reason === null ? {} : { [reason]: 2 });
    const passed = other.received.filter((each) => Buffer.from(each).equals(bytes));
    expect(passed).toHaveLength(reason === null ? 2 : 0);
    expect(other.received).toHaveLength(2 + passed.length);
  });

  it('learns nothing from what it drops', () => {
    world.follow(port, { guard: GUARDS.macs });
    world.send(port, v4(P.ipv4(MY_IP, 17, []), 8), frame(0x0806, P.arp(P.mac(9), MY_IP)));
    expect(world.fdb.entries()).toEqual([]);
  });

  it('decides about what is forwarded, whatever the guest writes meanwhile', () => {
    world.follow(port, { guard: GUARDS.addresses });
    const good = v4(P.ipv4(MY_IP, 17, P.udp(1, 2)));
    const bench = 2 ** 26;
    world.log.onPlace = () => {
      // All that the guests of this test have.
      new Uint8Array(arenaBytes(), bench, 4096).fill(0xee);
    };
    world.send(port, good, { bytes: good, pieces: [20, 3] });
    world.log.onPlace = () => {};
    expect(other.received.map((each) => Buffer.from(each).equals(good))).toEqual([true, true]);
  });

  it('is off when it is taken back', () => {
    world.follow(port, { guard: GUARDS.macs });
    world.follow(port, {});
    world.send(port, v4(P.ipv4(MY_IP, 17, []), 8));
    expect(port.drops).toEqual({});
  });

  it('says nothing about what is sent to the port', () => {
    world.follow(port, { guard: { ...GUARDS.addresses, dhcp: true, ra: true } });
    world.send(other, frame(0x86dd, P.ipv6(ROUTER_LINK_LOCAL, 58, P.routerAdvertisement()), 2));
    expect([port.received.length, other.drops]).toEqual([1, {}]);
  });
});

describe('at most so many addresses', () => {
  const from = (src: number): Uint8Array => ethernet(ALL, src, { type: 0x88cc });
  const limited = (more: Partial<GuardPolicy> = {}): void =>
    world.follow(port, { guard: { ...NO_GUARD, macsMax: 2, ...more } });

  it('are learned, and frames from others are dropped, in whatever burst', () => {
    limited();
    world.send(port, from(11), from(12), from(13), from(11), from(14), from(13));
    world.send(port, from(12), from(12));
    world.send(port, from(13), from(13));
    expect(port.drops).toEqual({ macsExceeded: 5 });
    expect(other.received).toHaveLength(5);
    expect(world.fdb.countOf(0)).toBe(2);
  });

  it('and others once some were forgotten', () => {
    limited();
    world.send(port, from(11), from(12), from(13));
    world.fdb.flushPort(0);
    world.send(port, from(13), from(14));
    expect(port.drops).toEqual({ macsExceeded: 1 });
  });

  it('stay where they are to stick: no other port takes them, and no age', () => {
    limited({ sticky: true });
    world.send(port, from(11), from(12));
    world.send(other, from(11));
    world.fdb.flush();
    world.fdb.age(10_000, 1);
    world.send(port, from(13), from(12));
    expect(port.drops).toEqual({ macsExceeded: 1 });
    expect(world.fdb.staticsOf(0)).toBe(2);
    expect(world.fdb.countOf(1)).toBe(0);
  });

  it('do not stay where a guest has taken them from another', () => {
    limited({ sticky: true });
    world.send(other, from(11));
    world.send(port, from(11), from(11));
    expect(world.fdb.staticsOf(0)).toBe(0);
    world.send(other, from(11));
    expect(world.fdb.entryOf(2, 11 << 8, 0)).toMatchObject({ port: 1, isStatic: false });
  });

  it('are not taken by a frame that is dropped for what is in it', () => {
    limited({ ra: true });
    world.send(port, frame(0x86dd, P.ipv6(MY_IP6, 58, P.routerAdvertisement()), 11), from(12), from(13));
    expect(port.drops).toEqual({ routerAdvertisement: 1 });
  });

  it('are not one that is static elsewhere', () => {
    limited();
    world.fdb.setStatic(2, 11 << 8, 0, 1, 0);
    world.send(port, from(11));
    expect(port.drops).toEqual({ macsExceeded: 1 });
  });
});

describe('protected ports', () => {
  beforeEach(() => {
    for (const each of [port, other]) world.follow(each, { isProtected: true });
    for (const [id, each] of world.ports.entries()) world.send(each, ethernet(ALL, id + 1));
    for (const { to } of world.ports) to[0].received.length = 0;
  });

  it('get nothing of one another, neither by address nor flooded, and all else', () => {
    world.send(port, ethernet(2, 1), ethernet(ALL, 1), ethernet(3, 1));
    expect(world.ports.map((each) => each.received.length)).toEqual([0, 0, 2]);
    expect(port.drops).toEqual({ protected: 1 });
    world.send(world.ports[2], ethernet(1, 3), ethernet(ALL, 3));
    expect(world.ports.map((each) => each.received.length)).toEqual([2, 1, 2]);
  });

  it('get it again once one is not protected', () => {
    world.follow(other, {});
    world.send(port, ethernet(2, 1));
    expect(other.received).toHaveLength(1);
  });
});

function arenaBytes(): ArrayBuffer {
  return arenaView.buffer;
}
