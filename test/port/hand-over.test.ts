/**
 * Ports handed over from one switch to another under traffic, in one process: embedded guests, numbered frames both ways.
 * Each comes once, the connection stays, and whatever goes wrong before the new one uses the rings, the old one goes on.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { EmbeddedGuest } from '../../src/frontend/index.ts';
import { duplicateFd } from '../../src/host/descriptor.ts';
import { type HandedPort, withDescriptors } from '../../src/port/hand-over.ts';
import type { RingLayoutKind } from '../../src/vring/attachment.ts';
import { LocalSwitch } from '../frontend/local-switch.ts';
import { NumberedFlow } from '../numbered-flow.ts';

const WAIT_MS = 10_000;
const closing: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

type Setup = { readonly layout: RingLayoutKind; readonly role: 'server' | 'client' };

class World {
  readonly folder = mkdtempSync(join(tmpdir(), 'ringway-test-'));
  readonly #setup: Setup;
  switching: LocalSwitch;
  guests: EmbeddedGuest[] = [];
  flows: NumberedFlow[] = [];

  private constructor(setup: Setup) {
    this.#setup = setup;
    this.switching = new LocalSwitch(this.#ports);
    closing.push(async () => {
      await this.switching.stop();
      rmSync(this.folder, { recursive: true });
    });
  }

  static async start(setup: Setup): Promise<World> {
    const world = new World(setup);
    world.guests = await Promise.all(
      ['02:00:00:00:00:0a', '02:00:00:00:00:0b'].map((mac, i) =>
        EmbeddedGuest.connect({
          socketPath: world.socket(i),
          role: setup.role === 'server' ? 'client' : 'server',
          layout: setup.layout,
          mac,
          waitMs: WAIT_MS,
        }),
      ),
    );
    for (const guest of world.guests) closing.push(() => guest.close());
    const [a, b] = world.guests;
    world.flows = [new NumberedFlow(a, b), new NumberedFlow(b, a)];
    return world;
  }

  socket(i: number): string {
    return join(this.folder, `${i}.sock`);
  }

  get #ports() {
    return [0, 1].map((i) => ({ socketPath: this.socket(i), role: this.#setup.role }));
  }

  async run(frames: number): Promise<void> {
    const goals = this.flows.map(({ sent }) => sent + frames);
    while (this.flows.some(({ sent }, i) => sent < goals[i])) {
      for (const flow of this.flows) flow.step();
      await new Promise(setImmediate);
    }
  }

  async freeze(): Promise<HandedPort[]> {
    await Promise.all(this.switching.ports.map((port) => port.freeze()));
    const handed = this.switching.ports.map((port) => port.handOver());
    // As they would be after their way through a socket.
    return JSON.parse(JSON.stringify(handed)) as HandedPort[];
  }

  async rest(): Promise<void> {
    await Promise.all(this.switching.ports.map((port) => port.setResting(true)));
  }

  async goOn(switching: LocalSwitch): Promise<void> {
    await Promise.all(switching.ports.map((port) => port.setResting(false)));
    for (const port of switching.ports) port.thaw();
  }

  successor(handed: readonly HandedPort[]): LocalSwitch {
    const own = handed.map((port) => withDescriptors(port, duplicateFd));
    return new LocalSwitch(this.#ports, null, own);
  }

  async takeOver(): Promise<void> {
    const handed = await this.freeze();
    const next = this.successor(handed);
    await next.started;
    await this.run(200);
    await this.rest();
    const positions = this.switching.ports.map((port) => port.positions());
    this.switching.abandon();
    for (const [i, port] of next.ports.entries()) await port.goOnAt(positions[i]);
    await this.goOn(next);
    this.switching = next;
  }

  async expectAllThere(): Promise<void> {
    for (const flow of this.flows) {
      for (flow.take(); !flow.isDone; flow.take()) await new Promise(setImmediate);
      expect(flow.twice).toBe(0);
    }
    for (const guest of this.guests) expect(guest.session.isClosed).toBe(false);
    expect(this.switching.warnings).toEqual([]);
  }
}

const SETUPS: readonly Setup[] = [
  { layout: 'split', role: 'server' },
  { layout: 'split', role: 'client' },
  { layout: 'packed', role: 'server' },
  { layout: 'packed', role: 'client' },
];

describe.each(SETUPS)('ports that are handed over under traffic: $layout rings, role $role', (setup) => {
  it('are taken up by another switch, again and again, and no frame is lost or comes twice', async () => {
    const world = await World.start(setup);
    for (let round = 0; round < 5; round++) {
      await world.run(500);
      await world.takeOver();
    }
    await world.run(500);
    await world.expectAllThere();
    const [{ ingressFrames }] = world.switching.ports.map(({ counters }) => counters);
    expect(ingressFrames).toBe(world.flows[0].sent);
  });

  it.each(['frozen', 'made', 'at rest', 'told'] as const)(
    'go on as before when the other one comes to nothing: %s',
    async (step) => {
      const world = await World.start(setup);
      await world.run(500);
      const handed = await world.freeze();
      if (step !== 'frozen') {
        const next = world.successor(handed);
        await next.started;
        if (step !== 'made') await world.rest();
        const positions = world.switching.ports.map((port) => port.positions());
        if (step === 'told') for (const [i, port] of next.ports.entries()) await port.goOnAt(positions[i]);
        next.abandon();
      }
      await world.goOn(world.switching);
      await world.run(500);
      await world.expectAllThere();
      const { session } = world.guests[0];
      await session.request('GET_FEATURES', null);
    },
  );
});
