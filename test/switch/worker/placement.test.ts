/** Who polls and fills which queue: evenly, and nothing by two workers as long as there is enough for each. */
import { describe, expect, it } from 'vitest';
import { egressOfWorker, type PlacedQueue, workerForQueue } from '../../../switch/worker/placement.ts';

const WORKERS = [0, 1, 2];

describe('ingress queues', () => {
  it('go to the workers in turn, and to the one that lost some', () => {
    const placed: PlacedQueue[] = [];
    for (let i = 0; i < 7; i++) placed.push({ portId: i, worker: workerForQueue(placed, i, 3) });
    expect(placed.map(({ worker }) => worker)).toEqual([0, 1, 2, 0, 1, 2, 0]);
    const left = [0, 0, 2, 2].map((worker, portId) => ({ portId, worker }));
    expect(workerForQueue(left, 9, 3)).toBe(1);
  });

  it('of one port go to several workers, in whatever order ports get theirs', () => {
    const placed: PlacedQueue[] = [];
    for (const portId of [0, 1, 0, 1]) placed.push({ portId, worker: workerForQueue(placed, portId, 2) });
    for (const id of [0, 1]) {
      expect(new Set(placed.filter(({ portId }) => portId === id).map(({ worker }) => worker)).size).toBe(2);
    }
  });
});

describe('egress queues', () => {
  it.each([3, 4, 7, 16])(
    '%i of them: each is filled by one of three workers, and none has much more',
    (count) => {
      const queues = Array.from({ length: count }, (_, i) => i);
      const shares = WORKERS.map((worker) => egressOfWorker(queues, worker, 3));
      expect(shares.flat().sort((a, b) => a - b)).toEqual(queues);
      const sizes = shares.map(({ length }) => length);
      expect(Math.max(...sizes) - Math.min(...sizes)).toBeLessThanOrEqual(1);
    },
  );

  it.each([0, 1, 2])('%i of them: three workers share them all', (count) => {
    const queues = Array.from({ length: count }, (_, i) => i);
    for (const worker of WORKERS) expect(egressOfWorker(queues, worker, 3)).toEqual(queues);
  });

  it('all belong to a worker that is alone', () => {
    expect(egressOfWorker(['a', 'b'], 0, 1)).toEqual(['a', 'b']);
  });
});
