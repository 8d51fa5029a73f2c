/** This process's threads, V8's and libuv's own among them. */
import { readdirSync, readFileSync } from 'node:fs';

/** Numbers as the scheduler knows them; one may end at any time. */
export function threadNumbers(): number[] {
  return readdirSync('/proc/self/task').map(Number);
}

/** @throws Error when there is none of that number */
export function threadName(thread: number): string {
  return readFileSync(`/proc/self/task/${thread}/comm`, 'utf8').trimEnd();
}
