/**
 * The books of a Ringway in a process of its own (the law stands in switch/l2/port-counts.ts), added up at a quiet
 * moment: of each port and of the whole switch. Every test with real peers ends with it, once its traffic has stopped.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { expect } from 'vitest';
import { type Books, imbalances } from '../../switch/control/books.ts';
import { askControl } from '../../switch/control/client.ts';
import type { PortReport } from '../../switch/control/report.ts';

/** Longer than a worker takes for a burst, and than a sleeping one looks away from rings without a kick. */
const QUIET_MS = 100;
/** Interfaces of the kernel are never silent for ever, but for a moment now and then. */
const READS_MAX = 100;
/** So many reads that are the same: nobody is in the middle of a burst, as a worker without a processor may be. */
const QUIET_READS = 20;

/** Fails when the books do not balance, or when frames never stop. */
export async function expectBalancedBooks(controlSocket: string): Promise<void> {
  let before = await readBooks(controlSocket);
  let quietReads = 0;
  for (let reads = 1; reads < READS_MAX; reads++) {
    await delay(QUIET_MS);
    const now = await readBooks(controlSocket);
    quietReads = JSON.stringify(now) === JSON.stringify(before) ? quietReads + 1 : 0;
    before = now;
    if (quietReads === 0) continue;
    const faults = now.flatMap(({ name, books, isWhole }) => imbalances(name, books, isWhole));
    if (faults.length > 0 && quietReads < QUIET_READS) continue;
    expect(faults).toEqual([]);
    return;
  }
  throw new Error(`frames still come after ${READS_MAX} reads: ${JSON.stringify(before)}`);
}

type NamedBooks = { readonly name: string; readonly books: Books; readonly isWhole: boolean };

async function readBooks(controlSocket: string): Promise<NamedBooks[]> {
  const ports = await askControl<PortReport[]>(controlSocket, '/v1/ports');
  const whole = await askControl<Books>(controlSocket, '/v1/totals');
  return [
    ...ports.map(({ name, counters, drops }) => ({ name, books: { counters, drops }, isWhole: false })),
    { name: 'the switch', books: whole, isWhole: true },
  ];
}
