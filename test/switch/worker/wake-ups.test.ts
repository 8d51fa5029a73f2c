/**
 * No wake-up is lost: two guests pass one frame to and fro, each sleeping until its interrupt, beside a worker that falls
 * asleep between frames as often as not. One that is lost, the worker's or a guest's, ends the exchange for ever.
 * RINGWAY_SEARCH=200 makes 100,000 of them.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay, setImmediate as nextTurn } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { EmbeddedGuest } from '../../../src/frontend/index.ts';
import { settingsOf } from '../../../switch/cli/options.ts';
import { resolveConfig } from '../../../switch/config/resolve.ts';
import { createLogger } from '../../../switch/log.ts';
import { Switch } from '../../../switch/switch.ts';
import { Random, seeds } from '../../vring/random.ts';

const ROUNDS = 500;
const FRAME_BYTES = 64;

let folder: string;
let running: Switch;
const guests: EmbeddedGuest[] = [];

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'ringway-wake-'));
  const port = ['a', 'b'].map((name) => `${name}=${join(folder, name)}.sock`);
  running = await Switch.start(
    resolveConfig([settingsOf({ port, control: 'none', poll: 'adaptive' })]),
    createLogger('silent'),
  );
});

afterEach(async () => {
  for (const guest of guests.splice(0)) guest.close();
  await running.stop();
  rmSync(folder, { recursive: true });
});

/** As long as it takes the worker to look again, to be about to sleep, or to sleep. */
async function pause(random: Random): Promise<void> {
  switch (random.between(0, 3)) {
    case 0:
      return;
    case 1: {
      const endMs = performance.now() + random.between(0, 100) / 1000;
      while (performance.now() < endMs);
      return;
    }
    case 2:
      await nextTurn();
      return;
    default:
      await delay(random.between(0, 2));
  }
}

describe.each(['split', 'packed'] as const)('between guests with %s rings', (layout) => {
  it.each(seeds(1))('every wake-up arrives, seed %d', { timeout: 120_000 }, async (seed) => {
    const random = new Random(seed);
    for (const name of ['a', 'b']) {
      const socketPath = `${join(folder, name)}.sock`;
      guests.push(await EmbeddedGuest.connect({ socketPath, waitMs: 10_000, layout }));
    }
    const [a, b] = guests;
    for (let round = 0; round < ROUNDS; round++) {
      const [from, to] = round % 2 === 0 ? [a, b] : [b, a];
      const frame = new Uint8Array(FRAME_BYTES).fill(0xff, 0, 6);
      frame.set(from.mac, 6);
      new DataView(frame.buffer).setUint32(20, round);
      expect(from.send(frame)).toBe(true);
      const came = await to.received();
      expect(new DataView(came.buffer, came.byteOffset).getUint32(20)).toBe(round);
      await pause(random);
    }
    // Kicks are asked for only by a worker that is about to sleep.
    const kicks = guests.map(({ pairs: [{ fromGuest }] }) => fromGuest.ring.kicks);
    for (const count of kicks) expect(count).toBeGreaterThan(ROUNDS / 10);
  });
});
