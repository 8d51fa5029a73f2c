/**
 * `kill -9` under traffic, again and again: the real program, two embedded guests that come again, naming a base that
 * cannot be believed, and numbered frames both ways. Whatever a driver handed over arrives, none twice but of the burst at
 * work, and every buffer comes back. The long form, 200 kills of a layout: RINGWAY_SEARCH=25.
 */
import { afterEach, describe, expect, it } from 'vitest';
import { EmbeddedGuest } from '../../src/frontend/index.ts';
import type { RingLayoutKind } from '../../src/vring/attachment.ts';
import { askControl } from '../../switch/control/client.ts';
import { flowUntil, NumberedFlow, reclaimAll, takeAll } from '../numbered-flow.ts';
import { RingwayProcess } from '../real/ringway-process.ts';
import { Random } from '../vring/random.ts';
import { FIRST_BASES } from '../vring/ring-worlds.ts';

const KILLS = Math.round(4 * Number(process.env.RINGWAY_SEARCH ?? 1));
const STOPS = Math.round(3 * Number(process.env.RINGWAY_SEARCH ?? 1));
const WAIT_MS = 20_000;
const BURST_FRAMES_MAX = 64;
const NAMES = ['a', 'b'] as const;
const MACS = { a: '02:00:00:00:00:0a', b: '02:00:00:00:00:0b' } as const;
/** Long enough for a burst to be at work, and short enough to meet it. */
const SPIN_US_MAX = 400;

const closing: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

type Setup = {
  readonly layout: RingLayoutKind;
  readonly role: 'server' | 'client';
  readonly cpus?: string;
  readonly inOrder?: boolean;
};

class World {
  readonly switching: RingwayProcess;
  readonly guests: readonly EmbeddedGuest[];
  readonly flows: readonly NumberedFlow[];
  readonly #setup: Setup;

  private constructor(setup: Setup, switching: RingwayProcess, guests: readonly EmbeddedGuest[]) {
    this.#setup = setup;
    this.switching = switching;
    this.guests = guests;
    this.flows = [new NumberedFlow(guests[0], guests[1]), new NumberedFlow(guests[1], guests[0])];
  }

  static async start(setup: Setup): Promise<World> {
    const isClient = setup.role === 'client';
    const switching = await RingwayProcess.start({
      ports: NAMES,
      ...(isClient && { portOptions: { a: ',role=client', b: ',role=client' } }),
      args: setup.cpus === undefined ? [] : ['--cpus', setup.cpus],
    });
    closing.push(() => switching.stop());
    const guests = await Promise.all(
      NAMES.map((name) =>
        EmbeddedGuest.connect({
          socketPath: switching.socket(name),
          role: isClient ? 'server' : 'client',
          mac: MACS[name],
          layout: setup.layout,
          inOrder: setup.inOrder ?? false,
          waitMs: WAIT_MS,
        }),
      ),
    );
    for (const guest of guests) closing.push(() => guest.close());
    return new World(setup, switching, guests);
  }

  run(isEnough: () => boolean): Promise<void> {
    return flowUntil(this.flows, isEnough, () => this.switching.log);
  }

  /** As many frames as the rings have room for, up to the last one that it takes. */
  async runWhileItEnds(): Promise<void> {
    let hasEnded = false;
    void this.switching.ended.then(() => {
      hasEnded = true;
    });
    while (!hasEnded) {
      for (const flow of this.flows) flow.step();
      await new Promise(setImmediate);
    }
  }

  /** Until all that was sent has come, and every buffer is back. */
  async drain(): Promise<void> {
    await takeAll(this.flows, () => this.switching.log);
    await reclaimAll(this.guests, () => this.switching.log);
  }

  /** Both, and only then do frames flow: a guest that comes first would send its frames to nobody. */
  async comeBack(): Promise<void> {
    const base = FIRST_BASES[this.#setup.layout];
    // Until then its sockets may let somebody in.
    await this.switching.ended;
    const reached = this.guests.map((guest) => guest.reconnect({ waitMs: WAIT_MS, base, disabled: true }));
    await Promise.all([this.switching.restart(), ...reached]);
    for (const index of [0, 1]) {
      for (const { session } of this.guests) await session.request('SET_VRING_ENABLE', { index, num: 1 });
    }
  }
}

const spin = (us: number): void => {
  const endMs = performance.now() + us / 1000;
  while (performance.now() < endMs);
};

const SETUPS: readonly Setup[] = [
  { layout: 'packed', role: 'server' },
  { layout: 'packed', role: 'client', inOrder: true },
  { layout: 'split', role: 'server' },
  { layout: 'split', role: 'client' },
];

describe.each(SETUPS)('a Ringway that is killed under traffic: $layout rings, role $role', (setup) => {
  it(`is taken up by its guests ${KILLS} times, and nothing is lost`, {
    timeout: 30_000 * KILLS,
  }, async () => {
    const world = await World.start(setup);
    const random = new Random(SETUPS.indexOf(setup));
    const { flows, switching } = world;
    const twice = [0, 0];
    for (let kill = 0; kill < KILLS; kill++) {
      const goal = flows[0].sent + random.between(200, 3000);
      await world.run(() => flows[0].sent >= goal);
      spin(random.between(0, SPIN_US_MAX));
      switching.kill();
      await world.comeBack();
      const before = flows.map(({ sent }) => sent);
      await world.run(() => flows.every(({ sent }, i) => sent > before[i] + 500));
      for (const [i, flow] of flows.entries()) {
        expect(flow.twice - twice[i], `kill ${kill}`).toBeLessThanOrEqual(BURST_FRAMES_MAX);
        twice[i] = flow.twice;
      }
      for (const { name, reason } of await switching.ports()) expect([name, reason]).toEqual([name, null]);
    }
    await world.drain();
    for (const flow of flows) expect(flow.distinct).toBe(flow.sent);
  });
});

describe('ports that were added at run time', () => {
  const namesOf = async (switching: RingwayProcess): Promise<string[]> =>
    (await switching.ports()).map(({ name }) => name);

  it('are there again after a kill, with their changes, unless that is not wanted', async () => {
    const switching = await RingwayProcess.start({ ports: ['a'] });
    closing.push(() => switching.stop());
    const ask = (name: string, method: 'PUT' | 'PATCH' | 'DELETE', body?: object): Promise<unknown> =>
      askControl(switching.controlSocket, `/v1/ports/${name}`, { method, body });
    await ask('b', 'PUT', { socket: switching.socket('b'), queues: 2 });
    await ask('c', 'PUT', { socket: switching.socket('c') });
    await ask('b', 'PATCH', { mtu: 1400 });
    // A port of the settings, too.
    await ask('a', 'PATCH', { mtu: 1300 });
    await ask('c', 'DELETE');
    await switching.killAndRestart();
    await switching.until(async () => (await namesOf(switching)).length === 2);
    expect(await namesOf(switching)).toEqual(['a', 'b']);
    expect((await switching.port('b')).settings.mtu).toBe(1400);
    expect((await switching.port('a')).settings.mtu).toBe(1300);
    switching.kill();
    await switching.restart(['--no-restore']);
    expect(await namesOf(switching)).toEqual(['a']);
    expect((await switching.port('a')).settings.mtu).toBeNull();
  });
});

const STOPPED: readonly (Setup & { workers: string })[] = [
  ...SETUPS.map((setup) => ({ ...setup, workers: 'one worker' })),
  { layout: 'packed', role: 'server', cpus: '0,1', workers: 'two workers' },
  { layout: 'split', role: 'client', cpus: '0,1', workers: 'two workers' },
];

describe.each(STOPPED)('a Ringway that is stopped in order: $layout rings, role $role, $workers', (setup) => {
  it('loses nothing of what its guests send meanwhile, and is taken up by them, again and again', {
    timeout: 30_000 * STOPS,
  }, async () => {
    const world = await World.start(setup);
    for (let stop = 0; stop < STOPS; stop++) {
      const goal = world.flows[0].sent + 1000;
      await world.run(() => world.flows[0].sent >= goal);
      world.switching.endInOrder();
      await world.runWhileItEnds();
      await world.comeBack();
    }
    await world.drain();
    for (const flow of world.flows) {
      expect(flow.distinct).toBe(flow.sent);
      expect(flow.twice).toBe(0);
    }
  });
});
