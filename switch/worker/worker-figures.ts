/**
 * What a worker counts about itself, for who watches it: doubles in memory that the main thread reads. Nothing here is written a
 * frame: some a burst (the forwarder's), the rest when the worker sleeps and once a second.
 */
import { performance } from 'node:perf_hooks';
import { BURST_CLASSES, BURST_COUNTS, BURST_FRAMES } from '../l2/burst-counts.ts';
import { Collections } from './collections.ts';

const SLEEPS = BURST_COUNTS;
const SLEPT_MS = BURST_COUNTS + 1;
/** By the machine's clock; 0: it does not sleep. */
const ASLEEP_SINCE_MS = BURST_COUNTS + 2;
/** What a turn that finds no frame costs; 0: not known yet. */
const EMPTY_TURN_NS = BURST_COUNTS + 3;
const COLLECTIONS = BURST_COUNTS + 4;
const COLLECTED_MS = BURST_COUNTS + 5;
/** By the machine's clock; 0: its thread is still being started. */
const BEGAN_MS = BURST_COUNTS + 6;
export const WORKER_FIGURES_BYTES = (BURST_COUNTS + 7) * 8;

const NS_PER_MS = 1e6;
/** Turns that are timed together, and how often that is tried a second until it was without a frame a few times. */
export const TIMED_TURNS = 16;
const TRIES = 32;
/** A second in which a turn seemed to cost more changes the figure by so much of the difference. */
const RISE = 0.25;

export class WorkerFigures {
  readonly #words: Float64Array;
  readonly #startMs = Number(process.hrtime.bigint()) / NS_PER_MS - performance.now();
  readonly #collections = new Collections();
  #tick = 0;
  #triesLeft = 0;
  /** The least that an empty turn took in this second, and what reading the clock did. */
  #turnNs = Number.POSITIVE_INFINITY;
  #clockNs = Number.POSITIVE_INFINITY;

  constructor(memory: SharedArrayBuffer) {
    this.#words = new Float64Array(memory);
    this.#words[BEGAN_MS] = this.#startMs + performance.now();
  }

  /** Where the forwarder counts. */
  get bursts(): Float64Array {
    return this.#words.subarray(0, BURST_COUNTS);
  }

  /** The seconds since the start; call as often as one likes. */
  at(tick: number): void {
    if (tick === this.#tick) return;
    this.#tick = tick;
    this.#triesLeft = TRIES;
    this.#turnNs = Number.POSITIVE_INFINITY;
    this.#collections.look();
    this.#words[COLLECTIONS] = this.#collections.count;
    this.#words[COLLECTED_MS] = this.#collections.spentMs;
  }

  /** Whether TIMED_TURNS are to be timed. */
  get wantsTime(): boolean {
    return this.#triesLeft > 0;
  }

  /** Before those turns. */
  begin(): number {
    return performance.now();
  }

  /** After them; `wasEmpty`: none of them found a frame, and all were made. */
  end(startMs: number, wasEmpty: boolean): void {
    const endMs = performance.now();
    this.#clockNs = Math.min(this.#clockNs, (performance.now() - endMs) * NS_PER_MS);
    this.#triesLeft--;
    if (wasEmpty)
      this.#turnNs = Math.min(this.#turnNs, ((endMs - startMs) * NS_PER_MS - this.#clockNs) / TIMED_TURNS);
    if (this.#triesLeft > 0 || this.#turnNs === Number.POSITIVE_INFINITY) return;
    const known = this.#words[EMPTY_TURN_NS];
    const isLess = known === 0 || this.#turnNs < known;
    this.#words[EMPTY_TURN_NS] = isLess ? Math.max(this.#turnNs, 0) : known + (this.#turnNs - known) * RISE;
  }

  fallsAsleep(): void {
    this.#words[ASLEEP_SINCE_MS] = this.#startMs + performance.now();
    this.#words[SLEEPS] += 1;
  }

  wakesUp(): void {
    const words = this.#words;
    words[SLEPT_MS] += this.#startMs + performance.now() - words[ASLEEP_SINCE_MS];
    words[ASLEEP_SINCE_MS] = 0;
  }
}

/** As the main thread reads it. */
export type WorkerCounts = {
  /** By the machine's clock, when the rest was read. */
  readonly atMs: number;
  /** When it began to turn; 0: it did not yet. */
  readonly beganMs: number;
  /** By size: BURST_CLASSES. */
  readonly bursts: readonly number[];
  readonly frames: number;
  /** These two with the sleep that it is in. */
  readonly sleeps: number;
  readonly sleptMs: number;
  /** Running, 32 bits without a sign. */
  readonly emptyTurns: number;
  readonly emptyTurnNs: number;
  readonly collections: number;
  readonly collectedMs: number;
};

export function machineMs(): number {
  return Number(process.hrtime.bigint()) / NS_PER_MS;
}

export function readWorkerCounts(words: Float64Array, emptyTurns: number): WorkerCounts {
  const atMs = machineMs();
  const sinceMs = words[ASLEEP_SINCE_MS];
  return {
    atMs,
    beganMs: words[BEGAN_MS],
    bursts: [...words.subarray(0, BURST_CLASSES)],
    frames: words[BURST_FRAMES],
    sleeps: words[SLEEPS],
    sleptMs: words[SLEPT_MS] + (sinceMs === 0 ? 0 : Math.max(0, atMs - sinceMs)),
    emptyTurns,
    emptyTurnNs: words[EMPTY_TURN_NS],
    collections: words[COLLECTIONS],
    collectedMs: words[COLLECTED_MS],
  };
}
