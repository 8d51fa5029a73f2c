/** Snooping from frame to frame: who gets what after joins, leaves, queries, time, and settings. */
import { afterAll, describe, expect, it } from 'vitest';
import { readGroupMessage } from '../../../protocol/group-messages.ts';
import { DEFAULT_VLAN } from '../../../src/queue/policy.ts';
import { DROP } from '../../../switch/l2/drop-reasons.ts';
import { ASKED_A_SECOND, CHANGES_A_SECOND, pauseAfter } from '../../../switch/snooping/snooping.ts';
import { arena, arenaView, ethernet } from '../l2/frames.ts';
import { data, igmp, ip, join, leave, packetOf, query, records } from './group-frames.ts';
import { SnoopedSwitch } from './snooped-switch.ts';

afterAll(() => arena.release());

const PLAIN = [{}, {}, {}, {}];
const G4 = '239.1.2.3';
const G6 = 'ff05::1:3';
const access = (tag: number) => ({ vlan: { ...DEFAULT_VLAN, mode: 'access' as const, tag } });

describe.each([
  ['IGMP', G4, 4, '10.0.0.1'],
  ['MLD', G6, 6, 'fe80::1'],
] as const)('with %s', (_, group, family, querier) => {
  it('a group goes to who joined it and to routers, and others are flooded', () => {
    const snooped = new SnoopedSwitch(PLAIN);
    expect(snooped.send(0, data(group))).toEqual([1, 2, 3]);
    expect(snooped.send(1, join(group))).toEqual([]);
    expect(snooped.send(0, data(group))).toEqual([1]);
    expect(snooped.send(3, query(family, null, { src: querier }))).toEqual([0, 1, 2]);
    expect(snooped.send(0, data(group))).toEqual([1, 3]);
    // A host's message is for routers alone.
    expect(snooped.send(2, join(group))).toEqual([3]);
    expect(snooped.send(0, data(group))).toEqual([1, 2, 3]);
    expect(snooped.send(1, data(group))).toEqual([2, 3]);
    const other = family === 4 ? '239.9.9.9' : 'ff05::9:9';
    expect(snooped.send(0, data(other))).toEqual([1, 2, 3]);
    expect(snooped.groups()).toEqual([`0 ${group} p1`, `0 ${group} p2`]);
    expect(snooped.snooping.report().queriers).toMatchObject([{ vlan: 0, address: querier, port: 'p3' }]);
  });

  it('a group that nobody joined goes to routers alone, if so set; without any it is dropped by name', () => {
    const snooped = new SnoopedSwitch(PLAIN, { floodUnregistered: false });
    expect(snooped.send(0, data(group))).toEqual([]);
    expect(snooped.fake.ports[0].drops).toEqual({ noMember: 1 });
    snooped.send(2, query(family, null, { src: querier }));
    expect(snooped.send(0, data(group))).toEqual([2]);
    // Neighbours find one another all the same.
    const always = family === 4 ? '224.0.0.251' : 'ff02::1:ff00:7';
    expect(snooped.send(0, data(always))).toEqual([1, 2, 3]);
    expect(snooped.send(0, ethernet([255, 255, 255, 255, 255, 255], 8))).toEqual([1, 2, 3]);
  });

  it('a port whose host leaves is asked for others, twice, where this switch asks; then it is out', () => {
    const snooped = new SnoopedSwitch(PLAIN, { querier: [querier] });
    snooped.pass(1);
    expect(snooped.taken()).toEqual([0, 1, 2, 3]);
    const general = readGroupMessage(family === 4 ? 0x0800 : 0x86dd, packetOf(snooped.last[0]));
    expect(general).toMatchObject({ kind: 'query', family, version: 3, group: null });
    snooped.send(1, join(group));
    snooped.send(2, join(group));
    snooped.send(1, leave(group));
    expect(snooped.taken()).toEqual([1]);
    const special = readGroupMessage(family === 4 ? 0x0800 : 0x86dd, packetOf(snooped.last[0]));
    expect(special).toMatchObject({ kind: 'query', group: Uint8Array.from(ip(group)) });
    expect(snooped.send(0, data(group))).toEqual([1, 2]);
    snooped.pass(1);
    expect(snooped.taken()).toEqual([1]);
    snooped.pass(2);
    expect(snooped.send(0, data(group))).toEqual([2]);
    // One that answers stays.
    snooped.send(1, join(group));
    snooped.send(1, leave(group));
    snooped.send(1, join(group));
    snooped.taken();
    snooped.pass(3);
    snooped.taken();
    expect(snooped.send(0, data(group))).toEqual([1, 2]);
  });

  it('a port whose host leaves is out at once with fast-leave, and where nobody would ask', () => {
    const snooped = new SnoopedSwitch(PLAIN, {}, [{}, { fastLeave: true }]);
    snooped.send(1, join(group));
    snooped.send(2, join(group));
    snooped.send(2, leave(group));
    expect(snooped.groups()).toEqual([`0 ${group} p1`]);
    snooped.send(3, query(family, null, { src: querier }));
    snooped.send(2, join(group));
    snooped.send(1, leave(group));
    expect(snooped.groups()).toEqual([`0 ${group} p2`]);
    // The querier asks, and nobody answers.
    snooped.send(2, leave(group));
    expect(snooped.groups()).toEqual([`0 ${group} p2`]);
    snooped.send(3, query(family, group, { src: querier }));
    snooped.pass(3);
    expect(snooped.groups()).toEqual([]);
  });

  it('who says nothing is forgotten, and who goes', () => {
    const snooped = new SnoopedSwitch(PLAIN, { ageSeconds: 20 });
    snooped.send(1, join(group));
    snooped.send(3, query(family, null, { src: querier }));
    snooped.pass(19);
    expect(snooped.send(0, data(group))).toEqual([1, 3]);
    snooped.pass(1);
    expect(snooped.send(0, data(group))).toEqual([1, 2, 3]);
    expect(snooped.snooping.report().routers).toHaveLength(1);
    snooped.pass(236);
    expect(snooped.snooping.report().routers).toEqual([]);
    expect(snooped.snooping.report().queriers).toEqual([]);
    snooped.send(1, join(group));
    snooped.snooping.forgetPort(1, false);
    expect(snooped.groups()).toEqual([]);
  });

  it('each VLAN is of its own', () => {
    const snooped = new SnoopedSwitch([access(10), access(10), access(20), {}, access(10)], {
      floodUnregistered: false,
    });
    snooped.send(1, join(group));
    snooped.send(2, join(group));
    expect(snooped.groups()).toEqual([`10 ${group} p1`, `20 ${group} p2`]);
    expect(snooped.send(3, data(group, { tags: [10] }), data(group, { tags: [20] }), data(group))).toEqual([
      1, 2,
    ]);
    snooped.send(3, join(group, { tags: [10] }));
    expect(snooped.send(0, data(group), data(group))).toEqual([1, 1, 3, 3]);
    // Data, and a message that no router is there for.
    expect(snooped.fake.ports[3].drops).toEqual({ noMember: 2 });
  });

  it('of several queriers the one with the lowest address asks, and this switch gives way to it', () => {
    const own = family === 4 ? '10.0.0.5' : 'fe80::5';
    const [lower, higher] = family === 4 ? ['10.0.0.4', '10.0.0.6'] : ['fe80::4', 'fe80::6'];
    const snooped = new SnoopedSwitch(PLAIN, { querier: [own] });
    const queriers = (): string[] =>
      snooped.snooping.report().queriers.map(({ address, port }) => `${address} ${port}`);
    snooped.pass(1);
    snooped.taken();
    snooped.send(1, query(family, null, { src: higher }));
    expect(queriers()).toEqual([`${higher} p1`, `${own} null`]);
    snooped.pass(31);
    expect(snooped.taken()).toEqual([0, 1, 2, 3]);
    snooped.send(2, query(family, null, { src: lower }));
    expect(queriers()).toEqual([`${lower} p2`]);
    snooped.pass(254);
    expect(snooped.taken()).toEqual([]);
    snooped.pass(126);
    expect(queriers()).toEqual([`${own} null`]);
    expect(snooped.taken().length).toBeGreaterThan(0);
  });

  it('by hand, for good, and not by others', () => {
    const snooped = new SnoopedSwitch(PLAIN);
    expect(snooped.snooping.add(0, Uint8Array.from(ip(group)), 2)).toBe(true);
    snooped.settle();
    snooped.send(2, leave(group));
    snooped.snooping.flush(null, null);
    snooped.pass(1000);
    expect(snooped.send(0, data(group))).toEqual([2]);
    expect(snooped.snooping.remove(0, Uint8Array.from(ip(group)), 2)).toBe(true);
    expect(snooped.snooping.remove(0, Uint8Array.from(ip(group)), 2)).toBe(false);
  });

  it('the next process knows what this one knew', () => {
    const snooped = new SnoopedSwitch(PLAIN);
    snooped.send(1, join(group));
    snooped.send(3, query(family, null, { src: querier }));
    const next = new SnoopedSwitch(PLAIN, { floodUnregistered: false });
    next.snooping.takeOver(JSON.parse(JSON.stringify(snooped.snooping.handOver())), (name) =>
      Number(name.slice(1)),
    );
    expect(next.send(0, data(group))).toEqual([1, 3]);
  });
});

describe('a guest', () => {
  it('that is set to be none becomes no router by a query, and makes nobody be forgotten', () => {
    const snooped = new SnoopedSwitch(PLAIN, { floodUnregistered: false }, [
      {},
      {},
      { mrouter: 'off' },
      { mrouter: 'on' },
    ]);
    snooped.send(1, join(G4));
    snooped.send(2, query(4, null, { src: '10.0.0.66' }));
    snooped.send(2, query(4, G4, { src: '10.0.0.66' }));
    snooped.pass(10);
    expect(snooped.send(0, data(G4))).toEqual([1, 3]);
    expect(snooped.send(0, data('239.7.7.7'))).toEqual([3]);
    expect(snooped.snooping.report().routers).toEqual([{ vlan: null, port: 'p3', leftSeconds: null }]);
  });

  it('that asks from no address is no router', () => {
    const snooped = new SnoopedSwitch(PLAIN, { floodUnregistered: false });
    snooped.send(2, query(4, null, { src: '0.0.0.0' }));
    expect(snooped.send(0, data(G4))).toEqual([]);
  });

  it('that joins all it can takes no room from others', () => {
    const snooped = new SnoopedSwitch(PLAIN, { groups: 100 });
    snooped.send(1, join(G4));
    for (let i = 0; i < 20; i++) {
      const list = Array.from({ length: 60 }, (_, n) => ({ type: 4, group: `239.200.${i}.${n}` }));
      snooped.send(0, records(list));
      snooped.pass(1);
    }
    for (let n = 0; n < 10; n++) snooped.send(2, join(`239.2.2.${n}`));
    const { groups, evicted } = snooped.snooping.report();
    expect(groups).toHaveLength(100);
    expect(groups.filter(({ port }) => port === 'p2')).toHaveLength(10);
    expect(groups.filter(({ port }) => port === 'p1')).toHaveLength(1);
    expect(evicted).toBe(10);
    expect(snooped.snooping.groupsOf(0).refused).toBe(20 * 60 - 99);
  });

  it('that floods messages has so many of them read in a second, and its frames forwarded', () => {
    const snooped = new SnoopedSwitch(PLAIN, {}, [{}, {}, {}, { mrouter: 'on' }]);
    const frames = Array.from({ length: 64 }, (_, n) => join(`239.3.3.${n}`));
    expect(snooped.send(0, ...frames)).toHaveLength(64);
    expect(snooped.send(0, join('239.4.4.4'))).toEqual([3]);
    expect(snooped.groups()).toHaveLength(64);
    snooped.send(1, join('239.4.4.5'));
    expect(snooped.groups()).toHaveLength(65);
    snooped.pass(1);
    snooped.send(0, join('239.4.4.4'));
    expect(snooped.groups()).toHaveLength(66);
  });

  it('whose messages are not as they should be is counted, and nothing comes of them', () => {
    const snooped = new SnoopedSwitch(PLAIN);
    const broken = join(G4);
    broken[broken.length > 40 ? 40 : 38] ^= 1;
    snooped.send(0, broken);
    snooped.send(0, join(G4, { ttl: 2 }));
    snooped.send(0, records([{ type: 4, group: G4 }], {}, 9));
    snooped.send(0, igmp('224.0.0.22', [0x16, 0, 0, 0, 10, 0, 0, 1]));
    expect(snooped.groups()).toEqual([]);
    const { bad } = snooped.snooping.groupsOf(0);
    expect(bad).toEqual({ checksum: 1, timeToLive: 1, records: 1, group: 1 });
  });

  it('whose group all get joins nothing', () => {
    const snooped = new SnoopedSwitch(PLAIN);
    snooped.send(0, join('224.0.0.251'));
    snooped.send(0, join('ff02::1:ff00:1'));
    expect(snooped.groups()).toEqual([]);
  });
});

it('a burst of all kinds of frames keeps its order at each receiver', () => {
  const snooped = new SnoopedSwitch(PLAIN);
  snooped.send(1, join(G4));
  const frames = [
    data(G4),
    ethernet(7, 8),
    data('239.9.9.9'),
    join('239.5.5.5'),
    data(G4),
    data(G4, { tags: [3] }),
  ];
  snooped.fake.send(snooped.fake.ports[0], ...frames);
  const got = snooped.fake.ports.map(({ to }) =>
    to[0].received.splice(0).map((frame) => frames.findIndex((each) => Buffer.from(each).equals(frame))),
  );
  expect(got).toEqual([[], [0, 1, 2, 0, 5], [1, 2, 5], [1, 2, 5]]);
  expect(snooped.fake.ports[0].state.counts[DROP.noMember]).toBe(1);
});

describe('a guest that means harm', () => {
  const groupOf = (n: number): string => `239.1.${n >> 8}.${n & 255}`;
  /** Joins (4) or leaves (3), a hundred to a message. */
  const reports = (type: 3 | 4, groups: readonly number[]): Uint8Array[] =>
    Array.from({ length: Math.ceil(groups.length / 100) }, (_, n) =>
      records(groups.slice(100 * n, 100 * n + 100).map((each) => ({ type, group: groupOf(each) }))),
    );
  const numbers = (count: number): number[] => Array.from({ length: count }, (_, n) => n);

  it('does not keep others out by joining the same groups as its friend', () => {
    const snooped = new SnoopedSwitch(PLAIN, { groups: 20 });
    snooped.send(0, ...reports(4, numbers(20)));
    snooped.send(1, ...reports(4, numbers(20)));
    snooped.send(2, join('239.9.9.9'));
    expect(snooped.groups()).toContain('0 239.9.9.9 p2');
    expect(snooped.groups()).toHaveLength(2 * 19 + 1);
  });

  it('has so many of its wishes read in a second, and of those it leaves so many asked for', () => {
    const snooped = new SnoopedSwitch(PLAIN, { querier: ['10.0.0.1'] });
    snooped.pass(1);
    snooped.taken();
    for (let round = 0; round < 3; round++) snooped.send(1, ...reports(4, numbers(500)));
    expect(snooped.snooping.groupsOf(1)).toMatchObject({
      groups: 500,
      refused: 15 - Math.floor(CHANGES_A_SECOND / 100),
    });
    snooped.pass(1);
    snooped.send(1, ...reports(3, numbers(500)));
    expect(snooped.taken()).toHaveLength(ASKED_A_SECOND);
    snooped.pass(1);
    expect(snooped.taken()).toHaveLength(ASKED_A_SECOND);
    snooped.pass(2);
    expect(snooped.groups()).toEqual([]);
  });

  it('does not have the table written more than a tenth of the time', () => {
    expect([0, 0.5, 5].map(pauseAfter)).toEqual([10, 10, 50]);
  });

  const ALL = [255, 255, 255, 255, 255, 255];
  const ALL_NODES = [0x33, 0x33, 0, 0, 0, 1];
  const sentTo = (frame: Uint8Array, address: readonly number[]): Uint8Array => {
    const changed = frame.slice();
    changed.set(address);
    return changed;
  };
  /** MLD with nothing between it and the IPv6 header, or with another header. */
  const mldBehind = (frame: Uint8Array, extension: readonly number[]): Uint8Array => {
    const changed = Uint8Array.from([...frame.subarray(0, 54), ...extension, ...frame.subarray(62)]);
    changed[20] = extension.length === 0 ? 58 : 60;
    changed[19] -= 8 - extension.length;
    return changed;
  };

  it.each([
    ['to all', sentTo(join(G4), ALL)],
    ['to all nodes of IPv6', sentTo(join(G4), ALL_NODES)],
    ['of MLD, to all', sentTo(join(G6), ALL)],
    ['of MLD without the header that routers look for', mldBehind(join(G6), [])],
    ['of MLD behind another header', mldBehind(join(G6), [58, 0, 1, 4, 0, 0, 0, 0])],
  ])('does not keep others from reporting by a report %s', (_, report) => {
    const snooped = new SnoopedSwitch(PLAIN);
    snooped.send(1, join(G4), join(G6));
    snooped.send(3, query(4), query(6));
    expect(snooped.send(0, report)).toEqual([3]);
  });

  it.each([
    ['another address', (frame: Uint8Array) => sentTo(frame, [1, 0, 0x5e, 9, 9, 9])],
    ['all', (frame: Uint8Array) => sentTo(frame, ALL)],
  ])('has nobody forgotten, and is no router, by a query that goes to %s', (_, astray) => {
    const snooped = new SnoopedSwitch(PLAIN);
    snooped.send(1, join(G4));
    snooped.send(0, astray(query(4, G4)), astray(query(4)));
    expect(snooped.snooping.report()).toMatchObject({ routers: [], queriers: [] });
    // A router's port is not believed either.
    snooped.send(3, query(4));
    snooped.send(3, astray(query(4, G4)));
    snooped.pass(10);
    expect(snooped.groups()).toEqual([`0 ${G4} p1`]);
    expect(snooped.snooping.groupsOf(0).bad).toEqual({ destination: 2 });
  });

  it('has others get what the switch has read, whatever it writes meanwhile', () => {
    const snooped = new SnoopedSwitch(PLAIN);
    snooped.send(1, join(G4));
    snooped.send(2, query(4));
    for (const frame of [data(G4), join(G4), query(4, G4)]) {
      snooped.fake.log.onPlace = () => arenaView.u8.fill(0xee, 2 ** 26, 2 ** 26 + 8192);
      snooped.send(0, frame);
      snooped.fake.log.onPlace = () => {};
      expect(snooped.last.length).toBeGreaterThan(0);
      for (const got of snooped.last) expect(Buffer.from(got).equals(frame)).toBe(true);
    }
    expect(snooped.groups()).toEqual([`0 ${G4} p0`, `0 ${G4} p1`]);
  });
});
