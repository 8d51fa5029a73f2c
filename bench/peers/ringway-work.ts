/**
 * How busy Ringway's worker is. Its loop counts the turns that found no frame; what one of them costs is measured
 * while nothing flows. The rest of the time is that of turns with frames. Main thread.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { WorkReport } from '../../switch/control/report.ts';
import type { WorkMeter } from './contract.ts';

const CALIBRATIONS = 5;
const CALIBRATION_MS = 30;
/** The counter has 32 bits. */
const COUNTER_RANGE = 2 ** 32;

export class RingwayWorkMeter implements WorkMeter {
  readonly #ask: () => Promise<WorkReport[]>;
  readonly #emptyTurnNs: number;
  #begin: WorkReport;
  #end: WorkReport;

  private constructor(ask: () => Promise<WorkReport[]>, emptyTurnNs: number, now: WorkReport) {
    this.#ask = ask;
    this.#emptyTurnNs = emptyTurnNs;
    this.#begin = now;
    this.#end = now;
  }

  /** Takes the shortest of a few times: whatever else takes the processor makes a turn longer. */
  static async calibrate(ask: () => Promise<WorkReport[]>): Promise<RingwayWorkMeter> {
    let emptyTurnNs = Number.POSITIVE_INFINITY;
    let [now] = await ask();
    for (let i = 0; i < CALIBRATIONS; i++) {
      const before = now;
      await delay(CALIBRATION_MS);
      [now] = await ask();
      emptyTurnNs = Math.min(emptyTurnNs, elapsedNs(before, now) / emptyTurns(before, now));
    }
    if (!Number.isFinite(emptyTurnNs)) throw new Error('the worker makes no empty turns while nothing flows');
    return new RingwayWorkMeter(ask, emptyTurnNs, now);
  }

  async begins(): Promise<void> {
    [this.#begin] = await this.#ask();
  }

  async ends(): Promise<void> {
    [this.#end] = await this.#ask();
  }

  busyShare(): number {
    const idleNs = emptyTurns(this.#begin, this.#end) * this.#emptyTurnNs;
    return Math.max(0, 1 - idleNs / elapsedNs(this.#begin, this.#end));
  }
}

function elapsedNs(begin: WorkReport, end: WorkReport): number {
  return (end.atMs - begin.atMs) * 1e6;
}

function emptyTurns(begin: WorkReport, end: WorkReport): number {
  return (end.emptyTurns - begin.emptyTurns + COUNTER_RANGE) % COUNTER_RANGE;
}
