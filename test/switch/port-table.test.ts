/**
 * The set of ports with real ports of every kind and workers that take their time: a port that is removed while it is
 * added, requests about one name at once, and seeded sequences of everything. Whatever happens, nothing is left.
 */
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { closeFd } from '../../src/host/descriptor.ts';
import { descriptorLoop } from '../../src/host/event-loop.ts';
import { bindDatagram, connectUnix, listenUnix, SocketPathError } from '../../src/host/unix-socket.ts';
import { Arena } from '../../src/memory/arena.ts';
import { ArenaView } from '../../src/memory/arena-view.ts';
import { resolvePort } from '../../switch/config/resolve.ts';
import { ConfigError } from '../../switch/config/settings.ts';
import { controlApi } from '../../switch/control/api.ts';
import { NO_BOOKS } from '../../switch/control/books.ts';
import { NoSuchPortError, PortConflictError } from '../../switch/port-errors.ts';
import { PortTable } from '../../switch/port-table.ts';
import { whyNoDpdk } from '../dpdk/dpdk-here.ts';
import { type OpenFds, openedSince, openFds } from '../host/open-fds.ts';
import { tapUnavailable } from '../port/tap-world.ts';
import { pcapFile } from '../protocol/naive-capture.ts';
import { Random } from '../vring/random.ts';
import { DelayedWorkers } from './delayed-workers.ts';

const arena = Arena.reserve(2 ** 32);
const arenaView = new ArenaView(arena.location);
const noTap = tapUnavailable();
const noDpdk = whyNoDpdk();

let before: OpenFds;
let folder: string;
let workers: DelayedWorkers;
let table: PortTable;
let forgotten: number[];
let others: number[];

beforeEach(() => {
  descriptorLoop();
  before = openFds();
  folder = mkdtempSync(join(tmpdir(), 'ringway-table-'));
  makeTable(1);
});

afterEach(async () => {
  await table.close();
  for (const fd of others) closeFd(fd);
  expect(workers.violations).toEqual([]);
  expect([workers.known.size, workers.attached.size, arena.mappedBytes]).toEqual([0, 0, 0]);
  expect(table.ports).toEqual([]);
  rmSync(folder, { recursive: true, force: true });
  expect(openedSince(before)).toEqual([]);
});

afterAll(() => arena.release());

function makeTable(seed: number, controlSocket: string | null = null): void {
  workers = new DelayedWorkers(seed);
  forgotten = [];
  others = [];
  table = new PortTable({
    arena,
    arenaView,
    workers,
    controlSocket,
    eventsOf: () => ({ info: () => {}, warn: () => {}, disconnected: () => {} }),
    onForgotten: (port) => forgotten.push(port.id),
  });
}

const path = (name: string): string => join(folder, name);

/** The settings of a port of each kind, named `name`, that gets as far as it can. */
const KINDS: Readonly<Record<string, (name: string) => object>> = {
  'vhost-user server': (name) => ({ socket: path(`${name}.sock`) }),
  'vhost-user client': (name) => ({ socket: path('peer.sock'), role: 'client', name }),
  'unix server': (name) => ({ kind: 'unix', socket: path(`${name}.sock`) }),
  'unix client': () => ({ kind: 'unix', socket: path('listening.sock'), role: 'client' }),
  'unix dgram': (name) => ({
    kind: 'unix',
    socket: path(`${name}.sock`),
    transport: 'dgram',
    peer: path('peer'),
  }),
  'pcap write': (name) => ({ kind: 'pcap', file: path(`${name}.pcapng`) }),
  'pcap mirror': (name) => ({ kind: 'pcap', file: path(`${name}.pcapng`), mirror: 'all' }),
  'pcap read': () => ({ kind: 'pcap', file: path('in.pcap'), direction: 'read', repeat: 'loop' }),
  ...(noTap === null && { tap: (name: string) => ({ kind: 'tap', interface: `rw${process.pid}${name}` }) }),
};

function configOf(kind: string, name: string) {
  const { name: _, ...settings } = { name, ...KINDS[kind](name) };
  return resolvePort(name, settings);
}

/** What a port of each kind may find outside. */
function prepareOutside(): void {
  writeFileSync(
    path('in.pcap'),
    pcapFile(true, 0xa1b2c3d4, [{ seconds: 1, fraction: 0, data: new Uint8Array(60) }]),
  );
  others = [listenUnix(path('listening.sock')), listenUnix(path('peer.sock')), bindDatagram(path('peer'))];
}

/** What ports made in the folder. */
const sockets = (): string[] => readdirSync(folder).filter((name) => /^p\d*\.sock$/.test(name));

describe.each(Object.keys(KINDS))('a port of kind %s', (kind) => {
  beforeEach(prepareOutside);

  it('is added, and removed with everything that it had', async () => {
    await table.add(configOf(kind, 'p0'));
    expect(table.ports.map(({ name, status }) => [name, status.state])).toEqual([
      ['p0', expect.stringMatching(/waiting|negotiating|running/)],
    ]);
    expect(workers.policies.get(0)).toMatchObject({ floods: true });
    const [{ status, queues }] = table.ports;
    // What is waited for uses no queue, though the switch may have it attached already.
    if (status.state === 'waiting') expect(queues.filter(({ inUse }) => inUse)).toEqual([]);
    await table.remove('p0');
    expect([table.ports, sockets(), forgotten]).toEqual([[], [], [0]]);
  });

  it.each(Array.from({ length: 12 }, (_, turns) => turns))(
    'can be removed %i turns after it began',
    async (turns) => {
      const adding = table.add(configOf(kind, 'p0')).then(
        () => 'added',
        (error: unknown) => error,
      );
      for (let turn = 0; turn < turns; turn++) await new Promise(setImmediate);
      await table.remove('p0');
      const outcome = await adding;
      if (outcome !== 'added')
        expect(outcome).toEqual(new PortConflictError('port p0 was removed while it was added'));
      expect([table.ports, sockets(), workers.known.size, workers.attached.size]).toEqual([[], [], 0, 0]);
    },
  );
});

describe.skipIf(noDpdk !== null)(`a dpdk port (${noDpdk ?? 'DPDK is here'})`, () => {
  it('can be removed while it is added', async () => {
    const config = resolvePort('p0', { kind: 'dpdk', device: 'net_null3', eal: '--no-huge' });
    // What DPDK itself keeps open for the process is no leak of the port.
    const first = table.add(config);
    await first;
    await table.remove('p0');
    before = openFds();
    for (let turns = 0; turns < 8; turns++) {
      const adding = table.add(config).catch((error: unknown) => error);
      for (let turn = 0; turn < turns; turn++) await new Promise(setImmediate);
      await table.remove('p0');
      await adding;
      expect([table.ports, workers.attached.size]).toEqual([[], 0]);
    }
  });
});

describe('requests about one port', () => {
  const PORT = () => configOf('vhost-user server', 'p0');

  it('to add it twice: the second is refused and the first stays', async () => {
    const first = table.add(PORT());
    await expect(table.add(PORT())).rejects.toThrow(new PortConflictError('port p0 exists already'));
    await first;
    expect(sockets()).toEqual(['p0.sock']);
  });

  it('to remove it twice: the second finds none', async () => {
    await table.add(PORT());
    const first = table.remove('p0');
    await expect(table.remove('p0')).rejects.toThrow(new NoSuchPortError('p0'));
    await first;
  });

  it('to add it while it is being removed: refused until it is gone', async () => {
    await table.add(PORT());
    const removing = table.remove('p0');
    await expect(table.add(PORT())).rejects.toThrow(new PortConflictError('port p0 is being removed'));
    await removing;
    await table.add(PORT());
  });

  it('are answered as such by the control API', async () => {
    let asked = () => {};
    const api = controlApi(
      {
        ports: () => table.ports.map((port) => ({ name: port.name }) as never),
        port: (name) => (table.withName(name) === undefined ? null : ({ name } as never)),
        fdb: () => ({ capacity: 1, ageSeconds: 1, moved: {}, entries: [] }),
        untaggedVlanOf: () => 0,
        addAddress: () => {},
        removeAddress: () => {},
        flushAddresses: () => 0,
        addPort: (config) => table.add(config),
        changePort: async (name, change) => void (await table.change(name, change)),
        totals: () => NO_BOOKS,
        workers: () => [],
        figures: () => expect.fail('not asked for'),
        figuresReport: () => expect.fail('not asked for'),
        trace: () => expect.fail('nothing is traced here'),
        mdb: () => expect.fail('no groups here'),
        addGroup: () => expect.fail('no groups here'),
        removeGroup: () => expect.fail('no groups here'),
        flushGroups: () => expect.fail('no groups here'),
        startCapture: () => expect.fail('not asked for'),
        captures: () => [],
        endCapture: () => false,
        plugins: () => [],
        pluginNotes: () => [],
        addPlugin: async () => {},
        reloadPlugins: async () => {},
        removePlugin: async () => {},
        removePort: (name) => {
          const removed = table.remove(name);
          asked();
          return removed;
        },
      },
      '1',
    );
    const put = () =>
      api.request('/v1/ports/p0', { method: 'PUT', body: JSON.stringify({ socket: path('p0.sock') }) });
    const del = () => api.request('/v1/ports/p0', { method: 'DELETE' });
    const statuses = async (...requests: (Response | Promise<Response>)[]) =>
      (await Promise.all(requests)).map(({ status }) => status);
    expect(await statuses(put(), put())).toEqual([201, 409]);
    expect(await statuses(del(), del())).toEqual([200, 404]);
    // Adding waits for the workers until it was asked to remove.
    const { promise, resolve } = Promise.withResolvers<void>();
    workers.hold = promise;
    asked = resolve;
    const adding = Promise.resolve(put());
    await vi.waitUntil(() => table.ports.length === 1, { interval: 0 });
    expect(await statuses(adding, del())).toEqual([409, 200]);
    workers.hold = null;
    expect([table.ports, sockets()]).toEqual([[], []]);
    expect(await statuses(del())).toEqual([404]);
  });
});

describe('a port that cannot be', () => {
  it('leaves name, number and endpoint to the next one', async () => {
    writeFileSync(path('p0.sock'), 'no socket');
    await expect(table.add(configOf('vhost-user server', 'p0'))).rejects.toThrow(SocketPathError);
    expect(table.ports).toEqual([]);
    rmSync(path('p0.sock'));
    await table.add(configOf('vhost-user server', 'p0'));
    expect(workers.added).toEqual([0, 0]);
  });

  it.each([
    [
      'vhost-user server',
      () => ({ socket: path('x/../p0.sock') }),
      'socket: ',
      'it is the socket of port p0',
    ],
    [
      'vhost-user server',
      () => ({ kind: 'pcap', file: path('p0.sock') }),
      'file: ',
      'it is the socket of port p0',
    ],
    [
      'pcap write',
      () => ({ kind: 'unix', socket: path('p0.pcapng') }),
      'socket: ',
      'it is the file of port p0',
    ],
  ])('is attached to what another has (%#)', async (kind, settings, where, why) => {
    await table.add(configOf(kind, 'p0'));
    const adding = table.add(resolvePort('p1', settings()));
    await expect(adding).rejects.toThrow(ConfigError);
    await expect(adding).rejects.toThrow(`port p1: ${where}`);
    await expect(adding).rejects.toThrow(why);
    expect(existsSync(path('p0.pcapng')) || sockets().length === 1).toBe(true);
  });

  it('has the path of the control socket', async () => {
    makeTable(1, path('ringway.sock'));
    await expect(table.add(resolvePort('p0', { socket: path('ringway.sock') }))).rejects.toThrow(
      `port p0: socket: ${path('ringway.sock')} is not allowed (it is the control socket)`,
    );
  });

  it('comes while the switch stops', async () => {
    const closing = table.close();
    await expect(table.add(configOf('vhost-user server', 'p0'))).rejects.toThrow(
      'the switch is being stopped',
    );
    await closing;
  });
});

describe.each(Object.keys(KINDS))('what stands at the path of a port of kind %s', (kind) => {
  it.each<[string, (path: string) => void]>([
    ['file', (at) => writeFileSync(at, 'theirs')],
    ['link', (at) => symlinkSync(path('elsewhere'), at)],
    ['folder', (at) => mkdirSync(join(at, 'full'), { recursive: true })],
    ["somebody's socket", (at) => others.push(listenUnix(at))],
  ])('is left there when the port is removed: a %s', async (_, place) => {
    prepareOutside();
    await table.add(configOf(kind, 'p0'));
    const { endpoint } = table.ports[0];
    if (!endpoint.startsWith(folder)) return;
    writeFileSync(path('elsewhere'), 'precious');
    rmSync(endpoint, { force: true });
    place(endpoint);
    const { ino } = lstatSync(endpoint);
    await table.remove('p0');
    expect(lstatSync(endpoint).ino).toBe(ino);
    expect(readFileSync(path('elsewhere'), 'utf8')).toBe('precious');
    expect(table.ports).toEqual([]);
  });
});

describe('the number of a port', () => {
  it('is free when every worker has forgotten it', async () => {
    await table.add(configOf('vhost-user server', 'p0'));
    const held = Promise.withResolvers<void>();
    workers.hold = held.promise;
    const removing = table.remove('p0');
    const adding = table.add(configOf('vhost-user server', 'p1'));
    await vi.waitUntil(() => workers.added.length === 2, { interval: 1 });
    expect(workers.added).toEqual([0, 1]);
    workers.hold = null;
    held.resolve();
    await Promise.all([removing, adding]);
    await table.add(configOf('vhost-user server', 'p2'));
    expect(workers.added).toEqual([0, 1, 0]);
  });

  it('is taken off the mirrors before another port can have it', async () => {
    await table.add(configOf('pcap mirror', 'p0'));
    await table.add(configOf('vhost-user server', 'p1'));
    expect(workers.policies.get(0)?.copiesOf).toEqual([{ portId: 1, name: 'p1' }]);
    await table.remove('p1');
    expect(workers.policies.get(0)?.copiesOf).toEqual([]);
  });
});

describe('a port that mirrors others', () => {
  const mirrorOf = (...mirror: string[]) =>
    resolvePort('p0', { kind: 'pcap', file: path('p0.pcapng'), mirror });

  it('says which of them are not there, while they are not', async () => {
    await table.add(mirrorOf('p1', 'p2'));
    const remark = (): string | null => table.remarkOn(table.ports[0]);
    expect(remark()).toBe('p1, p2 are not there: they are mirrored once they are added');
    await table.add(configOf('vhost-user server', 'p1'));
    expect(remark()).toBe('p2 is not there: it is mirrored once it is added');
    await table.add(configOf('vhost-user server', 'p2'));
    expect(remark()).toBeNull();
    const removing = table.remove('p1');
    expect(remark()).toBe('p1 is not there: it is mirrored once it is added');
    await removing;
    expect(remark()).toBe('p1 is not there: it is mirrored once it is added');
    expect(table.remarkOn(table.ports[1])).toBeNull();
  });

  it('all of them, has nothing to say of any', async () => {
    await table.add(mirrorOf('all'));
    expect(table.remarkOn(table.ports[0])).toBeNull();
  });
});

describe('whatever is asked for when', () => {
  it.each(Array.from({ length: 12 }, (_, seed) => seed))(
    'ends cleanly (seed %i)',
    { timeout: 60_000 },
    async (seed) => {
      makeTable(seed);
      prepareOutside();
      const random = new Random(seed);
      const names = ['p0', 'p1', 'p2', 'p3'];
      const kindOf = new Map(names.map((name) => [name, random.pick(Object.keys(KINDS))]));
      const asked: Promise<unknown>[] = [];
      const isExpected = (error: unknown): void => {
        const known = [PortConflictError, NoSuchPortError, ConfigError, SocketPathError];
        if (!known.some((type) => error instanceof type)) throw error;
      };
      for (let i = 0; i < 120; i++) {
        const name = random.pick(names);
        if (random.chance(15)) kindOf.set(name, random.pick(Object.keys(KINDS)));
        if (random.chance(50))
          asked.push(table.add(configOf(kindOf.get(name) ?? '', name)).catch(isExpected));
        else asked.push(table.remove(name).catch(isExpected));
        if (random.chance(20)) connectToAny(random);
        for (let turn = random.between(0, 6); turn > 0; turn--) await new Promise(setImmediate);
      }
      if (random.chance(50)) await Promise.all(asked);
      const closing = table.close();
      await Promise.all(asked);
      await closing;
      expect([table.ports, sockets(), workers.known.size, workers.attached.size]).toEqual([[], [], 0, 0]);
      expect(forgotten.length).toBe(workers.added.length);
    },
  );

  /** A peer that comes and goes. */
  function connectToAny(random: Random): void {
    const [socket] = sockets().filter(() => random.chance(50));
    if (socket === undefined) return;
    try {
      const fd = connectUnix(path(socket));
      if (random.chance(50)) closeFd(fd);
      else others.push(fd);
    } catch {
      // It takes datagrams, or is just being removed.
    }
  }
});
