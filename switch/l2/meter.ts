/**
 * A token bucket that all workers share: so many tokens a second, at most `burst` of them saved up. Tokens are frames or
 * bits. Something passes while there is any token at all, and what it costs beyond is a debt that the next ones wait for:
 * so a frame larger than the burst passes too, and in the long run exactly the rate does.
 *
 * Shared words, without a lock. SINCE_US: up to when the bucket was filled; who moves it forward (compareExchange) adds the
 * tokens of that time, so each moment is paid out once. LEVEL: the tokens, in units of which a full bucket has some 2^28:
 * as fine as an int32 allows for both many tokens and few. What is not a whole unit each worker carries on for itself, and
 * what it spent until that is a small part of the bucket.
 * Two workers that look at the same time may both pass what one token allowed; the debt keeps the rate.
 */
import type { RatePolicy } from '../../src/queue/policy.ts';

const LEVEL = 0;
const SINCE_US = 1;
/** Which rate the level is of; 0: none. */
const KEY = 2;
/** A cache line for each. */
const METER_WORDS = 16;
export const METER_BYTES = METER_WORDS * 4;

/** Units of a full bucket with the dearest frame on top, so that debts have room in an int32 too. */
const FULL_UNITS = 2 ** 28;
/** No more is added at once: it fills any bucket. */
const EARNED_UNITS_MAX = 2 ** 30;
/** Times that differ by more are of a clock that has wrapped since. */
const AGES_US = 2 ** 30;
const US_PER_SECOND = 1e6;
/** Part of the time in which a bucket fills: so much more than the burst may pass at once. */
const MOMENT = 1 / 64;
/** Part of a bucket that a worker spends before the others know. */
const LUMP = 1 / 256;

/** A worker's own numbers of a bucket (`real`). */
const UNITS_PER_US = 0;
const UNITS_PER_TOKEN = 1;
const EARNED = 2;
const OWED = 3;

export class Meter {
  isOn = false;
  private fullUnits = 0;
  /** In which a small part of a bucket comes in. */
  private momentUs = 0;
  private lumpUnits = 0;
  declare private readonly words: Int32Array;
  declare private readonly real: Float64Array;

  /** `index`: which bucket of the memory, of METER_BYTES each. */
  constructor(memory: SharedArrayBuffer, index: number) {
    this.words = new Int32Array(memory, index * METER_BYTES, METER_WORDS);
    this.real = new Float64Array(4);
  }

  /** From now on the bucket is of this rate, and full if it was of another one; null: no limit. `costMax`: tokens of the dearest frame. */
  follow(rate: RatePolicy | null, costMax: number, nowUs: number): void {
    const { words, real } = this;
    this.isOn = rate !== null;
    if (rate === null) {
      Atomics.store(words, KEY, 0);
      return;
    }
    const unitsPerToken = FULL_UNITS / (rate.burst + costMax);
    real[UNITS_PER_TOKEN] = unitsPerToken;
    real[UNITS_PER_US] = (unitsPerToken * rate.perSecond) / US_PER_SECOND;
    this.fullUnits = Math.floor(rate.burst * unitsPerToken);
    this.lumpUnits = Math.floor(this.fullUnits * LUMP);
    this.momentUs = Math.floor((rate.burst / rate.perSecond) * US_PER_SECOND * MOMENT) | 0;
    const key = keyOf(rate);
    if (Atomics.exchange(words, KEY, key) === key) return;
    real[EARNED] = 0;
    real[OWED] = 0;
    Atomics.store(words, SINCE_US, nowUs);
    Atomics.store(words, LEVEL, this.fullUnits);
  }

  /**
   * Adds what came in since the last time, unless there is enough for so many tokens and that was a moment ago. Answers the
   * level in units; 0 or less: nothing may pass.
   */
  fill(nowUs: number, tokens: number): number {
    const { words, real, fullUnits } = this;
    // Plain looks: what is changed is compared first.
    const sinceUs = words[SINCE_US];
    const elapsedUs = (nowUs - sinceUs) | 0;
    if (elapsedUs >= 0 && elapsedUs < this.momentUs) {
      const level = (words[LEVEL] - real[OWED]) | 0;
      if (level > tokens * real[UNITS_PER_TOKEN]) return level;
    }
    // Another worker's look at the clock may be younger than ours.
    const isEarlier = elapsedUs <= 0 && elapsedUs > -AGES_US;
    if (isEarlier || Atomics.compareExchange(words, SINCE_US, sinceUs, nowUs) !== sinceUs) {
      return (Atomics.load(words, LEVEL) - real[OWED]) | 0;
    }
    let units = EARNED_UNITS_MAX;
    if (elapsedUs > 0) {
      const earned = elapsedUs * real[UNITS_PER_US] + real[EARNED];
      if (earned < EARNED_UNITS_MAX) {
        units = Math.floor(earned);
        real[EARNED] = earned - units;
      }
    }
    const level = (Atomics.add(words, LEVEL, units) + units) | 0;
    if (level > fullUnits) Atomics.sub(words, LEVEL, level - fullUnits);
    return (Math.min(level, fullUnits) - real[OWED]) | 0;
  }

  /** Of how many equal costs, each of so many tokens, the first ones may pass at this level. */
  fitting(level: number, tokensEach: number, count: number): number {
    if (level <= 0) return 0;
    const unitsEach = tokensEach * this.real[UNITS_PER_TOKEN];
    if (count * unitsEach <= level) return count;
    return Math.min(count, Math.ceil(level / unitsEach));
  }

  /** Whether the level is above 0 after so many tokens were spent, of which nothing was noted yet. */
  isAbove(level: number, tokens: number): boolean {
    return tokens * this.real[UNITS_PER_TOKEN] < level;
  }

  spend(tokens: number): void {
    const { real } = this;
    const owed = tokens * real[UNITS_PER_TOKEN] + real[OWED];
    if (owed < this.lumpUnits) {
      real[OWED] = owed;
      return;
    }
    // Upwards, so that a full bucket does not last for one frame more than it has.
    const units = Math.ceil(owed);
    real[OWED] = owed - units;
    Atomics.sub(this.words, LEVEL, units);
  }
}

/** Not 0, and another one for nearly any other rate. */
function keyOf({ perSecond, burst }: RatePolicy): number {
  return Math.imul(perSecond % 2 ** 31, 0x9e3779b1) ^ Math.imul(burst % 2 ** 31, 0x85ebca6b) ^ 1 || 1;
}
