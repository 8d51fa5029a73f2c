/**
 * Addresses that stay behind a port: those of the configuration (`staticMacs`), those that `ringway fdb add` gave, and
 * those that stick (`macsSticky`). The table has them (l2/fdb/); here is whose word each is, so that the last two kinds can
 * be kept for the next start, and are there when their port is. Main thread.
 */
import { formatMac, macHiOf, macLoOf, parseMac } from '../protocol/ethernet.ts';
import { VLANS } from '../src/queue/policy.ts';
import type { StaticMac } from './config/common-port.ts';
import { ConfigError } from './config/settings.ts';
import type { Fdb } from './l2/fdb/fdb.ts';
import { NoSuchPortError, PortConflictError } from './port-errors.ts';

/** An address that was given, or sticks, as it is kept. */
export type KeptAddress = StaticMac & {
  readonly port: string;
  /** It was learned, and lasts as long as the port has `macsSticky`. */
  readonly sticky: boolean;
};

/** What of a port is asked here. */
export type AddressedPort = {
  readonly id: number;
  readonly name: string;
  readonly staticMacs: readonly StaticMac[];
  readonly sticks: boolean;
};

/** In a refusal. */
const NAMED_VLANS_MAX = 8;
const NO_ROOM = 'half of the forwarding table is static already: raise --fdb-capacity';

export class StaticAddresses {
  readonly #fdb: Fdb;
  readonly #ports = new Map<string, AddressedPort>();
  /** By address and VLAN; of ports that are not there too. */
  readonly #kept = new Map<string, KeptAddress>();
  #changes = 0;
  #onKept: (kept: readonly KeptAddress[]) => void = () => {};

  constructor(fdb: Fdb, kept: readonly KeptAddress[]) {
    this.#fdb = fdb;
    for (const each of kept) this.#kept.set(keyOf(each), each);
  }

  /** Is called with all that are to be kept whenever they change. */
  set onKept(listener: (kept: readonly KeptAddress[]) => void) {
    this.#onKept = listener;
  }

  /** The port is there, or has other settings now. Answers those of its settings for which there was no room. */
  followPort(port: AddressedPort, nowTick: number): StaticMac[] {
    const before = this.#ports.get(port.name)?.staticMacs ?? [];
    this.#ports.set(port.name, port);
    const now = new Set(port.staticMacs.map(keyOf));
    for (const each of before) {
      if (!now.has(keyOf(each)) && this.#kept.get(keyOf(each))?.port !== port.name)
        this.#removeFrom(port, each);
    }
    let isLess = false;
    for (const [key, each] of [...this.#kept]) {
      if (each.port !== port.name) continue;
      if (!each.sticky || port.sticks) this.#set(each, port.id, nowTick);
      else {
        this.#kept.delete(key);
        if (!now.has(key)) this.#removeFrom(port, each);
        isLess = true;
      }
    }
    if (isLess) this.#tell();
    return port.staticMacs.filter((each) => !this.#set(each, port.id, nowTick));
  }

  /** The port's number is free again. */
  forgetPort(id: number, name: string): void {
    this.#ports.delete(name);
    this.#fdb.forgetPort(id);
  }

  /** The port was removed, not only ended: what was kept of it does not come back. */
  dropPort(name: string): void {
    const gone = [...this.#kept].filter(([, each]) => each.port === name);
    for (const [key] of gone) this.#kept.delete(key);
    if (gone.length > 0) this.#tell();
  }

  /** Of what was kept before, what is not any more is there again. */
  restore(before: readonly KeptAddress[], nowTick: number): void {
    const lost = before.filter((each) => !this.#kept.has(keyOf(each)));
    for (const each of lost) {
      const port = this.#ports.get(each.port);
      if (each.sticky && port?.sticks === false) continue;
      this.#kept.set(keyOf(each), each);
      if (port !== undefined) this.#set(each, port.id, nowTick);
    }
    if (lost.length > 0) this.#tell();
  }

  /** @throws NoSuchPortError, PortConflictError where there is no room, or a port has it by its settings */
  add(mac: string, vlan: number, portName: string, nowTick: number): void {
    const port = this.#ports.get(portName);
    if (port === undefined) throw new NoSuchPortError(portName);
    const each = { mac, vlan, port: portName, sticky: false };
    this.#refuseConfigured(each, portName);
    if (!this.#set(each, port.id, nowTick)) throw new PortConflictError(NO_ROOM);
    this.#kept.set(keyOf(each), each);
    this.#tell();
  }

  /**
   * Removes an address, learned or static. `vlan` null: in the one in which it is known.
   * @throws PortConflictError where a port has it by its settings, it is not known, or in more than one VLAN
   */
  remove(mac: string, vlan: number | null): void {
    if (vlan === null) {
      this.remove(mac, this.#onlyVlanOf(mac));
      return;
    }
    const each = { mac, vlan };
    this.#refuseConfigured(each, null);
    const [macLo, macHi] = wordsOf(mac);
    const wasKept = this.#kept.delete(keyOf(each));
    const removed = this.#fdb.remove(macLo, macHi, vlan);
    if (wasKept) this.#tell();
    if (removed === null && !wasKept) throw new PortConflictError(`${mac} is not known in VLAN ${vlan}`);
  }

  #onlyVlanOf(mac: string): number {
    const [macLo, macHi] = wordsOf(mac);
    const vlans = Array.from({ length: VLANS }, (_, vlan) => vlan).filter(
      (vlan) => this.#kept.has(keyOf({ mac, vlan })) || this.#fdb.lookup(macLo, macHi, vlan) >= 0,
    );
    if (vlans.length === 0) throw new PortConflictError(`${mac} is not known`);
    if (vlans.length === 1) return vlans[0];
    const some = vlans.length > NAMED_VLANS_MAX ? [...vlans.slice(0, NAMED_VLANS_MAX), '…'] : vlans;
    throw new PortConflictError(`${mac} is known in VLANs ${some.join(', ')}: name one`);
  }

  /** Removes learned addresses, with `isAll` also those that were given or stick. Answers how many. */
  flush(portName: string | null, vlan: number | null, isAll: boolean): number {
    const port = portName === null ? null : this.#ports.get(portName);
    if (port === undefined) throw new NoSuchPortError(String(portName));
    let removed = this.#fdb.flushOf(port?.id ?? null, vlan);
    if (!isAll) return removed;
    this.noteSticky();
    for (const each of [...this.#kept.values()]) {
      if ((portName !== null && each.port !== portName) || (vlan !== null && each.vlan !== vlan)) continue;
      this.#kept.delete(keyOf(each));
      const [macLo, macHi] = wordsOf(each.mac);
      if (!this.#isConfigured(each) && this.#fdb.remove(macLo, macHi, each.vlan) !== null) removed++;
    }
    this.#tell();
    return removed;
  }

  /** Looks now and then whether workers made addresses stick. */
  noteSticky(): void {
    const { staticChanges } = this.#fdb;
    if (staticChanges === this.#changes) return;
    this.#changes = staticChanges;
    const nameOf = new Map([...this.#ports.values()].map(({ id, name }) => [id, name]));
    let isMore = false;
    for (const { macLo, macHi, vlan, port: id, isStatic } of this.#fdb.entries()) {
      const port = nameOf.get(id);
      if (!isStatic || port === undefined) continue;
      const each = { mac: formatMac(macLo, macHi), vlan, port, sticky: true };
      if (this.#kept.has(keyOf(each)) || this.#isConfigured(each)) continue;
      this.#kept.set(keyOf(each), each);
      isMore = true;
    }
    if (isMore) this.#tell();
  }

  #refuseConfigured(each: StaticMac, but: string | null): void {
    for (const { name, staticMacs } of this.#ports.values()) {
      if (name === but || !staticMacs.some((other) => keyOf(other) === keyOf(each))) continue;
      throw new PortConflictError(`${each.mac} is one of the static-macs of port ${name}: change those`);
    }
  }

  #isConfigured(each: StaticMac): boolean {
    return [...this.#ports.values()].some(({ staticMacs }) =>
      staticMacs.some((other) => keyOf(other) === keyOf(each)),
    );
  }

  #set(each: StaticMac, portId: number, nowTick: number): boolean {
    const [macLo, macHi] = wordsOf(each.mac);
    return this.#fdb.setStatic(macLo, macHi, each.vlan, portId, nowTick);
  }

  /** If it is still the port's. */
  #removeFrom({ id }: AddressedPort, each: StaticMac): void {
    const [macLo, macHi] = wordsOf(each.mac);
    if (this.#fdb.lookup(macLo, macHi, each.vlan) === id) this.#fdb.remove(macLo, macHi, each.vlan);
  }

  #tell(): void {
    this.#onKept([...this.#kept.values()]);
  }
}

function keyOf({ mac, vlan }: StaticMac): string {
  return `${mac}@${vlan}`;
}

function wordsOf(mac: string): readonly [number, number] {
  const bytes = parseMac(mac);
  if (bytes === null) throw new ConfigError(`${mac} is not the address of a station`);
  return [macLoOf(bytes), macHiOf(bytes)];
}
