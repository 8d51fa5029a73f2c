/**
 * The examples of docs/plugins.md, loaded from their files as workers do it: what each drops, sends where, and notes. The access
 * list with 1,000 rules decides as one that looks at rule after rule.
 */
import { fileURLToPath } from 'node:url';
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import { Random, seeds } from '../../vring/random.ts';
import { arena, ethernet, type Flow, ipPacket, macBytes } from '../l2/frames.ts';
import { PluginWorld, plugFile, specOf } from './plugin-world.ts';

const EXAMPLES = fileURLToPath(new URL('../../../switch/plugin/examples', import.meta.url));
const PORTS = 4;

let world: PluginWorld;

/** Port `n` has the address `n + 1`. */
beforeEach(() => {
  world = new PluginWorld(...Array.from({ length: PORTS }, () => 1));
  for (const port of world.ports) world.send(port, ethernet(99, port.state.id + 1));
  for (const { to } of world.ports) for (const queue of to) queue.received.length = 0;
});
afterAll(() => arena.release());

const plug = (example: string, settings: Record<string, string>, texts: Record<string, string> = {}) =>
  plugFile(world, specOf(`${EXAMPLES}/${example}.ts`, settings, { name: example }), texts);
const received = (): number[] => world.ports.map((port) => port.received.length);
const dropped = (): number => world.ports.reduce((sum, port) => sum + (port.drops.plugin ?? 0), 0);
const ip = (text: string): number[] => text.split('.').map(Number);

const TCP: Flow = {
  version: 4,
  src: ip('10.0.0.1'),
  dst: ip('10.1.0.1'),
  protocol: 6,
  srcPort: 1024,
  dstPort: 80,
};
const six = (protocol: number, srcPort: number, dstPort: number): Flow => ({
  version: 6,
  src: [0xfd, ...Array(14).fill(0), 1],
  dst: [0xfd, ...Array(14).fill(0), 2],
  protocol,
  srcPort,
  dstPort,
});
const packet = (flow: Flow, options = {}): Uint8Array =>
  ethernet(2, 1, { type: flow.version === 4 ? 0x800 : 0x86dd, payload: ipPacket(flow, options) });

describe('the access list', () => {
  const RULES = `
deny tcp 10.0.0.0/24 10.1.0.1:25-26   # no mail
allow tcp any 10.1.0.0/16:80-443
allow udp 10.0.0.1:53 any
deny any 10.0.0.7 any
allow 132 any any
`;

  it.each<[string, Partial<Flow>, boolean]>([
    ['a port within a range', {}, true],
    ['its end', { dstPort: 443 }, true],
    ['behind its end', { dstPort: 444 }, false],
    ['an earlier rule', { dstPort: 25 }, false],
    ['another network', { dst: ip('10.2.0.1') }, false],
    ['another protocol', { protocol: 17 }, false],
    ['a source port', { protocol: 17, srcPort: 53 }, true],
    ['of another source', { protocol: 17, srcPort: 53, src: ip('10.0.0.2') }, false],
    ['a number for a protocol', { protocol: 132 }, true],
    ['one that is denied before', { protocol: 132, src: ip('10.0.0.7') }, false],
  ])('looks at %s', (_, change, isAllowed) => {
    const instance = plug('access-list', { rules: 'rules' }, { '/rules': RULES });
    const frame = packet({ ...TCP, ...change });
    world.send(world.ports[0], frame, frame);
    world.send(world.ports[0], frame);
    expect([received()[1], dropped()]).toEqual(isAllowed ? [3, 0] : [0, 3]);
    // The flow was looked up once: its counter comes behind both reasons.
    expect(instance.counts.at(-1)).toBe(1);
  });

  it('lets ARP pass, denies fragments without ports by rules that have them, and IPv6 by rules without addresses', () => {
    plug('access-list', { rules: 'rules' }, { '/rules': 'allow tcp any any:80\nallow udp any any\n' });
    world.send(
      world.ports[0],
      ethernet(2, 1, { type: 0x806 }),
      packet(TCP),
      packet(TCP, { fragment: 0x2000 }),
      packet(six(6, 1, 80)),
      packet(six(6, 1, 81)),
      packet(six(17, 1, 2)),
    );
    expect([received()[1], dropped()]).toEqual([4, 2]);
  });

  it.each([
    ['allow tcp any', 'allow tcp any is no rule'],
    ['permit tcp any any', 'permit tcp any any is no rule'],
    ['allow xyz any any', 'allow xyz any any is no rule'],
    ['allow tcp 10.0.0.0/33 any', '10.0.0.0/33 is not a range of IPv4 addresses'],
    ['allow tcp any any:80-70', '80-70 are no ports'],
    ['allow tcp any any:65536', '65536 are no ports'],
  ])('refuses the rule %s', (rule, why) => {
    expect(() =>
      plug('access-list', { rules: 'rules' }, { '/rules': `allow any any any\n${rule}\n` }),
    ).toThrow(
      `rules: rules is not allowed (rules of the form allow|deny PROTOCOL FROM TO, for example: allow tcp any 10.0.0.0/8:80-443; line 2: ${why})`,
    );
  });

  it.each(seeds(5))('with 1,000 rules decides as one looked at rule by rule (seed %i)', (seed) => {
    const random = new Random(seed);
    const below = (count: number): number => random.between(0, count - 1);
    type Rule = { allow: boolean; protocol: number; from: number; to: number; first: number; last: number };
    const rules = Array.from({ length: 1000 }, (): Rule => {
      const first = below(20);
      return {
        allow: random.chance(50),
        protocol: random.pick([6, 17]),
        from: below(40),
        to: below(40),
        first,
        last: first + below(3),
      };
    });
    const text = rules
      .map(
        ({ allow, protocol, from, to, first, last }) =>
          `${allow ? 'allow' : 'deny'} ${protocol} 10.0.0.${from} 10.0.1.${to}:${first}-${last}`,
      )
      .join('\n');
    const isAllowedByDefault = random.chance(50);
    plug(
      'access-list',
      { rules: 'rules', default: isAllowedByDefault ? 'allow' : 'deny' },
      { '/rules': text },
    );
    const expected: Uint8Array[] = [];
    for (let burst = 0; burst < 20; burst++) {
      const frames: Uint8Array[] = [];
      for (let i = 0; i < 64; i++) {
        const protocol = random.pick([6, 17]);
        // Mostly one that some rule is about.
        const near = random.pick(rules);
        const from = random.chance(80) ? near.from : below(40);
        const to = random.chance(80) ? near.to : below(40);
        const dstPort = random.chance(80) ? near.first : below(24);
        const frame = packet({
          version: 4,
          src: [10, 0, 0, from],
          dst: [10, 0, 1, to],
          protocol,
          srcPort: below(3),
          dstPort,
        });
        const rule = rules.find(
          (each) =>
            each.protocol === protocol &&
            each.from === from &&
            each.to === to &&
            dstPort >= each.first &&
            dstPort <= each.last,
        );
        for (let times = random.pick([1, 1, 3]); times > 0 && frames.length < 64; times--) {
          frames.push(frame);
          if (rule?.allow ?? isAllowedByDefault) expected.push(frame);
        }
      }
      world.send(world.ports[0], ...frames.slice(0, 64));
    }
    expect(world.pluginFaults).toEqual([]);
    expect(world.ports[1].received).toEqual(expected);
    expect(expected.length).toBeGreaterThan(50);
  });
});

describe('the binding of addresses', () => {
  const BINDINGS =
    'vm0 02:00:00:00:00:01 10.0.0.1\nvm0 02:00:00:00:00:01 10.0.0.2\nvm0 02:00:00:00:00:0a 10.0.0.10\n';
  const arp = (mac: number, text: string): number[] => [
    0,
    1,
    8,
    0,
    6,
    4,
    0,
    1,
    ...macBytes(mac),
    ...ip(text),
    ...Array(10).fill(0),
  ];

  it.each<[string, Uint8Array, boolean]>([
    ['an address of its own', packet(TCP), true],
    ['another of its own', packet({ ...TCP, src: ip('10.0.0.2') }), true],
    ['one of another of its MAC addresses', packet({ ...TCP, src: ip('10.0.0.10') }), false],
    ['a foreign one', packet({ ...TCP, src: ip('10.0.0.3') }), false],
    ['none yet', packet({ ...TCP, src: [0, 0, 0, 0] }), true],
    ['a foreign MAC address', ethernet(2, 7, { payload: ipPacket(TCP) }), false],
    ['half an IPv4 header', ethernet(2, 1, { payload: [0x45, 0], sizeBytes: 0 }), false],
    ['ARP of its own', ethernet(2, 1, { type: 0x806, payload: arp(1, '10.0.0.1') }), true],
    ['an ARP probe', ethernet(2, 1, { type: 0x806, payload: arp(1, '0.0.0.0') }), true],
    ['ARP in the name of another', ethernet(2, 1, { type: 0x806, payload: arp(1, '10.0.0.3') }), false],
    ['ARP of another MAC address', ethernet(2, 1, { type: 0x806, payload: arp(2, '10.0.0.1') }), false],
    ['half an ARP message', ethernet(2, 1, { type: 0x806, payload: [0, 1], sizeBytes: 0 }), false],
  ])('looks at %s', (_, frame, isAllowed) => {
    plug('mac-binding', { bindings: 'bindings' }, { '/bindings': BINDINGS });
    world.send(world.ports[0], frame);
    expect([received()[1], dropped()]).toEqual(isAllowed ? [1, 0] : [0, 1]);
    // Of another port nothing is asked.
    world.send(world.ports[2], frame);
    expect(dropped()).toBe(isAllowed ? 0 : 1);
  });
});

describe('the load balancer', () => {
  const SERVICE = 0x99;
  const to = (flow: Flow): Uint8Array =>
    ethernet(SERVICE, 1, { type: flow.version === 4 ? 0x800 : 0x86dd, payload: ipPacket(flow) });
  const flows = Array.from({ length: 60 }, (_, i) =>
    i % 3 === 0 ? six(17, 5000 + i, 53) : { ...TCP, srcPort: 5000 + i },
  );
  /** The port that got each flow's frames, and no other did. */
  const placesOf = (): number[] =>
    flows.map((flow) => {
      for (const { to: queues } of world.ports) for (const queue of queues) queue.received.length = 0;
      world.send(world.ports[0], to(flow), to(flow));
      return received().indexOf(2);
    });

  it('keeps a flow on one port, and moves only those of a port that goes', () => {
    const instance = plug('load-balancer', { address: '02:00:00:00:00:99', ports: 'vm1+vm2+vm3' });
    const before = placesOf();
    expect(placesOf()).toEqual(before);
    for (const port of [1, 2, 3]) expect(before.filter((place) => place === port).length).toBeGreaterThan(8);
    const gone = world.names.remove(2);
    instance.plugin.portRemoved?.(gone ?? world.names.named('vm2'));
    const after = placesOf();
    expect(after.filter((place) => place === 2)).toEqual([]);
    expect(after.filter((_, i) => before[i] !== 2)).toEqual(before.filter((place) => place !== 2));
    world.names.add(2, 'vm2');
    instance.plugin.portAdded?.(world.names.named('vm2'));
    expect(placesOf()).toEqual(before);
  });

  it('leaves other frames alone, and drops those that nobody is there for', () => {
    plug('load-balancer', { address: '02:00:00:00:00:99', ports: 'vm7' });
    world.send(world.ports[0], packet(TCP), to(TCP));
    expect(received()).toEqual([0, 1, 0, 0]);
    expect(dropped()).toBe(1);
  });

  it('needs an address and ports', () => {
    expect(() => plug('load-balancer', { ports: '' })).toThrow(
      'address: nothing is not allowed (the MAC address that the ports share); ports:  is not allowed (names of ports)',
    );
  });
});

describe('the DHCP recorder', () => {
  const dhcp = (op: number, options: readonly number[]): number[] => {
    const message = [
      op,
      1,
      6,
      0,
      ...Array(12).fill(0),
      ...ip('10.0.0.9'),
      ...Array(8).fill(0),
      ...macBytes(1),
    ];
    return [...message, ...Array(236 - message.length).fill(0), 0x63, 0x82, 0x53, 0x63, ...options];
  };
  const udp = (from: number, to: number, payload: readonly number[]): Uint8Array =>
    ethernet([255, 255, 255, 255, 255, 255], 1, {
      payload: ipPacket(
        { ...TCP, protocol: 17, srcPort: from, dstPort: to },
        { payload: [0, 0, 0, 0, ...payload] },
      ),
    });
  const REQUEST = udp(68, 67, dhcp(1, [0, 53, 1, 3, 255]));
  const ACK = udp(67, 68, dhcp(2, [53, 1, 5, 51, 4, 0, 0, 14, 16, 255]));

  it('notes who asked where, and what he was given, and drops nothing', () => {
    const instance = plug('dhcp-recorder', {});
    world.send(world.ports[0], REQUEST, packet(TCP));
    world.send(world.ports[2], { bytes: ACK, pieces: [50, 100] });
    expect(instance.context.takeSayings()).toEqual({
      notes: [
        ['02:00:00:00:00:01 port', 'vm0'],
        ['02:00:00:00:00:01 address', '10.0.0.9 for 3600 s, by vm2'],
      ],
      lines: ['02:00:00:00:00:01 was given 10.0.0.9 for 3600 s by vm2'],
    });
    expect(dropped()).toBe(0);
  });

  it('passes over what is none, or cut short', () => {
    const instance = plug('dhcp-recorder', { servers: 'vm3' });
    const cut = [53, 1, 5].map((_, i) => udp(67, 68, dhcp(2, [53, 1, 5].slice(0, i))));
    world.send(
      world.ports[3],
      ...cut,
      ACK.slice(0, 200),
      udp(67, 68, dhcp(2, [12, 250, 5])),
      udp(68, 67, dhcp(2, [53, 1, 5])),
    );
    expect(instance.context.takeSayings()?.lines).toHaveLength(1);
    world.send(world.ports[2], ACK);
    expect(instance.context.takeSayings()).toBeNull();
    expect([...instance.counts.slice(-2)]).toEqual([1, 1]);
  });
});
