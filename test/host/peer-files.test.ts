/** What a peer's descriptor is found to be without asking it. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { createServer, type Server, Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { closeFd, createEventFd, describeFd } from '../../src/host/descriptor.ts';
import { EpollSet } from '../../src/host/epoll.ts';
import { createMemoryFile } from '../../src/host/mapping.ts';
import { PeerFds } from '../../src/host/peer-fds.ts';
import { type PeerFile, PeerFiles } from '../../src/host/peer-files.ts';
import { socketPair } from '../../src/host/unix-socket.ts';

const O_PATH = 0o10000000;
const folder = mkdtempSync(join(tmpdir(), 'ringway-peer-files-'));
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

function kindOf(fd: number, peerPid: number | null): PeerFile['kind'] {
  return new PeerFiles().at(fd, peerPid).kind;
}

/** The folder /proc/PID/fd of a process that has ended: `fstat` of it fails. */
async function folderOfDeadProcess(): Promise<number> {
  const child = spawn('sleep', ['1000']);
  const fd = open(`/proc/${child.pid}/fd`);
  child.kill();
  await once(child, 'exit');
  return fd;
}

describe('PeerFiles', () => {
  it.each([
    ['a memfd', () => createMemoryFile('guest', 4096), 'storage'],
    ['a file of tmpfs', () => openSync('/dev/shm', 0o20200002), 'storage'],
    ['a file of the local disk', () => openSync(join(folder, 'ram'), 'w+'), 'storage'],
    ['a folder', () => openSync('/', 'r'), 'storage'],
    ['an eventfd', () => createEventFd(), 'plain'],
    ['an epoll set', () => new EpollSet().fd, 'plain'],
    ['/dev/null', () => openSync('/dev/null', 'r+'), 'plain'],
    ['a file of /proc', () => openSync('/proc/self/maps', 'r'), 'plain'],
    ['the name of a file', () => openSync('/dev/fuse', O_PATH), 'plain'],
    ['another device', () => openSync('/dev/ptmx', 'r+'), 'unasked'],
  ] as const)('%s is %s', (_what, make, kind) => {
    const fd = make();
    expect([describeFd(fd), kindOf(fd, null)]).toEqual([expect.any(String), kind]);
    closeFd(fd);
  });

  it('takes the UNIX sockets only', async () => {
    const pair = socketPair();
    expect(pair.map((fd) => kindOf(fd, null))).toEqual(['plain', 'plain']);
    for (const fd of pair) closeFd(fd);
    const server: Server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const socket = new Socket();
    socket.connect((server.address() as { port: number }).port, '127.0.0.1');
    await once(socket, 'connect');
    const { fd } = (socket as unknown as { _handle: { fd: number } })._handle;
    expect(kindOf(fd, null)).toBe('unasked');
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
      expect(kindOf(own, null)).toBe('storage');
      expect(kindOf(theirs, null)).toBe('unasked');
      expect(kindOf(theirs, child.pid!)).toBe('storage');
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
      expect(kindOf(last, child.pid!)).toBe('unasked');
      child.kill();
      await once(child, 'exit');
    },
  );

  it('asks nothing of a folder that cannot answer', async () => {
    expect(kindOf(await folderOfDeadProcess(), null)).toBe('plain');
  });
});
