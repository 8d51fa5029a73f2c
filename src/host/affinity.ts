/** Which processors a thread may run on. */
import { checked } from './errors.ts';
import { libc } from './libc.ts';
import { threadNumbers } from './threads.ts';

const MASK_BYTES = 128;

/** Pins the calling thread (not the process) to one processor. @throws HostError EINVAL: no such processor */
export function pinThread(cpu: number): void {
  const mask = maskOf([cpu]);
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
  const mask = maskOf(left);
  // One may have ended meanwhile.
  for (const thread of threadNumbers()) libc.sched_setaffinity(thread, mask.length, mask);
}

function maskOf(cpus: readonly number[]): Uint8Array {
  const mask = new Uint8Array(MASK_BYTES);
  for (const cpu of cpus) mask[cpu >> 3] |= 1 << (cpu & 7);
  return mask;
}

/** Processors that the calling thread may use, in ascending order. */
export function allowedCpus(): number[] {
  return cpusOf(readMask());
}

/**
 * Processors that a thread can be pinned to, in ascending order: all that the host and the control group of this process
 * have, also those that no thread is on unless it asks (isolcpus, CPUAffinity of a unit, taskset).
 */
export function pinnableCpus(): number[] {
  const before = readMask();
  // The kernel takes what it may give of all that is asked for.
  libc.sched_setaffinity(0, MASK_BYTES, new Uint8Array(MASK_BYTES).fill(0xff));
  const cpus = cpusOf(readMask());
  libc.sched_setaffinity(0, before.length, before);
  return cpus;
}

function readMask(): Uint8Array {
  const mask = new Uint8Array(MASK_BYTES);
  checked(libc.sched_getaffinity(0, mask.length, mask), 'sched_getaffinity', 'reading the allowed CPUs');
  return mask;
}

function cpusOf(mask: Uint8Array): number[] {
  const cpus: number[] = [];
  for (let cpu = 0; cpu < MASK_BYTES * 8; cpu++) {
    if ((mask[cpu >> 3] & (1 << (cpu & 7))) !== 0) cpus.push(cpu);
  }
  return cpus;
}
