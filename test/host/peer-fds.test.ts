/**
 * That descriptors of peers which could make us wait are neither used nor closed, and that no more are opened than may
 * be, nor more read than are closed. With a file system that really never answers: test/real/lost-memory.test.ts.
 */
import { closeSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Budget, BudgetError } from '../../src/host/budgets.ts';
import { closingElsewhereCount } from '../../src/host/closing.ts';
import { closeFd, createEventFd, describeFd } from '../../src/host/descriptor.ts';
import { HostError } from '../../src/host/errors.ts';
import { libc } from '../../src/host/libc.ts';
import { PeerFds } from '../../src/host/peer-fds.ts';
import { PortFds } from '../../src/host/port-fds.ts';
import { connectUnix, listenUnix, receive, send, socketPair } from '../../src/host/unix-socket.ts';
import { openedSince, openFds } from './open-fds.ts';

const MSG_OOB = 1;
const folder = mkdtempSync(join(tmpdir(), 'ringway-peer-fds-'));
afterAll(() => rmSync(folder, { recursive: true }));
const cleanups: (() => void)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0)) cleanup();
  await vi.waitUntil(() => closingElsewhereCount() === 0);
});

function open(path: string, flags: string | number = 'r'): number {
  const fd = openSync(path, flags);
  cleanups.push(() => closeSync(fd));
  return fd;
}

/** By another thread, soon. */
function isClosed(fd: number): Promise<boolean> {
  return vi.waitUntil(() => describeFd(fd) === `descriptor ${fd}`);
}

describe('PeerFds', () => {
  it('keeps what it cannot close, and counts it for the port', async () => {
    const kept = new PortFds();
    const first = new PeerFds(null, kept);
    const device = open('/dev/ptmx', 'r+');
    const plain = createEventFd();
    first.close([device, plain]);
    expect(describeFd(device)).toBe('/dev/ptmx');
    await isClosed(plain);
    expect([first.keptCount, new PeerFds(null, kept).keptCount, kept.keptCount]).toEqual([1, 0, 1]);
    for (let i = 0; i < 14; i++) first.close([device]);
    expect(kept.isTooMany).toBe(false);
    first.close([device]);
    expect(kept.isTooMany).toBe(true);
  });
});

describe('what a peer sends when few descriptors may be opened', () => {
  let front: number;
  let back: number;
  let event: number;
  let budget: Budget;
  let port: PortFds;
  let peerFds: PeerFds;
  beforeEach(() => {
    [front, back] = socketPair();
    event = createEventFd();
    budget = new Budget('descriptors', 5, 1, 'have more');
    port = new PortFds('vm0', budget);
    peerFds = new PeerFds(null, port);
  });
  afterEach(() => {
    for (const fd of [front, back, event]) if (describeFd(fd) !== `descriptor ${fd}`) closeFd(fd);
  });
  const events = (count: number): number[] => new Array<number>(count).fill(event);

  it('is read as long as there is room, and counts until it was handled', () => {
    send(front, Uint8Array.of(1, 2), events(5));
    expect(budget.room).toBe(5);
    const { bytes, fds } = peerFds.receive(back, 100);
    expect([[...bytes], fds.length, budget.room]).toEqual([[1, 2], 5, 0]);
    expect(peerFds.receive(back, 100)).toMatchObject({ fds: [], closed: false });
    send(front, Uint8Array.of(3));
    expect([...peerFds.receive(back, 100).bytes]).toEqual([3]);
    peerFds.closeRest(fds);
    expect(budget.room).toBe(5);
    closeFd(front);
    front = event;
    expect(peerFds.receive(back, 100).closed).toBe(true);
  });

  it('is not even opened beyond that, and stays there until there is room', () => {
    const before = openFds();
    send(front, Uint8Array.of(1), events(6));
    expect(() => peerFds.receive(back, 1)).toThrow(
      new BudgetError(
        'what came brings 6 descriptors, and only 5 may be opened now: all guests together have 0 of 5 (have more)',
      ),
    );
    budget.add(-1);
    const { fds, truncated } = peerFds.receive(back, 1);
    expect([fds.length, truncated]).toEqual([6, false]);
    peerFds.closeRest(fds);
    expect(openedSince(before)).toEqual([]);
  });

  it('stays in its connection, which is counted and closed when there is room', async () => {
    send(front, Uint8Array.of(1), events(6));
    peerFds.closeConnection(back);
    expect([peerFds.keptCount, budget.used, port.isTooMany, port.isFull]).toEqual([0, 1, false, true]);
    expect(port.obstruction).toBe(
      'what its last front-end sent cannot be read, nor its connection closed, for want of descriptors: all guests together have 1 of 5 (have more)',
    );
    expect(describeFd(back)).toMatch(/^socket:/);
    budget.add(-2);
    await isClosed(back);
    expect([peerFds.keptCount, budget.used, port.isFull, port.obstruction]).toEqual([0, -2, false, null]);
  });

  it('leaves those in a listening socket that could not be accepted, which is closed later', async () => {
    const path = join(folder, 'later.sock');
    const listenFd = listenUnix(path);
    closeFd(front);
    front = connectUnix(path);
    const accept = vi.spyOn(libc, 'accept4').mockReturnValue(-1);
    peerFds.closeListener(listenFd);
    expect([budget.used, port.isFull, describeFd(listenFd)]).toEqual([
      1,
      true,
      expect.stringMatching(/^socket/),
    ]);
    accept.mockRestore();
    await isClosed(listenFd);
    expect([budget.used, port.isFull]).toEqual([0, false]);
    expect(receive(front, 1).closed).toBe(true);
  });

  it('does not keep a connection that brings none', () => {
    send(front, Uint8Array.of(1));
    budget.add(5);
    peerFds.closeConnection(back);
    expect([peerFds.keptCount, describeFd(back)]).toEqual([0, `descriptor ${back}`]);
  });

  it('and is kept is too much from the first on when there is no room for it', () => {
    const kept = new PortFds('vm0', budget);
    kept.keep();
    expect([kept.isTooMany, budget.used]).toEqual([false, 1]);
    budget.add(5);
    expect(kept.tooManyText).toBe(
      'its front-ends sent 1 descriptor that may never answer and is kept open, and few are left: all guests together have 6 of 5 (have more): remove the port and add it again',
    );
    expect(new PortFds('vm0', budget).isTooMany).toBe(false);
  });
});

describe('a UNIX socket that a peer sent', () => {
  let ends: [number, number];
  let device: number;
  beforeEach(() => {
    ends = socketPair();
    device = openSync('/dev/ptmx', 'r+');
  });
  afterEach(() => {
    closeFd(device);
    for (const fd of ends) closeFd(fd);
  });
  const NEST =
    /^the descriptor is socket:\[\d+\], which listens or holds descriptors itself, and may never be closed$/;

  it('is neither used nor closed with a descriptor unread in it', () => {
    send(ends[0], Uint8Array.of(1), [device]);
    const peerFds = new PeerFds();
    expect(peerFds.obstacle(ends[1])).toMatch(NEST);
    peerFds.close([ends[1]]);
    expect(peerFds.keptCount).toBe(1);
    expect(describeFd(ends[1])).toMatch(/^socket:/);
  });

  it('nor when the descriptor came after it was looked at', () => {
    const peerFds = new PeerFds();
    expect(peerFds.obstacle(ends[1])).toBeNull();
    send(ends[0], Uint8Array.of(1), [device]);
    peerFds.close([ends[1]]);
    expect(peerFds.keptCount).toBe(1);
    expect(() => send(ends[0], Uint8Array.of(1), [device])).toThrow('EPIPE');
  });

  it('nor with one that came with an urgent byte, which was read', () => {
    send(ends[0], Uint8Array.of(1), [device], MSG_OOB);
    const peerFds = new PeerFds();
    expect(peerFds.obstacle(ends[1])).toMatch(NEST);
  });

  it('is neither used nor closed when it listens: more may come with who was not accepted', () => {
    const listenFd = listenUnix(join(folder, 'peer.sock'));
    const peerFds = new PeerFds();
    expect(peerFds.obstacle(listenFd)).toMatch(NEST);
    peerFds.close([listenFd]);
    expect(peerFds.keptCount).toBe(1);
    closeFd(listenFd);
  });

  it('still takes what we sent into it before it was closed', async () => {
    send(ends[1], Uint8Array.of(7));
    new PeerFds().close([ends[1]]);
    await isClosed(ends[1]);
    expect([...receive(ends[0], 1).bytes]).toEqual([7]);
    ends = [ends[0], createEventFd()];
  });
});

describe('a listening socket that is closed', () => {
  it('first has those let go who were not accepted, with what they sent', () => {
    const before = openFds();
    const path = join(folder, 'backlog.sock');
    const listenFd = listenUnix(path);
    const device = openSync('/dev/ptmx', 'r+');
    const peers = [connectUnix(path), connectUnix(path)];
    send(peers[1], Uint8Array.of(1), [device]);
    const peerFds = new PeerFds();
    peerFds.closeListener(listenFd);
    expect(peerFds.keptCount).toBe(1);
    for (const peer of peers) expect(receive(peer, 1).closed).toBe(true);
    expect(() => connectUnix(path)).toThrow('ECONNREFUSED');
    for (const fd of [...peers, device]) closeFd(fd);
    expect(openedSince(before)).toEqual([expect.stringMatching(/^\d+: \/dev\/ptmx$/)]);
    closeFd(Number.parseInt(openedSince(before)[0]!, 10));
  });
});

describe('a connection that is closed with descriptors unread in it', () => {
  it('reads also what came with urgent bytes, which are passed over otherwise', () => {
    const before = openFds();
    const [front, back] = socketPair();
    const device = openSync('/dev/ptmx', 'r+');
    send(front, Uint8Array.of(1), [device], MSG_OOB);
    send(front, Uint8Array.of(2));
    const peerFds = new PeerFds();
    peerFds.closeConnection(back);
    expect(peerFds.keptCount).toBe(1);
    for (const fd of [front, device]) closeFd(fd);
    closeFd(Number.parseInt(openedSince(before)[0]!, 10));
  });

  it('goes on in the next turns of the event loop when there is much', async () => {
    const before = openFds();
    const [front, back] = socketPair();
    const events = Array.from({ length: 50 }, () => createEventFd());
    let count = 0;
    while (send(front, Uint8Array.of(1), events) > 0) count++;
    expect(count).toBeGreaterThan(100);
    new PeerFds().closeConnection(back);
    expect(describeFd(back)).toMatch(/^socket:/);
    while (describeFd(back).startsWith('socket:')) await new Promise((resolve) => setImmediate(resolve));
    for (const fd of [front, ...events]) closeFd(fd);
    expect(openedSince(before)).toEqual([]);
  });

  it('reads them first: what may wait is kept, the rest closed', async () => {
    const before = openFds();
    const [front, back] = socketPair();
    const device = open('/dev/ptmx', 'r+');
    const event = createEventFd();
    for (const fds of [[event], [], [device, event], [event]]) send(front, Uint8Array.of(1), fds);
    const peerFds = new PeerFds();
    peerFds.closeConnection(back);
    expect(peerFds.keptCount).toBe(1);
    expect(receive(front, 1).closed).toBe(true);
    for (const fd of [front, device, event]) closeFd(fd);
    cleanups.length = 0;
    await vi.waitUntil(() => closingElsewhereCount() === 0);
    expect(openedSince(before)).toEqual([expect.stringMatching(/^\d+: \/dev\/ptmx$/)]);
    closeFd(Number.parseInt(openedSince(before)[0]!, 10));
  });

  it('is closed although its port has kept too many before', () => {
    const kept = new PortFds();
    for (let i = 0; i < 16; i++) kept.keep();
    const [front, back] = socketPair();
    new PeerFds(null, kept).closeConnection(back);
    expect(kept.keptCount).toBe(16);
    expect(describeFd(back)).toBe(`descriptor ${back}`);
    closeFd(front);
  });

  it('is kept itself when they are too many', () => {
    const before = openFds();
    const [front, back] = socketPair();
    const device = openSync('/dev/ptmx', 'r+');
    for (let i = 0; i < 20; i++) send(front, Uint8Array.of(1), [device]);
    const peerFds = new PeerFds();
    peerFds.closeConnection(back);
    expect(receive(front, 1).closed).toBe(true);
    expect(peerFds.keptCount).toBe(17);
    for (const fd of [front, device]) closeFd(fd);
    const kept = openedSince(before);
    expect(kept).toHaveLength(17);
    expect(kept.filter((what) => what.includes('socket:'))).toHaveLength(1);
    for (const what of kept) closeFd(Number.parseInt(what, 10));
  });
});

describe('closeFd', () => {
  it('throws for what is not open, which is a bug of ours', () => {
    expect(() => closeFd(999_999)).toThrow(HostError);
  });
});
