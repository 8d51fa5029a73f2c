/**
 * The lock that serialises writers of one forwarding table, a word in the table's shared memory.
 *
 * Any thread, the main thread included. Sections under it are short (a microsecond, seldom ten), so a waiter
 * spins first; it sleeps in small steps only when the owner was taken off its processor. Release wakes
 * nobody: a sleeper's step is shorter than a wake-up is worth. Not reentrant.
 */
import { HEADER } from './layout.ts';

const SPINS = 200;
const SLEEP_MS = 0.05;

/** Sleeps that a control operation affords: half a second at least. An owner that holds longer has died. */
export const CONTROL_SLEEPS = 10_000;

/** Takes the lock; false when it stayed taken through `sleeps` sleeps of 50 µs or a little more. */
export function acquireFdbLock(header: Int32Array<SharedArrayBuffer>, sleeps: number): boolean {
  for (let sleep = 0; ; sleep++) {
    for (let spin = 0; spin < SPINS; spin++) {
      if (Atomics.compareExchange(header, HEADER.lock, 0, 1) === 0) return true;
    }
    if (sleep >= sleeps) return false;
    Atomics.wait(header, HEADER.lock, 1, SLEEP_MS);
  }
}

/**
 * Takes the lock for a control operation.
 * @throws Error when it was never let go: a thread died while it changed the table.
 */
export function requireFdbLock(header: Int32Array<SharedArrayBuffer>): void {
  if (!acquireFdbLock(header, CONTROL_SLEEPS)) {
    throw new Error('forwarding table is locked by a thread that does not let go');
  }
}

export function releaseFdbLock(header: Int32Array<SharedArrayBuffer>): void {
  Atomics.store(header, HEADER.lock, 0);
}
