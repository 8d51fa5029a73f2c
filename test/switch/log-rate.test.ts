/** How many lines a port may write, and what becomes of the others. */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { LINE_MS, LINES_AT_ONCE, LogRate } from '../../switch/log-rate.ts';

let lines: string[];
let rate: LogRate;

beforeEach(() => {
  vi.useFakeTimers();
  lines = [];
  rate = new LogRate((level, message) => lines.push(`${level}: ${message}`));
});
afterEach(() => {
  vi.useRealTimers();
});

describe('the lines of a port', () => {
  it('are written as they come while they are few', () => {
    for (let i = 0; i < LINES_AT_ONCE; i++) rate.note(i % 2 === 0 ? 'info' : 'warn', `line ${i}`);
    expect(lines).toHaveLength(LINES_AT_ONCE);
    expect(lines.slice(0, 2)).toEqual(['info: line 0', 'warn: line 1']);
    vi.advanceTimersByTime(100 * LINE_MS);
    expect(lines).toHaveLength(LINES_AT_ONCE);
  });

  it('that are too many are left out but for the newest, with their number', () => {
    for (let i = 0; i < 10_000; i++) rate.note('warn', `line ${i}`);
    expect(lines).toHaveLength(LINES_AT_ONCE);
    vi.advanceTimersByTime(LINE_MS);
    const others = 10_000 - LINES_AT_ONCE - 1;
    expect(lines.slice(LINES_AT_ONCE)).toEqual([
      `warn: line 9999 (${others} lines before this one were left out)`,
    ]);
    vi.advanceTimersByTime(100 * LINE_MS);
    expect(lines).toHaveLength(LINES_AT_ONCE + 1);
  });

  it('are one a second while it goes on, and no line overtakes another', () => {
    for (let i = 0; i < 100_000; i++) {
      rate.note('warn', `line ${i}`);
      if (i % 1000 === 999) vi.advanceTimersByTime(LINE_MS / 10);
    }
    expect(lines.length).toBeLessThanOrEqual(LINES_AT_ONCE + 10);
    const numbers = lines.map((line) => Number(/line (\d+)/.exec(line)?.[1]));
    expect(numbers).toEqual([...numbers].sort((a, b) => a - b));
  });

  it('are many again after a while of silence', () => {
    for (let i = 0; i < 50; i++) rate.note('info', 'first');
    vi.advanceTimersByTime((LINES_AT_ONCE + 2) * LINE_MS);
    lines.length = 0;
    for (let i = 0; i < 50; i++) rate.note('info', 'second');
    expect(lines).toHaveLength(LINES_AT_ONCE);
  });

  it('say nothing of others where only one was late', () => {
    for (let i = 0; i <= LINES_AT_ONCE; i++) rate.note('info', `line ${i}`);
    vi.advanceTimersByTime(LINE_MS);
    expect(lines.at(-1)).toBe(`info: line ${LINES_AT_ONCE}`);
  });
});
