/** Turns signals into one orderly stop. Main thread of `ringway run`. */
import type { EventEmitter } from 'node:events';
import { hangUpIsFree, heededSignals, type StopSignal } from '../ignored-signals.ts';

/**
 * One Ctrl-C arrives twice when a wrapper (npm, ringway.js) passes on what the terminal sent to the whole
 * process group: within this time it is the same request.
 */
const SAME_REQUEST_MS = 250;

export type StopOptions = {
  readonly heeded?: readonly StopSignal[];
  readonly signals?: EventEmitter;
  readonly nowMs?: () => number;
  readonly endNow?: (signal: NodeJS.Signals) => void;
};

/** Resolves with the first signal that asks to stop. A second one ends the process at once, by that signal. */
export function stopRequested(options: StopOptions = {}): Promise<NodeJS.Signals> {
  const {
    heeded = heededSignals(),
    signals = process,
    nowMs = () => performance.now(),
    endNow = dieOf,
  } = options;
  return new Promise((resolve) => {
    let firstAtMs: number | null = null;
    const onSignal = (signal: NodeJS.Signals) => {
      if (firstAtMs !== null && nowMs() - firstAtMs >= SAME_REQUEST_MS) endNow(signal);
      firstAtMs ??= nowMs();
      resolve(signal);
    };
    for (const signal of heeded) signals.on(signal, () => onSignal(signal));
  });
}

/**
 * Has SIGHUP ask for the configuration to be read again, where it does not tell of a terminal's end and nobody wanted it to be
 * ignored: of a service, and of whatever else runs without a terminal.
 */
export function onReload(listener: () => void, signals: EventEmitter = process): void {
  if (hangUpIsFree()) signals.on('SIGHUP', listener);
}

/** Not process.exit(): that waits for the worker threads, and one that blocks in the kernel may be the trouble. */
function dieOf(signal: NodeJS.Signals): void {
  process.removeAllListeners(signal);
  process.kill(process.pid, signal);
}
