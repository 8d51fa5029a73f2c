/**
 * A front-end that holds up the closing of what it sent: its port says so and waits for the end of it, and nobody else
 * does. With a real front-end that does it, by userfaultfd: no test, it needs a program of its own.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Budget, DescriptorShare } from '../../src/host/budgets.ts';
import { closingElsewhereCount } from '../../src/host/closing.ts';
import { descriptorLoop } from '../../src/host/event-loop.ts';
import { PortFds } from '../../src/host/port-fds.ts';
import { connectUnix } from '../../src/host/unix-socket.ts';
import { Arena } from '../../src/memory/arena.ts';
import { ArenaView } from '../../src/memory/arena-view.ts';
import { VhostUserPort } from '../../src/port/vhost-user/port.ts';
import { FakeDataPath } from '../device/fake-data-path.ts';
import { type HeldCalls, holdCloses } from '../host/held-calls.ts';
import { type OpenFds, openedSince, openFds } from '../host/open-fds.ts';
import { GuestFile } from '../memory/guest-file.ts';
import { bit, F, P, ScriptedFrontEnd, table, u64 } from '../vhost-user/scripted-front-end.ts';
import { Events } from './events.ts';

const HANG =
  /a descriptor that its front-end sent is not closed after \d+ s: whoever watches it holds that up, and no further front-end is served until it is/;

const arena = Arena.reserve(2 ** 32);
const arenaView = new ArenaView(arena.location);

let folder: string;
let descriptors: Budget;
let before: OpenFds;
let held: HeldCalls;
const ports: VhostUserPort[] = [];
const fronts: ScriptedFrontEnd[] = [];
beforeEach(() => {
  descriptorLoop();
  before = openFds();
  folder = mkdtempSync(join(tmpdir(), 'ringway-hanging-closes-'));
  descriptors = new Budget('descriptors', 100, DescriptorShare.BASE, 'raise it', {
    spare: 0,
    others: closingElsewhereCount,
    holders: () => PortFds.holdersText(),
  });
});
afterEach(async () => {
  for (const front of fronts.splice(0)) front.close();
  for (const port of ports.splice(0)) await port.stop();
  held.release();
  await vi.waitUntil(() => closingElsewhereCount() === 0);
  await vi.waitUntil(() => descriptors.used === 0);
  rmSync(folder, { recursive: true });
  expect(openedSince(before)).toEqual([]);
});

function open(): { port: VhostUserPort; events: Events } {
  const id = ports.length;
  const events = new Events();
  const port = new VhostUserPort(
    {
      socketPath: join(folder, `${id}.sock`),
      role: 'server',
      listen: {},
      device: { queuePairsMax: 1, configSpace: false, mac: null, mtu: null },
    },
    {
      id,
      name: `vm${id}`,
      arena,
      arenaView,
      dataPath: new FakeDataPath(arena, id),
      events: events.sink,
      descriptors,
    },
  );
  ports.push(port);
  void port.start();
  return { port, events };
}

/** A front-end that has negotiated; null when it was not let in. */
async function connect(port: VhostUserPort): Promise<ScriptedFrontEnd | null> {
  const front = new ScriptedFrontEnd(connectUnix(port.endpoint));
  fronts.push(front);
  front.send('SET_PROTOCOL_FEATURES', u64(bit(P.REPLY_ACK)));
  front.send('SET_FEATURES', u64(bit(F.VERSION_1, F.PROTOCOL)));
  return (await front.settle()) === null ? null : front;
}

/** It tries again and again, as QEMU does. */
async function untilServed(port: VhostUserPort): Promise<void> {
  while ((await connect(port)) === null);
}

/** The second one has the first closed. */
function replaceCall(front: ScriptedFrontEnd, count = 1): void {
  for (let i = 0; i < count; i++) front.send('SET_VRING_CALL', u64(0), [front.eventFd()]);
}

/** A port and its front-end of which a descriptor is not closed. */
async function hanging(): Promise<{ port: VhostUserPort; events: Events; front: ScriptedFrontEnd }> {
  held = holdCloses(1);
  const { port, events } = open();
  const front = (await connect(port))!;
  replaceCall(front, 2);
  expect(await front.settle()).toEqual([]);
  expect(held.count).toBe(1);
  await events.said(HANG);
  expect(port.status.reason).toMatch(HANG);
  return { port, events, front };
}

describe('a front-end of which a close hangs', () => {
  it('is told of by its port, which serves no other one until that is over', async () => {
    const { port, events, front } = await hanging();
    // It goes on itself.
    expect(await front.settle()).toEqual([]);
    expect(events.all.at(-1)).toMatch(HANG);
    front.close();
    await vi.waitUntil(() => port.status.state === 'waiting');
    expect(await connect(port)).toBeNull();
    expect(port.status).toEqual({ state: 'waiting', reason: expect.stringMatching(HANG) });
    expect(events.all.filter((line) => HANG.test(line) && line.startsWith('warning'))).toHaveLength(1);
    // Another port is not concerned.
    const other = open();
    const decent = await connect(other.port);
    replaceCall(decent!, 30);
    expect(await decent!.settle()).toEqual([]);
    expect(other.port.status.reason).toBeNull();
    held.release();
    await events.said(/^what its front-end sent is closed after all$/);
    await untilServed(port);
    expect(port.status).toEqual({ state: 'negotiating', reason: null });
  });

  it('is ended when it goes on sending', async () => {
    const { port, front } = await hanging();
    replaceCall(front, 40);
    await front.closed;
    await vi.waitUntil(() => port.status.state === 'waiting');
    expect(port.status.reason).toMatch(HANG);
    expect(closingElsewhereCount()).toBeLessThan(12);
  });

  it('is not even read on before that is known, once eight wait', async () => {
    held = holdCloses(1);
    const { port, events } = open();
    const front = (await connect(port))!;
    replaceCall(front, 40);
    await vi.waitUntil(() => closingElsewhereCount() > 8);
    await front.closed;
    expect(closingElsewhereCount()).toBeLessThan(12);
    expect(events.all.some((line) => /front-end gone: a descriptor .* is not closed/.test(line))).toBe(true);
    await vi.waitUntil(() => port.status.state === 'waiting');
  });

  it('may be one that sent it as memory, or in a message that takes none', async () => {
    const file = new GuestFile(2 ** 20);
    for (const send of [
      (front: ScriptedFrontEnd) => front.send('SET_MEM_TABLE', table([file.region()]), [front.eventFd()]),
      (front: ScriptedFrontEnd) => front.send('SET_OWNER', undefined, [front.eventFd()]),
    ]) {
      held = holdCloses(1);
      const { port, events } = open();
      const front = (await connect(port))!;
      send(front);
      await events.said(HANG);
      held.release();
      await vi.waitUntil(() => closingElsewhereCount() === 0);
    }
    file.close();
  });
});

describe('a front-end for whom there are no descriptors', () => {
  it('is told because of which port, and its own is not blamed for what it cannot send', async () => {
    const { port: hostile } = await hanging();
    const { port, events } = open();
    const front = (await connect(port))!;
    // Others took all that there were.
    descriptors.add(100);
    replaceCall(front);
    await front.closed;
    const shortage =
      /only 0 may be opened now: all guests together have \d+ of 100, \d+ of these only because of port vm0 \(1 not closed yet\), see there \(raise it\)/;
    await vi.waitUntil(() => /for want of descriptors: /.test(port.status.reason ?? ''));
    expect(port.status.state).toBe('waiting');
    expect(events.all.filter((line) => shortage.test(line))).toHaveLength(1);
    expect(await connect(open().port)).toBeNull();
    expect(ports.at(-1)!.status.reason).toMatch(
      /no descriptors left: all guests together have \d+ of 100, \d+ of these only because of port vm0 \(1 not closed yet\)/,
    );
    descriptors.add(-100);
    await untilServed(port);
    expect(hostile.status.reason).toMatch(HANG);
  });
});
