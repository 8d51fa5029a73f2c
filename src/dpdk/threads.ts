/**
 * Threads that DPDK did not start: registered, they have caches of mbufs of their own, and drivers take and give
 * mbufs without a lock. Any thread.
 */
import { isMainThread } from 'node:worker_threads';
import { loadDpdk } from './library.ts';

let isRegistered = isMainThread;

/**
 * Makes this thread known to DPDK until it ends; the main thread is since EAL started. Answers whether it is: DPDK
 * knows 128 threads at most, and others work too, only slower.
 */
export function registerThread(): boolean {
  if (isRegistered) return true;
  const { functions } = loadDpdk();
  isRegistered = functions.threadRegister() === 0;
  if (isRegistered) process.once('exit', () => functions.threadUnregister());
  return isRegistered;
}
