/**
 * The forwarding table as a trace has it: the switch's own, of which nothing is changed. What a worker would have learned
 * is noted, with what the table says of the address. Main thread.
 */
import { Fdb, type FdbEntry, LEARNED, LEARNED_NOT } from '../l2/fdb/fdb.ts';

export type SeenLearning = {
  readonly macLo: number;
  readonly macHi: number;
  readonly vlan: number;
  readonly port: number;
  readonly nowTick: number;
  /** What is known of the address now; null: nothing. */
  readonly known: FdbEntry | null;
};

export type SeenLookUp = {
  readonly macLo: number;
  readonly macHi: number;
  readonly vlan: number;
  /** Null: not known. */
  readonly found: FdbEntry | null;
};

export class SeenFdb extends Fdb {
  readonly learnings: SeenLearning[] = [];
  readonly lookUps: SeenLookUp[] = [];

  override learn(macLo: number, macHi: number, vlan: number, port: number, nowTick: number): void {
    this.learnings.push({ macLo, macHi, vlan, port, nowTick, known: this.entryOf(macLo, macHi, vlan) });
  }

  /** As the table would answer. */
  override learnUpTo(
    macLo: number,
    macHi: number,
    vlan: number,
    port: number,
    nowTick: number,
    max: number,
  ): number {
    if (!isStation(macLo, macHi)) return LEARNED_NOT;
    const known = this.entryOf(macLo, macHi, vlan);
    if (
      known?.port !== port &&
      (this.countOf(port) + this.staticsOf(port) >= max || known?.isStatic === true)
    )
      return LEARNED_NOT;
    this.learn(macLo, macHi, vlan, port, nowTick);
    return LEARNED;
  }

  /** With what the frame itself would have taught. */
  override lookupFrom(_home: number, macLo: number, keyHi: number): number {
    const macHi = keyHi & 0xffff;
    const vlan = keyHi >>> 16;
    const isSame = (other: SeenLearning): boolean =>
      other.macLo === macLo && other.macHi === macHi && other.vlan === vlan;
    const learned = this.learnings.find(isSame);
    const found: FdbEntry | null =
      learned === undefined || !isStation(macLo, macHi) || learned.known?.isStatic === true
        ? this.entryOf(macLo, macHi, vlan)
        : { macLo, macHi, vlan, port: learned.port, lastSeenTick: learned.nowTick, isStatic: false };
    this.lookUps.push({ macLo, macHi, vlan, found });
    return found?.port ?? -1;
  }
}

/** Of the addresses that are learned. */
export function isStation(macLo: number, macHi: number): boolean {
  return (macLo & 1) === 0 && (macLo | macHi) !== 0;
}
