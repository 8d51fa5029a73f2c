/**
 * The process's log: JSON lines on stderr, or readable ones when that is a terminal. Written at once and in this
 * process, so that the last line before an exit is not lost, but nobody waits for who reads it (lines-out.ts). Main
 * thread; workers report to it.
 */
import { createRequire } from 'node:module';
import { isatty } from 'node:tty';
import pino, { type Logger } from 'pino';
import { printable, printableJson } from '../src/host/printable.ts';
import { type LinesOut, linesOut } from './lines-out.ts';

export type { Logger } from 'pino';

export const LOG_LEVELS = ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

const STDERR_FD = 2;

/** `lines` and `isTerminal` are those of stderr unless given. */
export function createLogger(
  level: LogLevel,
  lines: LinesOut = linesOut(STDERR_FD),
  isTerminal = isatty(STDERR_FD),
): Logger {
  const prettify = isTerminal ? prettifier() : null;
  const log = pino(
    {
      level,
      base: { pid: process.pid },
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }), log: printableFields },
      hooks: {
        logMethod(args, method) {
          method.apply(this, args.map(printableText) as Parameters<typeof method>);
        },
      },
    },
    {
      write: (line: string) =>
        lines.write(prettify === null ? printableJson(line) : (prettify(line) ?? line)),
    },
  );
  lines.onLost = (lostLines, why) => log.warn({ lostLines }, `lines of this log were lost: ${why}`);
  return log;
}

/** Loaded only where somebody reads: guests wait for the start of a Ringway that comes after another one. */
function prettifier(): (line: string) => string | undefined {
  const { prettyFactory } = createRequire(import.meta.url)('pino-pretty') as typeof import('pino-pretty');
  return prettyFactory({ ignore: 'pid', translateTime: 'SYS:HH:MM:ss.l' });
}

function printableText(value: unknown): unknown {
  return typeof value === 'string' ? printable(value) : value;
}

function printableFields(fields: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(fields).map(([key, value]) => [key, printableText(value)]));
}
