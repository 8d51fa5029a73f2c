/**
 * The rows of a table, measured round by round: each row once, then each once more, so that what changes on the machine
 * meanwhile meets them alike. A row is started when it is measured first, waits paused while others are measured, and is
 * ended after its last round.
 */
import { firstLine } from './clean-up.ts';
import { type Accelerator, measuredRow, type RowName, type RowResult, type Sample } from './rows.ts';

/** A row whose switch and guests are up. */
export interface StandingRow {
  /** Null: no guests. */
  readonly accelerator: Accelerator | null;
  measure(): Promise<Sample>;
  /** Leaves the processors to others; `resume` before the next `measure`. */
  pause(): Promise<void>;
  resume(): Promise<void>;
  /** Paused or not. Never rejects. */
  end(): Promise<void>;
}

export type Rounds = {
  readonly count: number;
  start(row: RowName): Promise<StandingRow>;
  /** Told after each measurement. */
  measured(round: number, row: RowName, sample: Sample): void;
  /** Takes a sentence for the reader of the results. */
  note(text: string): void;
};

/** Never rejects: what goes wrong is the row's reason for not being measured, or noted when it was in other rounds. */
export async function measureRounds(names: readonly RowName[], rounds: Rounds): Promise<RowResult[]> {
  const rows = names.map((name) => new RowOfRounds(name, rounds));
  for (let round = 1; round <= rounds.count; round++) for (const row of rows) await row.measure(round);
  return rows.map((row) => row.result());
}

class RowOfRounds {
  readonly #name: RowName;
  readonly #rounds: Rounds;
  readonly #samples: Sample[] = [];
  #standing: StandingRow | null = null;
  #accelerator: Accelerator | null = null;
  #reason = 'there was no round.';
  #gaveUp = false;

  constructor(name: RowName, rounds: Rounds) {
    this.#name = name;
    this.#rounds = rounds;
  }

  async measure(round: number): Promise<void> {
    if (this.#gaveUp) return;
    try {
      const standing = await this.#stand();
      const sample = await standing.measure();
      this.#samples.push(sample);
      this.#rounds.measured(round, this.#name, sample);
      if (round < this.#rounds.count) await standing.pause();
      else await this.#end();
    } catch (error) {
      this.#reason = firstLine(error);
      // Its guests may be in any state: the next round starts others.
      await this.#end();
    }
  }

  result(): RowResult {
    const missing = this.#rounds.count - this.#samples.length;
    if (this.#samples.length === 0) return { row: this.#name, notMeasured: this.#reason };
    if (missing > 0) {
      this.#rounds.note(`${this.#name}: ${missing} of ${this.#rounds.count} rounds failed: ${this.#reason}`);
    }
    return measuredRow(this.#name, this.#accelerator, this.#samples);
  }

  async #stand(): Promise<StandingRow> {
    if (this.#standing !== null) {
      await this.#standing.resume();
      return this.#standing;
    }
    try {
      this.#standing = await this.#rounds.start(this.#name);
    } catch (error) {
      // It takes long, and would most likely fail again.
      this.#gaveUp = true;
      throw error;
    }
    this.#accelerator = this.#standing.accelerator;
    return this.#standing;
  }

  async #end(): Promise<void> {
    await this.#standing?.end();
    this.#standing = null;
  }
}
