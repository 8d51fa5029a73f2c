/**
 * Which worker does what: each ingress queue is polled by one worker, and each worker fills its own egress
 * queues of a port as long as there are enough. Pure.
 */

/**
 * The worker for one more ingress queue: the first of those that poll fewest.
 * @param placed worker of each queue placed so far
 */
export function workerForQueue(placed: Iterable<number>, workerCount: number): number {
  const loads = Array.from({ length: workerCount }, () => 0);
  for (const worker of placed) loads[worker] += 1;
  return loads.indexOf(Math.min(...loads));
}

/**
 * The egress queues of a port that a worker fills. With as many queues as workers, or more, none is filled by
 * two, so that nobody waits for a queue's lock; with fewer, all workers share all. The frames of one ingress
 * queue always go the same way, so a flow stays in order.
 */
export function egressOfWorker<Queue>(
  queues: readonly Queue[],
  worker: number,
  workerCount: number,
): readonly Queue[] {
  if (queues.length < workerCount) return queues;
  return queues.filter((_, i) => i % workerCount === worker);
}
