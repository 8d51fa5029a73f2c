/** Counters of a port on their way to a process that has others. */
import { expect, it } from 'vitest';
import { DROP, DROP_REASONS } from '../../../switch/l2/drop-reasons.ts';
import {
  COUNT_COPIES,
  COUNT_OFFERED,
  countsNamed,
  namedCounts,
  PORT_COUNTS,
} from '../../../switch/l2/port-counts.ts';

it('counters are told by name, so that it does not matter where they stand', () => {
  const counts = Float64Array.from({ length: PORT_COUNTS }, (_, at) => at + 1);
  const named = namedCounts(counts);
  expect(Object.keys(named)).toHaveLength(PORT_COUNTS);
  expect(named.noBuffer).toBe(DROP.noBuffer + 1);
  expect(named.copies).toBe(COUNT_COPIES + 1);
  const backwards = Object.fromEntries(Object.entries(named).reverse());
  expect(countsNamed(backwards)).toEqual(counts);
  // Of another version.
  const { noBuffer: _, ...older } = named;
  const taken = countsNamed({ ...older, ofTheFuture: 5 });
  expect(taken).toHaveLength(PORT_COUNTS);
  expect(taken[DROP.noBuffer]).toBe(0);
  expect(taken[COUNT_OFFERED]).toBe(COUNT_OFFERED + 1);
  expect(DROP_REASONS.every(({ name }) => name in named)).toBe(true);
});
