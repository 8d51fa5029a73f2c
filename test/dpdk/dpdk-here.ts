/** Whether the bindings can be tried on this machine: DPDK of a known ABI, and a process whose EAL is not begun. */
import { isMainThread } from 'node:worker_threads';
import { DpdkError, loadDpdk } from '../../src/dpdk/library.ts';
import { softwareMissing } from '../peers/software.ts';

/** Null: it can be used; otherwise why not. */
export function whyNoDpdk(): string | null {
  // It is the run that has to be mended, not the machine.
  if (!isMainThread)
    return softwareMissing('EAL is begun by the main thread of a process: run vitest with the pool forks');
  try {
    loadDpdk();
    return null;
  } catch (error) {
    if (error instanceof DpdkError) return softwareMissing(error.message);
    throw error;
  }
}
