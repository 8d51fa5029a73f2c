/**
 * Snooping on IGMP and MLD against Open vSwitch itself: ports, joins, leaves, queries and data by chance, each sent into
 * both switches; every port must be given the same frames, and both tables must say the same. Seeded.
 *
 * Where the two differ, and why (docs/rules.md), is left out of the frames:
 * - Open vSwitch has a port leave at once, as Ringway does with fast-leave, which all ports have here;
 * - it takes any record of a report for a wish to join, but for one that wants no source; Ringway also leaves out those that
 *   only block sources;
 * - a group whose last member left stays one with no members for a while, to which nothing goes; Ringway floods it at once
 *   like others that nobody joined, where these are flooded. There the last member does not leave here;
 * - it tells groups apart by the address of IP, Ringway by that of Ethernet; so there are none that share one;
 * - a port of a router that joins is no member there, so its group stays one that nobody joined; here routers do not join;
 * - it believes messages with any TTL, and without the router alert of MLD.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join as joinPath } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { DEFAULT_VLAN, type VlanPolicy } from '../../src/queue/policy.ts';
import { peersForTests } from '../peers/index.ts';
import { OvsDummy } from '../peers/ovs-dummy.ts';
import { arena } from '../switch/l2/frames.ts';
import {
  data,
  type GroupRecord,
  igmp,
  ip,
  join,
  leave,
  query,
  records,
} from '../switch/snooping/group-frames.ts';
import { SnoopedSwitch } from '../switch/snooping/snooped-switch.ts';
import { Random, seeds } from '../vring/random.ts';

const peers = await peersForTests(['ovs-dummy']);

const PORTS = 5;
const BRIDGE = `b${PORTS}`;
const ROUNDS = 12;
const FRAMES = 60;
const GROUPS = ['239.1.1.1', '239.1.1.2', '232.7.0.9', 'ff05::1:3', 'ff0e::2:7', '224.0.0.251'];
const VLANS = [10, 20];
const JOINED = GROUPS.filter((group) => group !== '224.0.0.251');

type Made = {
  readonly what: string;
  readonly frame: Uint8Array;
  /** Groups that it is a wish to leave. */
  readonly leaves: readonly string[];
};
const NOTHING = { what: 'nothing', leaves: [] };

function randomFrame(random: Random, tags: readonly number[], mac: number, isRouter: boolean): Made {
  const group = random.pick(JOINED);
  const ways = { tags, mac };
  const family = random.pick([4, 6] as const);
  switch (isRouter ? random.pick([4, 4, 5, 6]) : random.pick([0, 1, 2, 3, 5, 6, 6, 6])) {
    case 0:
    case 1:
      return { what: `join ${group}`, frame: join(group, ways), leaves: [] };
    case 2:
      return { what: `leave ${group}`, frame: leave(group, ways), leaves: [group] };
    case 3: {
      const list = JOINED.filter((each) => each.includes(':') === group.includes(':')).map(
        (each): GroupRecord => {
          const sources = each.includes(':') ? ['fe80::77'] : ['10.0.0.77'];
          return {
            type: random.pick([1, 2, 3, 4, 5]),
            group: each,
            sources: random.chance(50) ? sources : [],
          };
        },
      );
      // One that allows no further source says nothing at all.
      const said = list.filter(({ type, sources = [] }) => type !== 5 || sources.length > 0);
      if (said.length === 0) return { what: `join ${group}`, frame: join(group, ways), leaves: [] };
      const left = said.filter(
        ({ type, sources = [] }) => (type === 1 || type === 3) && sources.length === 0,
      );
      const leaves = left.map((record) => record.group);
      return { what: `report ${JSON.stringify(said)}`, frame: records(said, ways), leaves };
    }
    case 4: {
      const src = family === 4 ? random.pick(['10.0.0.1', '0.0.0.0']) : 'fe80::1';
      return { what: `query ${family} of ${src}`, frame: query(family, null, { ...ways, src }), leaves: [] };
    }
    case 5:
      return {
        what: 'PIM-like',
        frame: igmp('224.0.0.13', [0x14, 0, 0, 0, ...ip('0.0.0.0')], ways),
        leaves: [],
      };
    default: {
      const to = random.pick(GROUPS);
      return { what: `data to ${to}`, frame: data(to, ways), leaves: [] };
    }
  }
}

describe.skipIf(peers.skip)(peers.title('groups as Open vSwitch has them'), () => {
  let folder: string;
  let ovs: OvsDummy;
  const totals = { frames: 0, delivered: 0, members: 0 };

  beforeAll(async () => {
    folder = mkdtempSync(joinPath(tmpdir(), 'ringway-ovs-'));
    ovs = await OvsDummy.start(folder, [PORTS]);
  }, 60_000);

  afterAll(async () => {
    await ovs?.stop();
    if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
    arena.release();
  });

  it.each(seeds(ROUNDS))('for ports and frames by chance: seed %i', { timeout: 120_000 }, async (seed) => {
    const random = new Random(seed);
    const policies = Array.from({ length: PORTS }, (): VlanPolicy => {
      const tag = random.pick([...VLANS, 0]);
      return tag === 0 ? DEFAULT_VLAN : { ...DEFAULT_VLAN, mode: 'access', tag };
    });
    const routerCount = random.between(0, 2);
    const floodUnregistered = random.chance(50);
    const ours = new SnoopedSwitch(
      policies.map((vlan) => ({ vlan })),
      { floodUnregistered },
      policies.map(() => ({ fastLeave: true })),
    );
    await ovs.configure(BRIDGE, policies, 1);
    await ovs.snoop(BRIDGE, floodUnregistered);
    const said: string[] = [];
    for (let n = 0; n < FRAMES; n++) {
      const port = random.between(0, PORTS - 1);
      const tags = policies[port].mode === 'access' ? [] : random.pick([[], [10], [20]]);
      let made = randomFrame(random, tags, 0x10 + port, port < routerCount);
      const vlan = policies[port].mode === 'access' ? policies[port].tag : (tags[0] ?? 0);
      const others = new Set(ours.groups().flatMap((line) => (line.endsWith(`p${port}`) ? [] : [line])));
      const hasOthers = (group: string): boolean =>
        [...others].some((line) => line.startsWith(`${vlan} ${group} `));
      if (floodUnregistered && !made.leaves.every(hasOthers))
        made = { ...NOTHING, frame: data('224.0.0.251', { tags }) };
      const { what, frame } = made;
      said.push(`p${port} [${tags}] ${what}`);
      await ovs.send(BRIDGE, port, [frame]);
      ours.send(port, frame);
      const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
      const theirs = ovs.take(BRIDGE).map((frames) => frames.map(hex));
      const given = policies.map((): string[] => []);
      for (const [i, id] of ours.lastPorts.entries()) given[id].push(hex(ours.last[i]));
      expect(given, said.slice(-12).join('\n')).toEqual(theirs);
      totals.frames++;
      totals.delivered += ours.last.length;
    }
    const { routers } = ours.snooping.report();
    const queriers = routers.map(({ vlan, port }) => `${vlan} querier ${port}`);
    const mine = [...ours.groups(), ...queriers].sort();
    totals.members += mine.length;
    expect(mine).toEqual(await ovs.groups(BRIDGE));
  });

  it('in enough of them', async () => {
    process.stdout.write(`against ${await ovs.version()}: ${JSON.stringify(totals)}\n`);
    expect(totals.delivered).toBeGreaterThan(totals.frames / 2);
    expect(totals.members).toBeGreaterThan(ROUNDS);
  });
});
