/**
 * Who is a member of which group, and behind which ports routers are: the table that joins, leaves, queries and time change.
 * Bounded, for a port and in all: a port that joins more groups than others gives way to those, never they to it. Times are
 * of the seconds clock. Main thread; knows no packets.
 */
import { macHiOf, macLoOf } from '../../protocol/ethernet.ts';
import { groupMac } from '../../protocol/group-messages.ts';
import { formatIp } from '../../protocol/ip-text.ts';
import type { GroupSet } from '../l2/groups/table.ts';

/** Groups of one port at most, and VLANs in which a port may be a router's; no host has so many. */
export const GROUPS_OF_PORT_MAX = 512;
export const ROUTER_VLANS_OF_PORT_MAX = 64;
/** VLANs with routers in all. */
export const ROUTER_VLANS_MAX = 256;

export type Member = {
  readonly portId: number;
  /** When it was heard of last. */
  lastTick: number;
  /** When it is forgotten; null: it was added by hand. */
  endTick: number | null;
};

export type Group = {
  readonly vlan: number;
  /** Four or sixteen bytes. */
  readonly address: Uint8Array;
  readonly text: string;
  readonly members: Map<number, Member>;
};

export type Router = { readonly vlan: number; readonly portId: number; lastTick: number; endTick: number };

/** What became of a wish to join; `refused`: there is no room. */
export type JoinResult = 'new' | 'known' | 'refused';

export class Members {
  readonly #capacity: number;
  readonly #groups = new Map<string, Group>();
  /** By VLAN, by port. */
  readonly #routers = new Map<number, Map<number, Router>>();
  /** Groups of each port, in the order in which it joined them; in how many VLANs it is a router's. */
  readonly #ofPort = new Map<number, Set<Group>>();
  readonly #routersOfPort = new Map<number, number>();
  /** Of ports that lost a membership to another port's. */
  evicted = 0;

  /** `capacity`: groups at most. */
  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  get groups(): readonly Group[] {
    return [...this.#groups.values()];
  }

  get routers(): readonly Router[] {
    return [...this.#routers.values()].flatMap((routers) => [...routers.values()]);
  }

  countOf(portId: number): number {
    return this.#ofPort.get(portId)?.size ?? 0;
  }

  /** `endTick`: null of one that is added by hand, which the bound of a port does not hold for. */
  join(vlan: number, address: Uint8Array, portId: number, tick: number, endTick: number | null): JoinResult {
    const text = formatIp(address);
    const key = keyOf(vlan, text);
    const known = this.#groups.get(key)?.members.get(portId);
    if (known !== undefined) {
      known.lastTick = tick;
      const wasStatic = known.endTick === null;
      known.endTick = wasStatic ? null : endTick;
      return 'known';
    }
    if (endTick !== null && this.countOf(portId) >= GROUPS_OF_PORT_MAX) return 'refused';
    if (!this.#groups.has(key) && this.#groups.size >= this.#capacity && !this.#makeRoom(portId))
      return 'refused';
    const group = this.#groups.get(key) ?? { vlan, address: address.slice(), text, members: new Map() };
    this.#groups.set(key, group);
    group.members.set(portId, { portId, lastTick: tick, endTick });
    const ofPort = this.#ofPort.get(portId) ?? new Set();
    this.#ofPort.set(portId, ofPort.add(group));
    return 'new';
  }

  /** Answers whether it was one. */
  remove(vlan: number, address: Uint8Array, portId: number): boolean {
    const group = this.#groups.get(keyOf(vlan, formatIp(address)));
    return group !== undefined && this.#removeFrom(group, portId);
  }

  member(vlan: number, address: Uint8Array, portId: number): Member | null {
    return this.#groups.get(keyOf(vlan, formatIp(address)))?.members.get(portId) ?? null;
  }

  group(vlan: number, address: Uint8Array): Group | null {
    return this.#groups.get(keyOf(vlan, formatIp(address))) ?? null;
  }

  /** Answers whether a router is new there; null: there is no room. */
  hearRouter(vlan: number, portId: number, tick: number, endTick: number): boolean | null {
    const known = this.#routers.get(vlan)?.get(portId);
    if (known !== undefined) {
      known.lastTick = tick;
      known.endTick = endTick;
      return false;
    }
    const ofPort = this.#routersOfPort.get(portId) ?? 0;
    if (ofPort >= ROUTER_VLANS_OF_PORT_MAX) return null;
    if (!this.#routers.has(vlan) && this.#routers.size >= ROUTER_VLANS_MAX) return null;
    const ofVlan = this.#routers.get(vlan) ?? new Map<number, Router>();
    ofVlan.set(portId, { vlan, portId, lastTick: tick, endTick });
    this.#routers.set(vlan, ofVlan);
    this.#routersOfPort.set(portId, ofPort + 1);
    return true;
  }

  isRouter(vlan: number, portId: number): boolean {
    return this.#routers.get(vlan)?.has(portId) === true;
  }

  /** Forgets what is over. Answers whether anything was. */
  expire(tick: number): boolean {
    const isOver = ({ endTick }: { endTick: number | null }): boolean => endTick !== null && endTick <= tick;
    return this.removeWhere(
      (_, member) => isOver(member),
      (router) => isOver(router),
    );
  }

  /** Answers whether anything was removed. */
  removeWhere(
    isMemberOut: (group: Group, member: Member) => boolean,
    isRouterOut: (router: Router) => boolean,
  ): boolean {
    let isAny = false;
    for (const group of this.groups) {
      for (const member of [...group.members.values()]) {
        if (isMemberOut(group, member)) isAny = this.#removeFrom(group, member.portId) || isAny;
      }
    }
    for (const router of this.routers) {
      if (!isRouterOut(router)) continue;
      const ofVlan = this.#routers.get(router.vlan);
      ofVlan?.delete(router.portId);
      if (ofVlan?.size === 0) this.#routers.delete(router.vlan);
      const left = (this.#routersOfPort.get(router.portId) ?? 1) - 1;
      if (left === 0) this.#routersOfPort.delete(router.portId);
      else this.#routersOfPort.set(router.portId, left);
      isAny = true;
    }
    return isAny;
  }

  /** As the workers' table has it; `everywhere`: ports that get all groups. */
  sets(everywhere: ReadonlySet<number>): GroupSet[] {
    const sets = new Map<string, GroupSet & { readonly portIds: Set<number> }>();
    const add = (vlan: number, macLo: number, macHi: number, portIds: Iterable<number>): void => {
      const key = `${vlan} ${macLo} ${macHi}`;
      const set = sets.get(key) ?? { vlan, macLo, macHi, portIds: new Set(everywhere) };
      for (const id of portIds) set.portIds.add(id);
      sets.set(key, set);
    };
    const routersOf = (vlan: number): Iterable<number> => this.#routers.get(vlan)?.keys() ?? [];
    for (const vlan of this.#routers.keys()) add(vlan, 0, 0, routersOf(vlan));
    for (const { vlan, address, members } of this.#groups.values()) {
      const mac = groupMac(address);
      add(vlan, macLoOf(mac), macHiOf(mac), members.keys());
      add(vlan, macLoOf(mac), macHiOf(mac), routersOf(vlan));
    }
    return [...sets.values()];
  }

  #removeFrom(group: Group, portId: number): boolean {
    if (!group.members.delete(portId)) return false;
    const ofPort = this.#ofPort.get(portId);
    ofPort?.delete(group);
    if (ofPort?.size === 0) this.#ofPort.delete(portId);
    if (group.members.size === 0) this.#groups.delete(keyOf(group.vlan, group.text));
    return true;
  }

  /**
   * Of the port that has most goes what it joined first, with all others there that have more than the one that joins too:
   * so ports that join the same groups do not keep them from those that want few.
   */
  #makeRoom(portId: number): boolean {
    const own = this.countOf(portId) + 1;
    let heaviest = -1;
    for (const [id, { size }] of this.#ofPort) if (size > own && size > this.countOf(heaviest)) heaviest = id;
    for (const group of this.#ofPort.get(heaviest) ?? []) {
      const members = [...group.members.values()];
      if (members.some((member) => member.endTick === null || this.countOf(member.portId) <= own)) continue;
      this.evicted += members.length;
      for (const member of members) this.#removeFrom(group, member.portId);
      return true;
    }
    return false;
  }
}

function keyOf(vlan: number, text: string): string {
  return `${vlan} ${text}`;
}
