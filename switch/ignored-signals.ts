/**
 * Signals that whoever started this process wants it to ignore: `nohup`, a shell that starts it in the background, a
 * daemon without a terminal. Node forgets them: before any of our code runs it sets ignored signals back. So
 * the command `ringway` (cli/ringway.sh) notes them and hands them over in the environment; where Node was started
 * directly, what `nohup` leaves behind tells. Main thread.
 */
import { fstatSync, readFileSync, statSync } from 'node:fs';
import { basename } from 'node:path';
import { statFields } from '../src/host/process-identity.ts';

/** SIGTERM always stops. */
export const STOP_SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
export type StopSignal = (typeof STOP_SIGNALS)[number];

/** Ignored signals as /proc/PID/status shows them: hexadecimal, bit n - 1 for signal n. */
export const IGNORED_VARIABLE = 'RINGWAY_IGNORED_SIGNALS';
const MASK_OF = { SIGHUP: 1n << 0n, SIGINT: 1n << 1n } as const;
const O_ACCMODE = 3;
const O_WRONLY = 1;

/** What can be seen of how the process was started. */
export type StartFacts = {
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** It has a terminal whose end SIGHUP would tell. */
  readonly hasTerminal: boolean;
  /** Its stdin is /dev/null, open for writing only: so nohup replaces a terminal. */
  readonly hasStdinOfNohup: boolean;
};

/**
 * Those of the stop signals that are to be ignored. SIGHUP also without a terminal: it then tells of no terminal's end,
 * and a shell that ends sends it to all that it has started, `setsid` or not.
 */
export function ignoredSignals(facts: StartFacts): Set<StopSignal> {
  const { environment, hasTerminal, hasStdinOfNohup } = facts;
  const noted = environment[IGNORED_VARIABLE];
  const ignored = new Set<StopSignal>();
  if (noted !== undefined && /^[0-9a-f]{1,16}$/i.test(noted)) {
    const mask = BigInt(`0x${noted}`);
    for (const signal of ['SIGHUP', 'SIGINT'] as const) {
      if ((mask & MASK_OF[signal]) !== 0n) ignored.add(signal);
    }
  } else if (hasStdinOfNohup || basename(environment._ ?? '') === 'nohup') {
    // Shells name in `_` the program that they start; nohup then becomes this one.
    ignored.add('SIGHUP');
  }
  if (!hasTerminal) ignored.add('SIGHUP');
  return ignored;
}

/** Whether SIGHUP is left to ask for something else: no terminal's end is told by it, and nobody wanted it to be ignored. */
export function isHangUpFree(facts: StartFacts): boolean {
  return !facts.hasTerminal && !ignoredSignals({ ...facts, hasTerminal: true }).has('SIGHUP');
}

type OfThisProcess = { readonly ignored: Set<StopSignal>; readonly isHangUpFree: boolean };
let ofThisProcess: OfThisProcess | null = null;

/** The stop signals that this process heeds. The others do nothing from the first call on. */
export function heededSignals(): StopSignal[] {
  ofThisProcess ??= ignoreForGood();
  return STOP_SIGNALS.filter((signal) => !ofThisProcess?.ignored.has(signal));
}

/** As `isHangUpFree`, of this process. */
export function hangUpIsFree(): boolean {
  ofThisProcess ??= ignoreForGood();
  return ofThisProcess.isHangUpFree;
}

function ignoreForGood(): OfThisProcess {
  const facts: StartFacts = {
    environment: { ...process.env },
    hasTerminal: hasTerminal(),
    hasStdinOfNohup: hasStdinOfNohup(),
  };
  const ignored = ignoredSignals(facts);
  delete process.env[IGNORED_VARIABLE];
  for (const signal of ignored) process.on(signal, () => {});
  return { ignored, isHangUpFree: isHangUpFree(facts) };
}

function hasTerminal(): boolean {
  return statFields('self')[4] !== '0';
}

function hasStdinOfNohup(): boolean {
  try {
    if (fstatSync(0).rdev !== statSync('/dev/null').rdev) return false;
    const flags = /^flags:\s*([0-7]+)$/m.exec(readFileSync('/proc/self/fdinfo/0', 'utf8'));
    return flags !== null && (Number.parseInt(flags[1], 8) & O_ACCMODE) === O_WRONLY;
  } catch {
    return false;
  }
}
