/** Budgets over all peers: what is left for whom, and that a peer's share comes back. */
import { describe, expect, it } from 'vitest';
import {
  Budget,
  BudgetError,
  DescriptorShare,
  descriptorBudget,
  regionBudget,
} from '../../src/host/budgets.ts';

const make = (): Budget => new Budget('things', 40, 4, 'have more');

describe('Budget', () => {
  it('gives a peer more than it needs of the first three quarters only', () => {
    const budget = make();
    for (let has = 0; has < 30; has++) budget.take(1, has);
    expect(() => budget.take(1, 30)).toThrow(
      new BudgetError(
        'no more than 4 things for one guest: all guests together have 30 of 40, and the last quarter is for others (have more)',
      ),
    );
    // Another still gets what it needs.
    for (let has = 0; has < 4; has++) budget.take(1, has);
    expect(() => budget.take(1, 4)).toThrow(/more than 4/);
    for (let has = 0; has < 6; has++) budget.take(1, has % 4);
    expect(() => budget.take(1, 0)).toThrow('no things left: all guests together have 40 of 40 (have more)');
    expect(budget.used).toBe(40);
    budget.give(1);
    budget.take(1, 0);
  });

  it('takes nothing when it refuses', () => {
    const budget = make();
    expect(() => budget.take(41, 0)).toThrow(BudgetError);
    expect(budget.used).toBe(0);
  });

  it('counts what is there unasked, and gives others less', () => {
    let others = 0;
    const budget = new Budget('things', 40, 4, 'have more', { spare: 10, others: () => others });
    budget.add(30);
    others = 8;
    expect([budget.used, budget.room]).toEqual([38, 12]);
    budget.take(2, 0);
    expect(() => budget.take(1, 0)).toThrow('all guests together have 40 of 40');
    budget.add(12);
    expect([budget.used, budget.room]).toEqual([52, -2]);
    budget.give(42);
    budget.take(4, 0);
  });

  it('has room for a thousand guests with one pair of queues where 20,000 files may be open', () => {
    expect(descriptorBudget(20_000).max / DescriptorShare.BASE).toBeGreaterThan(1000);
  });

  it.each([
    [1024, 578, 193],
    [256, 144, 48],
    [64, 36, 12],
  ])(
    'of %d open files leaves %d to guests, and %d to us when a message brings all that it can',
    (files, max, ours) => {
      const budget = descriptorBudget(files);
      expect([budget.max, files - budget.room]).toEqual([max, ours]);
      expect(budget.room - budget.max).toBe(Math.min(253, files / 4));
    },
  );

  it('knows what this process may have', () => {
    expect(regionBudget().max).toBeGreaterThan(1000);
    expect(descriptorBudget().max).toBeGreaterThan(100);
  });
});

describe('DescriptorShare', () => {
  it('is as large as what one pair of queues needs, and grows with the rings', () => {
    const budget = new Budget('descriptors', 100, DescriptorShare.BASE, '');
    const share = new DescriptorShare(budget);
    share.forRings(1);
    share.forRings(3);
    expect(budget.used).toBe(DescriptorShare.BASE);
    share.forRings(5);
    share.forRings(4);
    expect(budget.used).toBe(DescriptorShare.BASE + 6);
    expect(() => share.forRings(50)).toThrow(BudgetError);
    share.release();
    expect(budget.used).toBe(0);
  });
});
