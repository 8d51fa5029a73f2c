/** Random requests through the engine and through its naive twin: the same frames, byte for byte. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { NET_HDR_GSO } from '../../protocol/virtio/net.ts';
import { REQUEST_TAKEN, SEGMENTS_MAX } from '../../src/offload/request.ts';
import { Random, seeds } from '../vring/random.ts';
import { completed, segmentsOf } from './naive-offload.ts';
import { OffloadWorld } from './offload-world.ts';
import { checksumRequest, type Request, segmentRequest } from './random-requests.ts';

const REQUESTS = 12;

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

describe('a frame that asks for something, for a receiver that does nothing itself', () => {
  let world: OffloadWorld;
  beforeAll(() => {
    world = new OffloadWorld();
  });
  afterAll(() => world.release());

  function expectedOf({ frame, header }: Request): Uint8Array[] {
    const { gsoType, gsoSize, csumStart, csumOffset } = header;
    if (gsoType === NET_HDR_GSO.NONE) return [completed(frame, csumStart, csumOffset)];
    return segmentsOf(frame, gsoSize);
  }

  for (const seed of seeds(40)) {
    it(`is what the naive twin makes of it, seed ${seed}`, () => {
      const random = new Random(seed);
      for (let i = 0; i < REQUESTS; i++) {
        const request = random.chance(70) ? segmentRequest(random, SEGMENTS_MAX) : checksumRequest(random);
        expect(world.take([request], random.chance(80) ? random : null)).toEqual([REQUEST_TAKEN]);
        const made = world.complete(0);
        expect(world.batch.segmentCountOf(0)).toBe(made.length);
        expect(world.batch.wireBytesOf(0)).toBe(Math.max(...made.map(({ bytes }) => bytes.length)));
        expect(made.map(({ bytes }) => hex(bytes))).toEqual(expectedOf(request).map(hex));
        expect(made.every(({ header }) => header.flags === 0 && header.gsoType === 0)).toBe(true);
      }
    });
  }
});
