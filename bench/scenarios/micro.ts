/** Runs the benchmarks of the inner pieces (bench/micro), each in a process of its own. */
import { readdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import { runProgram } from '../../test/peers/child.ts';
import { progress } from '../report/progress.ts';
import type { MicroResult } from '../report/results.ts';
import type { Rig } from '../rig.ts';

const FOLDER = join(import.meta.dirname, '..', 'micro');
const TIMEOUT_MS = 300_000;
/** Prints in mitata's own form, and fills a table of a million addresses: full runs only. */
const OWN_REPORT = 'fdb.bench.ts';

/** The results of those that report to us; `text` is what the others print. */
export async function measureMicro(rig: Rig): Promise<{ results: MicroResult[]; text: string }> {
  const files = readdirSync(FOLDER).filter((name) => name.endsWith('.bench.ts'));
  const results: MicroResult[] = [];
  let text = '';
  for (const file of files.toSorted()) {
    if (file === OWN_REPORT && rig.plan.quick) continue;
    progress(`inner pieces, ${basename(file, '.bench.ts')}`);
    const args = [
      '-c',
      String(rig.plan.dutCpu),
      process.execPath,
      join(FOLDER, file),
      '--json',
      ...(rig.plan.quick ? ['--quick'] : []),
    ];
    const { code, output } = await runProgram('taskset', args, {
      timeoutMs: TIMEOUT_MS,
      env: { NO_COLOR: '1' },
    });
    if (code !== 0) rig.leaveOut(file, 'the inner pieces', output.slice(-500) || 'no answer in time');
    else if (file === OWN_REPORT) text += output;
    else results.push(...(JSON.parse(output) as MicroResult[]));
  }
  return { results, text };
}
