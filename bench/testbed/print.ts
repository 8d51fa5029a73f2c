/**
 * `print.ts SECONDS < RESULTS`: the table of rows that were measured one by one, a line of JSON each; with `--json`
 * as JSON instead of text. Run by docker/testbed.sh inside a container.
 */
import { text } from 'node:stream/consumers';
import { machineFacts } from '../report/facts.ts';
import { parseRowResults, resultLines, type TestbedResults } from './results.ts';

const [seconds = '10', format] = process.argv.slice(2);
const results: TestbedResults = {
  facts: await machineFacts(),
  place: 'containers',
  seconds: Number(seconds),
  rounds: 1,
  rows: parseRowResults(await text(process.stdin)),
  notes: [],
};
const shown =
  format === '--json' ? JSON.stringify(results, null, 2) : resultLines(results).join('\n').trimEnd();
process.stdout.write(`${shown}\n`);
