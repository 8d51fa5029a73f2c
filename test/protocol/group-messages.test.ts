/** IGMP and MLD as bytes: what is read of good messages, that nothing comes of bad ones, and queries of our own. */
import { describe, expect, it } from 'vitest';
import { type GroupMessage, groupMac, readGroupMessage } from '../../protocol/group-messages.ts';
import { groupQueryFrame } from '../../protocol/group-queries.ts';
import { formatIp } from '../../protocol/ip-text.ts';
import {
  type GroupRecord,
  igmp,
  ip,
  join,
  leave,
  macOfGroup,
  mld,
  packetOf,
  query,
  records,
} from '../switch/snooping/group-frames.ts';
import { Random, seeds } from '../vring/random.ts';

const typeOf = (frame: Uint8Array): number => (frame[12] << 8) | frame[13];
const read = (frame: Uint8Array): GroupMessage => readGroupMessage(typeOf(frame), packetOf(frame));

/** As `+239.1.1.1 -239.1.1.2`. */
function changesOf(message: GroupMessage): string {
  if (message.kind !== 'report') return message.kind === 'bad' ? `bad ${message.why}` : message.kind;
  return message.changes.map(({ group, isLeave }) => `${isLeave ? '-' : '+'}${formatIp(group)}`).join(' ');
}

const G4 = '239.1.2.3';
const G6 = 'ff05::1:3';
const zeros = (count: number): number[] => new Array<number>(count).fill(0);

describe('good messages', () => {
  it.each([G4, G6])('joins, leaves and reports about %s', (group) => {
    const source = group === G4 ? '10.0.0.1' : 'fe80::1';
    expect(changesOf(read(join(group)))).toBe(`+${group}`);
    expect(changesOf(read(leave(group)))).toBe(`-${group}`);
    const list = [1, 2, 3, 4, 5, 6, 7, 0].flatMap((type): GroupRecord[] => [
      { type, group },
      { type, group, sources: [source, source] },
    ]);
    // Include, exclude, to include, to exclude, allow, block, and types that there are none of.
    const [join1, leave1] = [`+${group}`, `-${group}`];
    expect(changesOf(read(records(list)))).toBe(
      [leave1, join1, join1, join1, leave1, join1, join1, join1, join1, join1].join(' '),
    );
  });

  it('IGMP of version 1', () => {
    expect(changesOf(read(igmp(G4, [0x12, 0, 0, 0, ...ip(G4)])))).toBe(`+${G4}`);
    const asked = read(igmp('224.0.0.1', [0x11, 0, 0, 0, 0, 0, 0, 0]));
    expect(asked).toMatchObject({ kind: 'query', family: 4, version: 1, group: null });
  });

  it('queries', () => {
    expect(read(query(4, null, { src: '10.0.0.1' }))).toEqual({
      kind: 'query',
      family: 4,
      version: 2,
      source: Uint8Array.from([10, 0, 0, 1]),
      group: null,
    });
    expect(read(query(4, G4))).toMatchObject({ version: 2, group: Uint8Array.from(ip(G4)) });
    expect(read(query(6, G6))).toMatchObject({ family: 6, group: Uint8Array.from(ip(G6)) });
    expect(read(query(6))).toMatchObject({ family: 6, group: null });
  });

  it("a router's hello", () => {
    const hello = igmp('224.0.0.13', [0x20, 0, 0, 0, 0, 1, 0, 2, 0, 105]);
    hello[14 + 9] = 103;
    expect(read(hello)).toEqual({ kind: 'router' });
    hello[14 + 24 + 5] ^= 1;
    expect(read(hello)).toEqual({ kind: 'bad', why: 'checksum' });
  });

  it.each([G4, G6, '224.128.0.5', 'ff02::1:ff00:1'])('the Ethernet address of %s', (group) => {
    expect([...groupMac(Uint8Array.from(ip(group)))]).toEqual(macOfGroup(group));
  });
});

describe('bad messages', () => {
  it.each<[string, Uint8Array]>([
    ['timeToLive', join(G4, { ttl: 64 })],
    ['timeToLive', join(G6, { ttl: 255 })],
    ['group', igmp('224.0.0.22', [0x16, 0, 0, 0, 10, 0, 0, 1])],
    ['group', mld(G6, [131, 0, 0, 0, 0, 0, 0, 0, ...ip('fe80::1')])],
    [
      'group',
      records([
        { type: 4, group: G4 },
        { type: 4, group: '10.0.0.1' },
      ]),
    ],
    ['records', records([{ type: 4, group: G4 }], {}, 2)],
    ['records', records([{ type: 4, group: G6 }], {}, 65_535)],
    ['records', igmp('224.0.0.22', [0x22, 0, 0, 0, 0, 0, 0, 1, 4, 0, 255, 255, ...ip(G4)])],
    ['source', query(6, null, { src: '2001:db8::1' })],
    ['source', query(6, null, { src: '::' })],
    ['source', join(G6, { src: '2001:db8::1' })],
    ['length', igmp('224.0.0.1', [0x11, 100, 0, 0, 0, 0, 0, 0, 0, 0])],
    ['length', mld('ff02::1', [130, 0, 0, 0, 0, 100, 0, 0, ...zeros(16), 0, 0])],
    ['length', igmp('224.0.0.1', [0x11, 100, 0, 0])],
  ])('%s', (why, frame) => {
    expect(read(frame)).toEqual({ kind: 'bad', why });
  });

  it('a host without an address may join', () => {
    expect(changesOf(read(join(G6, { src: '::' })))).toBe(`+${G6}`);
  });

  it('MLD without the router alert', () => {
    const frame = join(G6);
    // In its place six bytes of padding.
    frame.set([1, 4, 0, 0, 0, 0], 14 + 40 + 2);
    expect(read(frame)).toEqual({ kind: 'bad', why: 'routerAlert' });
  });

  it.each([join(G4), join(G6), records([{ type: 4, group: G4 }]), query(6)])(
    'cut off anywhere, or with a wrong bit',
    (frame) => {
      const packet = packetOf(frame);
      const isIpv4 = typeOf(frame) === 0x0800;
      const endBytes = isIpv4 ? (packet[2] << 8) | packet[3] : 40 + packet[5];
      for (let bytes = 0; bytes < endBytes; bytes++)
        expect(['bad', 'other']).toContain(readGroupMessage(typeOf(frame), packet.subarray(0, bytes)).kind);
      // Behind the IP header every bit is in the checksum.
      for (let bit = 8 * (isIpv4 ? 24 : 48); bit < 8 * endBytes; bit++) {
        const wrong = packet.slice();
        wrong[bit >> 3] ^= 1 << (bit & 7);
        expect(['bad', 'other']).toContain(readGroupMessage(typeOf(frame), wrong).kind);
      }
    },
  );

  it.each(seeds(20))('anything at all is read without harm: seed %i', (seed) => {
    const random = new Random(seed);
    for (let n = 0; n < 500; n++) {
      const frame = random
        .pick([join(G4), join(G6), leave(G6), query(4), records([{ type: 4, group: G6 }])])
        .slice();
      for (let changes = random.between(0, 6); changes > 0; changes--)
        frame[random.between(12, frame.length - 1)] = random.between(0, 255);
      const message = readGroupMessage(random.pick([0x0800, 0x86dd]), packetOf(frame));
      expect(['query', 'report', 'router', 'other', 'bad']).toContain(message.kind);
    }
  });
});

describe('queries of our own', () => {
  it.each([
    ['10.0.0.254', null],
    ['10.0.0.254', G4],
    ['fe80::1', null],
    ['fe80::1', G6],
  ] as const)('from %s about %s are good ones', (from, group) => {
    const source = Uint8Array.from(ip(from));
    const frame = groupQueryFrame({
      source,
      sourceMac: [2, 0, 0, 0, 0, 1],
      group: group === null ? null : Uint8Array.from(ip(group)),
      maxResponseMs: 10_000,
      intervalSeconds: 125,
      robustness: 2,
    });
    const to = group ?? (from === 'fe80::1' ? 'ff02::1' : '224.0.0.1');
    expect([...frame.subarray(0, 6)]).toEqual(macOfGroup(to));
    expect(read(frame)).toEqual({
      kind: 'query',
      family: from === 'fe80::1' ? 6 : 4,
      version: 3,
      source,
      group: group === null ? null : Uint8Array.from(ip(group)),
    });
    const packet = packetOf(frame);
    // Ten seconds, in tenths or in thousandths.
    if (from === 'fe80::1') expect((packet[52] << 8) | packet[53]).toBe(10_000);
    else expect(packet[25]).toBe(100);
    expect(packet[from === 'fe80::1' ? 40 + 8 + 25 : 24 + 9]).toBe(125);
  });
});
