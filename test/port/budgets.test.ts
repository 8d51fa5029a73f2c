/**
 * Many vhost-user ports whose front-ends take as much as they get: refused by name, and another guest still comes in.
 * Small budgets here; with a whole switch and the real ones: test/real/many-regions.test.ts.
 */
import { mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Budget, DescriptorShare } from '../../src/host/budgets.ts';
import { closeFd } from '../../src/host/descriptor.ts';
import { descriptorLoop } from '../../src/host/event-loop.ts';
import { connectUnix } from '../../src/host/unix-socket.ts';
import { Arena } from '../../src/memory/arena.ts';
import { ArenaView } from '../../src/memory/arena-view.ts';
import { VhostUserPort } from '../../src/port/vhost-user/port.ts';
import { FakeDataPath } from '../device/fake-data-path.ts';
import { type OpenFds, openedSince, openFds } from '../host/open-fds.ts';
import { GuestFile, UVA_BASE } from '../memory/guest-file.ts';
import { bit, F, P, region, ScriptedFrontEnd, state, table, u64 } from '../vhost-user/scripted-front-end.ts';
import { Events } from './events.ts';

const regions = new Budget('memory regions', 80, 16, 'raise it');
const arena = Arena.reserve(2 ** 32, regions);
const arenaView = new ArenaView(arena.location);

let folder: string;
let descriptors: Budget;
let guest: GuestFile;
let before: OpenFds;
const ports: VhostUserPort[] = [];
const fronts: ScriptedFrontEnd[] = [];
beforeEach(() => {
  descriptorLoop();
  before = openFds();
  folder = mkdtempSync(join(tmpdir(), 'ringway-budgets-'));
  descriptors = new Budget('descriptors', 100, DescriptorShare.BASE, 'raise it');
  guest = new GuestFile(1024 * 4096);
});
afterEach(async () => {
  for (const front of fronts.splice(0)) front.close();
  for (const port of ports.splice(0)) await port.stop();
  guest.close();
  rmSync(folder, { recursive: true });
  // Kept open for ever, but for this test.
  const kept = openedSince(before);
  for (const what of kept) closeFd(Number.parseInt(what, 10));
  expect([arena.mappedBytes, regions.used, descriptors.used]).toEqual([0, 0, kept.length]);
});

/** A port, and a front-end that has negotiated; undefined when it was not let in. */
async function connect(queuePairsMax = 1): Promise<{ port: VhostUserPort; front: ScriptedFrontEnd | null }> {
  const id = ports.length;
  const socketPath = join(folder, `${id}.sock`);
  const port = new VhostUserPort(
    {
      socketPath,
      role: 'server',
      listen: {},
      device: { queuePairsMax, configSpace: false, mac: null, mtu: null },
    },
    {
      id,
      name: `vm${id}`,
      arena,
      arenaView,
      dataPath: new FakeDataPath(arena, id),
      events: new Events().sink,
      descriptors,
    },
  );
  ports.push(port);
  void port.start();
  const front = new ScriptedFrontEnd(connectUnix(socketPath));
  fronts.push(front);
  front.send('SET_PROTOCOL_FEATURES', u64(bit(P.MQ, P.REPLY_ACK, P.MEM_SLOTS)));
  front.send('SET_FEATURES', u64(bit(F.VERSION_1, F.PROTOCOL)));
  return { port, front: (await front.settle()) === null ? null : front };
}

function page(number: number): ReturnType<GuestFile['region']> {
  const at = BigInt(number * 4096);
  return guest.region({ gpa: at * 3n, uva: UVA_BASE + at * 3n, sizeBytes: 4096n, mmapOffset: at });
}

/** Adds regions until one is refused; answers how many were taken. */
async function addRegions(front: ScriptedFrontEnd): Promise<number> {
  for (let count = 0; ; count++) {
    if ((await front.ack('ADD_MEM_REG', region(page(count)), [guest.fd])) !== 0n) return count;
  }
}

describe('regions of all guests', () => {
  it('run out by name, and never before another guest has what it needs', async () => {
    const counts: number[] = [];
    for (let i = 0; i < 2; i++) {
      const { port, front } = await connect();
      expect((await front!.request('GET_MAX_MEM_SLOTS')).u64).toBe(509n);
      counts.push(await addRegions(front!));
      expect(port.status.reason).toMatch(
        /^refused: ADD_MEM_REG: no more than 16 memory regions for one guest: all guests together have \d+ of 80, and the last quarter is for others \(raise it\)$/,
      );
      if (i === 0) continue;
      const decent = await connect();
      const fds = new Array<number>(4).fill(guest.fd);
      expect(await decent.front!.ack('SET_MEM_TABLE', table([0, 1, 2, 3].map(page)), fds)).toBe(0n);
    }
    // The first took all that one can have more of; the second no more than everybody needs.
    expect(counts).toEqual([60, 16]);
  });

  it('come back when they are removed, and with the connection', async () => {
    const { front } = await connect();
    await addRegions(front!);
    expect(await front!.ack('REM_MEM_REG', region(page(0)))).toBe(0n);
    expect(await front!.ack('ADD_MEM_REG', region(page(70)), [guest.fd])).toBe(0n);
    front!.close();
    await ports[0]!.stop();
    expect(regions.used).toBe(0);
  });
});

describe('descriptors of all front-ends', () => {
  it('are reserved for one pair of queues when it connects; more only while many are left', async () => {
    const { port, front } = await connect(16);
    for (let index = 0; index < 32; index++) front!.send('SET_VRING_NUM', state(index, 256));
    await front!.closed;
    expect(port.status.reason).toMatch(/SET_VRING_NUM: no more than 11 descriptors for one guest/);
    for (let i = 0; i < 9; i++) expect((await connect()).front).not.toBeNull();
    const last = await connect();
    expect(last.front).toBeNull();
    expect(last.port.status.reason).toMatch(
      /no descriptors left: all guests together have 99 of 100 \(raise it\)/,
    );
  });

  it('that are kept lower what is left for others, and a port that brought them is not served then', async () => {
    const decent = await connect();
    const device = decent.front!.own(openSync('/dev/ptmx', 'r+'));
    // As many as there is room for.
    const hostile = await connect();
    hostile.front!.send('SET_OWNER', undefined, new Array<number>(78).fill(device));
    await hostile.front!.closed;
    await vi.waitUntil(() => hostile.port.status.state === 'stopped');
    expect(hostile.port.status.reason).toMatch(
      /^its front-ends sent 78 descriptors that may never answer and are kept open: remove the port and add it again/,
    );
    expect(descriptors.used).toBe(78 + DescriptorShare.BASE);
    const next = await connect();
    expect(next.front).not.toBeNull();
    // More than there is room for: not one of them is opened, and the connection is kept instead.
    next.front!.send('SET_OWNER', undefined, new Array<number>(12).fill(device));
    await next.front!.closed;
    await vi.waitUntil(() => descriptors.used === 79 + DescriptorShare.BASE);
    expect(next.port.status.reason).toContain(
      'reading descriptors from a connection: recvmsg failed with EMFILE',
    );
    const late = await connect();
    expect(late.front).toBeNull();
    expect(late.port.status.reason).toMatch(/no descriptors left: all guests together have 90 of 100/);
    expect(await decent.front!.settle()).not.toBeNull();
    expect(await decent.front!.ack('ADD_MEM_REG', region(page(0)), [guest.fd])).toBe(0n);
  });
});
