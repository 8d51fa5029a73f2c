/**
 * Accounts for numbered frames (numbered-traffic.ts) that did not arrive: each was dropped by Ringway under a name, or was
 * still in a guest's ring when that guest was reset. Called by the tests with real peers.
 */
import { expect } from 'vitest';
import type { PortReport } from '../../switch/control/report.ts';
import type { NumberedTraffic, Station } from './numbered-traffic.ts';
import type { RingwayProcess } from './ringway-process.ts';

/** Where the frames that were lost are. */
export type Losses = {
  readonly lost: number;
  /** By the names of Ringway's drops; those that did not occur are left out. */
  readonly dropped: Readonly<Record<string, number>>;
  /** Sent, and never taken in by Ringway: a reset took the ring away. */
  readonly takenBack: number;
  /** Delivered into a ring that a reset took away before they were looked at. */
  readonly unread: number;
};

export class LossLedger {
  readonly #ringway: RingwayProcess;
  readonly #traffic: NumberedTraffic;
  readonly #stations: readonly (readonly [port: string, station: Station])[];
  #before: Map<string, PortReport> = new Map();
  #sentBefore = new Map<Station, number>();
  #takenBefore = new Map<Station, number>();

  private constructor(
    ringway: RingwayProcess,
    traffic: NumberedTraffic,
    stations: Readonly<Record<string, Station>>,
  ) {
    this.#ringway = ringway;
    this.#traffic = traffic;
    this.#stations = Object.entries(stations);
  }

  /** Begins to account at a quiet moment. `stations` by the ports that they are behind: all that send. */
  static async open(
    ringway: RingwayProcess,
    traffic: NumberedTraffic,
    stations: Readonly<Record<string, Station>>,
  ): Promise<LossLedger> {
    const ledger = new LossLedger(ringway, traffic, stations);
    await ledger.#begin();
    return ledger;
  }

  /**
   * Settles the traffic, writes off what is under way, and fails unless each of those frames is accounted for.
   * Then it begins anew. Frames of a flow may have overtaken each other only where `mayReorder`: its receive queue may
   * have changed.
   */
  async close(mayReorder = false): Promise<Losses> {
    await this.#traffic.settle();
    const lost = this.#traffic.writeOff();
    let losses: Losses | undefined;
    // Ringway's counters are read a moment after a burst.
    await this.#ringway
      .until(async () => {
        losses = await this.#losses(lost);
        return accountedFor(losses) === lost && losses.takenBack >= 0 && losses.unread >= 0;
      })
      .catch((cause) => {
        throw new Error(`frames were lost without a name: ${JSON.stringify(losses)}`, { cause });
      });
    const { doubled, damaged, disordered } = this.#traffic.tally;
    expect({ doubled, damaged }).toEqual({ doubled: 0, damaged: 0 });
    if (!mayReorder) expect(disordered).toBe(0);
    await this.#begin();
    return losses!;
  }

  /** Begins anew at a quiet moment, where something else has passed. */
  restart(): Promise<void> {
    return this.#begin();
  }

  async #begin(): Promise<void> {
    this.#before = await this.#reports();
    for (const [, station] of this.#stations) {
      this.#sentBefore.set(station, this.#traffic.sentBy(station));
      this.#takenBefore.set(station, this.#traffic.takenBy(station));
    }
  }

  async #losses(lost: number): Promise<Losses> {
    const now = await this.#reports();
    const dropped: Record<string, number> = {};
    for (const [port, { drops }] of now) {
      for (const [name, count] of Object.entries(drops)) {
        const frames = count - (this.#before.get(port)!.drops as Record<string, number>)[name];
        if (frames > 0) dropped[name] = (dropped[name] ?? 0) + frames;
      }
    }
    let takenBack = 0;
    let unread = 0;
    for (const [port, station] of this.#stations) {
      const { counters: before } = this.#before.get(port)!;
      const { counters } = now.get(port)!;
      const sent = this.#traffic.sentBy(station) - this.#sentBefore.get(station)!;
      const taken = this.#traffic.takenBy(station) - this.#takenBefore.get(station)!;
      takenBack += sent - (counters.ingressFrames - before.ingressFrames);
      unread += counters.egressFrames - before.egressFrames - taken;
    }
    return { lost, dropped, takenBack, unread };
  }

  async #reports(): Promise<Map<string, PortReport>> {
    return new Map((await this.#ringway.ports()).map((report) => [report.name, report]));
  }
}

function accountedFor({ dropped, takenBack, unread }: Losses): number {
  return Object.values(dropped).reduce((sum, count) => sum + count, 0) + takenBack + unread;
}
