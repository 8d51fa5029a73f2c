/** What the kernel tells about a process: processor time and resident memory. */
import { readdirSync, readFileSync } from 'node:fs';

const KIB_PER_MIB = 1024;

/** Processor time of all living threads, in milliseconds. */
export function cpuTimeMs(pid: number): number {
  return readdirSync(`/proc/${pid}/task`).reduce((sum, thread) => sum + threadTimeMs(pid, thread), 0);
}

/** `sharedMiB`: pages of shared memory files, which is where guests' memory is (hugetlbfs counts nowhere). */
export function residentMemory(pid: number): { totalMiB: number; sharedMiB: number } {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const field = (name: string): number => {
    const match = new RegExp(`^${name}:\\s*(\\d+) kB$`, 'm').exec(status);
    return match === null ? 0 : Number(match[1]) / KIB_PER_MIB;
  };
  return { totalMiB: field('VmRSS'), sharedMiB: field('RssShmem') };
}

function threadTimeMs(pid: number, thread: string): number {
  try {
    // First field: nanoseconds on a processor.
    return Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ')[0]) / 1e6;
  } catch {
    return 0; // the thread has ended meanwhile
  }
}
