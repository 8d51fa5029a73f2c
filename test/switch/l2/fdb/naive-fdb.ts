/**
 * The naive twin of switch/l2/fdb/fdb.ts: the same rules over a Map of objects, written to be obviously right.
 * Oracle of the tests and baseline of the benchmark. One thread only.
 *
 * Which entry of the port that owns most gives way is the real table's own affair, so the twin names the
 * candidates and lets its owner choose.
 */

export interface NaiveEntry {
  readonly macLo: number;
  readonly macHi: number;
  readonly vlan: number;
  port: number;
  lastSeenTick: number;
  isStatic: boolean;
}

export type ChooseVictim = (candidates: NaiveEntry[]) => NaiveEntry;

export class NaiveFdb {
  learned = 0;
  moved = 0;
  evicted = 0;
  aged = 0;
  readonly #capacity: number;
  readonly #chooseVictim: ChooseVictim;
  /** VLAN → address as a 48-bit number → entry. */
  readonly #byVlan = new Map<number, Map<number, NaiveEntry>>();

  constructor(capacity: number, chooseVictim: ChooseVictim) {
    this.#capacity = capacity;
    this.#chooseVictim = chooseVictim;
  }

  get size(): number {
    let size = 0;
    for (const entries of this.#byVlan.values()) size += entries.size;
    return size;
  }

  learn(macLo: number, macHi: number, vlan: number, port: number, nowTick: number): void {
    const isMulticast = (macLo & 1) === 1;
    const isZero = macLo === 0 && macHi === 0;
    if (isMulticast || isZero) return;
    const known = this.#byVlan.get(vlan)?.get(addressNumber(macLo, macHi));
    if (known === undefined) {
      if (this.size >= this.#capacity) this.#evictFor(port);
      this.#insert({ macLo, macHi, vlan, port, lastSeenTick: nowTick, isStatic: false });
      return;
    }
    if (known.port !== port) this.moved++;
    known.port = port;
    known.lastSeenTick = nowTick;
  }

  lookup(macLo: number, macHi: number, vlan: number): number {
    return this.#byVlan.get(vlan)?.get(addressNumber(macLo, macHi))?.port ?? -1;
  }

  age(nowTick: number, maxAgeTicks: number): number {
    const removed = this.#removeWhere((entry) => ((nowTick - entry.lastSeenTick) | 0) > maxAgeTicks);
    this.aged += removed;
    return removed;
  }

  flushPort(port: number): number {
    return this.#removeWhere((entry) => entry.port === port);
  }

  flush(): number {
    return this.#removeWhere(() => true);
  }

  entries(): NaiveEntry[] {
    return [...this.#byVlan.values()].flatMap((entries) => [...entries.values()]);
  }

  countOf(port: number): number {
    return this.entries().filter((entry) => entry.port === port).length;
  }

  #insert(entry: NaiveEntry): void {
    const entries = this.#byVlan.get(entry.vlan) ?? new Map<number, NaiveEntry>();
    entries.set(addressNumber(entry.macLo, entry.macHi), entry);
    this.#byVlan.set(entry.vlan, entries);
    this.learned++;
  }

  #evictFor(learningPort: number): void {
    const counts = new Map<number, number>();
    for (const { port } of this.entries()) counts.set(port, (counts.get(port) ?? 0) + 1);
    const most = Math.max(...counts.values());
    const mayGive = (port: number) =>
      counts.get(learningPort) === most ? port === learningPort : counts.get(port) === most;
    this.#remove(this.#chooseVictim(this.entries().filter(({ port }) => mayGive(port))));
    this.evicted++;
  }

  #removeWhere(isDue: (entry: NaiveEntry) => boolean): number {
    const due = this.entries().filter(isDue);
    for (const entry of due) this.#remove(entry);
    return due.length;
  }

  #remove(entry: NaiveEntry): void {
    this.#byVlan.get(entry.vlan)?.delete(addressNumber(entry.macLo, entry.macHi));
  }
}

/** 48 bits: exact as a number. */
function addressNumber(macLo: number, macHi: number): number {
  return macHi * 2 ** 32 + (macLo >>> 0);
}
