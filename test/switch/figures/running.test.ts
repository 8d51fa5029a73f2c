/** Figures of a running switch: what embedded guests send is what is told, of ports, queues, rings and the worker. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { EmbeddedGuest } from '../../../src/frontend/index.ts';
import { descriptorLoop } from '../../../src/host/event-loop.ts';
import { settingsOf } from '../../../switch/cli/options.ts';
import { resolveConfig } from '../../../switch/config/resolve.ts';
import type { PortSnapshot, QueueSnapshot, WorkerSnapshot } from '../../../switch/figures/snapshot.ts';
import { COUNT_BROADCAST, COUNT_SIZES } from '../../../switch/l2/port-counts.ts';
import { createLogger } from '../../../switch/log.ts';
import { Switch } from '../../../switch/switch.ts';

const RING_SIZE = 64;
const BROADCAST = [255, 255, 255, 255, 255, 255];
const WAIT_MS = { timeout: 20_000 };

let folder: string;
let running: Switch;
const guests: EmbeddedGuest[] = [];

beforeEach(async () => {
  descriptorLoop();
  folder = mkdtempSync(join(tmpdir(), 'ringway-figures-'));
  const port = ['vm0', 'vm1'].map((name) => `${name}=${join(folder, name)}.sock`);
  running = await Switch.start(
    resolveConfig([settingsOf({ port, control: 'none', positions: 'none', idleUs: '0' })]),
    createLogger('silent'),
  );
});

afterEach(async () => {
  for (const guest of guests.splice(0)) guest.close();
  await running.stop();
  rmSync(folder, { recursive: true, force: true });
});

function frame(dst: readonly number[], sizeBytes = 60): Uint8Array {
  const bytes = new Uint8Array(sizeBytes);
  bytes.set([...dst, 2, 0, 0, 0, 0, 1, 0x88, 0xb5]);
  return bytes;
}

function portNamed(name: string): PortSnapshot {
  return running.figures('1').ports.find((port) => port.name === name) ?? expect.fail(`no ${name}`);
}

function queueOf(name: string, direction: 'ingress' | 'egress'): QueueSnapshot {
  const queues = portNamed(name).queues.filter((queue) => queue.direction === direction);
  return queues[0] ?? expect.fail('no queue');
}

const workerNow = (): WorkerSnapshot => running.figures('1').workers[0];

describe.each(['split', 'packed'] as const)('with %s rings', (layout) => {
  async function connect(name: string): Promise<EmbeddedGuest> {
    const guest = await EmbeddedGuest.connect({
      socketPath: `${join(folder, name)}.sock`,
      waitMs: 10_000,
      layout,
      ringSize: RING_SIZE,
    });
    guests.push(guest);
    return guest;
  }

  it('frames are told of where they came in and went out, with their lengths and kinds', async () => {
    const [vm0, vm1] = [await connect('vm0'), await connect('vm1')];
    for (let i = 0; i < 5; i++) {
      expect(vm0.pairs[0].send(frame(BROADCAST, 300))).toBe(true);
      await vm1.pairs[0].received();
    }
    // Counted after the frame was seen.
    await vi.waitUntil(() => queueOf('vm0', 'ingress').frames === 5, WAIT_MS);
    const [from, to] = [portNamed('vm0'), portNamed('vm1')];
    expect(from).toMatchObject({ rxPackets: 5, rxBytes: 1500, txPackets: 0, state: 'running' });
    expect(to).toMatchObject({ rxPackets: 0, txPackets: 5, txBytes: 1500 });
    expect(from.counts[COUNT_BROADCAST]).toBe(5);
    expect(from.counts[COUNT_SIZES + 3]).toBe(5);
    const queue = queueOf('vm1', 'egress');
    expect(queue.signals + queue.suppressed).toBeGreaterThanOrEqual(5);
    const worker = workerNow();
    expect(worker.frames).toBe(5);
    expect(worker.bursts.reduce((sum, count) => sum + count, 0)).toBe(5);
    expect(worker.bursts[0]).toBe(5);
  });

  it('a glance at a port changes with its guest and its settings, not with frames', async () => {
    const glances = (): string => [...running.portGlances()].join('\n');
    const alone = glances();
    const [vm0, vm1] = [await connect('vm0'), await connect('vm1')];
    await vi.waitUntil(
      () => running.ports().every(({ state, queuePairs }) => state === 'running' && queuePairs === 1),
      WAIT_MS,
    );
    const both = glances();
    expect(both).not.toBe(alone);
    expect(vm0.pairs[0].send(frame(BROADCAST))).toBe(true);
    await vm1.pairs[0].received();
    expect(glances()).toBe(both);
    await running.changePort('vm1', { flood: 'off' });
    const changed = glances();
    expect(changed).not.toBe(both);
    vm1.close();
    await vi.waitUntil(() => glances() !== changed, WAIT_MS);
  });

  it('the room that a guest offers is told as it is taken', async () => {
    const [vm0, vm1] = [await connect('vm0'), await connect('vm1')];
    const waiting = (): number | null => queueOf('vm1', 'egress').waiting;
    await vi.waitUntil(() => waiting() === RING_SIZE, WAIT_MS);
    expect(queueOf('vm0', 'ingress').waiting).toBe(0);
    for (let sent = 1; sent <= 70; sent++) {
      expect(vm0.pairs[0].send(frame(BROADCAST))).toBe(true);
      await vi.waitUntil(() => queueOf('vm0', 'ingress').frames === sent, WAIT_MS);
      expect(waiting()).toBe(Math.max(0, RING_SIZE - sent));
      if (sent === 3) expect(queueOf('vm0', 'ingress').waiting).toBe(0);
    }
    // What the guest takes it offers again, in the next round of the ring.
    for (let taken = 0; taken < 10; taken++) expect(vm1.pairs[0].receive()).not.toBeNull();
    await vi.waitUntil(() => waiting() === 10, WAIT_MS);
    // Nothing is told of a ring that is not used.
    vm1.close();
    await vi.waitUntil(() => portNamed('vm1').queues.every((queue) => queue.waiting === null), WAIT_MS);
  });
});

it('a worker that sleeps is told to sleep, also before it wakes up', async () => {
  await vi.waitUntil(() => workerNow().sleeps > 0, WAIT_MS);
  const before = workerNow();
  await running.allTurn();
  const after = workerNow();
  expect(after.sleptSeconds).toBeGreaterThan(before.sleptSeconds);
  await vi.waitUntil(() => workerNow().sleptSeconds > after.sleptSeconds, WAIT_MS);
});
