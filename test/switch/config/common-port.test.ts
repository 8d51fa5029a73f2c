/** Settings that every kind of port has: accepted by each, alike in a file and on the command line, and what they decide. */
import { describe, expect, it } from 'vitest';
import {
  DEFAULT_POLICY,
  DEFAULT_VLAN,
  type GuardPolicy,
  type LimitsPolicy,
  NO_GUARD,
  NO_LIMITS,
  type PortPolicy,
  type VlanPolicy,
} from '../../../src/queue/policy.ts';
import { settingsOf } from '../../../switch/cli/options.ts';
import {
  COMMON_PORT_FIELDS,
  effectiveSettings,
  policyOf,
  snoopingOf,
  staticMacsOf,
  tuningOf,
} from '../../../switch/config/common-port.ts';
import { parseConfigText } from '../../../switch/config/file.ts';
import {
  copiesOf,
  endpointKeyOf,
  knownPortSettings,
  PORT_KINDS,
} from '../../../switch/config/kinds/index.ts';
import { type PortConfig, resolveChange, resolveConfig } from '../../../switch/config/resolve.ts';
import { toOptionKey } from '../../../switch/config/spelling.ts';

/** What a port of each kind can be attached to. */
const ENDPOINTS: Readonly<Record<string, string>> = {
  'vhost-user': '/r/a.sock',
  unix: '/r/a.sock',
  tap: 'tap0',
  pcap: '/r/a.pcapng',
  dpdk: 'net_null0',
};

/** Each switch among them, what it is in a port's policy, and a slip of the pen. */
const SETTINGS = [
  { name: 'flood', inPolicy: 'floods', slip: 'flod' },
  { name: 'receive', inPolicy: 'receives', slip: 'recieve' },
  { name: 'forwardBpdu', inPolicy: 'forwardsLinkLocal', slip: 'forwardBdpu' },
  { name: 'protected', inPolicy: 'isProtected', slip: 'protcted' },
] as const satisfies readonly {
  readonly name: keyof typeof COMMON_PORT_FIELDS;
  readonly inPolicy: keyof PortPolicy;
  readonly slip: string;
}[];

const VLANS_ALLOWED = 'VLANs, 0 to 4095: a list, in an option joined by +, for example 10+20+100-199';
const MIRROR_KEYS = ['mirror', 'mirrorDirection', 'mirrorVlans', 'outputVlan'];
const LIMIT_KEYS = ['rateIn', 'framesIn', 'rateOut', 'framesOut'].flatMap((key) => [key, `${key}Burst`]);
const STORM_KEYS = ['stormBroadcast', 'stormMulticast', 'stormUnknown'];
const LOOP_KEYS = ['loopGuard', 'loopShutSeconds'];
const GROUP_KEYS = ['mrouter', 'fastLeave'];
const CHANGEABLE = Object.keys(COMMON_PORT_FIELDS).join(', ');
const VLAN_KEYS = ['vlanMode', 'tag', 'trunks', 'cvlans', 'priorityTags', 'qinqEthtype'];
const GUARD_KEYS = ['macs', 'macsMax', 'macsSticky', 'staticMacs', 'ips', 'guard'];

const fromOption = (port: string): PortConfig => resolveConfig([settingsOf({ port: [port] })]).ports[0];
const fromFile = (text: string): PortConfig => resolveConfig([parseConfigText('r.yaml', text)]).ports[0];

describe.each(PORT_KINDS)('a port of kind %s', (kind) => {
  const option = (rest: string): PortConfig => fromOption(`a=${kind}:${ENDPOINTS[kind]}${rest}`);
  const file = (rest: string): PortConfig =>
    fromFile(`ports: { a: { kind: ${kind}, ${endpointKeyOf(kind)}: ${ENDPOINTS[kind]}${rest} } }`);

  it('has every common setting, by default', () => {
    expect(knownPortSettings(kind)).toEqual(expect.arrayContaining(Object.keys(COMMON_PORT_FIELDS)));
    const tested = [
      ...SETTINGS.map(({ name }) => name),
      'mtu',
      ...VLAN_KEYS,
      ...LIMIT_KEYS,
      ...STORM_KEYS,
      ...LOOP_KEYS,
      ...GROUP_KEYS,
      ...MIRROR_KEYS,
      ...GUARD_KEYS,
      'plugins',
    ];
    expect(tested.sort()).toEqual(Object.keys(COMMON_PORT_FIELDS).sort());
    expect(option('')).toMatchObject({ kind, flood: true, receive: true, forwardBpdu: false });
    expect(file('')).toEqual(option(''));
    expect({ ...DEFAULT_POLICY, ...policyOf(option('')) }).toEqual(DEFAULT_POLICY);
  });

  it('has plugins that its frames pass', () => {
    const known = (port: string): PortConfig =>
      resolveConfig([settingsOf({ port: [port], plugin: ['acl.ts', 'mac.ts'] })]).ports[0];
    const port = known(`a=${kind}:${ENDPOINTS[kind]},plugins=acl+mac`);
    expect(policyOf(port)).toEqual({ ...policyOf(option('')), plugins: ['acl', 'mac'] });
    expect(effectiveSettings(port, [])).toMatchObject({ plugins: ['acl', 'mac'] });
    expect(policyOf(option(',plugins=none'))).toMatchObject({ plugins: [] });
    expect(file(', plugins: []')).toEqual(option(',plugins=none'));
    expect(() => option(',plugins=1')).toThrow(
      '--port a: plugins: 1 is not allowed (names of plugins: a list, in an option joined by +, or none)',
    );
  });

  it('has an MTU', () => {
    const port = option(',mtu=1400');
    expect(file(', mtu: 1400')).toEqual(port);
    expect(policyOf(port)).toEqual({ ...policyOf(option('')), mtu: 1400 });
    expect(() => option(',mtu=67')).toThrow('--port a: mtu: 67 is not allowed (68 to 65535)');
    expect(() => option(',mtu=65536')).toThrow('--port a: mtu: 65536 is not allowed (68 to 65');
  });

  it('has a router behind it, or none, and hosts that leave groups at once', () => {
    const port = option(',mrouter=off,fast-leave=on');
    expect(file(', mrouter: off, fastLeave: on')).toEqual(port);
    expect(snoopingOf(port)).toEqual({ mrouter: 'off', fastLeave: true });
    expect(snoopingOf(option(''))).toEqual({ mrouter: 'auto', fastLeave: false });
    expect(effectiveSettings(port, [])).toMatchObject({ mrouter: 'off', fastLeave: true });
    expect(() => option(',mrouter=yes')).toThrow('mrouter: yes is not allowed (auto, on or off)');
  });

  it.each<[string, string, Partial<GuardPolicy>]>([
    [
      'macs=02:00:00:00:00:0A+02:00:00:00:00:02',
      'macs: ["02:00:00:00:00:0a", "02:00:00:00:00:02"]',
      {
        macs: [
          [2, 0, 0, 0, 0, 10],
          [2, 0, 0, 0, 0, 2],
        ],
      },
    ],
    ['macs-max=3', 'macsMax: 3', { macsMax: 3 }],
    ['macs-max=3,macs-sticky=on', 'macsMax: 3, macsSticky: on', { macsMax: 3, sticky: true }],
    [
      'ips=10.0.0.5+2001:db8::/64',
      'ips: [10.0.0.5, "2001:db8::/64"]',
      {
        addresses: [
          { bytes: [10, 0, 0, 5], prefixBits: 32 },
          { bytes: [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], prefixBits: 64 },
        ],
      },
    ],
    ['guard=dhcp', 'guard: [dhcp]', { dhcp: true }],
    ['guard=ra+dhcp', 'guard: [ra, dhcp]', { dhcp: true, ra: true }],
  ])('has a guard: %s', (onLine, inFile, guard) => {
    const port = option(`,${onLine}`);
    expect(file(`, ${inFile}`)).toEqual(port);
    expect(policyOf(port)).toEqual({ ...policyOf(option('')), guard: { ...NO_GUARD, ...guard } });
    expect(resolveChange(port, {})).toEqual(port);
  });

  it('may be protected, and have addresses that stay, in a VLAN or in that of frames without a tag', () => {
    expect(policyOf(option(',protected=on'))).toEqual({ ...policyOf(option('')), isProtected: true });
    const port = option(',tag=7,static-macs=02:00:00:00:00:0A+02:00:00:00:00:02@9');
    expect(file(', tag: 7, staticMacs: ["02:00:00:00:00:0a", "02:00:00:00:00:02@9"]')).toEqual(port);
    expect(policyOf(port).guard).toBe(null);
    expect(staticMacsOf(port)).toEqual([
      { mac: '02:00:00:00:00:0a', vlan: 7 },
      { mac: '02:00:00:00:00:02', vlan: 9 },
    ]);
  });

  it.each([
    ['macs=01:00:00:00:00:01', 'macs'],
    ['macs=02:00:00:00:00:01+x', 'macs'],
    ['static-macs=02:00:00:00:00:01@4096', 'static-macs'],
    ['macs-max=0', 'macs-max'],
    ['ips=10.0.0.0/33', 'ips'],
    ['ips=fe80::1%eth0', 'ips'],
    ['guard=dhcp+arp', 'guard'],
    ['macs-sticky=on', 'macs-sticky: on is not allowed (on only with macs-max, which says how many stay)'],
  ])('refuses %s by name', (onLine, words) => {
    expect(() => option(`,${onLine}`)).toThrow(`--port a: ${words}`);
  });

  it.each<[string, string, Partial<VlanPolicy>]>([
    ['tag=10', 'tag: 10', { mode: 'access', tag: 10 }],
    ['tag=0', 'tag: 0', { mode: 'access' }],
    ['trunks=30+10-12+11', 'trunks: [30, 10-12, 11]', { trunks: [10, 11, 12, 30] }],
    ['vlan-mode=trunk', 'vlanMode: trunk', {}],
    [
      'vlan-mode=native-untagged,tag=1,trunks=5',
      'vlanMode: native-untagged, tag: 1, trunks: 5',
      { mode: 'native-untagged', tag: 1, trunks: [5] },
    ],
    [
      'vlan-mode=dot1q-tunnel,tag=4095,cvlans=1+2,qinq-ethtype=802.1q',
      'vlanMode: dot1q-tunnel, tag: 4095, cvlans: [1, 2], qinqEthtype: 802.1q',
      { mode: 'dot1q-tunnel', tag: 4095, cvlans: [1, 2], serviceTag: '802.1q' },
    ],
    ['priority-tags=always', 'priorityTags: always', { priorityTags: 'always' }],
  ])('has VLANs: %s', (onLine, inFile, vlan) => {
    const port = option(`,${onLine}`);
    expect(file(`, ${inFile}`)).toEqual(port);
    expect(policyOf(port)).toEqual({ ...policyOf(option('')), vlan: { ...DEFAULT_VLAN, ...vlan } });
  });

  it('may be a mirror of other ports', () => {
    const port = option(',mirror=vm0+vm1,mirror-direction=in,mirror-vlans=5+7-8,output-vlan=100');
    expect(file(', mirror: [vm0, vm1], mirrorDirection: in, mirrorVlans: [5, 7-8], outputVlan: 100')).toEqual(
      port,
    );
    expect(copiesOf(port)).toEqual(['vm0', 'vm1']);
    const copies = { in: true, out: false, vlans: [5, 7, 8], outputVlan: 100 };
    expect(policyOf(port)).toEqual({ ...policyOf(option('')), copies });
    expect(effectiveSettings(port, [])).toMatchObject({
      mirror: ['vm0', 'vm1'],
      mirrorDirection: 'in',
      outputVlan: 100,
    });
    expect(effectiveSettings(option(',mirror=all'), [])).toMatchObject({
      mirror: 'all',
      mirrorDirection: 'both',
    });
    expect(() => option(',mirror=a')).toThrow(
      '--port a: mirror: a is not allowed (a port cannot mirror itself)',
    );
    expect(() => option(',mirror-direction=up,output-vlan=7')).toThrow(
      '--port a: mirror-direction: up is not allowed (in, out or both); ' +
        '--port a: mirror-direction: up is not allowed (only with mirror); ' +
        '--port a: output-vlan: 7 is not allowed (only with mirror)',
    );
    // A running one can be made another one, or none.
    const changed = resolveChange(port, { mirror: ['vm2'], mirrorVlans: null });
    expect(policyOf(changed).copies).toEqual({ ...copies, vlans: null });
    expect(() => resolveChange(port, { mirror: null })).toThrow('only with mirror');
    const none = resolveChange(port, {
      mirror: null,
      mirrorDirection: null,
      mirrorVlans: null,
      outputVlan: null,
    });
    expect(copiesOf(none)).toBeNull();
    expect(() => resolveChange(port, { mirror: ['a'] })).toThrow('a port cannot mirror itself');
  });

  it('says all that is wrong with its VLANs at once, and where each stands', () => {
    expect(() => file(', vlanMode: trunk, tag: 4096, trunks: [5-4], cvlans: 1')).toThrow(
      expect.objectContaining({
        message:
          'r.yaml:1: ports.a.tag: 4096 is not allowed (0 to 4095); ' +
          'r.yaml:1: ports.a.tag: 4096 is not allowed (only with vlanMode access, native-tagged, native-untagged, dot1q-tunnel, and it is trunk); ' +
          `r.yaml:1: ports.a.trunks.0: 5-4 is not allowed (${VLANS_ALLOWED}); ` +
          'r.yaml:1: ports.a.cvlans: 1 is not allowed (only with vlanMode dot1q-tunnel, and it is trunk)',
      }),
    );
    expect(() => option(',vlan-mode=access')).toThrow(
      '--port a: tag: missing (a VLAN, 0 to 4095, with vlan-mode access)',
    );
    expect(() => option(',vlan-mode=acces,priority-tags=no')).toThrow(
      '--port a: vlan-mode: acces is not allowed (access, trunk, native-tagged, native-untagged or dot1q-tunnel); ' +
        '--port a: priority-tags: no is not allowed (never, if-nonzero or always)',
    );
  });

  it('says of a list every part that cannot be', () => {
    const told = (subjects: readonly string[], parts: readonly string[]): string =>
      parts.map((part, i) => `${subjects[i]}: ${part} is not allowed (${VLANS_ALLOWED})`).join('; ');
    const inFile = [2, 3, 4].map((i) => `r.yaml:1: ports.a.trunks.${i}`);
    expect(() => file(', trunks: [10, 20, 100-99, [5], x]')).toThrow(
      expect.objectContaining({ message: told(inFile, ['100-99', 'a list', 'x']) }),
    );
    const onLine = ['--port a: trunks', '--port a: trunks'];
    expect(() => option(',trunks=10+100-99+x+100-99')).toThrow(
      expect.objectContaining({ message: told(onLine, ['100-99', 'x']) }),
    );
  });

  it.each<[string, string, Partial<LimitsPolicy>]>([
    ['rate-in=100M', 'rateIn: 100M', { bitsIn: { perSecond: 100_000_000, burst: 5_000_000 } }],
    ['rate-in=1k', 'rateIn: 1000', { bitsIn: { perSecond: 1000, burst: 24_224 } }],
    [
      'rate-out=1G,rate-out-burst=64K',
      'rateOut: 1G, rateOutBurst: 64K',
      { bitsOut: { perSecond: 10 ** 9, burst: 64_000 } },
    ],
    ['frames-in=1000', 'framesIn: 1000', { framesIn: { perSecond: 1000, burst: 50 } }],
    ['frames-in=1', 'framesIn: 1', { framesIn: { perSecond: 1, burst: 16 } }],
    [
      'frames-out=5M,frames-out-burst=1',
      'framesOut: 5M, framesOutBurst: 1',
      { framesOut: { perSecond: 5_000_000, burst: 1 } },
    ],
    [
      'storm-broadcast=1,storm-multicast=1K,storm-unknown=2K',
      'stormBroadcast: 1, stormMulticast: 1K, stormUnknown: 2K',
      {
        broadcast: { perSecond: 1, burst: 16 },
        multicast: { perSecond: 1000, burst: 50 },
        unknown: { perSecond: 2000, burst: 100 },
      },
    ],
  ])('has limits: %s', (onLine, inFile, limits) => {
    const port = option(`,${onLine}`);
    expect(file(`, ${inFile}`)).toEqual(port);
    expect(policyOf(port)).toEqual({ ...policyOf(option('')), limits: { ...NO_LIMITS, ...limits } });
    // As they are kept, and asked for again.
    expect(resolveChange(port, { flood: 'on' })).toEqual(port);
  });

  it('says what is wrong with its limits', () => {
    expect(() =>
      option(',rate-in=999,frames-in=0,rate-out=1x,storm-unknown=1.5K,frames-out-burst=3'),
    ).toThrow(
      expect.objectContaining({
        message:
          '--port a: rate-in: 999 is not allowed (1K to 1T bits a second, for example 100M); ' +
          '--port a: frames-in: 0 is not allowed (1 to 1G frames a second, for example 100M); ' +
          '--port a: rate-out: 1x is not allowed (1K to 1T bits a second, for example 100M); ' +
          '--port a: storm-unknown: 1.5K is not allowed (1 to 1G frames a second, for example 100M); ' +
          '--port a: frames-out-burst: 3 is not allowed (only with frames-out)',
      }),
    );
  });

  it('has a loop guard', () => {
    const port = option(',loop-guard=probe,loop-shut-seconds=5');
    expect(file(', loopGuard: probe, loopShutSeconds: 5')).toEqual(port);
    expect(policyOf(port)).toEqual({ ...policyOf(option('')), loopGuard: 'probe' });
    expect(effectiveSettings(port, [])).toMatchObject({ loopGuard: 'probe', loopShutSeconds: 5 });
    expect(effectiveSettings(option(''), [])).toMatchObject({ loopGuard: 'off', loopShutSeconds: 60 });
    expect(resolveChange(port, { flood: 'on' })).toEqual(port);
    expect(() => option(',loop-guard=of,loop-shut-seconds=0')).toThrow(
      '--port a: loop-guard: of is not allowed (off, probe or on); ' +
        '--port a: loop-shut-seconds: 0 is not allowed (1 to 86400)',
    );
  });

  describe.each(SETTINGS)('$name', ({ name, inPolicy, slip }) => {
    it.each([
      ['on', true],
      ['off', false],
      ['true', true],
      ['false', false],
    ])('may be %s', (text, isOn) => {
      const port = option(`,${toOptionKey(name)}=${text}`);
      expect(port).toMatchObject({ [name]: isOn });
      expect(file(`, ${name}: ${text}`)).toEqual(port);
      expect(policyOf(port)).toEqual({ ...policyOf(option('')), [inPolicy]: isOn });
    });

    it('may be nothing else; the message says so, and where it stands', () => {
      expect(() => option(`,${toOptionKey(name)}=some`)).toThrow(
        `--port a: ${toOptionKey(name)}: some is not allowed (on or off)`,
      );
      expect(() => file(`, ${name}: some`)).toThrow(
        `r.yaml:1: ports.a.${name}: some is not allowed (on or off)`,
      );
      expect(() => file(`, ${slip}: on`)).toThrow(
        `r.yaml:1: ports.a.${slip}: unknown setting (did you mean ${name}?)`,
      );
    });
  });
});

describe('a change of a running port', () => {
  const port = fromOption('a=/r/a.sock,queues=2,vlan-mode=native-tagged,tag=1,trunks=5+6');

  it('leaves the rest as it is, and null takes a setting back', () => {
    expect(resolveChange(port, { tag: 7, flood: 'off' })).toEqual({ ...port, tag: 7, flood: false });
    const access = resolveChange(port, { vlanMode: null, trunks: null, tag: '9' });
    expect(policyOf(access).vlan).toEqual({ ...DEFAULT_VLAN, mode: 'access', tag: 9 });
    expect(access).toMatchObject({ kind: 'vhost-user', socket: '/r/a.sock', queues: 2 });
    expect(resolveChange(port, {})).toEqual(port);
  });

  it('may be of what a guest or a kernel is offered, where there is such a thing', () => {
    const changed = resolveChange(port, { offloads: 'no-tso+no-uso', mtu: 9000 });
    expect(changed).toEqual({ ...port, mtu: 9000, offloads: { tso: false, uso: false } });
    expect(tuningOf(changed)).toEqual({ mtu: 9000, offloads: { tso: false, uso: false } });
    expect(resolveChange(changed, { offloads: { csum: false } })).toMatchObject({
      offloads: { csum: false },
    });
    expect(resolveChange(changed, { offloads: null, mtu: null })).toEqual(port);
    expect(tuningOf(port)).toEqual({ mtu: null, offloads: {} });
    const tap = resolveChange(fromOption('a=tap:tap0'), { offloads: 'no-ecn', mtu: 68 });
    expect(tap).toMatchObject({ kind: 'tap', offloads: { ecn: false }, mtu: 68 });
    expect(() => resolveChange(port, { offloads: 'no-lro' })).toThrow(
      /^port a: offloads: no-lro is not allowed/,
    );
    expect(() => resolveChange(fromOption('a=unix:/r/a.sock'), { offloads: 'no-tso' })).toThrow(
      'port a: offloads: unknown setting (what can be changed is flood, receive, forwardBpdu, mtu, vlanMode,',
    );
  });

  it.each<[unknown, string]>([
    [
      { vlanMode: 'access', priorityTags: 3 },
      'port a: priorityTags: 3 is not allowed (never, if-nonzero or always); ' +
        'port a: trunks: a list, which the port has from before, is not allowed ' +
        '(only with vlanMode trunk, native-tagged, native-untagged, and it is access): ' +
        'the same request with "trunks":null takes it back',
    ],
    [
      JSON.parse('{ "tag": 9999, "foo": 1, "trunks": [1, "x", "y"], "__proto__": 1, "vlanMode": "acc" }'),
      'port a: tag: 9999 is not allowed (0 to 4095); ' +
        'port a: foo: unknown setting (did you mean flood?); ' +
        `port a: trunks.1: x is not allowed (${VLANS_ALLOWED}); ` +
        `port a: trunks.2: y is not allowed (${VLANS_ALLOWED}); ` +
        `port a: __proto__: unknown setting (what can be changed is ${CHANGEABLE}, offloads); ` +
        'port a: vlanMode: acc is not allowed (access, trunk, native-tagged, native-untagged or dot1q-tunnel)',
    ],
    // What cannot be changed is no misspelling of what is missing.
    [
      { socket: '/x', tag: null },
      'port a: socket: cannot be changed while the port runs (remove the port and add it again); ' +
        'port a: tag: missing (a VLAN, 0 to 4095, with vlanMode native-tagged)',
    ],
    [{ vlan_mode: 'access' }, 'port a: vlan_mode: unknown setting (did you mean vlanMode?)'],
    [
      { queues: 4, colour: 'red' },
      'port a: queues: cannot be changed while the port runs (remove the port and add it again); ' +
        'port a: colour: unknown setting (what can be changed is flood, receive, forwardBpdu, mtu, vlanMode,',
    ],
    // Of what there is not, nothing can be as if it was left out.
    [
      { socket: null, vlna: null, toString: null },
      'port a: socket: cannot be changed while the port runs (remove the port and add it again); ' +
        'port a: vlna: unknown setting (what can be changed is flood,',
    ],
    [{ toString: null }, 'port a: toString: unknown setting'],
    ['tag', 'port a: tag is not allowed'],
    [[1], 'port a: a list is not allowed'],
    [null, 'port a: null is not allowed'],
  ])('that cannot be says why: %j', (change, text) => {
    expect(() => resolveChange(port, change)).toThrow(text);
  });
});
