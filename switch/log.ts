/**
 * The process's log: JSON lines on stderr, or readable ones when that is a terminal. Written at once and in
 * this process, so that the last line before an exit is not lost. Main thread; workers report to it.
 */
import { isatty } from 'node:tty';
import pino, { type Logger } from 'pino';
import pretty from 'pino-pretty';

export type { Logger } from 'pino';

export const LOG_LEVELS = ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

const STDERR_FD = 2;

export function createLogger(level: LogLevel): Logger {
  const stream = isatty(STDERR_FD)
    ? pretty({ destination: STDERR_FD, sync: true, ignore: 'pid', translateTime: 'SYS:HH:MM:ss.l' })
    : pino.destination({ dest: STDERR_FD, sync: true });
  return pino(
    {
      level,
      base: { pid: process.pid },
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
    },
    stream,
  );
}
