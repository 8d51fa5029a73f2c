/**
 * Addresses that move between ports, and back again: what a loop outside of the switch makes of every address, thousands
 * of times a second, and what a guest does that sends with another's address. For each address that moved lately: the port
 * that had it first, and how often others have claimed it since. One table in shared memory; whoever moves an address
 * notes it, under the lock of the forwarding table (fdb.ts), so nothing here is contended. Only while a port is guarded.
 *
 * Who had it first is never the one that is told of: so a guest that sends with another's address harms itself. It is
 * whoever had the address when it began to move after a quiet time. A note is kept for that long, and not given up for
 * another one before: who fills the table keeps new addresses from being noted, and makes nobody first.
 */

/** A note: the address in two words as the table has them, port that had it first + 1, claims, since when, when it moved last. */
const NOTE_WORDS = 8;
const MAC_LO = 0;
const KEY_HI = 1;
const FIRST = 2;
const CLAIMS = 3;
const SINCE = 4;
const LAST = 5;

const NOTES = 4096;
/** Notes in which one address may stand. */
const WAYS = 4;
export const MOVES_BYTES = NOTES * NOTE_WORDS * 4;

/** So often an address is claimed within so many seconds, by others than had it first, before it is told of. */
export const CLAIMS_MAX = 32;
export const CLAIMS_TICKS = 10;
/** An address that did not move for so long is where it belongs. */
export const QUIET_TICKS = 300;
/** Told of by one worker in a second. */
const TOLD_MAX = 16;

/** An address that moved too often: to which port it did last, and which one had it first. */
export type Flapping = {
  readonly portId: number;
  readonly firstPortId: number;
  readonly macLo: number;
  readonly macHi: number;
  readonly vlan: number;
};

export class Moves {
  /** Whether any port is guarded. */
  isOn = false;
  /** What the main thread is still to be told of. */
  readonly flapping: Flapping[] = [];
  declare private readonly notes: Int32Array;
  /** Ids of ports that are told of. */
  readonly #guarded = new Set<number>();
  private toldTick = 0;
  private told = 0;

  /** `memory`: of MOVES_BYTES, zeros at first. */
  constructor(memory: SharedArrayBuffer) {
    this.notes = new Int32Array(memory);
  }

  /** Whether anybody is told of addresses that move to the port again and again. */
  setGuarded(port: number, isGuarded: boolean): void {
    if (isGuarded) this.#guarded.add(port);
    else this.#guarded.delete(port);
    this.isOn = this.#guarded.size > 0;
  }

  /** The address went from one port to another. Under the table's lock. `home` is its hash. */
  note(macLo: number, keyHi: number, home: number, from: number, to: number, nowTick: number): void {
    const { notes } = this;
    const at = this.find(macLo, keyHi, home, nowTick);
    if (at < 0) return;
    const isNew = notes[at + MAC_LO] !== macLo || notes[at + KEY_HI] !== keyHi;
    if (isNew || this.isQuiet(at, nowTick)) {
      notes[at + MAC_LO] = macLo;
      notes[at + KEY_HI] = keyHi;
      notes[at + FIRST] = from + 1;
      notes[at + CLAIMS] = 0;
      notes[at + SINCE] = nowTick;
    }
    notes[at + LAST] = nowTick;
    if (notes[at + FIRST] === to + 1 || !this.#guarded.has(to)) return;
    if (((nowTick - notes[at + SINCE]) | 0) > CLAIMS_TICKS) {
      notes[at + CLAIMS] = 0;
      notes[at + SINCE] = nowTick;
    }
    notes[at + CLAIMS]++;
    if (notes[at + CLAIMS] < CLAIMS_MAX) return;
    notes[at + CLAIMS] = 0;
    if (nowTick !== this.toldTick) this.told = 0;
    this.toldTick = nowTick;
    if (this.told === TOLD_MAX) return;
    this.told++;
    const address = { macLo, macHi: keyHi & 0xffff, vlan: keyHi >>> 16 };
    this.flapping.push({ portId: to, firstPortId: notes[at + FIRST] - 1, ...address });
  }

  /** The port is gone, and its number may become another's. Under the table's lock. */
  forget(port: number): void {
    const { notes } = this;
    for (let at = 0; at < notes.length; at += NOTE_WORDS) {
      if (notes[at + FIRST] === port + 1) notes.fill(0, at, at + NOTE_WORDS);
    }
  }

  /** Where the address stands, or may be written; -1: nowhere. */
  private find(macLo: number, keyHi: number, home: number, nowTick: number): number {
    const { notes } = this;
    const first = (home & (NOTES / WAYS - 1)) * WAYS * NOTE_WORDS;
    let free = -1;
    for (let way = 0; way < WAYS; way++) {
      const at = first + way * NOTE_WORDS;
      if (notes[at + FIRST] === 0 || this.isQuiet(at, nowTick)) free = free < 0 ? at : free;
      if (notes[at + FIRST] !== 0 && notes[at + MAC_LO] === macLo && notes[at + KEY_HI] === keyHi) return at;
    }
    return free;
  }

  private isQuiet(at: number, nowTick: number): boolean {
    return ((nowTick - this.notes[at + LAST]) | 0) > QUIET_TICKS;
  }
}
