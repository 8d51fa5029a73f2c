/**
 * How fast counters grow: their values of the last minute, one set a second, of everything that has them. Main thread; after the
 * first minute nothing is allocated.
 */

/** The spans of time that rates are told over. */
export const RATE_SECONDS = [1, 10, 60] as const;
const SETS = RATE_SECONDS[RATE_SECONDS.length - 1] + 1;

/** Of one thing with so many counters. */
export class Rates {
  readonly #width: number;
  readonly #values: Float64Array;
  readonly #atMs = new Float64Array(SETS);
  #count = 0;
  #last = -1;

  constructor(width: number) {
    this.#width = width;
    this.#values = new Float64Array(width * SETS);
  }

  /** Once a second. */
  push(atMs: number, values: Float64Array): void {
    this.#last = (this.#last + 1) % SETS;
    this.#count = Math.min(this.#count + 1, SETS);
    this.#atMs[this.#last] = atMs;
    this.#values.set(values, this.#last * this.#width);
  }

  /** A second's growth of a counter, over as much of that span as there is; 0 while nothing is known. */
  perSecond(counter: number, seconds: number): number {
    const back = Math.min(seconds, this.#count - 1);
    if (back < 1) return 0;
    const first = (this.#last - back + SETS) % SETS;
    const growth = this.#valueOf(this.#last, counter) - this.#valueOf(first, counter);
    return growth / ((this.#atMs[this.#last] - this.#atMs[first]) / 1000);
  }

  /** Over each of RATE_SECONDS. */
  all(counter: number): number[] {
    return RATE_SECONDS.map((seconds) => this.perSecond(counter, seconds));
  }

  #valueOf(set: number, counter: number): number {
    return this.#values[set * this.#width + counter];
  }
}
