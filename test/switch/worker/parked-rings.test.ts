/**
 * A worker with a ring that waits for a translation: the main thread may have taken what was said of it for settled by what it
 * tells the worker next, so while that is not so it is said again.
 */
import { expect, it, vi } from 'vitest';
import { ACCESS_READ, type AddressMiss } from '../../../src/memory/iotlb.ts';
import { allocateScratch } from '../../../src/memory/scratch.ts';
import { createFdbMemory } from '../../../switch/l2/fdb/fdb.ts';
import { MOVES_BYTES } from '../../../switch/l2/fdb/moves.ts';
import { scratchBytes, WorkerPool } from '../../../switch/worker/pool.ts';
import { DriverEnd, plainPlan, type RingPlan, RingwayEnd } from '../../vring/ring-worlds.ts';
import { sharedArena } from '../../vring/scratch.ts';

const unexpected = (): never => {
  throw new Error('nothing of the kind happens here');
};

it('says again what it waits for while it is told of other things', async () => {
  const plan: RingPlan = { ...plainPlan('split'), portId: 0, iommu: true };
  const driver = new DriverEnd(plan);
  const guest = new RingwayEnd(driver, plan);
  const waits: (readonly AddressMiss[])[] = [];
  const pool = new WorkerPool({
    cpus: null,
    poll: 'busy',
    idleUs: 0,
    arena: sharedArena.location,
    fdb: createFdbMemory({ capacity: 16, maxPorts: 4 }),
    scratchOffset: allocateScratch(sharedArena, { name: 'ringway-test', sizeBytes: scratchBytes(null) })
      .offset,
    vlanLimit: 1,
    moves: new SharedArrayBuffer(MOVES_BYTES),
    probeMac: new Uint8Array(6),
    onLoops: unexpected,
    onQueueFailed: unexpected,
    onQueueWaits: (portId, queueIndex, misses) => {
      expect([portId, queueIndex]).toEqual([0, 1]);
      waits.push(misses);
    },
    onPlugin: unexpected,
  });
  try {
    await pool.addPort(0, 'a');
    driver.fromGuest.send(new Uint8Array(100));
    await pool.attach(guest.attachment('ingress'));
    await vi.waitUntil(() => waits.length === 1, { timeout: 20_000 });
    for (const said of [2, 3]) {
      await pool.setMemory(0, guest.map, true);
      await vi.waitUntil(() => waits.length === said, { timeout: 20_000 });
      expect(waits.at(-1)).toEqual(waits[0]);
    }
    guest.translate(waits[0][0], ACCESS_READ);
    await pool.setMemory(0, guest.map, true);
    await vi.waitUntil(() => guest.from.state.counts[0] === 1, { timeout: 20_000 });
    await pool.detach(0, 1);
    expect(waits).toHaveLength(3);
  } finally {
    await pool.stop();
    guest.close();
    driver.memory.close();
  }
});
