/**
 * The forwarding database: which port an Ethernet address was last seen on.
 *
 * One table serves all poll workers and the main thread; it lives in one SharedArrayBuffer and each thread
 * opens it with `new Fdb(memory)`. Purpose of the shape: `lookup` and the repeated `learn` of a known address
 * run for every frame, so they take no lock, make no call and allocate nothing; everything rarer takes the
 * lock of lock.ts for a short time. IEEE 802.1Q clauses 8.7 and 8.8 are the specification.
 *
 * Table. Open addressing, linear probing, at most half full. A slot has four int32 words (layout.ts). An
 * entry lies within PROBE_LIMIT slots of its home. Deletion shifts later entries back instead of leaving a
 * tombstone, so probes stay as short as the hash makes them however long the table churns.
 *
 * Lock-free reading. A writer may rewrite a slot while a reader is on it, and the reader must never pair one
 * entry's address with another's port. The word that holds the port also holds a version. To rewrite a slot
 * the writer (1) stores the value word with the next version and no port, (2) stores the key words, (3)
 * stores the value word with the port. A reader loads value, key, value. If both value words are equal, no
 * rewrite began between the two loads, so the key words belong to that value. The version is needed: without
 * it a slot rewritten twice, back to its first port, would look untouched to a reader that was off its
 * processor. It has 16 bits: a reader would be deceived only if exactly a multiple of 65,536 rewrites of that
 * one slot fell between two of its loads. A reader that meets a slot in between, or an entry being shifted,
 * misses; the frame is flooded once, as for any unknown address.
 *
 * Memory order. Writers use Atomics.store, which V8 neither drops nor reorders. Readers use loads that stay in
 * order (src/memory/ordered.ts), on x64 plain ones:
 *  - the processor keeps loads in order, and so it keeps stores;
 *  - V8 must not merge or move the loads. By the language it may (racing plain accesses are unordered); in
 *    fact it does not eliminate element loads of typed arrays, as these may alias, nor lift them over a
 *    branch, and between the first value load, the key loads and the second value load stand branches on what
 *    was just loaded. `node --print-opt-code --print-opt-code-filter=lookupFrom` shows the four loads in this order; the
 *    concurrency test fails when the second value load is gone.
 * On any other processor the reader's loads are Atomics.load, because a plain load may there be overtaken.
 *
 * The tick is refreshed without the lock. If the slot is rewritten at that moment, another entry lives a
 * little longer or a refresh is lost until the address's next frame; neither can misdirect a frame.
 *
 * Eviction: owners.ts says from whom, `evictFor` which entry.
 *
 * Static entries (`setStatic`) have a bit beside the port. They are on no list of an owner: so they are never evicted or
 * aged, no frame moves them to another port, and neither flush takes them. They are at most half of the table.
 */
import { loadOrdered32 } from '../../../src/memory/ordered.ts';
import { FdbHash } from './hash.ts';
import { COUNTER, type FdbViews, HEADER, openFdbMemory, SLOT_WORDS } from './layout.ts';
import { acquireFdbLock, releaseFdbLock, requireFdbLock } from './lock.ts';
import type { Moves } from './moves.ts';
import { FdbOwners } from './owners.ts';

export { createFdbMemory, type FdbMemoryOptions } from './layout.ts';

/** Slots from its home within which an entry lies. Random addresses need about 70 in the largest table. */
export const PROBE_LIMIT = 128;

/** Entries of a port that an eviction looks at to find an old one. */
const EVICT_SAMPLE = 4;
/** Slots examined or entries removed under one hold of the lock. */
const SLOTS_PER_HOLD = 128;
/** Sleeps of 50 µs that learning waits for the lock before it leaves the address to the next frame. */
const LEARN_SLEEPS = 4;

const PORT_MASK = 0x7fff;
/** Beside the port. */
const STATIC_BIT = 0x8000;
const VALUE_MASK = PORT_MASK | STATIC_BIT;
const VERSION_STEP = 0x10000;

/** In place of an age: entries of any age go, and do not count as aged. */
const EVERY_AGE = -0x80000000;

/** One learned address, as the control side sees it. */
export interface FdbEntry {
  /** First four bytes of the address, as a little-endian int32. */
  readonly macLo: number;
  /** Last two bytes, little-endian. */
  readonly macHi: number;
  readonly vlan: number;
  readonly port: number;
  /** Value of the seconds clock when the address last sent a frame. */
  readonly lastSeenTick: number;
  readonly isStatic: boolean;
}

/** What `learnUpTo` answers. */
export const LEARNED = 0;
/** The port has as many addresses as it may have, or the address is another port's for good. */
export const LEARNED_NOT = 1;

/** Totals since the table was made, over all threads. */
export interface FdbCounters {
  /** Addresses entered. */
  readonly learned: number;
  /** Known addresses seen on another port. */
  readonly moved: number;
  /** Entries that made room for others. */
  readonly evicted: number;
  /** Entries not seen for too long. */
  readonly aged: number;
}

export class Fdb {
  // `declare`: a field that first holds undefined loses its representation, and V8 then checks every use.
  declare readonly capacity: number;
  declare private readonly maxPorts: number;
  declare private readonly slots: Int32Array<SharedArrayBuffer>;
  declare private readonly header: Int32Array<SharedArrayBuffer>;
  declare private readonly totals: Float64Array<SharedArrayBuffer>;
  declare private readonly hash: FdbHash;
  declare private readonly owners: FdbOwners;
  declare private readonly portStatics: Int32Array<SharedArrayBuffer>;
  declare private readonly portMoves: Int32Array<SharedArrayBuffer>;
  declare private readonly slotMask: number;
  declare private readonly probeLimit: number;
  /** Where it is noted that addresses move between ports; null: nowhere. */
  moves: Moves | null = null;

  /**
   * Opens a table that `createFdbMemory` made.
   * @throws TypeError when the memory is something else.
   */
  constructor(memory: SharedArrayBuffer) {
    const views: FdbViews = openFdbMemory(memory);
    const header = views.header;
    const slotBits = header[HEADER.slotBits];
    this.capacity = header[HEADER.capacity];
    this.maxPorts = header[HEADER.maxPorts];
    this.slots = views.slots;
    this.header = header;
    this.totals = views.counters;
    this.hash = new FdbHash(header[HEADER.seed0], header[HEADER.seed1], slotBits);
    this.owners = new FdbOwners(views);
    this.portStatics = views.portStatics;
    this.portMoves = views.portMoves;
    this.slotMask = (1 << slotBits) - 1;
    this.probeLimit = Math.min(PROBE_LIMIT, 1 << slotBits);
  }

  /** Entries in the table. */
  get size(): number {
    return this.header[HEADER.size];
  }

  /** A fresh copy of the totals; not for the hot path. */
  get counters(): FdbCounters {
    const { totals } = this;
    return {
      learned: totals[COUNTER.learned],
      moved: totals[COUNTER.moved],
      evicted: totals[COUNTER.evicted],
      aged: totals[COUNTER.aged],
    };
  }

  /** Entries that were learned of a port at this moment. */
  countOf(port: number): number {
    return this.owners.countOf(port);
  }

  /** Static entries of a port at this moment. */
  staticsOf(port: number): number {
    return this.portStatics[port];
  }

  /** How often an address that was known elsewhere was seen on the port, since the port's number was last forgotten. */
  movesTo(port: number): number {
    return this.portMoves[port] >>> 0;
  }

  /** Changes whenever static entries do; running. */
  get staticChanges(): number {
    return this.header[HEADER.staticChanges];
  }

  /**
   * Where frames for this address go. Hot path, lock-free.
   * @param macLo first four bytes of the address as little-endian int32
   * @param macHi last two bytes, little-endian, 0 to 65,535
   * @param vlan 0 to 4,095
   * @returns the port, or −1 when the address is not known (or its entry is being moved this very moment)
   */
  lookup(macLo: number, macHi: number, vlan: number): number {
    const keyHi = macHi | (vlan << 16);
    return this.lookupFrom(this.hash.homeOf(macLo, keyHi), macLo, keyHi);
  }

  /**
   * As `lookup`, from where the search begins (`homeOf`).
   * @param keyHi the last two bytes of the address, and the VLAN in the upper half
   */
  lookupFrom(home: number, macLo: number, keyHi: number): number {
    const slots = this.slots;
    const slotMask = this.slotMask;
    for (let probe = 0; probe < this.probeLimit; probe++) {
      const at = ((home + probe) & slotMask) << 2;
      const value = loadOrdered32(slots, at + 2);
      if ((value & PORT_MASK) === 0) return -1;
      if (loadOrdered32(slots, at) === macLo && loadOrdered32(slots, at + 1) === keyHi) {
        return loadOrdered32(slots, at + 2) === value ? (value & PORT_MASK) - 1 : -1;
      }
    }
    return -1;
  }

  /** What is known of an address; null: nothing. Not for the hot path. */
  entryOf(macLo: number, macHi: number, vlan: number): FdbEntry | null {
    const keyHi = macHi | (vlan << 16);
    requireFdbLock(this.header);
    const slot = this.find(macLo, keyHi, this.hash.homeOf(macLo, keyHi));
    const entry = slot < 0 ? null : entryAt(this.slots, slot * SLOT_WORDS);
    releaseFdbLock(this.header);
    return entry;
  }

  /** Where the search for an address begins; for `touch`. `keyHi` as of `lookupFrom`. */
  homeOf(macLo: number, keyHi: number): number {
    return this.hash.homeOf(macLo, keyHi);
  }

  /**
   * Reads the first `count` of these homes, so that `lookup` soon finds them in the processor's cache. Answers
   * what was read, put together, which the caller must keep: V8 leaves out what nobody uses.
   */
  touch(homes: Int32Array, count: number): number {
    const { slots } = this;
    let sum = 0;
    for (let i = 0; i < count; i++) sum ^= slots[homes[i] << 2];
    return sum;
  }

  /**
   * Notes that a frame from this address came in on this port. Hot path; lock-free when the address is
   * already known there. Multicast addresses and the zero address are ignored. When other writers keep the
   * table locked for long, the address is left to its next frame.
   * @param nowTick int32 clock in seconds; may wrap
   * @throws RangeError when the port is not 0 to maxPorts − 1 (and the address is not known there)
   */
  learn(macLo: number, macHi: number, vlan: number, port: number, nowTick: number): void {
    if ((macLo & 1) !== 0 || (macLo | macHi) === 0) return;
    const slots = this.slots;
    const slotMask = this.slotMask;
    const keyHi = macHi | (vlan << 16);
    const home = this.hash.homeOf(macLo, keyHi);
    for (let probe = 0; probe < this.probeLimit; probe++) {
      const at = ((home + probe) & slotMask) << 2;
      const value = loadOrdered32(slots, at + 2);
      if ((value & PORT_MASK) === 0) break;
      if (loadOrdered32(slots, at) === macLo && loadOrdered32(slots, at + 1) === keyHi) {
        if ((value & PORT_MASK) !== port + 1) {
          if ((value & STATIC_BIT) !== 0) return;
          break;
        }
        // Most frames fall into a second already noted: then the cache line stays shared between the workers.
        if (slots[at + 3] !== nowTick) slots[at + 3] = nowTick;
        return;
      }
    }
    this.learnLocked(macLo, keyHi, home, port, nowTick);
  }

  /**
   * As `learn`, but the port gets no more than `max` addresses, static ones counted: exactly, however many threads learn.
   * `sticks`: an address that was unknown becomes a static one; one that another port has moves and does not, or who sends
   * with another's address would keep it for good. Also when the table stays locked, nothing is learned.
   * @returns LEARNED when the address is the port's now, or LEARNED_NOT
   */
  learnUpTo(
    macLo: number,
    macHi: number,
    vlan: number,
    port: number,
    nowTick: number,
    max: number,
    sticks: boolean,
  ): number {
    if ((macLo & 1) !== 0 || (macLo | macHi) === 0) return LEARNED_NOT;
    const keyHi = macHi | (vlan << 16);
    const home = this.hash.homeOf(macLo, keyHi);
    const known = this.lookupFrom(home, macLo, keyHi);
    if (known === port) {
      this.learn(macLo, macHi, vlan, port, nowTick);
      return LEARNED;
    }
    // A guest that sends of ever new addresses does not come to the lock.
    if (this.owners.countOf(port) + this.portStatics[port] >= max) return LEARNED_NOT;
    this.requirePort(port);
    if (!acquireFdbLock(this.header, LEARN_SLEEPS)) return LEARNED_NOT;
    const slot = this.find(macLo, keyHi, home);
    let answer = LEARNED;
    if (slot >= 0 && this.portAt(slot) === port) this.refresh(slot, port, nowTick);
    else if (this.owners.countOf(port) + this.portStatics[port] >= max) answer = LEARNED_NOT;
    else if (slot >= 0 && this.isStaticAt(slot)) answer = LEARNED_NOT;
    else {
      if (slot < 0) this.insert(macLo, keyHi, home, port, nowTick);
      else this.refresh(slot, port, nowTick);
      const at = this.find(macLo, keyHi, home);
      if (at < 0) answer = LEARNED_NOT;
      else if (sticks && slot < 0) this.makeStatic(at);
    }
    releaseFdbLock(this.header);
    return answer;
  }

  /**
   * Has the address stay behind a port until `remove` or `forgetStatics`, whatever was known of it.
   * @returns false when half of the table is static already
   * @throws RangeError when the port is not 0 to maxPorts − 1, or the address is a group's or zero
   */
  setStatic(macLo: number, macHi: number, vlan: number, port: number, nowTick: number): boolean {
    this.requirePort(port);
    if ((macLo & 1) !== 0 || (macLo | macHi) === 0) throw new RangeError('not the address of a station');
    const keyHi = macHi | (vlan << 16);
    const home = this.hash.homeOf(macLo, keyHi);
    requireFdbLock(this.header);
    const old = this.find(macLo, keyHi, home);
    if (old >= 0) this.removeAt(old);
    let slot = -1;
    if (this.hasRoomForStatic()) {
      this.insert(macLo, keyHi, home, port, nowTick);
      slot = this.find(macLo, keyHi, home);
      this.makeStatic(slot);
    }
    releaseFdbLock(this.header);
    return slot >= 0;
  }

  /** Removes an address, learned or static. @returns what it was; null: it was not known */
  remove(macLo: number, macHi: number, vlan: number): FdbEntry | null {
    const keyHi = macHi | (vlan << 16);
    requireFdbLock(this.header);
    const slot = this.find(macLo, keyHi, this.hash.homeOf(macLo, keyHi));
    const entry = slot < 0 ? null : entryAt(this.slots, slot * SLOT_WORDS);
    if (slot >= 0) this.removeAt(slot);
    releaseFdbLock(this.header);
    return entry;
  }

  /** Forgets the port's number: its learned and its static entries, and how often addresses moved to it. */
  forgetPort(port: number): void {
    this.flushPort(port);
    this.removeStatics(port);
    this.portMoves[port] = 0;
  }

  /** Removes the static entries of a port. @returns entries removed */
  removeStatics(port: number): number {
    this.requirePort(port);
    let removed = 0;
    if (this.portStatics[port] === 0) return 0;
    for (const entry of this.entries()) {
      if (!entry.isStatic || entry.port !== port) continue;
      this.remove(entry.macLo, entry.macHi, entry.vlan);
      removed++;
    }
    return removed;
  }

  /**
   * Removes learned entries: of a port, of a VLAN, or those that are of both; null: of any.
   * @returns entries removed
   */
  flushOf(port: number | null, vlan: number | null): number {
    if (vlan === null) return port === null ? this.flush() : this.flushPort(port);
    let removed = 0;
    for (const entry of this.entries()) {
      if (entry.isStatic || entry.vlan !== vlan || (port !== null && entry.port !== port)) continue;
      if (this.remove(entry.macLo, entry.macHi, entry.vlan) !== null) removed++;
    }
    return removed;
  }

  /**
   * Removes entries not seen for more than `maxAgeTicks`. Takes the lock only where there is something to
   * remove, for some microseconds at a time. An entry that another thread shifts meanwhile may be left to the
   * next call.
   * @returns entries removed
   */
  age(nowTick: number, maxAgeTicks: number): number {
    return this.sweep(nowTick, maxAgeTicks);
  }

  /**
   * Removes every learned entry of a port. Its workers must have stopped learning on it, or new ones may remain.
   * @returns entries removed
   */
  flushPort(port: number): number {
    this.requirePort(port);
    let removed = 0;
    while (removed < this.capacity && this.owners.countOf(port) > 0) {
      requireFdbLock(this.header);
      for (let n = 0; n < SLOTS_PER_HOLD; n++) {
        const slot = this.owners.firstOf(port);
        if (slot < 0) break;
        this.removeAt(slot);
        removed++;
      }
      releaseFdbLock(this.header);
    }
    return removed;
  }

  /** No address is noted as moved from the port any more. */
  forgetMoves(moves: Moves, port: number): void {
    requireFdbLock(this.header);
    moves.forget(port);
    releaseFdbLock(this.header);
  }

  /**
   * Removes every learned entry; what other threads learn meanwhile may remain.
   * @returns entries removed
   */
  flush(): number {
    return this.sweep(0, EVERY_AGE);
  }

  /** A copy of the contents, in no order. Entries that other threads shift may be absent or twice. */
  entries(): FdbEntry[] {
    const found: FdbEntry[] = [];
    const slotCount = this.slotMask + 1;
    const copy = new Int32Array(Math.min(SLOTS_PER_HOLD, slotCount) * SLOT_WORDS);
    for (let from = 0; from < this.slots.length; from += copy.length) {
      requireFdbLock(this.header);
      copy.set(this.slots.subarray(from, from + copy.length));
      releaseFdbLock(this.header);
      for (let at = 0; at < copy.length; at += SLOT_WORDS) {
        if ((copy[at + 2] & PORT_MASK) !== 0) found.push(entryAt(copy, at));
      }
    }
    return found;
  }

  /** The address is unknown, on another port, or the lock-free search met a writer: decide under the lock. */
  private learnLocked(macLo: number, keyHi: number, home: number, port: number, nowTick: number): void {
    this.requirePort(port);
    if (!acquireFdbLock(this.header, LEARN_SLEEPS)) return;
    const slot = this.find(macLo, keyHi, home);
    if (slot < 0) this.insert(macLo, keyHi, home, port, nowTick);
    else this.refresh(slot, port, nowTick);
    releaseFdbLock(this.header);
  }

  private refresh(slot: number, port: number, nowTick: number): void {
    const at = slot * SLOT_WORDS;
    const value = this.slots[at + 2];
    const oldPort = (value & PORT_MASK) - 1;
    if (oldPort !== port && (value & STATIC_BIT) !== 0) return;
    this.slots[at + 3] = nowTick;
    if (oldPort === port) return;
    const { moves } = this;
    if (moves?.isOn === true) {
      const [macLo, keyHi] = [this.slots[at], this.slots[at + 1]];
      moves.note(macLo, keyHi, this.hash.homeOf(macLo, keyHi), oldPort, port, nowTick);
    }
    Atomics.store(this.slots, at + 2, nextVersion(value) | (port + 1));
    this.owners.remove(oldPort, slot);
    this.owners.add(port, slot);
    this.totals[COUNTER.moved]++;
    this.portMoves[port]++;
  }

  private hasRoomForStatic(): boolean {
    return this.header[HEADER.statics] < this.capacity >> 1;
  }

  /** Under the lock. An entry that cannot be a static one stays a learned one. */
  private makeStatic(slot: number): void {
    const { slots } = this;
    const at = slot * SLOT_WORDS;
    if (slot < 0 || this.isStaticAt(slot) || !this.hasRoomForStatic()) return;
    const port = this.portAt(slot);
    this.owners.remove(port, slot);
    Atomics.store(slots, at + 2, nextVersion(slots[at + 2]) | STATIC_BIT | (port + 1));
    this.noteStatic(port, 1);
  }

  private noteStatic(port: number, change: number): void {
    this.portStatics[port] += change;
    this.header[HEADER.statics] += change;
    this.header[HEADER.staticChanges]++;
  }

  private isStaticAt(slot: number): boolean {
    return (this.slots[slot * SLOT_WORDS + 2] & STATIC_BIT) !== 0;
  }

  private insert(macLo: number, keyHi: number, home: number, port: number, nowTick: number): void {
    if (this.header[HEADER.size] >= this.capacity) this.evictFor(port);
    let slot = this.findEmpty(home);
    if (slot < 0) {
      slot = this.chooseNear(home);
      // All are static: the address stays unknown.
      if (slot < 0) return;
      this.owners.remove(this.portAt(slot), slot);
      this.header[HEADER.size]--;
      this.totals[COUNTER.evicted]++;
    }
    this.write(slot, macLo, keyHi, port, nowTick);
    this.owners.add(port, slot);
    this.header[HEADER.size]++;
    this.totals[COUNTER.learned]++;
  }

  /** Removes an entry of the port that owns most: the one longest unseen among the first few in its turn. */
  private evictFor(learningPort: number): void {
    const owners = this.owners;
    const port = owners.heaviest(learningPort);
    const first = owners.firstOf(port);
    let victim = first;
    let slot = owners.after(first);
    for (let n = 1; n < EVICT_SAMPLE && slot !== first; n++) {
      if (((this.tickAt(slot) - this.tickAt(victim)) | 0) < 0) victim = slot;
      slot = owners.after(slot);
    }
    owners.turnTo(port, victim);
    this.removeAt(victim);
    this.totals[COUNTER.evicted]++;
  }

  /**
   * All slots that this home may use are taken, which chance does not bring about but an attack on the hash
   * might: which of their entries gives way. The one whose port owns most, of these the one longest unseen; -1: none may.
   */
  private chooseNear(home: number): number {
    let chosen = -1;
    for (let probe = 0; probe < this.probeLimit; probe++) {
      const slot = (home + probe) & this.slotMask;
      if (this.isStaticAt(slot)) continue;
      if (chosen < 0) {
        chosen = slot;
        continue;
      }
      const excess = this.owners.countOf(this.portAt(slot)) - this.owners.countOf(this.portAt(chosen));
      const isOlder = ((this.tickAt(slot) - this.tickAt(chosen)) | 0) < 0;
      if (excess > 0 || (excess === 0 && isOlder)) chosen = slot;
    }
    return chosen;
  }

  /** Removes entries by age, or all of them; slots without a candidate are passed without the lock. */
  private sweep(nowTick: number, maxAgeTicks: number): number {
    let removed = 0;
    for (let from = 0; from <= this.slotMask; from += SLOTS_PER_HOLD) {
      const to = Math.min(from + SLOTS_PER_HOLD, this.slotMask + 1);
      let slot = from;
      while (slot < to && !this.isStale(slot, nowTick, maxAgeTicks)) slot++;
      if (slot < to) removed += this.sweepLocked(slot, to, nowTick, maxAgeTicks);
    }
    return removed;
  }

  private sweepLocked(from: number, to: number, nowTick: number, maxAgeTicks: number): number {
    let removed = 0;
    requireFdbLock(this.header);
    for (let slot = from; slot < to; slot++) {
      // Removing shifts another entry into the slot; every turn of this loop makes the table smaller.
      while (this.isStale(slot, nowTick, maxAgeTicks)) {
        this.removeAt(slot);
        removed++;
      }
    }
    if (maxAgeTicks !== EVERY_AGE) this.totals[COUNTER.aged] += removed;
    releaseFdbLock(this.header);
    return removed;
  }

  private isStale(slot: number, nowTick: number, maxAgeTicks: number): boolean {
    const at = slot * SLOT_WORDS;
    const value = this.slots[at + 2];
    if ((value & PORT_MASK) === 0 || (value & STATIC_BIT) !== 0) return false;
    return maxAgeTicks === EVERY_AGE || ((nowTick - this.slots[at + 3]) | 0) > maxAgeTicks;
  }

  private find(macLo: number, keyHi: number, home: number): number {
    for (let probe = 0; probe < this.probeLimit; probe++) {
      const slot = (home + probe) & this.slotMask;
      const at = slot * SLOT_WORDS;
      if ((this.slots[at + 2] & PORT_MASK) === 0) return -1;
      if (this.slots[at] === macLo && this.slots[at + 1] === keyHi) return slot;
    }
    return -1;
  }

  private findEmpty(home: number): number {
    for (let probe = 0; probe < this.probeLimit; probe++) {
      const slot = (home + probe) & this.slotMask;
      if (this.portAt(slot) < 0) return slot;
    }
    return -1;
  }

  /** Removes the entry in a slot and closes the gap, so that no search ends early. */
  private removeAt(slot: number): void {
    const slots = this.slots;
    const slotMask = this.slotMask;
    if (this.isStaticAt(slot)) this.noteStatic(this.portAt(slot), -1);
    else this.owners.remove(this.portAt(slot), slot);
    let gap = slot;
    // The table is at most half full: an empty slot ends this long before the bound does.
    for (let step = 1; step <= slotMask; step++) {
      const next = (slot + step) & slotMask;
      const at = next * SLOT_WORDS;
      const port = this.portAt(next);
      if (port < 0) break;
      const home = this.hash.homeOf(slots[at], slots[at + 1]);
      const mayMove = ((next - home) & slotMask) >= ((next - gap) & slotMask);
      if (!mayMove) continue;
      const staticBit = slots[at + 2] & STATIC_BIT;
      this.write(gap, slots[at], slots[at + 1], port, slots[at + 3], staticBit);
      if (staticBit === 0) this.owners.relocate(port, next, gap);
      gap = next;
    }
    const gapAt = gap * SLOT_WORDS;
    Atomics.store(slots, gapAt + 2, nextVersion(slots[gapAt + 2]));
    this.header[HEADER.size]--;
  }

  /** Rewrites a slot in the order that lock-free readers rely on. */
  private write(slot: number, macLo: number, keyHi: number, port: number, tick: number, staticBit = 0): void {
    const slots = this.slots;
    const at = slot * SLOT_WORDS;
    const version = nextVersion(slots[at + 2]);
    Atomics.store(slots, at + 2, version);
    Atomics.store(slots, at, macLo);
    Atomics.store(slots, at + 1, keyHi);
    slots[at + 3] = tick;
    Atomics.store(slots, at + 2, version | staticBit | (port + 1));
  }

  private portAt(slot: number): number {
    return (this.slots[slot * SLOT_WORDS + 2] & PORT_MASK) - 1;
  }

  private tickAt(slot: number): number {
    return this.slots[slot * SLOT_WORDS + 3];
  }

  private requirePort(port: number): void {
    if (port >>> 0 !== port || port >= this.maxPorts) {
      throw new RangeError(`port ${port} is not one of the table's ${this.maxPorts}`);
    }
  }
}

/** The value word of an empty slot, one version on. */
function nextVersion(value: number): number {
  return ((value & ~VALUE_MASK) + VERSION_STEP) | 0;
}

function entryAt(words: Int32Array, at: number): FdbEntry {
  return {
    macLo: words[at],
    macHi: words[at + 1] & 0xffff,
    vlan: words[at + 1] >>> 16,
    port: (words[at + 2] & PORT_MASK) - 1,
    lastSeenTick: words[at + 3],
    isStatic: (words[at + 2] & STATIC_BIT) !== 0,
  };
}
