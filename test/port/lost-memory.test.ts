/**
 * A vhost-user port whose guest's memory is not there when somebody touches it: the connection ends with the reason,
 * everything is let go of, and the next front-end is well. Handler and arena: test/memory/losses.test.ts.
 */
import { ftruncateSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { closeFd } from '../../src/host/descriptor.ts';
import { descriptorLoop } from '../../src/host/event-loop.ts';
import { createMemoryFile } from '../../src/host/mapping.ts';
import { connectUnix } from '../../src/host/unix-socket.ts';
import { Arena } from '../../src/memory/arena.ts';
import { ArenaView } from '../../src/memory/arena-view.ts';
import { VhostUserPort } from '../../src/port/vhost-user/port.ts';
import { FakeDataPath } from '../device/fake-data-path.ts';
import { type OpenFds, openedSince, openFds } from '../host/open-fds.ts';
import { UVA_BASE } from '../memory/guest-file.ts';
import { bit, F, log, P, ScriptedFrontEnd, table, u64 } from '../vhost-user/scripted-front-end.ts';
import { Events } from './events.ts';

const GUEST_BYTES = 2 ** 22;
const arena = Arena.reserve(2 ** 32);
const view = new ArenaView(arena.location);
descriptorLoop();

let before: OpenFds;
let folder: string;
const ports: VhostUserPort[] = [];
const cleanups: (() => void)[] = [];
beforeEach(() => {
  before = openFds();
  folder = mkdtempSync(join(tmpdir(), 'ringway-lost-port-'));
});
afterEach(async () => {
  for (const cleanup of cleanups.splice(0)) cleanup();
  for (const port of ports.splice(0)) await port.stop();
  rmSync(folder, { recursive: true });
  expect(arena.mappedBytes).toBe(0);
  expect(openedSince(before)).toEqual([]);
});

type Guest = {
  readonly fd: number;
  readonly port: VhostUserPort;
  readonly events: Events;
  readonly front: ScriptedFrontEnd;
  /** Of its first byte in the arena. */
  readonly offset: number;
};

/** A port, its front-end, and 4 MiB of memory that nobody can seal. */
async function guest(name: string): Promise<Guest> {
  const socketPath = join(folder, `${name}.sock`);
  const events = new Events();
  const id = ports.length;
  const port = new VhostUserPort(
    {
      socketPath,
      role: 'server',
      listen: {},
      device: { queuePairsMax: 1, configSpace: false, mac: null, mtu: null },
    },
    { id, name, arena, arenaView: view, dataPath: new FakeDataPath(arena, id), events: events.sink },
  );
  ports.push(port);
  void port.start();
  const path = join(folder, name);
  return { ...(await connect(socketPath, path)), port, events };
}

async function connect(socketPath: string, path: string): Promise<Pick<Guest, 'fd' | 'front' | 'offset'>> {
  const fd = openSync(path, 'w+');
  ftruncateSync(fd, GUEST_BYTES);
  const front = new ScriptedFrontEnd(connectUnix(socketPath));
  cleanups.push(() => {
    front.close();
    closeFd(fd);
  });
  front.send('SET_PROTOCOL_FEATURES', u64(bit(P.MQ, P.REPLY_ACK, P.LOG_SHMFD)));
  front.send('SET_FEATURES', u64(bit(F.VERSION_1, F.PROTOCOL)));
  const whole = { gpa: 0n, uva: UVA_BASE, sizeBytes: BigInt(GUEST_BYTES), mmapOffset: 0n };
  const offset = arena.mappedBytes;
  expect(await front.ack('SET_MEM_TABLE', table([whole]), [fd])).toBe(0n);
  return { fd, front, offset };
}

it('ends the connection of that guest alone, and lets the next one in', async () => {
  const [lost, other] = [await guest('lost'), await guest('other')];
  ftruncateSync(lost.fd, 0);
  view.u8[lost.offset + 3 * 2 ** 20] = 1;
  await lost.front.closed;
  await lost.events.said(/disconnected/);
  const reason =
    "the guest's memory of 4194304 bytes at 0x0 is not there when it is touched: its file was shortened or got a hole, or the tmpfs or the hugepages that it is made of are used up";
  expect(lost.port.status).toEqual({
    state: 'waiting',
    reason: `waiting for a front-end to connect (last: ${reason})`,
  });
  expect(lost.events.all).toContain(`warning: front-end gone: ${reason}`);
  expect(other.front.isClosed).toBe(false);
  expect(await other.front.settle()).toEqual([]);
  expect(arena.mappedBytes).toBe(GUEST_BYTES);
  const next = await connect(join(folder, 'lost.sock'), join(folder, 'next'));
  view.u8[lost.offset] = 1;
  expect(await next.front.settle()).toEqual([]);
  expect(other.port.status.state).toBe('negotiating');
});

it('ends it for its log of dirty pages too, which is put away with the rest', async () => {
  const [lost, other] = [await guest('lost'), await guest('other')];
  const offset = arena.mappedBytes;
  const fd = createMemoryFile('log', 4096);
  cleanups.push(() => closeFd(fd));
  expect((await lost.front.request('SET_LOG_BASE', log(128), [fd])).payload).toEqual(log(128));
  ftruncateSync(fd, 0);
  const words = new Int32Array(view.buffer, offset, 32);
  Atomics.or(words, 3, 1);
  await lost.front.closed;
  await lost.events.said(/disconnected/);
  expect(lost.port.status.reason).toMatch(
    /the log of dirty pages, 128 bytes, is not there when it is touched/,
  );
  expect(await other.front.settle()).toEqual([]);
  expect(arena.mappedBytes).toBe(GUEST_BYTES);
});

it('tells several ports apart when all lose at once', async () => {
  const guests = [await guest('a'), await guest('b'), await guest('c')];
  for (const { fd } of [guests[0]!, guests[2]!]) ftruncateSync(fd, 0);
  for (const { offset } of guests) view.u8[offset] = 1;
  await Promise.all([guests[0]!, guests[2]!].map(({ front }) => front.closed));
  expect(await guests[1]!.front.settle()).toEqual([]);
  expect(guests.map(({ port }) => port.status.reason?.includes('not there') ?? false)).toEqual([
    true,
    false,
    true,
  ]);
});
