/**
 * IGMP and MLD snooping (RFC 4541): what the workers overhear becomes the table of members (members.ts), and that the
 * workers' own (../l2/groups/table.ts). Notices queriers, and where it is told to asks itself while no other does (RFC 3376,
 * 6.6.2). Filters of sources are not kept: who wants a group from some sources gets it from all. Main thread.
 */

import { macHiOf, macLoOf } from '../../protocol/ethernet.ts';
import {
  type GroupMessage,
  groupMac,
  type IpFamily,
  isQueryToWhomItAsks,
  readGroupMessage,
} from '../../protocol/group-messages.ts';
import { groupQueryFrame } from '../../protocol/group-queries.ts';
import { formatIp, parseIp } from '../../protocol/ip-text.ts';
import type { SnoopedMessage } from '../l2/groups/message-ring.ts';
import { isAlwaysFlooded } from '../l2/groups/snoop.ts';
import type { GroupTable } from '../l2/groups/table.ts';
import { GROUPS_OF_PORT_MAX, Members } from './members.ts';
import type { MdbReport, PortGroups } from './report.ts';
import type { PortSnooping, SnoopingSettings } from './settings.ts';

/** RFC 3376, section 8: robustness 2, as ever. */
const ROBUSTNESS = 2;
const QUERY_INTERVAL_SECONDS = 125;
const STARTUP_INTERVAL_SECONDS = 31;
const RESPONSE_MS = 10_000;
const LAST_MEMBER_RESPONSE_MS = 1000;
/** Two questions, a second apart, and one for the clock. */
const LAST_MEMBER_SECONDS = 3;
const ROUTER_SECONDS = 255;
/** Changes of so long are told to the workers together; and of so many times as long as it took to tell them the last time. */
const PUBLISH_MS = 10;
const PUBLISH_PAUSES = 10;
/** Of a port in a second: wishes that are read, and questions that leaving it brings about. More than any host has. */
export const CHANGES_A_SECOND = 2 * GROUPS_OF_PORT_MAX;
export const ASKED_A_SECOND = 64;
/** VLANs that are asked in at most. */
const QUERY_VLANS_MAX = 256;

/** The switch around it. */
export type SnoopingHost = {
  readonly table: GroupTable;
  takeMessages(): readonly SnoopedMessage[];
  lostMessages(): number;
  /** To these ports; null: to all. */
  emit(frame: Uint8Array, vlan: number, portIds: readonly number[] | null): void;
  /** Null: there is no such port. */
  settingsOf(portId: number): PortSnooping | null;
  nameOf(portId: number): string | null;
  portIds(): readonly number[];
  /** VLANs that the ports' settings name, and 0. */
  vlansInUse(): readonly number[];
};

type Querier = { readonly source: Uint8Array; readonly portId: number; readonly lastTick: number };

/** What goes from one process to the next; times are left ones. */
export type HandedGroups = {
  readonly members: readonly (readonly [vlan: number, group: string, port: string, left: number | null])[];
  readonly routers: readonly (readonly [vlan: number, port: string, left: number])[];
};

export class Snooping {
  readonly #settings: SnoopingSettings;
  readonly #host: SnoopingHost;
  readonly #members: Members;
  readonly #sources: readonly Uint8Array[];
  /** By VLAN and family. */
  readonly #queriers = new Map<string, Querier>();
  readonly #refused = new Map<number, number>();
  readonly #bad = new Map<number, Record<string, number>>();
  /** Questions that are asked once more. */
  #again: (() => void)[] = [];
  #tick = 0;
  #queries = 0;
  #nextQueryTick = 1;
  #publishing: NodeJS.Timeout | null = null;
  #pauseMs = PUBLISH_MS;
  /** Of this second, by port. */
  readonly #spent = new Map<number, { changes: number; asked: number }>();

  constructor(settings: SnoopingSettings, host: SnoopingHost) {
    this.#settings = settings;
    this.#host = host;
    this.#members = new Members(settings.groups);
    this.#sources = settings.querier.map((text) => parseIp(text)).filter((source) => source !== null);
  }

  /** Messages wait. */
  read(): void {
    for (const { portId, vlan, frame } of this.#host.takeMessages()) {
      const port = this.#host.settingsOf(portId);
      if (port === null) continue;
      const etherType = (frame[12] << 8) | frame[13];
      const message = readGroupMessage(etherType, frame.subarray(14));
      const isAstray = message.kind === 'query' && !isQueryToWhomItAsks(frame, message.family, message.group);
      this.#heed(isAstray ? { kind: 'bad', why: 'destination' } : message, vlan, portId, port);
    }
  }

  /** Once a second. */
  tick(tick: number): void {
    this.#tick = tick;
    this.#spent.clear();
    const again = this.#again;
    this.#again = [];
    for (const ask of again) ask();
    if (this.#members.expire(tick)) this.#publishSoon();
    for (const [key, { lastTick }] of this.#queriers)
      if (tick - lastTick >= ROUTER_SECONDS) this.#queriers.delete(key);
    if (this.#sources.length > 0 && tick >= this.#nextQueryTick) this.#askAll();
  }

  /** The port's peer is gone, or the port is, or its settings are others. */
  forgetPort(portId: number, isGone: boolean): void {
    const isOut = (member: { portId: number; endTick: number | null }): boolean =>
      member.portId === portId && (isGone || member.endTick !== null);
    this.#members.removeWhere((_, member) => isOut(member), isOut);
    for (const [key, querier] of this.#queriers) if (querier.portId === portId) this.#queriers.delete(key);
    if (isGone) {
      this.#refused.delete(portId);
      this.#bad.delete(portId);
    }
    this.#publishSoon();
  }

  /** By hand. False: there is no room. */
  add(vlan: number, group: Uint8Array, portId: number): boolean {
    if (this.#members.remove(vlan, group, portId)) this.#publishSoon();
    const result = this.#members.join(vlan, group, portId, this.#tick, null);
    this.#publishSoon();
    return result !== 'refused';
  }

  /** False: the port was no member. */
  remove(vlan: number, group: Uint8Array, portId: number): boolean {
    const wasOne = this.#members.remove(vlan, group, portId);
    this.#publishSoon();
    return wasOne;
  }

  /** Forgets what was learned, in one VLAN and of one port; null: of all. */
  flush(vlan: number | null, portId: number | null): void {
    const isMeant = (entry: { portId: number }, ofVlan: number): boolean =>
      (vlan === null || vlan === ofVlan) && (portId === null || portId === entry.portId);
    this.#members.removeWhere(
      (group, member) => member.endTick !== null && isMeant(member, group.vlan),
      (router) => isMeant(router, router.vlan),
    );
    this.#publishSoon();
  }

  /** Settings of a port are others: a router may be there by them. */
  refresh(): void {
    this.#publishSoon();
  }

  groupsOf(portId: number): PortGroups {
    return {
      groups: this.#members.countOf(portId),
      refused: this.#refused.get(portId) ?? 0,
      bad: { ...this.#bad.get(portId) },
    };
  }

  report(): MdbReport {
    const { capacity, members, tick } = {
      capacity: this.#settings.groups,
      members: this.#members,
      tick: this.#tick,
    };
    const nameOf = (portId: number): string => this.#host.nameOf(portId) ?? `#${portId}`;
    const left = (endTick: number | null): number | null =>
      endTick === null ? null : Math.max(0, endTick - tick);
    const byVlan = (a: { vlan: number }, b: { vlan: number }): number => a.vlan - b.vlan;
    return {
      enabled: true,
      capacity,
      ageSeconds: this.#settings.ageSeconds,
      floodUnregistered: this.#settings.floodUnregistered,
      groups: members.groups.toSorted(byVlan).flatMap((group) =>
        [...group.members.values()].map(({ portId, lastTick, endTick }) => ({
          vlan: group.vlan,
          group: group.text,
          port: nameOf(portId),
          ageSeconds: tick - lastTick,
          leftSeconds: left(endTick),
        })),
      ),
      routers: [
        ...[...this.#everywhere()].map((portId) => ({ vlan: null, port: nameOf(portId), leftSeconds: null })),
        ...members.routers.toSorted(byVlan).map(({ vlan, portId, endTick }) => ({
          vlan,
          port: nameOf(portId),
          leftSeconds: left(endTick),
        })),
      ],
      queriers: [
        ...[...this.#queriers].map(([key, { source, portId, lastTick }]) => ({
          vlan: Number.parseInt(key, 10),
          address: formatIp(source),
          port: nameOf(portId),
          ageSeconds: tick - lastTick,
        })),
        ...this.#ownQueries().map(({ vlan, source }) => ({
          vlan,
          address: formatIp(source),
          port: null,
          ageSeconds: 0,
        })),
      ].toSorted(byVlan),
      lostMessages: this.#host.lostMessages(),
      evicted: members.evicted,
    };
  }

  handOver(): HandedGroups {
    const { groups, routers } = this.#members;
    const nameOf = (portId: number): string => this.#host.nameOf(portId) ?? '';
    return {
      members: groups.flatMap(({ vlan, text, members }) =>
        [...members.values()].map(
          ({ portId, endTick }) =>
            [vlan, text, nameOf(portId), endTick === null ? null : endTick - this.#tick] as const,
        ),
      ),
      routers: routers.map(
        ({ vlan, portId, endTick }) => [vlan, nameOf(portId), endTick - this.#tick] as const,
      ),
    };
  }

  /** `idOf`: of a port's name; null: there is none. */
  takeOver({ members, routers }: HandedGroups, idOf: (name: string) => number | null): void {
    for (const [vlan, text, name, left] of members) {
      const [id, address] = [idOf(name), parseIp(text)];
      if (id === null || address === null) continue;
      this.#members.join(vlan, address, id, this.#tick, left === null ? null : this.#tick + left);
    }
    for (const [vlan, name, left] of routers) {
      const id = idOf(name);
      if (id !== null) this.#members.hearRouter(vlan, id, this.#tick, this.#tick + left);
    }
    this.publish();
  }

  /** What is known now is what the workers follow. */
  publish(): void {
    this.close();
    const before = process.threadCpuUsage();
    const everywhere = this.#everywhere();
    this.#host.table.publish(this.#members.sets(everywhere), everywhere);
    // Not how long it took: a thread that waited for its processor meanwhile would then make who joins next wait ten times as long.
    const { user, system } = process.threadCpuUsage(before);
    this.#pauseMs = pauseAfter((user + system) / 1000);
  }

  close(): void {
    if (this.#publishing !== null) clearTimeout(this.#publishing);
    this.#publishing = null;
  }

  #heed(message: GroupMessage, vlan: number, portId: number, port: PortSnooping): void {
    switch (message.kind) {
      case 'query':
        this.#heedQuery(message, vlan, portId, port);
        break;
      case 'report':
        for (const { group, isLeave } of message.changes) {
          if (!this.#may(portId, 'changes', CHANGES_A_SECOND)) {
            this.#noteRefused(portId);
            break;
          }
          const mac = groupMac(group);
          if (isAlwaysFlooded(macLoOf(mac), macHiOf(mac))) continue;
          if (isLeave) this.#leave(vlan, group, portId, message.family, port.fastLeave);
          else this.#join(vlan, group, portId);
        }
        break;
      case 'router':
        if (port.mrouter === 'auto') this.#hearRouter(vlan, portId);
        break;
      case 'bad': {
        const counts = this.#bad.get(portId) ?? {};
        counts[message.why] = (counts[message.why] ?? 0) + 1;
        this.#bad.set(portId, counts);
        break;
      }
    }
  }

  #join(vlan: number, group: Uint8Array, portId: number): void {
    const endTick = this.#tick + this.#settings.ageSeconds;
    const result = this.#members.join(vlan, group, portId, this.#tick, endTick);
    if (result === 'new') this.#publishSoon();
    if (result === 'refused') this.#noteRefused(portId);
  }

  #noteRefused(portId: number): void {
    this.#refused.set(portId, (this.#refused.get(portId) ?? 0) + 1);
  }

  /** Whether the port has one more left of this second. */
  #may(portId: number, what: 'changes' | 'asked', max: number): boolean {
    const spent = this.#spent.get(portId) ?? { changes: 0, asked: 0 };
    this.#spent.set(portId, spent);
    return ++spent[what] <= max;
  }

  #leave(vlan: number, group: Uint8Array, portId: number, family: IpFamily, isFast: boolean): void {
    const member = this.#members.member(vlan, group, portId);
    if (member === null || member.endTick === null) return;
    const source = this.#ownSource(vlan, family);
    const isAsked = source !== null || this.#queriers.has(keyOf(vlan, family));
    if (isFast || !isAsked) {
      if (this.#members.remove(vlan, group, portId)) this.#publishSoon();
      return;
    }
    // Another querier will ask; we hear it.
    if (source === null) return;
    member.endTick = Math.min(member.endTick, this.#tick + LAST_MEMBER_SECONDS);
    if (!this.#may(portId, 'asked', ASKED_A_SECOND)) return;
    const ask = (): void => this.#ask(vlan, source, group, [portId]);
    ask();
    this.#again.push(ask);
  }

  #heedQuery(
    { family, source, group }: Extract<GroupMessage, { kind: 'query' }>,
    vlan: number,
    portId: number,
    { mrouter }: PortSnooping,
  ): void {
    // Of who asks on behalf of a switch (RFC 4541, 2.1.1): behind it nobody wants to hear all.
    if (mrouter !== 'off' && source.some((byte) => byte !== 0)) {
      const known = mrouter === 'on' ? true : this.#hearRouter(vlan, portId);
      if (known)
        this.#hearQuerier(keyOf(vlan, family), { source: source.slice(), portId, lastTick: this.#tick });
    }
    // A guest that is no router's port cannot have others forgotten.
    if (group === null || !this.#isRouter(vlan, portId)) return;
    for (const member of this.#members.group(vlan, group)?.members.values() ?? []) {
      if (member.endTick === null || member.portId === portId) continue;
      member.endTick = Math.min(member.endTick, this.#tick + LAST_MEMBER_SECONDS);
    }
  }

  /** Of several the one with the lowest address asks. */
  #hearQuerier(key: string, heard: Querier): void {
    const known = this.#queriers.get(key);
    if (known === undefined || compare(heard.source, known.source) <= 0) this.#queriers.set(key, heard);
  }

  /** False: there is no room for it. */
  #hearRouter(vlan: number, portId: number): boolean {
    const isNew = this.#members.hearRouter(vlan, portId, this.#tick, this.#tick + ROUTER_SECONDS);
    if (isNew === true) this.#publishSoon();
    if (isNew === null) this.#noteRefused(portId);
    return isNew !== null;
  }

  #isRouter(vlan: number, portId: number): boolean {
    return this.#host.settingsOf(portId)?.mrouter === 'on' || this.#members.isRouter(vlan, portId);
  }

  /** Ports that are routers' by their settings. */
  #everywhere(): Set<number> {
    return new Set(this.#host.portIds().filter((id) => this.#host.settingsOf(id)?.mrouter === 'on'));
  }

  /** Where we ask now, and as whom. */
  #ownQueries(): { vlan: number; source: Uint8Array }[] {
    const vlans = (this.#settings.vlans ?? this.#host.vlansInUse()).slice(0, QUERY_VLANS_MAX);
    return this.#sources.flatMap((source) => {
      const family = source.length === 4 ? 4 : 6;
      return vlans
        .filter((vlan) => this.#ownSource(vlan, family) === source)
        .map((vlan) => ({ vlan, source }));
    });
  }

  /** Null: another one asks there, or we ask nowhere. */
  #ownSource(vlan: number, family: IpFamily): Uint8Array | null {
    const source = this.#sources.find(({ length }) => length === (family === 4 ? 4 : 16));
    if (source === undefined) return null;
    const other = this.#queriers.get(keyOf(vlan, family));
    return other === undefined || compare(source, other.source) < 0 ? source : null;
  }

  #askAll(): void {
    for (const { vlan, source } of this.#ownQueries()) this.#ask(vlan, source, null, null);
    this.#queries++;
    const seconds = this.#queries < ROBUSTNESS ? STARTUP_INTERVAL_SECONDS : QUERY_INTERVAL_SECONDS;
    this.#nextQueryTick = this.#tick + seconds;
  }

  #ask(vlan: number, source: Uint8Array, group: Uint8Array | null, portIds: readonly number[] | null): void {
    const frame = groupQueryFrame({
      source,
      sourceMac: [2, 0, ...source.slice(-4)],
      group,
      maxResponseMs: group === null ? RESPONSE_MS : LAST_MEMBER_RESPONSE_MS,
      intervalSeconds: QUERY_INTERVAL_SECONDS,
      robustness: ROBUSTNESS,
    });
    this.#host.emit(frame, vlan, portIds);
  }

  #publishSoon(): void {
    this.#publishing ??= setTimeout(() => this.publish(), this.#pauseMs);
  }
}

/** Until the table is written again, so that guests who join and leave all the time do not keep the thread busy with that. */
export function pauseAfter(tookMs: number): number {
  return Math.max(PUBLISH_MS, PUBLISH_PAUSES * tookMs);
}

function keyOf(vlan: number, family: IpFamily): string {
  return `${vlan} ${family}`;
}

/** Of addresses of one family. */
function compare(a: Uint8Array, b: Uint8Array): number {
  return Buffer.compare(a, b);
}
