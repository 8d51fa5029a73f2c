/** What one run of the testbed found, as it is printed and kept in a file. */
import { writeFileSync } from 'node:fs';
import { type MachineFacts, machineFacts } from '../report/facts.ts';
import { factLines } from '../report/table.ts';
import { isRowName, type RowResult } from './rows.ts';
import { testbedLines } from './table.ts';

export type TestbedResults = {
  readonly facts: MachineFacts;
  readonly place: 'host' | 'containers';
  readonly seconds: number;
  /** How often each row was measured. */
  readonly rounds: number;
  readonly rows: readonly RowResult[];
  readonly notes: readonly string[];
};

const TCG_NOTE =
  'tcg: the guests’ processors are emulated, so the guests and not the switch set the pace of their rows.';

/** Facts, table and notes as lines. */
export function resultLines(results: TestbedResults): string[] {
  const emulated = results.rows.some((row) => 'accelerator' in row && row.accelerator === 'tcg');
  const place = results.place === 'host' ? 'without containers' : 'in containers';
  const rounds = results.rounds === 1 ? '' : `, medians of ${results.rounds} rounds`;
  return [
    ...factLines(results.facts),
    `Testbed ${place}, windows of ${results.seconds} s${rounds}`,
    '',
    ...testbedLines(results.rows),
    '',
    ...(emulated ? [TCG_NOTE] : []),
    ...results.notes,
  ];
}

/** Results one line of JSON each; other lines are refused. @throws with the line */
export function parseRowResults(text: string): RowResult[] {
  const lines = text.split('\n').filter((line) => line.trim() !== '');
  return lines.map((line) => {
    const value = JSON.parse(line) as Partial<Record<string, unknown>>;
    const isMeasured = Array.isArray(value.samples);
    if (!isRowName(String(value.row)) || (!isMeasured && typeof value.notMeasured !== 'string')) {
      throw new Error(`no result of a row: ${line}`);
    }
    return value as RowResult;
  });
}

/** Prints the results, writes them to `jsonPath` unless that is null. */
export async function tellResults(
  found: Omit<TestbedResults, 'facts'>,
  jsonPath: string | null,
): Promise<void> {
  const results: TestbedResults = { facts: await machineFacts(), ...found };
  process.stdout.write(`${resultLines(results).join('\n').trimEnd()}\n`);
  if (jsonPath !== null) writeFileSync(jsonPath, `${JSON.stringify(results, null, 2)}\n`);
}
