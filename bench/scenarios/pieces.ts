/**
 * Runs `npm run bench -- --pieces` in a process of its own, on the processor under test: its figures are those of
 * code that V8 compiled for nothing else. Main thread.
 */
import { dirname, join } from 'node:path';
import { runProgram } from '../../test/peers/child.ts';
import { progress } from '../report/progress.ts';
import type { Rig } from '../rig.ts';

const PROGRAM = join(dirname(import.meta.dirname), 'main.ts');
const TIMEOUT_MS = 600_000;

/** What it prints. @throws when it fails */
export async function measurePieces({ plan: { dutCpu, quick } }: Rig): Promise<string> {
  progress('pieces');
  const args = ['-c', String(dutCpu), process.execPath, PROGRAM, '--pieces', ...(quick ? ['--quick'] : [])];
  const { code, output } = await runProgram('taskset', args, {
    timeoutMs: TIMEOUT_MS,
    env: { NO_COLOR: '1' },
  });
  if (code !== 0) throw new Error(output.slice(-2000) || 'no answer in time');
  return output.trimEnd();
}
