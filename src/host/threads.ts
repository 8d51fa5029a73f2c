/** This process's threads, V8's and libuv's own among them. */
import { readdirSync } from 'node:fs';

/** Numbers as the scheduler knows them; one may end at any time. */
export function threadNumbers(): number[] {
  return readdirSync('/proc/self/task').map(Number);
}
