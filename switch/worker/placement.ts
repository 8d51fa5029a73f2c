/**
 * Which worker does what: each ingress queue is polled by one worker, and each worker fills its own egress
 * queues of a port as long as there are enough. Pure.
 */

export type PlacedQueue = { readonly portId: number; readonly worker: number };

/**
 * The worker for one more ingress queue of a port: of those that poll fewest the first that polls fewest of this
 * port, so that a port of several queues has several workers.
 */
export function workerForQueue(placed: Iterable<PlacedQueue>, portId: number, workerCount: number): number {
  const loads = Array.from({ length: workerCount }, () => ({ all: 0, ofPort: 0 }));
  for (const queue of placed) {
    loads[queue.worker].all++;
    if (queue.portId === portId) loads[queue.worker].ofPort++;
  }
  const least = loads.reduce((best, load) =>
    load.all < best.all || (load.all === best.all && load.ofPort < best.ofPort) ? load : best,
  );
  return loads.indexOf(least);
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
