/** Frames that were completed, copied by the egress queues there are to real rings, as a guest finds them. */
import { describe, expect, it } from 'vitest';
import { REQUEST_TAKEN, SEGMENTS_MAX } from '../../src/offload/request.ts';
import { AS_THEY_CAME } from '../../src/queue/batch.ts';
import { readHeads } from '../../src/queue/heads.ts';
import { Random, seeds } from '../vring/random.ts';
import { DriverEnd, LAYOUT_KINDS, plainPlan, type RingPlan, RingwayEnd } from '../vring/ring-worlds.ts';
import { describeFrames, sharedArenaView, spoilHeads } from '../vring/scratch.ts';
import { completed, segmentsOf } from './naive-offload.ts';
import { OffloadWorld } from './offload-world.ts';
import { checksumRequest, type Request, segmentRequest } from './random-requests.ts';

const BUFFERS: readonly Partial<RingPlan>[] = [
  { bufferBytes: 2 ** 16 + 64, memory: 32 * 2 ** 20 },
  { bufferBytes: 2048, mergeable: true, memory: 8 * 2 ** 20 },
  { bufferBytes: 2 ** 16 + 64, headerBytes: 10, memory: 32 * 2 ** 20 },
];

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

function expected({ frame, header }: Request): Uint8Array[] {
  const { gsoType, gsoSize, csumStart, csumOffset } = header;
  return gsoType === 0 ? [completed(frame, csumStart, csumOffset)] : segmentsOf(frame, gsoSize);
}

describe('a guest without offloads', () => {
  const rings = LAYOUT_KINDS.flatMap((layout) =>
    BUFFERS.map((buffers) => ({ ...plainPlan(layout), ...buffers })),
  );
  const rows = rings.flatMap((plan) => seeds(3).map((seed) => ({ ...plan, size: 128, seed })));

  it.for(rows)(
    'finds complete frames in its $layout ring, buffers of $bufferBytes bytes, header of $headerBytes, seed $seed',
    (plan) => {
      const random = new Random(plan.seed);
      const driver = new DriverEnd(plan);
      const ringway = new RingwayEnd(driver, plan);
      const world = new OffloadWorld();
      const received: string[] = [];
      const sent: string[] = [];
      for (let i = 0; i < 20; i++) {
        const request = random.chance(50) ? segmentRequest(random, SEGMENTS_MAX) : checksumRequest(random);
        describeFrames(world.batch, [request.frame], random);
        expect(world.takeHeader(0, request.header)).toBe(REQUEST_TAKEN);
        readHeads(world.batch, sharedArenaView.windows);
        spoilHeads(world.batch);
        sent.push(...expected(request).map(hex));
        const { completion } = world;
        completion.begin(world.batch, AS_THEY_CAME, 1, 0);
        while (completion.next()) {
          driver.toGuest.fill();
          ringway.to.begin();
          ringway.to.place(completion.batch, AS_THEY_CAME, completion.batch.count);
          ringway.to.end();
          expect(completion.batch.refusedCount).toBe(0);
          for (let frame = driver.toGuest.receive(); frame !== null; frame = driver.toGuest.receive()) {
            received.push(hex(frame));
          }
        }
      }
      expect(received).toEqual(sent);
      world.release();
      ringway.close();
    },
  );
});
