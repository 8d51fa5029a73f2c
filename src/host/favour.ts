/**
 * The processor, for as long as guests wait for this process, where it may ask for that (root, CAP_SYS_NICE, RLIMIT_NICE
 * and RLIMIT_RTPRIO). Main thread.
 */
import { getPriority, setPriority } from 'node:os';
import { libc } from './libc.ts';
import { threadNumbers } from './threads.ts';

const FAVOURED = -20;
const SCHED_OTHER = 0;
const SCHED_FIFO = 1;
/** What a thread begins meanwhile is not of its class. */
const SCHED_RESET_ON_FORK = 0x4000_0000;

/** Has all threads of this process get most of a processor's time. Answers what ends that: each is then as it was before. */
export function favour(): () => void {
  const before = new Map<number, number>();
  for (const thread of threadNumbers()) {
    try {
      const was = getPriority(thread);
      setPriority(thread, FAVOURED);
      before.set(thread, was);
    } catch {
      // It ended meanwhile, or we may not.
    }
  }
  return () => {
    for (const [thread, was] of before) {
      try {
        setPriority(thread, was);
      } catch {
        // It ended meanwhile.
      }
    }
  };
}

/**
 * Has some threads of this process run as soon as they are woken up: one that is only favoured may wait for some milliseconds
 * until the one that runs has had its slice. All others of the processor wait as long as they are busy. Answers what ends that.
 */
export function runAtOnce(isMeant: (thread: number) => boolean): () => void {
  // Whom somebody else put into another class is left there.
  const meant = threadNumbers().filter(
    (thread) =>
      isMeant(thread) &&
      libc.sched_getscheduler(thread) === SCHED_OTHER &&
      libc.sched_setscheduler(thread, SCHED_FIFO | SCHED_RESET_ON_FORK, Int32Array.of(1)) === 0,
  );
  return () => {
    for (const thread of meant) libc.sched_setscheduler(thread, SCHED_OTHER, Int32Array.of(0));
  };
}
