/**
 * `npm run testbed`: prints the table of the field, measured on this machine without containers. Rows that cannot
 * be measured say why; the exit code is 1 when no row could be.
 */
import { Command, InvalidArgumentError, Option } from 'commander';
import { ACCELERATOR_CHOICES, type AcceleratorChoice } from './accelerator.ts';
import { measureHostRow } from './host-rows.ts';
import { tellResults } from './results.ts';
import { isRowName, ROW_NAMES, type RowName, type RowResult } from './rows.ts';

const SECONDS_MAX = 600;

type Options = { seconds: number; accel: AcceleratorChoice; rows: readonly RowName[]; json?: string };

async function main(): Promise<void> {
  const options = command().parse().opts<Options>();
  // Children, mounts, the namespace and folders are cleared away at exit, which a signal alone would skip.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => process.exit(1));
  const notes: string[] = [];
  const note = (text: string): void => {
    if (!notes.includes(text)) notes.push(text);
  };
  const rows: RowResult[] = [];
  for (const row of options.rows) {
    process.stderr.write(`measuring ${row}\n`);
    rows.push(await measureHostRow(row, { seconds: options.seconds, accelerator: options.accel, note }));
  }
  await tellResults({ place: 'host', seconds: options.seconds, rows, notes }, options.json ?? null);
  process.exitCode = rows.some((row) => 'framesPerSecond' in row) ? 0 : 1;
}

function command(): Command {
  return new Command('npm run testbed --')
    .description(
      'Measures packets per second at 64 bytes and TCP between two QEMU guests for each kind of card.',
    )
    .option('--seconds <n>', 'length of each measurement', wholeSeconds, 10)
    .addOption(
      new Option('--rows <list>', `rows to measure: ${ROW_NAMES.join(', ')}`)
        .argParser(rowList)
        .default(ROW_NAMES, 'all of them'),
    )
    .addOption(
      new Option('--accel <name>', 'how the guests are run').choices(ACCELERATOR_CHOICES).default('auto'),
    )
    .option('--json <file>', 'where the results go as well');
}

function wholeSeconds(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1 || value > SECONDS_MAX) {
    throw new InvalidArgumentError(`${text} is no whole number from 1 to ${SECONDS_MAX}.`);
  }
  return value;
}

function rowList(text: string): RowName[] {
  return text.split(',').map((part) => {
    if (!isRowName(part)) throw new InvalidArgumentError(`${part} is none of ${ROW_NAMES.join(', ')}.`);
    return part;
  });
}

await main();
