/**
 * `npm run testbed`: prints the table of the field, measured on this machine without containers. Rows that cannot
 * be measured say why; the exit code is 1 when no row could be.
 */
import { Command, InvalidArgumentError, Option } from 'commander';
import { ACCELERATOR_CHOICES, type AcceleratorChoice } from './accelerator.ts';
import { startHostRow } from './host-rows.ts';
import { tellResults } from './results.ts';
import { measureRounds } from './rounds.ts';
import { FIGURES, type Figure, isRowName, ROW_NAMES, type RowName, type Sample } from './rows.ts';
import { figureTexts } from './table.ts';

const SECONDS_MAX = 600;
const ROUNDS_MAX = 99;

type Options = {
  seconds: number;
  rounds: number;
  only?: Figure;
  accel: AcceleratorChoice;
  rows: readonly RowName[];
  json?: string;
};

async function main(): Promise<void> {
  const options = command().parse().opts<Options>();
  // Children, mounts, the namespace and folders are cleared away at exit, which a signal alone would skip.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => process.exit(1));
  // All rows of several rounds stand at once, and each mount of hugepages listens for the exit.
  process.setMaxListeners(0);
  const notes: string[] = [];
  const note = (text: string): void => {
    if (!notes.includes(text)) notes.push(text);
  };
  const { seconds, rounds, accel: accelerator } = options;
  const figures = options.only === undefined ? FIGURES : [options.only];
  const rows = await measureRounds(options.rows, {
    count: rounds,
    start: (row) => {
      process.stderr.write(`starting ${row}\n`);
      return startHostRow(row, { seconds, figures, accelerator, note });
    },
    measured: (round, row, sample) => process.stderr.write(`${progressLine(round, row, sample)}\n`),
    note,
  });
  await tellResults({ place: 'host', seconds, rounds, rows, notes }, options.json ?? null);
  process.exitCode = rows.some((row) => 'samples' in row) ? 0 : 1;
}

function progressLine(round: number, row: RowName, sample: Sample): string {
  const { frames, tcp } = figureTexts(sample);
  return `round ${round}: ${row}: packets/s ${frames}, TCP ${tcp}`;
}

function command(): Command {
  return new Command('npm run testbed --')
    .description(
      'Measures packets per second at 64 bytes and TCP between two QEMU guests for each kind of card.',
    )
    .option('--seconds <n>', 'length of each measurement', wholeNumber(SECONDS_MAX), 10)
    .option(
      '--rounds <n>',
      'how often each row is measured; the table has the medians',
      wholeNumber(ROUNDS_MAX),
      1,
    )
    .addOption(new Option('--only <figure>', 'leaves out the other figure').choices(FIGURES))
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

function wholeNumber(max: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!Number.isInteger(value) || value < 1 || value > max) {
      throw new InvalidArgumentError(`${text} is no whole number from 1 to ${max}.`);
    }
    return value;
  };
}

function rowList(text: string): RowName[] {
  return text.split(',').map((part) => {
    if (!isRowName(part)) throw new InvalidArgumentError(`${part} is none of ${ROW_NAMES.join(', ')}.`);
    return part;
  });
}

await main();
