/**
 * Guests behind an IOMMU and the whole switch with its workers: frames both ways while translations are forgotten under them, each of
 * which comes once; and a guest whose translations never come, which stands alone.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { IOTLB_ACCESS, IOTLB_TYPE } from '../../protocol/vhost-user/messages.ts';
import { EmbeddedGuest, type EmbeddedGuestOptions, type EmbeddedIommu } from '../../src/frontend/index.ts';
import { descriptorLoop } from '../../src/host/event-loop.ts';
import { settingsOf } from '../../switch/cli/options.ts';
import { resolveConfig } from '../../switch/config/resolve.ts';
import { createLogger } from '../../switch/log.ts';
import { Switch } from '../../switch/switch.ts';
import { flowUntil, NumberedFlow, takeAll } from '../numbered-flow.ts';
import { untilRingsAreInUse } from '../rings-in-use.ts';
import { Random, seeds } from '../vring/random.ts';

const NAMES = ['a', 'b', 'c'] as const;
const PAGE = 4096;
/** No more than may wait for a ring. */
const WINDOW_FRAMES = 48;
/** Without a frame; before the test's own time is over. */
const STALLED_MS = 20_000;

let folder: string;
let running: Switch;
const guests: EmbeddedGuest[] = [];

beforeEach(() => {
  descriptorLoop();
  folder = mkdtempSync(join(tmpdir(), 'ringway-iommu-'));
  return start({});
});

/** `cpus`: one worker for each. */
async function start(more: { cpus?: string }): Promise<void> {
  const port = NAMES.map((name) => `${name}=${join(folder, name)}.sock,features=iommu`);
  running = await Switch.start(
    resolveConfig([settingsOf({ port, control: 'none', poll: 'adaptive', idleUs: '0', ...more })]),
    createLogger('silent'),
  );
}

afterEach(async () => {
  for (const guest of guests.splice(0)) guest.close();
  await running.stop();
  rmSync(folder, { recursive: true, force: true });
});

async function connect(
  name: (typeof NAMES)[number],
  options: Partial<EmbeddedGuestOptions> = {},
): Promise<EmbeddedGuest> {
  const guest = await EmbeddedGuest.connect({
    socketPath: `${join(folder, name)}.sock`,
    mac: `02:00:00:00:00:0${name}`,
    iommu: true,
    waitMs: 10_000,
    ...options,
  });
  guests.push(guest);
  await untilRingsAreInUse(guest, () => report(name).queues);
  return guest;
}

const iommuOf = ({ iommu }: EmbeddedGuest): EmbeddedIommu => iommu as EmbeddedIommu;
const report = (name: string) => running.ports().find((port) => port.name === name)!;

/** What there is to see where no frame comes. */
function seen(): string {
  const ports = running.ports().map(({ name, state, reason, drops, queues }) => {
    const dropped = Object.entries(drops).filter(([, count]) => count > 0);
    return { name, state, reason, dropped, queues };
  });
  return JSON.stringify({ ports, workers: running.workers() });
}

const run = (flows: readonly NumberedFlow[], isEnough: () => boolean): Promise<void> =>
  flowUntil(flows, isEnough, seen, STALLED_MS);

async function finish(flows: readonly NumberedFlow[]): Promise<void> {
  await takeAll(flows, seen, STALLED_MS);
  for (const { twice } of flows) expect(twice).toBe(0);
}

describe.each(['split', 'packed'] as const)('two guests behind an IOMMU, with %s rings', (layout) => {
  it.each(seeds(4))('lose no frame while translations are forgotten, seed %i', async (seed) => {
    const random = new Random(seed);
    const pair = [await connect('a', { layout }), await connect('b', { layout })];
    const flows = [
      new NumberedFlow(pair[0], pair[1], WINDOW_FRAMES),
      new NumberedFlow(pair[1], pair[0], WINDOW_FRAMES),
    ];
    let isDone = false;
    // As a driver that maps each buffer by itself, and one that has all forgotten now and then.
    const forgetting = (async () => {
      for (let i = 0; i < 60; i++) {
        const { iommu, memory } = random.pick(pair);
        if (random.chance(30)) await (iommu as EmbeddedIommu).invalidate(0, memory.sizeBytes);
        else {
          const page = random.between(0, memory.sizeBytes / PAGE - 1);
          await (iommu as EmbeddedIommu).invalidate(page * PAGE, random.pick([1, 4, 64]) * PAGE);
        }
      }
      isDone = true;
    })();
    await run(flows, () => isDone && flows.every(({ sent }) => sent > 2000));
    await forgetting;
    await finish(flows);
    for (const { state, reason, drops } of [report('a'), report('b')]) {
      expect({ state, reason }).toEqual({ state: 'running', reason: null });
      expect(Object.entries(drops).filter(([, count]) => count > 0)).toEqual([]);
    }
  });

  it('ask for each page once, where nothing is forgotten', async () => {
    const pair = [await connect('a', { layout }), await connect('b', { layout })];
    const flow = new NumberedFlow(pair[0], pair[1], WINDOW_FRAMES);
    await run([flow], () => flow.sent > 5000);
    await finish([flow]);
    for (const guest of pair) {
      const asked = iommuOf(guest).asked.map(({ iova, access }) => `${iova / BigInt(PAGE)} ${access}`);
      expect(new Set(asked).size).toBe(asked.length);
      expect(asked.length).toBeLessThanOrEqual((2 * guest.memory.sizeBytes) / PAGE);
    }
  });
});

describe.each(['split', 'packed'] as const)(
  'a guest behind an IOMMU, with %s rings that two workers fill',
  (layout) => {
    it.each(seeds(4))('gets every frame while translations are forgotten, seed %i', async (seed) => {
      await running.stop();
      await start({ cpus: '0,1' });
      const random = new Random(seed);
      const [a, b, c] = [await connect('a'), await connect('b'), await connect('c', { layout })];
      const flows = [new NumberedFlow(a, c, WINDOW_FRAMES / 2), new NumberedFlow(b, c, WINDOW_FRAMES / 2)];
      for (const [i, flow] of flows.entries()) flow.beside = [flows[1 - i]];
      let isDone = false;
      const forgetting = (async () => {
        for (let i = 0; i < 60; i++) {
          const page = random.between(0, c.memory.sizeBytes / PAGE - 1);
          await iommuOf(c).invalidate(page * PAGE, random.pick([1, 4, 64]) * PAGE);
        }
        isDone = true;
      })();
      await run(flows, () => isDone && flows.every(({ sent }) => sent > 2000));
      await forgetting;
      await finish(flows);
    });
  },
);

describe('a guest whose translations never come', () => {
  it('stands alone: others go on, it is shown why, and it goes on when they come', async () => {
    const [a, b] = [await connect('a'), await connect('b')];
    const c = await connect('c', { layout: 'packed' });
    // So that what is for one goes nowhere else.
    for (const guest of [a, b, c]) {
      guest.send(
        new Uint8Array([...new Array(6).fill(0xff), ...guest.mac, 0x88, 0xb5, ...new Uint8Array(46)]),
      );
      for (const other of [a, b, c]) if (other !== guest) await other.received();
    }
    const toC = new NumberedFlow(a, c, WINDOW_FRAMES);
    await run([toC], () => toC.sent > 100);
    await finish([toC]);
    iommuOf(c).answers = false;
    await iommuOf(c).invalidate(0, c.memory.sizeBytes);
    const flows = [new NumberedFlow(a, b, WINDOW_FRAMES), new NumberedFlow(b, a, WINDOW_FRAMES)];
    const isShown = (): boolean => report('c').reason?.includes('which its front-end does not give') === true;
    // For as long as it takes to be told.
    await run(flows, isShown);
    await finish(flows);
    expect(report('c').reason).toMatch(
      /^queue \d stopped: waits for its IOMMU's translation of address 0x[0-9a-f]+, to be /,
    );
    expect(report('c').queues.filter(({ reason }) => reason !== null).length).toBeGreaterThan(0);
    for (const name of ['a', 'b']) expect(report(name).reason).toBeNull();
    iommuOf(c).answers = true;
    for (let offset = 0; offset < c.memory.sizeBytes; offset += PAGE) await iommuOf(c).update(offset);
    await vi.waitUntil(() => report('c').reason === null, { timeout: 20_000 });
    await run([toC], () => toC.sent > 500);
    await finish([toC]);
    iommuOf(c).answers = false;
    await iommuOf(c).invalidate(0, c.memory.sizeBytes);
    expect(await c.stop()).toHaveLength(2);
  });

  it('is not written to where it may only be read', async () => {
    const [a, c] = [await connect('a'), await connect('c')];
    const flow = new NumberedFlow(a, c, WINDOW_FRAMES);
    const { ring } = c.pairs[0].toGuest;
    // In whole pages, in which no ring lies.
    const first = Math.ceil(ring.bufferOffsets[2] / PAGE) * PAGE;
    const buffersBytes = 32 * PAGE;
    await iommuOf(c).allow(first, buffersBytes, IOTLB_ACCESS.READ);
    const before = Buffer.from(c.memory.u8.subarray(first, first + buffersBytes));
    flow.step();
    const isDenied = (): boolean => iommuOf(c).asked.some(({ type }) => type === IOTLB_TYPE.ACCESS_FAIL);
    while (!isDenied()) await iommuOf(c).nextAsked();
    expect(report('c').reason).toMatch(
      /queue 0 stopped: its IOMMU does not allow address 0x[0-9a-f]+, to be written/,
    );
    expect(before.equals(c.memory.u8.subarray(first, first + buffersBytes))).toBe(true);
    await iommuOf(c).allow(first, buffersBytes, IOTLB_ACCESS.BOTH);
    await finish([flow]);
    expect(report('c').reason).toBeNull();
  });
});
