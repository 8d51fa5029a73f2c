/**
 * `kill -9` under traffic while a service manager keeps the descriptors, again and again: the real program, two embedded
 * guests that stay connected, and numbered frames both ways. No frame is lost, none comes twice but of the burst at work. What
 * cannot go on is ended, so that its front-end connects again, and harms nobody else.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { encodeBody, encodeMessage } from '../../../protocol/vhost-user/codec.ts';
import { MESSAGES } from '../../../protocol/vhost-user/messages.ts';
import { EmbeddedGuest } from '../../../src/frontend/index.ts';
import { closeFds, duplicateFd } from '../../../src/host/descriptor.ts';
import { identityOf } from '../../../src/host/process-identity.ts';
import type { RingLayoutKind } from '../../../src/vring/attachment.ts';
import { askControl } from '../../../switch/control/client.ts';
import { NoteFile } from '../../../switch/service/note-file.ts';
import { flowUntil, NumberedFlow, reclaimAll, takeAll } from '../../numbered-flow.ts';
import { RingwayProcess } from '../../real/ringway-process.ts';
import { Random } from '../../vring/random.ts';
import { FakeManager } from './fake-manager.ts';

const KILLS = Math.round(3 * Number(process.env.RINGWAY_SEARCH ?? 1));
const WAIT_MS = 20_000;
const BURST_FRAMES_MAX = 64;
const SPIN_US_MAX = 400;
const NAMES = ['a', 'b'] as const;
const MACS = { a: '02:00:00:00:00:0a', b: '02:00:00:00:00:0b' } as const;

const closing: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

type Setup = {
  readonly layout: RingLayoutKind;
  readonly role: 'server' | 'client';
  readonly inOrder?: boolean;
};

class World {
  readonly manager: FakeManager;
  readonly switching: RingwayProcess;
  readonly guests: readonly EmbeddedGuest[];
  readonly flows: readonly NumberedFlow[];

  private constructor(manager: FakeManager, switching: RingwayProcess, guests: readonly EmbeddedGuest[]) {
    this.manager = manager;
    this.switching = switching;
    this.guests = guests;
    this.flows = [new NumberedFlow(guests[0], guests[1]), new NumberedFlow(guests[1], guests[0])];
  }

  static async start(setup: Setup): Promise<World> {
    const isClient = setup.role === 'client';
    const manager = new FakeManager({ storeMax: 256 });
    closing.push(() => manager.close());
    const switching = await RingwayProcess.start({
      ports: NAMES,
      ...(isClient && { portOptions: { a: ',role=client', b: ',role=client' } }),
      spawn: manager.spawn,
    });
    closing.push(() => switching.stop());
    const world = new World(
      manager,
      switching,
      await Promise.all(NAMES.map((name) => World.#guest(setup, switching, name))),
    );
    await world.noted();
    return world;
  }

  static async #guest(setup: Setup, switching: RingwayProcess, name: 'a' | 'b'): Promise<EmbeddedGuest> {
    const guest = await EmbeddedGuest.connect({
      socketPath: switching.socket(name),
      role: setup.role === 'client' ? 'server' : 'client',
      mac: MACS[name],
      layout: setup.layout,
      inOrder: setup.inOrder ?? false,
      waitMs: WAIT_MS,
    });
    closing.push(() => guest.close());
    return guest;
  }

  /** Of each port, as they are now. */
  notes(): { state: string; port: string; text: string }[] {
    return this.#files().map(({ file, port, text }) => {
      file.close();
      return { state: file.state, port, text };
    });
  }

  /** Of one port, to be changed. */
  note(port: string): NoteFile {
    const files = this.#files();
    for (const other of files) if (other.port === port) closing.push(() => other.file.close());
    for (const other of files) if (other.port !== port) other.file.close();
    const found = files.find((other) => other.port === port);
    if (found === undefined) throw new Error(`there is no note of port ${port}`);
    return found.file;
  }

  #files(): { port: string; text: string; file: NoteFile }[] {
    const files = this.manager.store.filter(({ name }) => name.startsWith('ringway-note-'));
    return files.flatMap(({ fd }) => {
      const own = duplicateFd(fd);
      const file = NoteFile.open(own);
      // It is being written.
      if (typeof file === 'string') {
        closeFds([own]);
        return [];
      }
      const text = file.text ?? '{}';
      return [{ file, text, port: JSON.parse(text).port }];
    });
  }

  /** Resolves when all that was said is noted. */
  async noted(): Promise<void> {
    // Whoever is answered has been read to here, and a note that is older says so.
    const connected = this.guests.filter(({ session }) => !session.isClosed);
    await Promise.all(connected.map(({ session }) => session.request('GET_FEATURES', null)));
    const isConnected = (text: string): boolean => JSON.parse(text).handed?.connection != null;
    const holds = (): boolean => {
      const notes = this.notes();
      return notes.length === 2 && notes.every(({ state, text }) => state === 'holds' && isConnected(text));
    };
    await vi.waitUntil(holds, { interval: 1 });
  }

  run(isEnough: () => boolean): Promise<void> {
    return flowUntil(this.flows, isEnough, () => this.switching.log);
  }

  runFor(frames: number): Promise<void> {
    const goals = this.flows.map(({ sent }) => sent + frames);
    return this.run(() => this.flows.every(({ sent }, i) => sent >= goals[i]));
  }

  /** Until all that was sent has come, and every buffer is back. */
  async drain(): Promise<void> {
    await takeAll(this.flows, () => this.switching.log);
    await reclaimAll(this.guests, () => this.switching.log);
  }

  expectNobodyNoticed(): void {
    for (const { session } of this.guests) expect(session.isClosed).toBe(false);
  }

  /** Its log comes by another way than its answers. */
  logged(text: string): Promise<void> {
    return this.switching.until(async () => this.switching.log.includes(text));
  }

  async killAndRestart(whileGone: () => void = () => {}): Promise<void> {
    this.switching.kill();
    await this.switching.ended;
    whileGone();
    await this.switching.restart();
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

describe.each(SETUPS)('a service that is killed under traffic: $layout rings, role $role', (setup) => {
  it(`goes on ${KILLS} times, and its guests notice nothing`, { timeout: 30_000 * KILLS }, async () => {
    const world = await World.start(setup);
    const random = new Random(SETUPS.indexOf(setup));
    const { flows, switching } = world;
    const twice = [0, 0];
    for (let kill = 0; kill < KILLS; kill++) {
      await world.runFor(random.between(200, 3000));
      spin(random.between(0, SPIN_US_MAX));
      await world.killAndRestart();
      await world.runFor(500);
      world.expectNobodyNoticed();
      for (const [i, flow] of flows.entries()) {
        expect(flow.twice - twice[i], `kill ${kill}`).toBeLessThanOrEqual(BURST_FRAMES_MAX);
        twice[i] = flow.twice;
      }
      for (const { name, reason } of await switching.ports()) expect([name, reason]).toEqual([name, null]);
    }
    await world.drain();
    for (const flow of flows) expect(flow.distinct).toBe(flow.sent);
    expect(switching.log).not.toContain('has to connect again');
  });
});

describe.each(['packed', 'split'] as const)(
  'a service that is killed while front-ends talk: %s rings',
  (layout) => {
    it('goes on or ends the connection, and never takes up a ring at a guess', {
      timeout: 60_000 * KILLS,
    }, async ({ annotate }) => {
      const world = await World.start({ layout, role: 'server' });
      const random = new Random(layout.length);
      const { guests, flows, switching } = world;
      const fates = { kept: 0, ended: 0 };
      for (let kill = 0; kill < 2 * KILLS; kill++) {
        await world.runFor(random.between(100, 500));
        await world.drain();
        let isOver = false;
        const talks = guests.map(async ({ session }) => {
          while (!isOver && !session.isClosed) {
            const state = { index: random.between(0, 1), num: random.between(0, 1) };
            await session.request('SET_VRING_ENABLE', state).catch(() => {});
            await session.request('GET_FEATURES', null).catch(() => {});
            if (random.between(0, 2) === 0) await sleep(random.between(1, 8));
          }
        });
        await sleep(random.between(0, 30));
        switching.kill();
        await switching.ended;
        isOver = true;
        await switching.restart();
        await Promise.all(talks);
        for (const guest of guests) {
          fates[guest.session.isClosed ? 'ended' : 'kept']++;
          if (guest.session.isClosed) await guest.reconnect({ waitMs: WAIT_MS });
          for (const index of [0, 1]) await guest.session.request('SET_VRING_ENABLE', { index, num: 1 });
        }
      }
      await world.runFor(500);
      await world.drain();
      for (const flow of flows) expect([flow.distinct, flow.twice]).toEqual([flow.sent, 0]);
      await annotate(`${fates.kept} connections went on, ${fates.ended} were ended`);
      for (const { name, reason } of await switching.ports()) expect([name, reason]).toEqual([name, null]);
    });
  },
);

describe('a service that is killed', { timeout: 60_000 }, () => {
  it('answers then what its front-end asked while it was gone', async () => {
    const world = await World.start({ layout: 'split', role: 'server' });
    const { session } = world.guests[0];
    const before = await session.request('GET_FEATURES', null);
    await world.noted();
    let asked: Promise<unknown> = Promise.resolve();
    await world.killAndRestart(() => {
      asked = session.request('GET_FEATURES', null);
    });
    expect(await asked).toBe(before);
    await world.runFor(500);
    world.expectNobodyNoticed();
  });

  it('goes on in the middle of a message', async () => {
    const world = await World.start({ layout: 'packed', role: 'client' });
    const { session } = world.guests[0];
    const bytes = encodeMessage(
      MESSAGES.SET_VRING_ENABLE.id,
      0,
      encodeBody('vringState', { index: 0, num: 1 }),
    );
    session.sendRaw(bytes.subarray(0, 15));
    const half = Buffer.from(bytes.subarray(0, 15)).toString('base64');
    const isHalfNoted = (): boolean =>
      world.notes().some(({ text, state }) => state === 'holds' && text.includes(half));
    await vi.waitUntil(isHalfNoted, { interval: 1 });
    await world.killAndRestart(() => session.sendRaw(bytes.subarray(15)));
    await session.request('GET_FEATURES', null);
    await world.runFor(500);
    world.expectNobodyNoticed();
  });

  it('has a ring that was stopped stand where it stood', async () => {
    const world = await World.start({ layout: 'packed', role: 'server' });
    await world.runFor(700);
    await world.drain();
    const [{ session }] = world.guests;
    await session.request('SET_VRING_ENABLE', { index: 1, num: 0 });
    await world.noted();
    await world.killAndRestart();
    const first = await session.request('GET_VRING_BASE', { index: 1, num: 0 });
    await world.noted();
    await world.killAndRestart();
    expect(await session.request('GET_VRING_BASE', { index: 1, num: 0 })).toEqual(first);
    expect(first.num & 0x7fff).toBe(world.flows[0].sent % 256);
    world.expectNobodyNoticed();
  });

  it('right after something was said ends that connection alone', async () => {
    const world = await World.start({ layout: 'split', role: 'server' });
    await world.killAndRestart(() => world.note('a').mark('outdated'));
    await world.logged('its front-end had just said something');
    await expect(world.guests[0].session.request('GET_FEATURES', null)).rejects.toThrow();
    expect(world.guests[1].session.isClosed).toBe(false);
    await world.guests[1].session.request('GET_FEATURES', null);
    await world.guests[0].reconnect({ waitMs: WAIT_MS });
    await world.noted();
    await world.runFor(500);
  });

  it.each(['memory', 'event', 'socket'])(
    'ends connections of which a descriptor (%s) was not kept',
    async (kind) => {
      const world = await World.start({ layout: 'packed', role: 'server' });
      await world.killAndRestart(() => {
        world.manager.lose(({ name }) => name.startsWith(`ringway-${kind}`));
      });
      await world.logged('some of its descriptors were not kept');
    },
  );

  it('together with who had taken over begins anew', async () => {
    const world = await World.start({ layout: 'split', role: 'server' });
    await world.killAndRestart(() => {
      for (const port of NAMES) world.note(port).mark('over');
    });
    for (const guest of world.guests) await guest.reconnect({ waitMs: WAIT_MS });
    await world.noted();
    await world.runFor(500);
  });

  it('goes on with connections that were left to who came to its end before it had noted anything', async () => {
    const world = await World.start({ layout: 'packed', role: 'server' });
    await world.killAndRestart(() => {
      // Of a process of that number, which is another one.
      for (const port of NAMES) world.note(port).leaveTo({ pid: process.pid, startTicks: 1 });
    });
    await world.runFor(500);
    world.expectNobodyNoticed();
  });

  it('lets connections be that were left to who is alive', async () => {
    const world = await World.start({ layout: 'packed', role: 'server' });
    await world.killAndRestart(() => {
      for (const port of NAMES) world.note(port).leaveTo(identityOf(process.pid)!);
    });
    await world.logged('"running"');
    expect(world.switching.log).not.toContain('has to connect again');
  });

  it('does not begin for ever with what may be the reason', async () => {
    const world = await World.start({ layout: 'split', role: 'server' });
    await world.killAndRestart(() => {
      for (let begun = 0; begun < 3; begun++) world.note('a').countBegun();
    });
    await world.logged('3 processes came to a sudden end');
    expect(world.guests[1].session.isClosed).toBe(false);
    await world.guests[0].reconnect({ waitMs: WAIT_MS });
    await world.noted();
    await world.killAndRestart();
    await world.runFor(500);
    world.expectNobodyNoticed();
  });

  it('ends what nobody can tell of any more', async () => {
    const world = await World.start({ layout: 'packed', role: 'server' });
    const damaged = world.note('a');
    await world.killAndRestart(() => {
      damaged.write('{"port":');
    });
    await expect(world.guests[0].session.request('GET_FEATURES', null)).rejects.toThrow();
    await world.guests[1].session.request('GET_FEATURES', null);
  });

  it('lets go of ports that are not there any more', async () => {
    const world = await World.start({ layout: 'split', role: 'server' });
    const { switching, manager } = world;
    const socket = `${switching.socket('a')}.added`;
    await askControl(switching.controlSocket, '/v1/ports/c', { method: 'PUT', body: { socket } });
    const isKept = (): boolean => world.notes().filter(({ state }) => state === 'holds').length === 3;
    await vi.waitUntil(isKept, { interval: 1 });
    switching.kill();
    await switching.restart(['--no-restore']);
    await manager.until(({ kept }) => kept['ringway-note'] === 2);
    await world.runFor(500);
    world.expectNobodyNoticed();
  });
});

describe('the descriptor store', () => {
  it('has what the connected front-ends sent, and no more', async () => {
    const world = await World.start({ layout: 'split', role: 'server' });
    const { manager, switching } = world;
    // Notes are read where they lie, and what was sent with them has its way to go.
    await manager.until(({ store }) => store.length >= 16);
    const connected = manager.kept;
    expect(connected['ringway-note']).toBe(2);
    // Listening sockets and connections.
    expect(connected['ringway-socket']).toBe(4);
    expect(connected['ringway-memory']).toBe(2);
    expect(connected['ringway-event']).toBeGreaterThanOrEqual(8);
    for (const guest of world.guests) guest.close();
    await manager.until(({ store }) => store.length === 4);
    expect(manager.kept).toEqual({ 'ringway-note': 2, 'ringway-socket': 2 });
    await askControl(switching.controlSocket, '/v1/ports/a', { method: 'DELETE' });
    await manager.until(({ store }) => store.length === 2);
    await askControl(switching.controlSocket, '/v1/ports/b', { method: 'DELETE' });
    await manager.until(({ store }) => store.length === 0);
  });

  it('goes with the service to who takes over', { timeout: 120_000 }, async () => {
    const world = await World.start({ layout: 'packed', role: 'server' });
    const { manager, switching, flows } = world;
    // Two notes, listening sockets, connections, memory files, and four kicks and calls each.
    await manager.until(({ store }) => store.length === 16);
    const before = manager.kept;
    let isDone = false;
    for (let round = 0; round < 2; round++) {
      isDone = false;
      const taken = switching.takeOver().finally(() => {
        isDone = true;
      });
      await world.run(() => isDone);
      await taken;
      await manager.until(({ told }) => told.includes(`MAINPID=${switching.pid}`));
      expect(manager.told).not.toContain('STOPPING=1');
      await manager.until(({ kept }) => isDeepStrictEqual(kept, before));
      await world.noted();
      await world.runFor(500);
      await world.killAndRestart();
      await world.runFor(500);
      world.expectNobodyNoticed();
    }
    await world.drain();
    for (const flow of flows) expect(flow.distinct).toBe(flow.sent);
  });

  it('may be slow: nobody waits, and a crash meanwhile is one as any other', async () => {
    const world = await World.start({ layout: 'split', role: 'server' });
    const { manager } = world;
    manager.beDeaf();
    for (let round = 0; round < 20; round++) await world.guests[0].reconnect({ waitMs: WAIT_MS });
    await world.runFor(500);
    manager.hear();
    await world.noted();
    await world.killAndRestart();
    await world.runFor(500);
    world.expectNobodyNoticed();
  });
});
