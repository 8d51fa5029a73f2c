/**
 * `ringway run --takeover` under traffic, again and again: the real program, two embedded guests that stay connected, and
 * numbered frames both ways, each of which comes once. A successor that comes to nothing at any step before the last
 * changes nothing.
 */
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { EmbeddedGuest } from '../../src/frontend/index.ts';
import type { RingLayoutKind } from '../../src/vring/attachment.ts';
import { askControl } from '../../switch/control/client.ts';
import { beginTakeover } from '../../switch/takeover/take.ts';
import { NumberedFlow } from '../numbered-flow.ts';
import { RingwayProcess } from '../real/ringway-process.ts';

const TAKEOVERS = Math.round(3 * Number(process.env.RINGWAY_SEARCH ?? 1));
const WAIT_MS = 20_000;
const NAMES = ['a', 'b'] as const;
const MACS = { a: '02:00:00:00:00:0a', b: '02:00:00:00:00:0b' } as const;

const closing: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

type Setup = {
  readonly layout: RingLayoutKind;
  readonly role: 'server' | 'client';
  /** The guests' cards are behind one. */
  readonly iommu?: true;
};

class World {
  readonly switching: RingwayProcess;
  readonly guests: readonly EmbeddedGuest[];
  readonly flows: readonly NumberedFlow[];

  private constructor(switching: RingwayProcess, guests: readonly EmbeddedGuest[], windowFrames?: number) {
    this.switching = switching;
    this.guests = guests;
    const [a, b] = guests;
    this.flows = [new NumberedFlow(a, b, windowFrames), new NumberedFlow(b, a, windowFrames)];
  }

  static async start({ layout, role, iommu }: Setup): Promise<World> {
    const isClient = role === 'client';
    const options = `${isClient ? ',role=client' : ''}${iommu === true ? ',features=iommu' : ''}`;
    const switching = await RingwayProcess.start({
      ports: NAMES,
      portOptions: { a: options, b: options },
    });
    closing.push(() => switching.stop());
    const guests = await Promise.all(
      NAMES.map((name) =>
        EmbeddedGuest.connect({
          socketPath: switching.socket(name),
          role: isClient ? 'server' : 'client',
          mac: MACS[name],
          layout,
          ...(iommu === true && { iommu }),
          waitMs: WAIT_MS,
        }),
      ),
    );
    for (const guest of guests) closing.push(() => guest.close());
    // No more than may wait for translations.
    return new World(switching, guests, iommu === true ? 48 : undefined);
  }

  /** Frames both ways until `isEnough`; sleeps where nothing moves, so each lost interrupt would show. */
  async run(isEnough: () => boolean): Promise<void> {
    while (!isEnough()) {
      const moved = this.flows.map((flow) => flow.step());
      if (!moved.includes(true)) await Promise.race(this.flows.map((flow) => flow.interrupt()));
      else await new Promise(setImmediate);
    }
  }

  runFor(frames: number): Promise<void> {
    const goals = this.flows.map(({ sent }) => sent + frames);
    return this.run(() => this.flows.every(({ sent }, i) => sent >= goals[i]));
  }

  async runUntil(done: Promise<unknown>): Promise<void> {
    let isDone = false;
    const end = (): void => {
      isDone = true;
    };
    done.then(end, end);
    await this.run(() => isDone);
    await done;
  }

  async expectAllThere(): Promise<void> {
    for (const flow of this.flows) {
      for (flow.take(); !flow.isDone; flow.take()) await flow.interrupt();
      expect(flow.twice).toBe(0);
    }
    for (const guest of this.guests) expect(guest.session.isClosed).toBe(false);
    for (const { name, reason } of await this.switching.ports()) expect([name, reason]).toEqual([name, null]);
  }
}

const SETUPS: readonly Setup[] = [
  { layout: 'packed', role: 'server' },
  { layout: 'packed', role: 'client' },
  { layout: 'split', role: 'server' },
  { layout: 'split', role: 'client' },
  { layout: 'packed', role: 'server', iommu: true },
  { layout: 'split', role: 'server', iommu: true },
];

describe.each(SETUPS)('a Ringway that is taken over under traffic: $layout rings, role $role', (setup) => {
  it(`loses no frame and no connection, ${TAKEOVERS} times`, { timeout: 60_000 * TAKEOVERS }, async () => {
    const world = await World.start(setup);
    const { switching, flows } = world;
    for (let round = 0; round < TAKEOVERS; round++) {
      await world.runFor(2000);
      const before = switching.pid;
      await world.runUntil(switching.takeOver());
      expect(switching.pid).not.toBe(before);
      await world.runFor(2000);
      const { session } = world.guests[0];
      await session.request('GET_FEATURES', null);
    }
    await world.expectAllThere();
    // Counters go on, and so does what was learned.
    const [a] = await switching.ports();
    expect(a.counters.ingressFrames).toBe(flows[0].sent);
    expect((await switching.fdb()).entries.map(({ port }) => port).sort()).toEqual([...NAMES]);
  });
});

describe('a successor that comes to nothing', () => {
  it.each(['state', 'ready', 'positions'] as const)('after %s changes nothing', async (step) => {
    const world = await World.start({ layout: 'packed', role: 'server' });
    const { switching } = world;
    await world.runFor(1000);
    const failing = async (): Promise<void> => {
      const takeover = await beginTakeover(switching.controlSocket);
      if (step === 'positions') await takeover.ready();
      else if (step === 'ready') void takeover.ready().catch(() => {});
      takeover.abandon();
      await switching.until(async () => switching.log.includes('takeover came to nothing'));
    };
    await world.runUntil(failing());
    await world.runFor(1000);
    await world.expectAllThere();
    await world.runUntil(switching.takeOver());
    await world.runFor(1000);
    await world.expectAllThere();
  });

  it('because it is killed changes nothing', async () => {
    const world = await World.start({ layout: 'split', role: 'server' });
    const { switching } = world;
    await world.runFor(1000);
    await world.runUntil(switching.failTakeOver('SIGKILL'));
    await world.runFor(1000);
    await world.expectAllThere();
  });

  it('because its settings are others is told why', async () => {
    const world = await World.start({ layout: 'split', role: 'server' });
    const { switching } = world;
    const more = ['--port', `c=${join(switching.folder, 'c.sock')}`];
    await world.runUntil(switching.failTakeOver(null, more));
    expect(switching.log).toContain('port c is not there in the running Ringway');
    await world.runFor(1000);
    await world.expectAllThere();
  });

  it('because it knows another format is told so', async () => {
    const { switching } = await World.start({ layout: 'split', role: 'server' });
    const body = { socket: 'none', formats: [7] };
    await expect(
      askControl(switching.controlSocket, '/v1/takeover', { method: 'POST', body }),
    ).rejects.toThrow('takeover in format 7 was asked for');
  });

  it('because a port is of another kind is told which', async () => {
    const switching = await RingwayProcess.start({ ports: ['a', 'u'], kinds: { u: 'unix' } });
    closing.push(() => switching.stop());
    await switching.failTakeOver(null);
    expect(switching.log).toContain('port u is of kind unix, which cannot be handed over');
  });
});
