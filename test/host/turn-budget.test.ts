/** What peers take of one turn of the event loop, by a clock that the test moves. */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { TurnBudget } from '../../src/host/turn-budget.ts';

let nowMs: number;

beforeEach(() => {
  nowMs = 1000;
  vi.spyOn(performance, 'now').mockImplementation(() => nowMs);
});
afterEach(() => vi.restoreAllMocks());

describe('a turn of the event loop', () => {
  it('is used up by time, whoever took it, and the next one is whole', async () => {
    const budget = new TurnBudget();
    for (let turn = 0; turn < 3; turn++) {
      expect(budget.isSpent()).toBe(false);
      nowMs += 0.5;
      expect(budget.isSpent()).toBe(false);
      nowMs += 0.5;
      expect(budget.isSpent()).toBe(true);
      await new Promise(setImmediate);
    }
  });

  it('does not begin anew by settled promises alone', async () => {
    const budget = new TurnBudget();
    expect(budget.isSpent()).toBe(false);
    nowMs += 5;
    for (let i = 0; i < 100; i++) await Promise.resolve();
    expect(budget.isSpent()).toBe(true);
  });

  it('begins with the first work, however long nothing was done', async () => {
    const budget = new TurnBudget();
    expect(budget.isSpent()).toBe(false);
    await new Promise(setImmediate);
    nowMs += 60_000;
    expect(budget.isSpent()).toBe(false);
  });
});
