/**
 * The processor, for as long as guests wait for this process: its threads go before those of others, where it may ask for
 * that (root, CAP_SYS_NICE or RLIMIT_NICE). Main thread.
 */
import { getPriority, setPriority } from 'node:os';
import { threadNumbers } from './threads.ts';

const FAVOURED = -20;

/** Has all threads of this process favoured. Answers what ends that: each is then as it was before. */
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
