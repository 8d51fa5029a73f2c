/**
 * Ringway's split rings against the naive twin: two guests with the same memory are driven by the same
 * random choices, one served by src/vring and one by the twin. After every step both guests' whole memories,
 * counters and signals must be equal, and every frame must have come once, intact and in order.
 */
import { isDeepStrictEqual } from 'node:util';
import { describe, expect, it } from 'vitest';
import { PIECE_GAP_BYTES } from '../../src/frontend/driver-ring.ts';
import { Random } from './random.ts';
import { FRAME_BYTES_MAX, randomPieces, randomPlan, randomReceiveShape } from './random-rings.ts';
import { type DeviceEnd, DriverEnd, NaiveEnd, type RingPlan, RingwayEnd } from './ring-worlds.ts';

const SEEDS = 48;

type World = { driver: DriverEnd; device: DeviceEnd; kicks: number };

function makeWorlds(seed: number): { plan: RingPlan; worlds: World[]; close(): void } {
  const random = new Random(seed);
  const bufferBytes = random.pick([FRAME_BYTES_MAX + 512, 4096, 16_384]);
  const plan = randomPlan(random, 'split', bufferBytes);
  const shapeSeed = random.next();
  const shaped = random.chance(70);
  const planFor = (): RingPlan => {
    if (!shaped) return plan;
    return { ...plan, receiveShape: randomReceiveShape(new Random(shapeSeed), plan) };
  };
  const ours = new DriverEnd(planFor());
  const twins = new DriverEnd(planFor());
  const ringway = new RingwayEnd(ours, plan);
  return {
    plan,
    worlds: [
      { driver: ours, device: ringway, kicks: 0 },
      { driver: twins, device: new NaiveEnd(twins, plan), kicks: 0 },
    ],
    close: () => {
      ringway.close();
      ours.memory.close();
      twins.memory.close();
    },
  };
}

function both<T>(worlds: readonly World[], action: (world: World) => T): T {
  const [ours, twins] = worlds.map(action);
  // Much faster than `toEqual` on frames, which then says what differs.
  if (!isDeepStrictEqual(ours, twins)) expect(ours).toEqual(twins);
  return ours!;
}

function expectSameMemory(worlds: readonly World[], step: string): void {
  const [ours, twins] = worlds.map((world) => Buffer.from(world.driver.memory.buffer));
  if (ours!.equals(twins!)) return;
  const at = ours!.findIndex((byte, i) => byte !== twins![i]);
  expect.fail(`${step}: memories differ first at offset ${at}`);
}

/** One random step, done alike in both worlds. Appends to `expected` what the guest must receive later. */
function step(random: Random, plan: RingPlan, worlds: readonly World[], expected: Uint8Array[]): string {
  const action = random.pick([
    'send',
    'send',
    'loop',
    'loop',
    'give',
    'receive',
    'receive',
    'arm',
    'notify',
  ] as const);
  switch (action) {
    case 'send': {
      for (let left = random.between(1, 8); left > 0; left--) {
        const maxPieces = random.pick([1, 3, Math.min(20, plan.size)]);
        const roomBytes = plan.bufferBytes - plan.headerBytes - PIECE_GAP_BYTES * maxPieces;
        const frame = random.bytes(random.between(14, Math.min(FRAME_BYTES_MAX, roomBytes)));
        const totalBytes = frame.length + plan.headerBytes;
        const pieces = randomPieces(random, totalBytes, maxPieces);
        const indirect = plan.indirect && random.chance(40);
        if (!both(worlds, ({ driver }) => driver.fromGuest.post(frame, { pieces, indirect }))) break;
      }
      both(worlds, ({ driver }) => driver.fromGuest.flush());
      break;
    }
    case 'loop': {
      const limit = random.pick([1, 4, 64]);
      for (const { frame, given } of both(worlds, ({ device }) => device.loop(limit))) {
        if (given === 'done') expected.push(frame);
      }
      break;
    }
    case 'give': {
      const frames = Array.from({ length: random.between(1, 5) }, () =>
        random.bytes(random.between(14, FRAME_BYTES_MAX)),
      );
      const results = both(worlds, ({ device }) => device.give(frames));
      for (const [i, result] of results.entries()) if (result === 'done') expected.push(frames[i]);
      break;
    }
    case 'receive': {
      for (let left = random.pick([1, 3, 40]); left > 0; left--) {
        const frame = both(worlds, ({ driver }) => driver.toGuest.receive());
        if (frame === null) break;
        expect(Buffer.compare(frame, expected.shift()!)).toBe(0);
      }
      break;
    }
    case 'arm': {
      const armed = random.chance(50);
      both(worlds, ({ device }) => device.setArmed(armed));
      break;
    }
    case 'notify': {
      const wanted = random.chance(50);
      both(worlds, ({ driver }) => {
        for (const { ring } of [driver.toGuest, driver.fromGuest]) wanted ? ring.arm() : ring.disarm();
      });
      break;
    }
  }
  return action;
}

describe('split rings and their naive twin', () => {
  it.each(Array.from({ length: SEEDS }, (_, seed) => seed))('agree byte for byte, seed %i', (seed) => {
    const { plan, worlds, close } = makeWorlds(seed);
    try {
      const random = new Random(seed + 1000);
      const expected: Uint8Array[] = [];
      both(worlds, ({ driver }) => driver.toGuest.fill());
      for (let turn = 0; turn < 150; turn++) {
        const what = step(random, plan, worlds, expected);
        expectSameMemory(worlds, `step ${turn} (${what})`);
        both(worlds, ({ device }) => device.counts());
        both(worlds, ({ driver }) => [driver.toGuest.ring.kicks, driver.fromGuest.ring.kicks]);
      }
      for (let left = expected.length; left > 0; left--) {
        const frame = both(worlds, ({ driver }) => driver.toGuest.receive());
        expect(Buffer.compare(frame!, expected.shift()!)).toBe(0);
      }
      expect(both(worlds, ({ driver }) => driver.toGuest.receive())).toBeNull();
      const counts = both(worlds, ({ device }) => device.counts());
      expect(counts.fromFrames).toBeGreaterThan(0);
      expect(counts.toFrames).toBe(worlds[0].driver.toGuest.frames);
    } finally {
      close();
    }
  });
});
