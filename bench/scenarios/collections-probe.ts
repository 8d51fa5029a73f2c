/**
 * Loaded into every thread of the Ringway process that collections.ts watches (`--import`): collects once
 * between two marks on standard output.
 */
import { writeSync } from 'node:fs';
import { isMainThread } from 'node:worker_threads';

const { gc } = globalThis as { gc?: () => void };
const STDOUT_FD = 1;

writeSync(STDOUT_FD, `probe begins: ${isMainThread ? 'main' : 'worker'}\n`);
gc?.();
writeSync(STDOUT_FD, 'probe ends\n');
