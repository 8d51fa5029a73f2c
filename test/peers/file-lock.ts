/**
 * One process at a time: a lock on a file, held by util-linux' `flock` while a function runs. The kernel releases
 * it when the process that holds it dies, so nothing stays locked after a crash.
 * Owns nothing beyond the call. Used for installing packages and for the count of hugepages.
 */
import { startChild } from './child.ts';
import { withDeadline } from './deadline.ts';

/** Runs `work` while holding the lock. Rejects when the lock is not free within `timeoutMs`. */
export async function withFileLock<T>(path: string, timeoutMs: number, work: () => Promise<T>): Promise<T> {
  const holder = await startChild('flock', [path, 'sh', '-c', 'echo locked; exec cat']);
  const locked = new Promise<void>((resolve, reject) => {
    holder.process.stdout.once('data', () => resolve());
    void holder.exited.then((code) => reject(new Error(`flock ${path} ended with code ${code}`)));
  });
  try {
    await withDeadline(locked, timeoutMs, () => `${path} was still locked after ${timeoutMs} ms`);
    return await work();
  } finally {
    holder.process.stdin.end();
    holder.kill();
    await holder.exited;
  }
}
