/** Signals while the demo runs: the first one ends it early but in order, a second one gives up. */
import { constants } from 'node:os';
import { heededSignals, type StopSignal } from '../ignored-signals.ts';
import { launcherGone } from '../launcher.ts';

/** A wrapper may pass on what the terminal sent to the whole group: within this time it is the same request. */
const SAME_REQUEST_MS = 250;

export class Interruption {
  /** Resolves with the first signal. */
  readonly once: Promise<StopSignal>;
  /** Resolves with the second one. */
  readonly twice: Promise<StopSignal>;
  readonly #onSignal: (signal: StopSignal) => void;

  constructor() {
    let resolveOnce: (signal: StopSignal) => void = () => {};
    let resolveTwice: (signal: StopSignal) => void = () => {};
    this.once = new Promise((resolve) => {
      resolveOnce = resolve;
    });
    this.twice = new Promise((resolve) => {
      resolveTwice = resolve;
    });
    let firstAtMs: number | null = null;
    this.#onSignal = (signal) => {
      if (firstAtMs !== null && performance.now() - firstAtMs >= SAME_REQUEST_MS) resolveTwice(signal);
      firstAtMs ??= performance.now();
      resolveOnce(signal);
    };
    for (const signal of heededSignals()) process.on(signal, this.#onSignal);
    // As if it had passed on what ended it.
    launcherGone().then(() => resolveOnce('SIGTERM'));
  }

  /** Resolves after `ms`, or earlier with the first signal. */
  async orAfter(ms: number): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const time = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, ms);
    });
    await Promise.race([time, this.once]);
    clearTimeout(timer);
  }

  /** Signals mean what they meant before. */
  close(): void {
    for (const signal of heededSignals()) process.off(signal, this.#onSignal);
  }
}

/** What a shell expects of a program that a signal ended. */
export function exitCodeOf(signal: StopSignal): number {
  return 128 + constants.signals[signal];
}
