/**
 * Whether a measurement had its processors to itself. On a machine that others use too, a switch or generator
 * that waited for its processor tells nothing about its speed; such a measurement is made again, a few times
 * at most, and the least disturbed one counts. The choice looks only at the waiting, never at the result.
 */
import { readdirSync, readFileSync } from 'node:fs';

/** Share of the time that the most disturbed thread waited, 0 to 1. */
export type Measured<T> = { readonly value: T; readonly disturbedShare: number };

const DISTURBED_SHARE_MAX = 0.02;
/** Unit of /proc/stat. */
const TICKS_PER_SECOND = 100;
const STEAL_FIELD = 8;

/** `pids`: the switch's process and the generator's; `cpus`: their processors, for what the hypervisor took. */
export async function measureUndisturbed<T>(
  pids: readonly number[],
  cpus: readonly number[],
  attemptsMax: number,
  measure: () => Promise<T>,
): Promise<Measured<T>> {
  let best: Measured<T> | null = null;
  for (let attempt = 0; attempt < attemptsMax; attempt++) {
    const startMs = performance.now();
    const before = lostMs(pids, cpus);
    const value = await measure();
    const elapsedMs = performance.now() - startMs;
    const after = lostMs(pids, cpus);
    const sharesLost = [...before].map(([who, ms]) => ((after.get(who) ?? ms) - ms) / elapsedMs);
    const disturbedShare = Math.max(0, ...sharesLost);
    if (best === null || disturbedShare < best.disturbedShare) best = { value, disturbedShare };
    if (best.disturbedShare <= DISTURBED_SHARE_MAX) break;
  }
  return best!;
}

/** Time that each thread was ready to run and did not, and that each processor was taken by the hypervisor. */
function lostMs(pids: readonly number[], cpus: readonly number[]): Map<string, number> {
  const lost = new Map<string, number>();
  const stat = readFileSync('/proc/stat', 'utf8');
  for (const cpu of cpus) {
    const line = new RegExp(`^cpu${cpu} .*$`, 'm').exec(stat)?.[0] ?? '';
    lost.set(`cpu ${cpu}`, (Number(line.split(' ')[STEAL_FIELD] ?? 0) * 1000) / TICKS_PER_SECOND);
  }
  for (const pid of pids) {
    for (const thread of threadsOf(pid)) lost.set(thread, waitedMs(pid, thread));
  }
  return lost;
}

function waitedMs(pid: number, thread: string): number {
  try {
    // Fields: nanoseconds on a processor, nanoseconds waited for one, number of slices.
    return Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ')[1]) / 1e6;
  } catch {
    return 0; // the thread has ended meanwhile
  }
}

function threadsOf(pid: number): string[] {
  try {
    return readdirSync(`/proc/${pid}/task`);
  } catch {
    return []; // the process has ended, which is told elsewhere
  }
}
