/** What the system calls the threads of workers: in `ps -L`, in /proc. Any thread. */

export function workerThreadName(index: number): string {
  return `poll-${index}`;
}

export function isWorkerThreadName(name: string): boolean {
  return /^poll-\d+$/.test(name);
}
