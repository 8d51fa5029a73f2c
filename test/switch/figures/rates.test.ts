/** Rates over spans of time, of counters that grow as they like. */
import { expect, it } from 'vitest';
import { Rates } from '../../../switch/figures/rates.ts';

const push = (rates: Rates, atMs: number, ...values: number[]): void =>
  rates.push(atMs, Float64Array.from(values));

it('are told over as much of a span as there is', () => {
  const rates = new Rates(2);
  expect(rates.all(0)).toEqual([0, 0, 0]);
  push(rates, 0, 100, 5);
  expect(rates.all(0)).toEqual([0, 0, 0]);
  push(rates, 1000, 110, 5);
  expect(rates.all(0)).toEqual([10, 10, 10]);
  push(rates, 2000, 140, 6);
  expect(rates.all(0)).toEqual([30, 20, 20]);
  expect(rates.all(1)).toEqual([1, 0.5, 0.5]);
});

it('are per second of the clock, however late a look came', () => {
  const rates = new Rates(1);
  push(rates, 0, 0);
  push(rates, 4000, 100);
  expect(rates.perSecond(0, 1)).toBe(25);
});

it('forget what is older than a minute', () => {
  const rates = new Rates(1);
  let count = 0;
  for (let second = 0; second < 500; second++) {
    count += second < 440 ? 1000 : second;
    push(rates, second * 1000, count);
  }
  const growth = (seconds: number): number => {
    let sum = 0;
    for (let second = 500 - seconds; second < 500; second++) sum += second;
    return sum / seconds;
  };
  expect(rates.all(0)).toEqual([growth(1), growth(10), growth(60)]);
});
