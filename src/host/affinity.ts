/** Which processors a thread may run on. */
import { readdirSync } from 'node:fs';
import { checked } from './errors.ts';
import { libc } from './libc.ts';

const MASK_BYTES = 128;

/** Pins the calling thread (not the process) to one processor. @throws HostError EINVAL: no such processor */
export function pinThread(cpu: number): void {
  const mask = new Uint8Array(MASK_BYTES);
  mask[cpu >> 3] = 1 << (cpu & 7);
  checked(
    libc.sched_setaffinity(0, mask.length, mask),
    'sched_setaffinity',
    `pinning a thread to CPU ${cpu}`,
  );
}

/**
 * Keeps all threads of this process, and those that they start, off these processors, unless nothing would be left. One that
 * is to run there is pinned afterwards.
 */
export function keepOff(cpus: readonly number[]): void {
  const left = allowedCpus().filter((cpu) => !cpus.includes(cpu));
  if (left.length === 0) return;
  const mask = new Uint8Array(MASK_BYTES);
  for (const cpu of left) mask[cpu >> 3] |= 1 << (cpu & 7);
  // One may have ended meanwhile.
  for (const thread of readdirSync('/proc/self/task'))
    libc.sched_setaffinity(Number(thread), mask.length, mask);
}

/** Processors that the calling thread may use, in ascending order. */
export function allowedCpus(): number[] {
  const mask = new Uint8Array(MASK_BYTES);
  checked(libc.sched_getaffinity(0, mask.length, mask), 'sched_getaffinity', 'reading the allowed CPUs');
  const cpus: number[] = [];
  for (let cpu = 0; cpu < MASK_BYTES * 8; cpu++) {
    if ((mask[cpu >> 3] & (1 << (cpu & 7))) !== 0) cpus.push(cpu);
  }
  return cpus;
}
