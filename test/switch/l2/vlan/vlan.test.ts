/**
 * VLANs one rule at a time: what each kind of port may send and gets, the table by VLAN, mirrors, names of drops, and
 * frames that their sender rewrites behind the decision. By chance, against a naive twin: forwarder-fuzz and
 * forwarder-rings; against Open vSwitch itself: test/real/ovs-vlans.test.ts.
 */
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import { DEFAULT_VLAN, type VlanPolicy } from '../../../../src/queue/policy.ts';
import { type FakePort, FakeSwitch } from '../fake-switch.ts';
import { arena, arenaView, ethernet, ipPacket, type Mac, piecesOfFrame } from '../frames.ts';

const ALL: Mac = [255, 255, 255, 255, 255, 255];
const TPIDS = { '8100': [0x81, 0], '88a8': [0x88, 0xa8] } as const;

/** `8100:3/10` is a tag of priority 3 and VLAN 10, `8100:10` one of priority 0. */
function tag(text: string): number[] {
  const [, tpid, priority = '0', vlan] = /^(8100|88a8):(?:(\d)\/)?(\d+)$/.exec(text) as unknown as string[];
  const tci = (Number(priority) << 13) | Number(vlan);
  return [...TPIDS[tpid as '8100'], tci >> 8, tci & 255];
}

/** A frame with these tags behind its addresses; of `sizeBytes` at most. */
function frame(dst: Mac, src: Mac, tags: string, sizeBytes = 2000): Uint8Array {
  const plain = ethernet(dst, src, { payload: [1, 2, 3, 4, 5] });
  const tagBytes = tags === '' ? [] : tags.split(' ').flatMap(tag);
  return Uint8Array.from([...plain.subarray(0, 12), ...tagBytes, ...plain.subarray(12)]).slice(0, sizeBytes);
}

const vlanOf = (policy: Partial<VlanPolicy>): VlanPolicy => ({ ...DEFAULT_VLAN, ...policy });
const access = (number: number, more: Partial<VlanPolicy> = {}): VlanPolicy =>
  vlanOf({ mode: 'access', tag: number, ...more });

let world: FakeSwitch;

/** Ports 0, 1, … with these settings. */
function setUp(...policies: VlanPolicy[]): FakePort[] {
  world = new FakeSwitch(...policies.map(() => 1));
  for (const [id, vlan] of policies.entries()) world.follow(world.ports[id], { vlan });
  return world.ports;
}

beforeEach(() => {
  FakeSwitch.vlanLimit = 1;
});
afterAll(() => arena.release());

const TRUNK = DEFAULT_VLAN;

describe('a flooded frame', () => {
  it.each<[string, VlanPolicy, string, VlanPolicy, string | null]>([
    ['access to access of its VLAN', access(10), '', access(10), ''],
    ['access to access of another VLAN', access(10), '', access(11), null],
    ['access to trunk', access(10), '', TRUNK, '8100:10'],
    ['access to trunk keeps the priority', access(10), '8100:5/0', TRUNK, '8100:5/10'],
    ['access to trunk keeps the kind of a priority tag', access(10), '88a8:5/0', TRUNK, '88a8:5/10'],
    ['access to a trunk without its VLAN', access(10), '', vlanOf({ trunks: [11, 12] }), null],
    ['access of VLAN 0 to trunk', access(0), '', TRUNK, ''],
    ['trunk to access', TRUNK, '8100:3/10', access(10), ''],
    [
      'trunk to access with priority tags',
      TRUNK,
      '8100:3/10',
      access(10, { priorityTags: 'if-nonzero' }),
      '8100:3/0',
    ],
    [
      'trunk to access with priority tags, without one',
      TRUNK,
      '8100:10',
      access(10, { priorityTags: 'if-nonzero' }),
      '',
    ],
    ['trunk to trunk', TRUNK, '88a8:3/10', TRUNK, '88a8:3/10'],
    ['trunk to trunk without a tag', TRUNK, '', TRUNK, ''],
    ['trunk to a trunk without VLAN 0', TRUNK, '', vlanOf({ trunks: [10] }), null],
    ['a priority tag of no priority', TRUNK, '8100:0', TRUNK, ''],
    ['the same where they are always kept', TRUNK, '8100:0', vlanOf({ priorityTags: 'always' }), '8100:0'],
    ['native-tagged', vlanOf({ mode: 'native-tagged', tag: 10 }), '', TRUNK, '8100:10'],
    ['to native-tagged', access(10), '', vlanOf({ mode: 'native-tagged', tag: 10 }), '8100:10'],
    ['to native-untagged', access(10), '', vlanOf({ mode: 'native-untagged', tag: 10 }), ''],
    [
      'to native-untagged of another VLAN',
      access(10),
      '',
      vlanOf({ mode: 'native-untagged', tag: 11 }),
      '8100:10',
    ],
    [
      'native VLAN beside trunks',
      access(10),
      '',
      vlanOf({ mode: 'native-untagged', tag: 10, trunks: [5] }),
      '',
    ],
    ['VLAN 0 to a port of another native one', TRUNK, '', vlanOf({ mode: 'native-tagged', tag: 10 }), null],
    ['VLAN 0 as the native one', TRUNK, '', vlanOf({ mode: 'native-tagged', tag: 0, trunks: [10] }), ''],
    ['tunnel to trunk', vlanOf({ mode: 'dot1q-tunnel', tag: 10 }), '8100:3/20', TRUNK, '88a8:10 8100:3/20'],
    [
      'tunnel to trunk with 802.1q',
      vlanOf({ mode: 'dot1q-tunnel', tag: 10, serviceTag: '802.1q' }),
      '8100:20',
      TRUNK,
      '8100:10 8100:20',
    ],
    [
      'tunnel with two tags keeps both',
      vlanOf({ mode: 'dot1q-tunnel', tag: 10 }),
      '8100:20 8100:30',
      TRUNK,
      '88a8:10 8100:20 8100:30',
    ],
    ['trunk to tunnel', TRUNK, '88a8:10 8100:20', vlanOf({ mode: 'dot1q-tunnel', tag: 10 }), '8100:20'],
    [
      'tunnel to tunnel',
      vlanOf({ mode: 'dot1q-tunnel', tag: 10 }),
      '8100:20',
      vlanOf({ mode: 'dot1q-tunnel', tag: 10 }),
      '8100:20',
    ],
    ['an inner tag is payload', TRUNK, '8100:10 8100:20', access(10), '8100:20'],
  ])('%s', (_, from, came, to, left) => {
    for (const layout of [{}, { misalignment: 2 }, { pieces: [3, 10, 2, 3] }]) {
      const [sender, receiver] = setUp(from, to);
      world.send(sender, { bytes: frame(ALL, 1, came), ...layout });
      expect(receiver.received).toEqual(left === null ? [] : [frame(ALL, 1, left)]);
      expect(sender.drops).toEqual(left === null ? { noReceiver: 1 } : {});
    }
  });

  it.each([14, 15, 16, 17, 18, 19, 20, 21, 22])(
    'of %i bytes goes from access to trunk and back',
    (sizeBytes) => {
      const [one, trunk, two] = setUp(access(10), TRUNK, access(10));
      const plain = frame(ALL, 1, '', sizeBytes);
      const tagged = frame(ALL, 1, '8100:10', sizeBytes + 4);
      for (const layout of [{}, { misalignment: 1 }, { pieces: [13, 2] }]) {
        world.send(one, { bytes: plain, ...layout });
        world.send(trunk, { bytes: tagged, ...layout });
      }
      expect(trunk.received).toEqual([tagged, tagged, tagged]);
      expect(two.received).toEqual(Array(6).fill(plain));
    },
  );
});

describe('with a limit of two tags', () => {
  beforeEach(() => {
    FakeSwitch.vlanLimit = 2;
  });

  it('an access port gets no flooded frame of a customer', () => {
    const [trunk, port, tunnel] = setUp(
      TRUNK,
      access(10),
      vlanOf({ mode: 'dot1q-tunnel', tag: 10, cvlans: [20] }),
    );
    world.send(trunk, frame(ALL, 1, '8100:10 8100:20'), frame(ALL, 1, '8100:10 8100:21'));
    expect(port.received).toEqual([]);
    expect(tunnel.received).toEqual([frame(ALL, 1, '8100:20')]);
    expect(trunk.drops).toEqual({ noReceiver: 1 });
  });

  it('a trunk gets both back', () => {
    const [trunk, other] = setUp(TRUNK, TRUNK);
    for (const count of [1, 3]) world.send(trunk, ...Array(count).fill(frame(ALL, 1, '88a8:10 8100:20')));
    expect(other.received).toEqual(Array(4).fill(frame(ALL, 1, '88a8:10 8100:20')));
  });
});

describe('what a port may not send', () => {
  it.each<[string, VlanPolicy, string, string]>([
    ['a tag on an access port', access(10), '8100:10', 'taggedOnAccess'],
    ['a VLAN that a trunk does not carry', vlanOf({ trunks: [10, 11] }), '8100:12', 'vlanNotAllowed'],
    ['no tag on a trunk without VLAN 0', vlanOf({ trunks: [10, 11] }), '', 'vlanNotAllowed'],
    [
      'another VLAN than the native one',
      vlanOf({ mode: 'native-tagged', tag: 1, trunks: [2] }),
      '8100:3',
      'vlanNotAllowed',
    ],
    [
      "a customer's VLAN",
      vlanOf({ mode: 'dot1q-tunnel', tag: 10, cvlans: [20] }),
      '8100:21',
      'cvlanNotAllowed',
    ],
  ])('%s', (_, policy, tags, name) => {
    const [sender, other] = setUp(policy, TRUNK);
    const bad = frame(ALL, 1, tags);
    world.send(sender, bad, bad);
    world.send(sender, { bytes: bad, pieces: [14] });
    expect(sender.drops).toEqual({ [name]: 3 });
    expect(other.received).toEqual([]);
    expect(world.fdb.size).toBe(0);
  });

  it.each([14, 15, 16, 17])('a tag that ends with the frame, after %i bytes', (sizeBytes) => {
    const [sender, other] = setUp(TRUNK, TRUNK);
    const cut = frame(ALL, 1, '8100:10', sizeBytes);
    const good = frame(ALL, 1, '8100:10');
    world.send(sender, cut, cut);
    world.send(sender, good, cut, good, { bytes: cut, pieces: [3, 9] });
    expect(sender.drops).toEqual({ truncatedTag: 4 });
    expect(other.received).toEqual([good, good]);
  });

  it('does not keep the others of the burst', () => {
    const [sender, other] = setUp(vlanOf({ trunks: [10, 11] }), TRUNK);
    const [ten, eleven, twelve] = [10, 11, 12].map((vlan) => frame(ALL, 1, `8100:${vlan}`));
    world.send(sender, twelve, ten, ten, twelve, eleven, twelve);
    expect(other.received).toEqual([ten, ten, eleven]);
    expect(sender.drops).toEqual({ vlanNotAllowed: 3 });
  });
});

describe('the table', () => {
  it('knows one address in each VLAN', () => {
    const [trunk, ten, eleven] = setUp(TRUNK, access(10), access(11));
    world.send(ten, frame(ALL, 7, ''));
    world.send(eleven, frame(ALL, 7, ''));
    trunk.to[0].received.length = 0;
    const frames = [10, 11, 12].map((vlan) => frame(7, 1, `8100:${vlan}`));
    world.send(trunk, ...frames);
    expect(ten.received).toEqual([frame(7, 1, '')]);
    expect(eleven.received).toEqual([frame(7, 1, '')]);
    expect(trunk.drops).toEqual({ noReceiver: 1 });
    const seen = world.fdb.entries().map(({ vlan, macHi, port }) => [vlan, macHi >> 8, port]);
    expect(seen.sort()).toEqual(
      [
        [10, 1, 0],
        [10, 7, 1],
        [11, 1, 0],
        [11, 7, 2],
        [12, 1, 0],
      ].sort(),
    );
  });

  it('sends nobody a frame of a VLAN that it does not carry any more', () => {
    const [trunk, port] = setUp(TRUNK, access(10));
    world.send(port, frame(ALL, 7, ''));
    world.follow(port, { vlan: access(11) });
    world.send(trunk, frame(7, 1, '8100:10'));
    world.send(trunk, frame(7, 1, '8100:10'), frame(7, 1, '8100:12'));
    expect(port.received).toEqual([]);
    expect(port.drops).toEqual({ vlanNotCarried: 2 });
    expect(trunk.drops).toEqual({ noReceiver: 1 });
  });
});

it('frames with and without tags keep their order', () => {
  const [sender, port] = setUp(TRUNK, vlanOf({ mode: 'native-untagged', tag: 10 }));
  const tags = ['8100:10', '8100:10', '8100:11', '8100:11', '88a8:10'];
  const frames = tags.map((each) => frame(ALL, 1, each));
  world.send(sender, ...frames, frames[0]);
  const plain = frame(ALL, 1, '');
  expect(port.received).toEqual([plain, plain, frames[2], frames[3], plain, plain]);
});

describe('an MTU counts no tags', () => {
  const plainBytes = frame(ALL, 1, '').length;

  it.each([
    ['none', '', TRUNK],
    ['one that it gets', '8100:10', TRUNK],
    ['one that it gets and one of its own', '8100:10 8100:12', TRUNK],
    ['one of its own', '8100:10 8100:12', access(10)],
    ['two of its own', '8100:10 88a8:12 8100:13', access(10)],
    ['two that it gets', '8100:5', vlanOf({ trunks: [20] }), vlanOf({ mode: 'dot1q-tunnel', tag: 20 })],
  ])('of a frame with %s', (_, tags, to, from = TRUNK) => {
    const [sender, port] = setUp(from, to);
    port.state.frameBytesMax = plainBytes;
    world.send(sender, frame(ALL, 1, tags), frame(ALL, 1, tags));
    expect([port.received.length, port.drops]).toEqual([2, {}]);
    port.state.frameBytesMax = plainBytes - 1;
    world.send(sender, frame(ALL, 1, tags));
    expect([port.received.length, port.drops]).toEqual([2, { overMtu: 1 }]);
  });

  it('but counts a third one', () => {
    const [sender, port] = setUp(TRUNK, TRUNK);
    const tags = '8100:10 8100:11 8100:12';
    port.state.frameBytesMax = plainBytes + 3;
    world.send(sender, frame(ALL, 1, tags), frame(ALL, 1, '8100:10'));
    expect([port.received, port.drops]).toEqual([[frame(ALL, 1, '8100:10')], { overMtu: 1 }]);
    port.state.frameBytesMax = plainBytes + 4;
    world.send(sender, frame(ALL, 1, tags));
    expect(port.received.length).toBe(2);
  });

  it('is the smaller one of what the other side has and what the port is set to', () => {
    const [sender, port] = setUp(TRUNK, TRUNK);
    for (const [linkMtu, mtu] of [
      [plainBytes - 15, 9000],
      [9000, plainBytes - 15],
      [plainBytes - 14, plainBytes - 14],
    ]) {
      world.follow(port, { linkMtu, mtu });
      world.send(sender, frame(ALL, 1, ''));
    }
    expect([port.received.length, port.drops]).toEqual([1, { overMtu: 2 }]);
  });
});

it.each([
  ['with a tag pushed', access(10), TRUNK],
  ['with a tag popped', TRUNK, access(10)],
  ['with its tag', TRUNK, TRUNK],
  ['in a tunnel', vlanOf({ mode: 'dot1q-tunnel', tag: 5 }), TRUNK],
])('flows to a port of several queues spread over them as without tags, %s', (_, from, to) => {
  const queuesOf = (
    tags: string,
    fromPolicy: VlanPolicy,
    toPolicy: VlanPolicy,
    isInPieces: boolean,
  ): number[] => {
    const several = new FakeSwitch(1, 4);
    several.follow(several.ports[0], { vlan: fromPolicy });
    several.follow(several.ports[1], { vlan: toPolicy });
    return Array.from({ length: 40 }, (_, flow) => {
      const packet = { src: [10, 0, 0, 1], dst: [10, 0, 0, 2], protocol: 17, srcPort: 7 * flow, dstPort: 9 };
      const plain = ethernet(ALL, 1, { payload: ipPacket({ version: 4, ...packet }) });
      const tagBytes = tags === '' ? [] : tag(tags);
      const bytes = Uint8Array.from([...plain.subarray(0, 12), ...tagBytes, ...plain.subarray(12)]);
      several.send(several.ports[0], isInPieces ? { bytes, pieces: [2, 9, 5, 7] } : bytes);
      return several.ports[1].to.findIndex(({ received }) => received.splice(0).length > 0);
    });
  };
  const expected = queuesOf('', TRUNK, TRUNK, false);
  expect(new Set(expected).size).toBe(4);
  const tags = from.mode === 'access' ? '' : '8100:10';
  for (const isInPieces of [false, true]) expect(queuesOf(tags, from, to, isInPieces)).toEqual(expected);
});

it('a mirror shows each frame with the tag that it came in with, and went out with', () => {
  const [sender, port] = setUp(access(10), TRUNK);
  const mirror = world.addMirror(2, [0, 1]);
  const [good, bad] = [frame(ALL, 1, ''), frame(ALL, 1, '8100:10')];
  world.send(sender, good, bad);
  expect(port.received).toEqual([bad]);
  expect(mirror.received).toEqual([good, bad, bad]);
  expect(mirror.to[0].ways).toEqual(['vm0>', 'vm0>', 'vm1<']);
});

describe('a guest that rewrites a frame behind the decision', () => {
  const FORGED = [...tag('8100:66'), 0x81, 0x00];

  it.each<[string, VlanPolicy, string, string]>([
    ['access, no tag', access(10), '', ''],
    ['trunk, no tag', TRUNK, '', ''],
    ['trunk', TRUNK, '8100:10', ''],
    ['trunk, another tag', TRUNK, '8100:10', '8100:10'],
  ])('changes neither its VLAN nor whether it has a tag: %s', (_, policy, came, left) => {
    const to =
      left === ''
        ? vlanOf({ mode: 'native-untagged', tag: came === '' && policy === TRUNK ? 0 : 10 })
        : TRUNK;
    const [sender, port] = setUp(policy, to);
    world.log.onPlace = (batch) => {
      for (let frame = 0; frame < batch.count; frame++) {
        const [{ offset }] = piecesOfFrame(batch, frame);
        // Where the type of the frame as it came is now, before and behind.
        arenaView.u8.set(FORGED, offset + batch.tags.pushBytes + 8);
        arenaView.u8.set(FORGED.slice(0, 2), offset + batch.tags.pushBytes + 12);
      }
    };
    const bytes = frame(ALL, 1, came);
    world.send(sender, bytes, bytes);
    world.send(sender, { bytes, misalignment: 3 });
    const heads = port.received.map((each) => [...each.subarray(0, left === '' ? 14 : 18)]);
    expect(heads).toEqual(Array(3).fill([...frame(ALL, 1, left).subarray(0, left === '' ? 14 : 18)]));
  });
});
