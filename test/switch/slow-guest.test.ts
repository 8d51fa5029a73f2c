/**
 * A guest that is slow for a moment, behind a switch whose workers sleep: long frames wait for its buffers although nothing
 * tells of them.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { EmbeddedGuest, type EmbeddedGuestOptions } from '../../src/frontend/index.ts';
import { descriptorLoop } from '../../src/host/event-loop.ts';
import { settingsOf } from '../../switch/cli/options.ts';
import { resolveConfig } from '../../switch/config/resolve.ts';
import { createLogger } from '../../switch/log.ts';
import { Switch } from '../../switch/switch.ts';

const FRAME_BYTES = 30_000;
/** Three times what the slow guest's ring takes at once. */
const FRAMES = 12;
let folder: string;
let running: Switch;
const guests: EmbeddedGuest[] = [];

beforeEach(async () => {
  descriptorLoop();
  folder = mkdtempSync(join(tmpdir(), 'ringway-slow-'));
  const port = ['fast', 'slow'].map((name) => `${name}=${join(folder, name)}.sock`);
  running = await Switch.start(
    resolveConfig([settingsOf({ port, control: 'none', poll: 'adaptive', idleUs: '0' })]),
    createLogger('silent'),
  );
});

afterEach(async () => {
  for (const guest of guests.splice(0)) guest.close();
  await running.stop();
  rmSync(folder, { recursive: true, force: true });
});

async function connect(name: string, options: Partial<EmbeddedGuestOptions>): Promise<EmbeddedGuest> {
  const socketPath = `${join(folder, name)}.sock`;
  const guest = await EmbeddedGuest.connect({ socketPath, waitMs: 10_000, ...options });
  guests.push(guest);
  return guest;
}

it.each(['split', 'packed'] as const)('gets all of them in the end, in a %s ring', async (layout) => {
  const fast = await connect('fast', { layout, bufferBytes: FRAME_BYTES + 64 });
  const slow = await connect('slow', { layout, ringSize: 64 });
  const frames = Array.from({ length: FRAMES }, (_, i) => new Uint8Array(FRAME_BYTES).fill(i));
  for (const frame of frames) {
    frame.set([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5]);
    expect(fast.send(frame)).toBe(true);
  }
  const counters = () => running.ports().find(({ name }) => name === 'slow')!.counters;
  await vi.waitUntil(() => counters().offered === FRAMES);
  expect(counters().egressFrames).toBeLessThan(FRAMES);
  for (const frame of frames) expect(await slow.received()).toEqual(frame);
  expect(running.ports().map(({ drops }) => drops.noBuffer)).toEqual([0, 0]);
});

it('gets them also when the switch is taken over meanwhile, which waits for that', async () => {
  const fast = await connect('fast', { layout: 'split', bufferBytes: FRAME_BYTES + 64 });
  const slow = await connect('slow', { layout: 'split', ringSize: 64 });
  const frames = Array.from({ length: FRAMES }, (_, i) => new Uint8Array(FRAME_BYTES).fill(i));
  for (const frame of frames) {
    frame.set([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5]);
    expect(fast.send(frame)).toBe(true);
  }
  const counters = () => running.ports().find(({ name }) => name === 'slow')!.counters;
  await vi.waitUntil(() => counters().offered === FRAMES);
  await running.freeze();
  running.handOver();
  let isAtRest = false;
  const resting = running.rest().then(() => {
    isAtRest = true;
  });
  // As long as it would take by far, and far less than it is waited for.
  await new Promise((resolve) => setTimeout(resolve, 100));
  expect(isAtRest).toBe(false);
  for (const frame of frames) expect(await slow.received()).toEqual(frame);
  await resting;
  expect(running.positions().ports.slow.positions.counts[0][0]).toBe(FRAMES);
  await running.goOn();
  expect(running.ports().map(({ drops }) => drops.noBuffer)).toEqual([0, 0]);
});
