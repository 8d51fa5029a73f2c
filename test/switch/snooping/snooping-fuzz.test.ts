/**
 * Bursts of frames of all kinds against a naive twin, which knows members and routers as sets and goes frame by frame: each
 * port is given the same frames, in the same order, and the books balance (FakeSwitch.check).
 */
import { afterAll, describe, expect, it } from 'vitest';
import { DEFAULT_VLAN } from '../../../src/queue/policy.ts';
import { Random, seeds } from '../../vring/random.ts';
import { arena, ethernet } from '../l2/frames.ts';
import { data, join, leave, query } from './group-frames.ts';
import { SnoopedSwitch } from './snooped-switch.ts';

afterAll(() => arena.release());

const ROUNDS = 30;
const BURSTS = 40;
const GROUPS = ['239.1.1.1', '239.1.1.2', 'ff05::1:3', 'ff0e::2:7'];
const ALWAYS = ['224.0.0.251', 'ff02::fb', 'ff02::1:ff00:5'];
const VLANS = [0, 10, 20];

type Sent = {
  readonly frame: Uint8Array;
  readonly kind: 'data' | 'report' | 'all';
  readonly group: string;
  /** What becomes of it once the burst is over. */
  readonly after: (twin: Twin, vlan: number, port: number) => void;
};

/** Who joined what and where routers are, by VLAN. */
class Twin {
  readonly members = new Map<string, Set<number>>();
  readonly routers = new Map<number, Set<number>>();

  receiversOf({ kind, group }: Sent, vlan: number, floods: boolean): ReadonlySet<number> | null {
    if (kind === 'all') return null;
    const routers = this.routers.get(vlan) ?? new Set<number>();
    if (kind === 'report') return routers;
    const members = this.members.get(`${vlan} ${group}`);
    if (members === undefined || members.size === 0) return floods ? null : routers;
    return new Set([...members, ...routers]);
  }

  set(map: 'members' | 'routers', vlan: number, group: string, port: number, isIn: boolean): void {
    const key = map === 'members' ? `${vlan} ${group}` : vlan;
    const table = this[map] as Map<string | number, Set<number>>;
    const set = table.get(key) ?? new Set<number>();
    if (isIn) set.add(port);
    else set.delete(port);
    table.set(key, set);
  }
}

function randomFrame(random: Random, tags: readonly number[], number: number): Sent {
  const group = random.pick(GROUPS);
  const ways = { tags, mac: 0x40 + (number & 63) };
  const nothing = (): void => {};
  switch (random.between(0, 9)) {
    case 0:
    case 1:
      return {
        frame: join(group, ways),
        kind: 'report',
        group,
        after: (twin, vlan, port) => twin.set('members', vlan, group, port, true),
      };
    case 2:
      return {
        frame: leave(group, ways),
        kind: 'report',
        group,
        after: (twin, vlan, port) => twin.set('members', vlan, group, port, false),
      };
    case 3:
      if (!random.chance(30)) return { frame: ethernet(7, 8, { tags }), kind: 'all', group, after: nothing };
      return {
        frame: query(4, null, { ...ways, src: '10.0.0.1' }),
        kind: 'all',
        group,
        after: (twin, vlan, port) => twin.set('routers', vlan, group, port, true),
      };
    case 4:
      return { frame: data(random.pick(ALWAYS), ways), kind: 'all', group, after: nothing };
    case 5:
      return {
        frame: ethernet([255, 255, 255, 255, 255, 255], 8, { tags }),
        kind: 'all',
        group,
        after: nothing,
      };
    default:
      return { frame: data(group, ways), kind: 'data', group, after: nothing };
  }
}

describe('bursts of all kinds', () => {
  it.each(seeds(ROUNDS))('go where the twin says: seed %i', (seed) => {
    const random = new Random(seed);
    const count = random.between(2, 6);
    const tagOf = Array.from({ length: count }, () => random.pick([...VLANS, 0]));
    const floods = random.chance(50);
    const noFlood = new Set(Array.from({ length: count }, (_, id) => id).filter(() => random.chance(15)));
    const snooped = new SnoopedSwitch(
      tagOf.map((tag, id) => ({
        vlan: tag === 0 ? DEFAULT_VLAN : { ...DEFAULT_VLAN, mode: 'access' as const, tag },
        floods: !noFlood.has(id),
      })),
      { floodUnregistered: floods },
      tagOf.map(() => ({ fastLeave: true })),
    );
    const twin = new Twin();
    for (let burst = 0; burst < BURSTS; burst++) {
      const from = random.between(0, count - 1);
      const sent = Array.from({ length: random.between(1, 12) }, (_, n) => {
        const vlan = tagOf[from] === 0 ? random.pick(VLANS) : tagOf[from];
        const tags = tagOf[from] === 0 && vlan !== 0 ? [vlan] : [];
        return { vlan, sent: randomFrame(random, tags, n) };
      });
      const expected = tagOf.map((tag, id) =>
        sent.flatMap(({ vlan, sent: each }) => {
          const receivers = twin.receiversOf(each, vlan, floods);
          const carries = tag === 0 || tag === vlan;
          const gets = receivers === null ? !noFlood.has(id) : receivers.has(id);
          return id !== from && carries && gets ? [addressesOf(each.frame)] : [];
        }),
      );
      snooped.send(from, ...sent.map(({ sent: { frame } }) => frame));
      const given = tagOf.map((): string[] => []);
      for (const [i, id] of snooped.lastPorts.entries()) given[id].push(addressesOf(snooped.last[i]));
      expect(given).toEqual(expected);
      for (const { vlan, sent: each } of sent) each.after(twin, vlan, from);
    }
  });
});

/** Destination and source, which tags do not change. */
function addressesOf(frame: Uint8Array): string {
  return Buffer.from(frame.subarray(0, 12)).toString('hex');
}
