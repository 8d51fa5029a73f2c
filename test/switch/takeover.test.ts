/**
 * `ringway run --takeover` under traffic, again and again: the real program, two embedded guests that stay connected, and
 * numbered frames both ways, each of which comes once. A successor that comes to nothing at any step before the last
 * changes nothing.
 */
import { execFile } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { EmbeddedGuest } from '../../src/frontend/index.ts';
import type { RingLayoutKind } from '../../src/vring/attachment.ts';
import { BlockCounter } from '../../switch/cli/block-counter.ts';
import { askControl, streamControl } from '../../switch/control/client.ts';
import type { PluginReport } from '../../switch/plugin/plugin-table.ts';
import type { MdbReport } from '../../switch/snooping/report.ts';
import { beginTakeover } from '../../switch/takeover/take.ts';
import { flowUntil, NumberedFlow, takeAll } from '../numbered-flow.ts';
import { naiveRead } from '../protocol/naive-capture.ts';
import { RingwayProcess } from '../real/ringway-process.ts';
import { untilRingsAreInUse } from '../rings-in-use.ts';

const TAKEOVERS = Math.round(2 * Number(process.env.RINGWAY_SEARCH ?? 1));
const WAIT_MS = 20_000;
const TAKE = fileURLToPath(new URL('../../switch/takeover/take.ts', import.meta.url));
const NAMES = ['a', 'b'] as const;
const MACS = { a: '02:00:00:00:00:0a', b: '02:00:00:00:00:0b' } as const;

const closing: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

type Setup = {
  readonly layout: RingLayoutKind;
  readonly role: 'server' | 'client';
  /** Processors, one worker each; left out: one worker. */
  readonly cpus?: string;
  /** The guests' cards are behind one. */
  readonly iommu?: true;
  readonly args?: readonly string[];
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

  /** `captures`: names of ports that write what comes and goes at all others. */
  static async start(
    { layout, role, cpus, iommu, args = [] }: Setup,
    captures: readonly string[] = [],
  ): Promise<World> {
    const isClient = role === 'client';
    const options = `${isClient ? ',role=client' : ''}${iommu === true ? ',features=iommu' : ''}`;
    const switching = await RingwayProcess.start({
      ports: [...NAMES, ...captures],
      args: cpus === undefined ? args : [...args, '--cpus', cpus],
      kinds: Object.fromEntries(captures.map((name) => [name, 'pcap'])),
      portOptions: {
        a: options,
        b: options,
        ...Object.fromEntries(captures.map((name) => [name, ',mirror=all'])),
      },
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
    if (iommu === true)
      for (const [i, name] of NAMES.entries())
        await untilRingsAreInUse(guests[i], async () => (await switching.port(name)).queues);
    // No more than may wait for translations.
    return new World(switching, guests, iommu === true ? 48 : undefined);
  }

  run(isEnough: () => boolean): Promise<void> {
    return flowUntil(this.flows, isEnough, () => this.switching.log);
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
    await takeAll(this.flows, () => this.switching.log);
    for (const { twice } of this.flows) expect(twice).toBe(0);
    for (const guest of this.guests) expect(guest.session.isClosed).toBe(false);
    for (const { name, reason } of await this.switching.ports()) expect([name, reason]).toEqual([name, null]);
  }
}

/** Which processor each worker is pinned to, in their order. */
function workersOf(pid: number): string {
  const tasks = readdirSync(`/proc/${pid}/task`).map((task) => `/proc/${pid}/task/${task}`);
  const workers = tasks.filter((task) => readFileSync(`${task}/comm`, 'utf8').startsWith('poll-'));
  const cpus = workers.map(
    (task) => /^Cpus_allowed_list:\s*(.*)$/m.exec(readFileSync(`${task}/status`, 'utf8'))?.[1],
  );
  return cpus.sort().join();
}

const addPort = (switching: RingwayProcess, name: string): Promise<unknown> =>
  askControl(switching.controlSocket, `/v1/ports/${name}`, {
    method: 'PUT',
    body: { socket: switching.socket(name) },
  });

/** The next probe that the switch sends to the guest. */
async function loopProbeOf(guest: EmbeddedGuest): Promise<Uint8Array> {
  for (;;) {
    const frame = await guest.received();
    if (frame[12] === 0x88 && frame[13] === 0xb5) return frame;
  }
}

/** Of a test with one takeover or two, on a machine with much else to do. */
const TIMEOUT_MS = 120_000;

const SETUPS: readonly Setup[] = [
  { layout: 'packed', role: 'server' },
  { layout: 'packed', role: 'client', cpus: '0,1' },
  { layout: 'split', role: 'server', cpus: '0,1' },
  { layout: 'split', role: 'client' },
  { layout: 'packed', role: 'server', iommu: true },
  { layout: 'split', role: 'server', iommu: true },
];

describe.each(SETUPS)(
  'a Ringway that is taken over under traffic: $layout rings, role $role, cpus $cpus',
  (setup) => {
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
      if (setup.cpus !== undefined) expect(workersOf(switching.pid)).toBe(setup.cpus);
      // Counters go on, and so does what was learned. A frame is counted a moment after it has come.
      const countOfA = async (): Promise<number> => (await switching.port('a')).counters.ingressFrames;
      await vi.waitFor(async () => expect(await countOfA()).toBe(flows[0].sent));
      expect((await switching.fdb()).entries.map(({ port }) => port).sort()).toEqual([...NAMES]);
    });
  },
);

describe('a successor that comes to nothing', () => {
  it.each(['state', 'ready', 'positions'] as const)(
    'after %s changes nothing',
    { timeout: TIMEOUT_MS },
    async (step) => {
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
    },
  );

  it.each([
    ['it has everything', ''],
    ['all rests for it', 'await takeover.ready();'],
  ])('because it is killed when %s changes nothing', { timeout: TIMEOUT_MS }, async (_, step) => {
    const world = await World.start({ layout: 'split', role: 'server' });
    const { switching } = world;
    await world.runFor(1000);
    // It kills itself: whoever saw it from outside might come when it has taken over.
    const program = `import { beginTakeover } from ${JSON.stringify(TAKE)};
const takeover = await beginTakeover(${JSON.stringify(switching.controlSocket)});
${step}
process.kill(process.pid, 'SIGKILL');`;
    const killed = promisify(execFile)(process.execPath, ['--input-type=module', '--eval', program]);
    await world.runUntil(expect(killed).rejects.toMatchObject({ signal: 'SIGKILL' }));
    await world.runUntil(switching.until(async () => switching.log.includes('takeover came to nothing')));
    await world.runFor(1000);
    await world.expectAllThere();
  });

  it('because the other is stopped is not told to go on', { timeout: TIMEOUT_MS }, async () => {
    const world = await World.start({ layout: 'split', role: 'server' });
    const { switching } = world;
    await world.runFor(1000);
    const takeover = await beginTakeover(switching.controlSocket);
    await takeover.ready();
    switching.endInOrder();
    await switching.until(async () => switching.log.includes('"stopping"'));
    await expect(takeover.done()).rejects.toThrow();
    takeover.abandon();
    expect(await switching.ended).toBe(0);
    await switching.restart();
  });

  it('because it knows another format is told so', async () => {
    const { switching } = await World.start({ layout: 'split', role: 'server' });
    const body = { socket: 'none', formats: [7] };
    await expect(
      askControl(switching.controlSocket, '/v1/takeover', { method: 'POST', body }),
    ).rejects.toThrow('takeover in format 7 was asked for');
  });

  it('is told all there is: nothing is changed meanwhile', { timeout: TIMEOUT_MS }, async () => {
    const world = await World.start({ layout: 'split', role: 'server', args: ['--snooping'] });
    const { switching } = world;
    const rule = join(switching.folder, 'rule.ts');
    writeFileSync(rule, 'export default () => ({ version: 1, decide() {} });\n');
    const changes = [
      ['PUT', '/v1/fdb/02:00:00:00:00:0a', { port: 'a' }],
      ['DELETE', '/v1/fdb/02:00:00:00:00:0a', undefined],
      ['POST', '/v1/fdb/flush', {}],
      ['PUT', '/v1/mdb/a/239.1.1.1', undefined],
      ['DELETE', '/v1/mdb', undefined],
      ['PUT', '/v1/plugins/rule', { file: rule }],
      ['POST', '/v1/plugins', {}],
      ['DELETE', '/v1/plugins/rule', undefined],
      ['POST', '/v1/captures', { ports: ['a'] }],
      ['PUT', '/v1/ports/c', { socket: switching.socket('c') }],
      ['PATCH', '/v1/ports/a', { tag: 5 }],
      ['DELETE', '/v1/ports/a', undefined],
    ] as const;
    const takeover = await beginTakeover(switching.controlSocket);
    for (const [method, path, body] of changes) {
      const asked = askControl(switching.controlSocket, path, { method, ...(body && { body }) });
      await expect(asked, path).rejects.toThrow('the switch is being taken over');
    }
    takeover.abandon();
    await switching.until(async () => switching.log.includes('takeover came to nothing'));
    const [method, path, body] = changes[5];
    await askControl(switching.controlSocket, path, { method, body });
    await world.runFor(100);
    await world.expectAllThere();
  });

  it('because a plugin of its does not load says which, and the rules of before hold on', {
    timeout: TIMEOUT_MS,
  }, async () => {
    const world = await World.start({ layout: 'split', role: 'server' });
    const { switching } = world;
    const rule = join(switching.folder, 'rule.ts');
    const add = { method: 'PUT', body: { file: rule } } as const;
    writeFileSync(rule, 'export default () => ({ version: 1, decide() {} });\n');
    await askControl(switching.controlSocket, '/v1/plugins/rule', add);
    await world.runFor(1000);
    writeFileSync(rule, 'export default (;\n');
    await world.runUntil(switching.failTakeOver());
    expect(switching.log).toMatch(
      /^ringway: plugin rule \(.*rule\.ts, added at run time: .*\): syntax error: /m,
    );
    await world.runFor(1000);
    // What is on its way may not have been decided on yet.
    await world.expectAllThere();
    expect(await askControl(switching.controlSocket, '/v1/plugins')).toMatchObject([
      { name: 'rule', state: 'running', frames: world.flows[0].sent + world.flows[1].sent },
    ]);
    // And once it does.
    writeFileSync(rule, 'export default () => ({ version: 1, decide() {} });\n');
    await world.runUntil(switching.takeOver());
    await world.runFor(1000);
    await world.expectAllThere();
    const [{ name, frames }] = await askControl<PluginReport[]>(switching.controlSocket, '/v1/plugins');
    expect(name).toBe('rule');
    expect(frames).toBeGreaterThanOrEqual(2000);
  });

  it.each([
    ['kind', (file: string) => `pcap:${file}`, /its kind is vhost-user in the running Ringway, and pcap in/],
    ['place', (file: string) => file, /its place is .*c.sock in the running Ringway, and .*other in/],
  ])('because a port is of another %s is told which', { timeout: TIMEOUT_MS }, async (_, other, reason) => {
    const world = await World.start({ layout: 'split', role: 'server' });
    const { switching } = world;
    await addPort(switching, 'c');
    const port = `c=${other(join(switching.folder, 'other'))}`;
    await world.runUntil(switching.failTakeOver(['--port', port]));
    expect(switching.log).toMatch(/port c: /);
    expect(switching.log).toMatch(reason);
    await askControl(switching.controlSocket, '/v1/ports/c', { method: 'DELETE' });
    await world.runFor(1000);
    await world.expectAllThere();
  });
});

describe('what goes on beside frames', () => {
  it('is a capture of all ports: each frame once where it came in and once where it went out', {
    timeout: TIMEOUT_MS,
  }, async () => {
    const world = await World.start({ layout: 'packed', role: 'server' }, ['cap']);
    const { switching, flows } = world;
    for (let round = 0; round < 2; round++) {
      await world.runFor(100);
      await world.runUntil(switching.takeOver());
    }
    await world.runFor(100);
    await world.expectAllThere();
    const wanted = 2 * flows.reduce((sum, { sent }) => sum + sent, 0);
    await switching.until(async () => (await switching.port('cap')).counters.egressFrames === wanted);
    const { packets, end } = naiveRead(readFileSync(switching.socket('cap')));
    expect(end).toBe('end');
    const times = new Map<string, number>();
    for (const { data, interfaceIndex } of packets) {
      const key = Buffer.from(data.subarray(0, 18)).toString('hex') + interfaceIndex;
      times.set(key, (times.get(key) ?? 0) + 1);
    }
    expect(new Set(times.values())).toEqual(new Set([1]));
    expect(times.size).toBe(wanted);
    expect(new Set(packets.map(({ interfaceIndex }) => interfaceIndex)).size).toBe(2);
  });

  it('is not what captures show: their readers are told why they end', { timeout: TIMEOUT_MS }, async () => {
    const world = await World.start({ layout: 'packed', role: 'server' });
    const { switching, flows } = world;
    const body = { ports: ['a'], direction: 'in' };
    const stream = await streamControl(switching.controlSocket, '/v1/captures', { method: 'POST', body });
    const chunks: Buffer[] = [];
    stream.on('data', (chunk: Buffer) => chunks.push(chunk));
    const ended = new Promise((resolve) => stream.once('end', resolve));
    await world.runFor(100);
    const before = flows[0].sent;
    await world.runUntil(switching.takeOver());
    await ended;
    const counter = new BlockCounter();
    counter.wholeBlocks(Buffer.concat(chunks));
    expect(counter.packets).toBeGreaterThanOrEqual(before);
    expect(counter.comment).toBe('the capture ended: the switch is being taken over');
    await world.runFor(100);
    await world.expectAllThere();
  });

  it('is that a port is shut because of a loop', { timeout: TIMEOUT_MS }, async () => {
    const world = await World.start({ layout: 'split', role: 'server' });
    const { switching, guests } = world;
    await switching.set('b', { loopGuard: 'probe', loopShutSeconds: 3600 });
    const probe = await loopProbeOf(guests[1]);
    expect(guests[1].send(probe)).toBe(true);
    await switching.until(async () => (await switching.port('b')).shut !== null);
    await switching.takeOver();
    const { shut } = await switching.port('b');
    expect(shut?.why).toBe('a frame that was sent out of it came in by it again');
    expect(shut?.secondsLeft).toBeGreaterThan(3000);
    // Nothing goes to it.
    const frame = new Uint8Array(60).fill(0xff, 0, 6);
    frame.set(guests[0].mac, 6);
    expect(guests[0].send(frame)).toBe(true);
    await switching.until(async () => (await switching.port('a')).drops.noReceiver === 1);
    await switching.set('b', { loopGuard: 'off' });
    await world.runFor(1000);
    await world.expectAllThere();
  });

  it('is how old addresses are', { timeout: TIMEOUT_MS }, async () => {
    const world = await World.start({ layout: 'split', role: 'server' });
    const { switching, guests } = world;
    const frame = new Uint8Array(60).fill(0xff, 0, 6);
    frame.set(guests[0].mac, 6);
    expect(guests[0].send(frame)).toBe(true);
    const ageOfA = async (): Promise<number> =>
      (await switching.fdb()).entries.find(({ port }) => port === 'a')?.ageSeconds ?? -1;
    await switching.until(async () => (await ageOfA()) >= 2);
    const before = await ageOfA();
    await switching.takeOver();
    expect(await ageOfA()).toBeGreaterThanOrEqual(before);
  });
});

describe('a Ringway that is taken over with other settings', () => {
  it('begins with what is new, and ends what is not there any more', { timeout: TIMEOUT_MS }, async () => {
    const world = await World.start({ layout: 'split', role: 'server' });
    const { switching } = world;
    await addPort(switching, 'c');
    await world.runUntil(
      switching.takeOver(['--no-restore', '--port', `d=${switching.socket('d')}`, '--cpus', '0,1']),
    );
    await switching.until(async () => (await switching.ports()).some(({ name }) => name === 'd'));
    expect((await switching.ports()).map(({ name }) => name).sort()).toEqual(['a', 'b', 'd']);
    expect(switching.log).toMatch(/is not in the settings, and has ended/);
    expect(existsSync(switching.socket('c'))).toBe(false);
    const guest = await EmbeddedGuest.connect({ socketPath: switching.socket('d'), waitMs: WAIT_MS });
    closing.push(() => guest.close());
    await world.runFor(1000);
    await world.expectAllThere();
  });

  it('has ports anew that are removed and added again afterwards', { timeout: TIMEOUT_MS }, async () => {
    const { switching } = await World.start({ layout: 'split', role: 'server' });
    await addPort(switching, 'c');
    await switching.takeOver(['--no-restore']);
    await switching.until(async () => switching.log.includes('is not in the settings, and has ended'));
    await askControl(switching.controlSocket, '/v1/ports/a', { method: 'DELETE' });
    for (const [name, file] of Object.entries({ a: 'a', c: 'other' })) {
      const body = { socket: switching.socket(file) };
      const port = await askControl(switching.controlSocket, `/v1/ports/${name}`, { method: 'PUT', body });
      expect(port).toMatchObject({ name, state: 'waiting', counters: { ingressFrames: 0 } });
      const guest = await EmbeddedGuest.connect({ socketPath: switching.socket(file), waitMs: WAIT_MS });
      closing.push(() => guest.close());
      await switching.untilState(name, 'running');
    }
  });

  it('keeps what was added and set at run time', { timeout: TIMEOUT_MS }, async () => {
    const world = await World.start({ layout: 'packed', role: 'server', args: ['--snooping'] });
    const { switching } = world;
    await addPort(switching, 'c');
    const body = { forwardBpdu: true };
    await askControl(switching.controlSocket, '/v1/ports/a', { method: 'PATCH', body });
    const address = { mac: '02:00:00:00:00:0a', vlan: 7, port: 'c', static: true };
    const [{ mac, vlan, port }, path] = [address, `/v1/fdb/${address.mac}`];
    await askControl(switching.controlSocket, path, { method: 'PUT', body: { port, vlan } });
    const guest = await EmbeddedGuest.connect({ socketPath: switching.socket('c'), waitMs: WAIT_MS });
    closing.push(() => guest.close());
    const groupPath = '/v1/mdb/c/239.1.1.1?vlan=10';
    await askControl(switching.controlSocket, groupPath, { method: 'PUT' });
    await world.runUntil(switching.takeOver());
    expect((await askControl<MdbReport>(switching.controlSocket, '/v1/mdb')).groups).toMatchObject([
      { vlan: 10, group: '239.1.1.1', port: 'c', leftSeconds: null },
    ]);
    const { entries } = await switching.fdb();
    expect(entries.find((entry) => entry.mac === mac && entry.vlan === vlan)).toMatchObject(address);
    expect((await switching.ports()).map(({ name }) => name).sort()).toEqual([...NAMES, 'c']);
    expect((await switching.port('a')).settings.forwardBpdu).toBe(true);
    expect((await switching.port('b')).settings.forwardBpdu).toBe(false);
    await guest.session.request('GET_FEATURES', null);
    await world.runFor(1000);
    await world.expectAllThere();
  });
});
