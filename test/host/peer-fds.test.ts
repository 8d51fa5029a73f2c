/**
 * What a peer's descriptor is found to be without asking it, and that those which could make us wait are neither used
 * nor closed. With a file system that really never answers: test/real/lost-memory.test.ts.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { createServer, type Server, Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Budget } from '../../src/host/budgets.ts';
import { closeFd, createEventFd, describeFd } from '../../src/host/descriptor.ts';
import { EpollSet } from '../../src/host/epoll.ts';
import { HostError } from '../../src/host/errors.ts';
import { createMemoryFile } from '../../src/host/mapping.ts';
import { KeptFds, kindOfPeerFile, PeerFds } from '../../src/host/peer-fds.ts';
import { connectUnix, listenUnix, receive, send, socketPair } from '../../src/host/unix-socket.ts';
import { openedSince, openFds } from './open-fds.ts';

const O_PATH = 0o10000000;
const MSG_OOB = 1;
const folder = mkdtempSync(join(tmpdir(), 'ringway-peer-fds-'));
afterAll(() => rmSync(folder, { recursive: true }));
const cleanups: (() => void)[] = [];
afterEach(() => {
  for (const cleanup of cleanups.splice(0)) cleanup();
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

/** The folder /proc/PID/fd of a process that has ended: `fstat` of it fails. */
async function folderOfDeadProcess(): Promise<number> {
  const child = spawn('sleep', ['1000']);
  const fd = open(`/proc/${child.pid}/fd`);
  child.kill();
  await once(child, 'exit');
  return fd;
}

describe('kindOfPeerFile', () => {
  it.each([
    ['a memfd', () => createMemoryFile('guest', 4096), 'memory'],
    ['a file of tmpfs', () => openSync('/dev/shm', 0o20200002), 'memory'],
    ['a file of the local disk', () => openSync(join(folder, 'ram'), 'w+'), 'disk'],
    ['a folder', () => openSync('/', 'r'), 'disk'],
    ['an eventfd', () => createEventFd(), 'plain'],
    ['an epoll set', () => new EpollSet().fd, 'plain'],
    ['/dev/null', () => openSync('/dev/null', 'r+'), 'plain'],
    ['a file of /proc', () => openSync('/proc/self/maps', 'r'), 'plain'],
    ['the name of a file', () => openSync('/dev/fuse', O_PATH), 'plain'],
    ['another device', () => openSync('/dev/ptmx', 'r+'), 'unasked'],
  ] as const)('%s is %s', (_what, make, kind) => {
    const fd = make();
    expect([describeFd(fd), kindOfPeerFile(fd, null)]).toEqual([expect.any(String), kind]);
    closeFd(fd);
  });

  it('takes the UNIX sockets only', async () => {
    const pair = socketPair();
    expect(pair.map((fd) => kindOfPeerFile(fd, null))).toEqual(['plain', 'plain']);
    for (const fd of pair) closeFd(fd);
    const server: Server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const socket = new Socket();
    socket.connect((server.address() as { port: number }).port, '127.0.0.1');
    await once(socket, 'connect');
    const { fd } = (socket as unknown as { _handle: { fd: number } })._handle;
    expect(kindOfPeerFile(fd, null)).toBe('unasked');
    expect(new PeerFds().obstacle(fd)).toMatch(/^the descriptor is socket:\[\d+\], which may never answer/);
    socket.destroy();
    server.close();
    await once(server, 'close');
  });

  it.skipIf(process.getuid?.() !== 0)(
    "knows a disk of the peer's own mount namespace by the peer (needs root)",
    async () => {
      const script = 'echo; exec sleep 1000';
      const child = spawn('unshare', ['--mount', 'sh', '-c', script], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      await once(child.stdout, 'data');
      const own = openSync(join(folder, 'ram'), 'w+');
      const theirs = open(`/proc/${child.pid}/root${folder}/ram`, 'r+');
      expect(kindOfPeerFile(own, null)).toBe('disk');
      expect(kindOfPeerFile(theirs, null)).toBe('unasked');
      expect(kindOfPeerFile(theirs, child.pid!)).toBe('disk');
      closeFd(own);
      child.kill();
      await once(child, 'exit');
    },
  );

  it.skipIf(process.getuid?.() !== 0)(
    "does not look for a disk among all mounts that a peer's own namespace has (needs root)",
    async () => {
      const name = 'x'.repeat(250);
      const script = `cd ${folder} && touch ${name} && for i in $(seq 400); do mount --bind ram ${name}; done; echo; exec sleep 1000`;
      closeFd(openSync(join(folder, 'ram'), 'w+'));
      const child = spawn('unshare', ['--mount', 'sh', '-c', script], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      await once(child.stdout, 'data');
      const last = open(`/proc/${child.pid}/root${folder}/${name}`, 'r+');
      expect(kindOfPeerFile(last, child.pid!)).toBe('unasked');
      child.kill();
      await once(child, 'exit');
    },
  );

  it('asks nothing of a folder that cannot answer', async () => {
    expect(kindOfPeerFile(await folderOfDeadProcess(), null)).toBe('plain');
  });
});

describe('PeerFds', () => {
  it('keeps what it cannot close, and counts it for the port', async () => {
    const kept = new KeptFds();
    const first = new PeerFds(null, kept);
    const device = open('/dev/ptmx', 'r+');
    const plain = createEventFd();
    first.close([device, plain]);
    expect(describeFd(device)).toBe('/dev/ptmx');
    await isClosed(plain);
    expect([first.keptCount, new PeerFds(null, kept).keptCount, kept.count]).toEqual([1, 0, 1]);
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
  let peerFds: PeerFds;
  beforeEach(() => {
    [front, back] = socketPair();
    event = createEventFd();
    budget = new Budget('descriptors', 5, 1, '');
    peerFds = new PeerFds(null, new KeptFds(budget));
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
    peerFds.close(fds);
    expect(budget.room).toBe(5);
    closeFd(front);
    front = event;
    expect(peerFds.receive(back, 100).closed).toBe(true);
  });

  it('is not even opened beyond that, and stays there until there is room', () => {
    const before = openFds();
    send(front, Uint8Array.of(1), events(6));
    expect(() => peerFds.receive(back, 1)).toThrow(
      'reading descriptors from a connection: recvmsg failed with EMFILE (too many open files)',
    );
    budget.add(-1);
    const { fds, truncated } = peerFds.receive(back, 1);
    expect([fds.length, truncated]).toEqual([6, false]);
    peerFds.close(fds);
    expect(openedSince(before)).toEqual([]);
  });

  it('stays in its connection, which is kept and counted, when that is closed', () => {
    send(front, Uint8Array.of(1), events(6));
    peerFds.closeConnection(back);
    expect([peerFds.keptCount, budget.used]).toEqual([1, 1]);
    expect(describeFd(back)).toMatch(/^socket:/);
  });

  it('does not keep a connection that brings none', () => {
    send(front, Uint8Array.of(1));
    budget.add(5);
    peerFds.closeConnection(back);
    expect([peerFds.keptCount, describeFd(back)]).toEqual([0, `descriptor ${back}`]);
  });

  it('and is kept is too much from the first on when there is no room for it', () => {
    const kept = new KeptFds(budget);
    kept.add();
    expect([kept.isTooMany, budget.used]).toEqual([false, 1]);
    budget.add(5);
    expect(kept.isTooMany).toBe(true);
    expect(new KeptFds(budget).isTooMany).toBe(false);
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

  it('reads them first: what may wait is kept, the rest closed', () => {
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
    expect(openedSince(before)).toEqual([expect.stringMatching(/^\d+: \/dev\/ptmx$/)]);
    closeFd(Number.parseInt(openedSince(before)[0]!, 10));
  });

  it('is closed although its port has kept too many before', () => {
    const kept = new KeptFds();
    for (let i = 0; i < 16; i++) kept.add();
    const [front, back] = socketPair();
    new PeerFds(null, kept).closeConnection(back);
    expect(kept.count).toBe(16);
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
