/** UNIX sockets that carry descriptors: streams, SCM_RIGHTS at its limits, and every way a path can be bad. */
import { spawnSync } from 'node:child_process';
import {
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { closeFd, closeFds, createEventFd, drainFd, signalFd } from '../../src/host/descriptor.ts';
import { HostError } from '../../src/host/errors.ts';
import {
  acceptUnix,
  checkSocketPath,
  connectUnix,
  listenUnix,
  peek,
  peerPid,
  receive,
  SOCKET_PATH_BYTES_MAX,
  SocketPathError,
  send,
  socketPair,
} from '../../src/host/unix-socket.ts';
import { type OpenFds, openedSince, openFds } from './open-fds.ts';

let before: OpenFds;
beforeEach(() => {
  // The first use reserves this thread's scratch memory.
  closeFds(socketPair());
  before = openFds();
});
afterEach(() => expect(openedSince(before)).toEqual([]));

describe('who asks whether a path is served', () => {
  it('is not seen by who serves it', () => {
    const folder = mkdtempSync(join(tmpdir(), 'ringway-asked-'));
    const path = join(folder, 'a.sock');
    const fd = listenUnix(path);
    expect(() => listenUnix(path)).toThrow('in use');
    expect(acceptUnix(fd)).toBeNull();
    closeFd(fd);
    rmSync(folder, { recursive: true });
  });
});

describe('socketPair', () => {
  it('carries bytes in order, as much as asked for at a time', () => {
    const [a, b] = socketPair();
    expect(send(a, Uint8Array.of(1, 2, 3, 4, 5))).toBe(5);
    expect([...receive(b, 2).bytes]).toEqual([1, 2]);
    expect(receive(b, 100)).toEqual({
      bytes: Uint8Array.of(3, 4, 5),
      fds: [],
      closed: false,
      truncated: false,
    });
    expect(receive(b, 100)).toEqual({ bytes: new Uint8Array(0), fds: [], closed: false, truncated: false });
    closeFd(a);
    expect(receive(b, 100).closed).toBe(true);
    closeFd(b);
  });

  it('carries 8,192 bytes at once and says how many of more it took', () => {
    const [a, b] = socketPair();
    expect(send(a, new Uint8Array(10_000).fill(7))).toBe(8192);
    expect(receive(b, 10_000).bytes).toEqual(new Uint8Array(8192).fill(7));
    closeFds([a, b]);
  });

  it('answers 0 when the other end does not read, and goes on when it does', () => {
    const [a, b] = socketPair();
    const block = new Uint8Array(8192);
    let sent = 0;
    for (let count = send(a, block); count > 0; count = send(a, block)) sent += count;
    expect(sent).toBeGreaterThan(8192);
    let received = 0;
    for (let got = receive(b, 8192); got.bytes.length > 0; got = receive(b, 8192))
      received += got.bytes.length;
    expect(received).toBe(sent);
    expect(send(a, block)).toBe(8192);
    closeFds([a, b]);
  });

  it('reports a broken pipe as an error and never as a signal', () => {
    const [a, b] = socketPair();
    closeFd(b);
    expect(() => send(a, Uint8Array.of(1))).toThrow(/writing to a connection: sendmsg failed with EPIPE/);
    closeFd(a);
  });

  it('takes a connection that was reset, because what we sent was never read, as closed', () => {
    const [a, b] = socketPair();
    send(b, Uint8Array.of(1));
    closeFd(a);
    expect(receive(b, 10).closed).toBe(true);
    closeFd(b);
  });
});

describe('descriptor passing', () => {
  it.each([1, 2, 8, 9, 253])('carries %i descriptors with the first byte', (count) => {
    const [a, b] = socketPair();
    const sent = Array.from({ length: count }, () => createEventFd());
    expect(send(a, Uint8Array.of(1, 2, 3), sent)).toBe(3);
    const { bytes, fds, truncated } = receive(b, 1);
    expect([bytes.length, fds.length, truncated]).toEqual([1, count, false]);
    expect(receive(b, 100).fds).toEqual([]);
    // Each is the same open file as the one sent: what is written to one is read from the other.
    for (const [i, fd] of fds.entries()) {
      expect(fd).not.toBe(sent[i]);
      signalFd(sent[i]);
    }
    for (const fd of fds) drainFd(fd);
    closeFds([...sent, ...fds, a, b]);
  });

  it('keeps the descriptors of two writes apart although one read could take both', () => {
    const [a, b] = socketPair();
    const [first, second] = [createEventFd(), createEventFd()];
    send(a, Uint8Array.of(1), [first]);
    send(a, Uint8Array.of(2), [second]);
    const one = receive(b, 100);
    const two = receive(b, 100);
    expect([one.fds.length, two.fds.length]).toEqual([1, 1]);
    expect([[...one.bytes], [...two.bytes]]).toEqual([[1], [2]]);
    closeFds([...one.fds, ...two.fds, first, second, a, b]);
  });

  it('is seen before it is taken', () => {
    const [a, b] = socketPair();
    expect(peek(b, 10)).toEqual({ sizeBytes: 0, hasFds: false, closed: false });
    send(a, Uint8Array.of(1, 2, 3));
    expect(peek(b, 2)).toEqual({ sizeBytes: 2, hasFds: false, closed: false });
    receive(b, 3);
    const event = createEventFd();
    send(a, Uint8Array.of(4), [event]);
    const open = openFds();
    for (let time = 0; time < 2; time++)
      expect(peek(b, 10)).toEqual({ sizeBytes: 1, hasFds: true, closed: false });
    expect(openedSince(open)).toEqual([]);
    const { fds } = receive(b, 10);
    expect(fds).toHaveLength(1);
    closeFds([...fds, event, a]);
    expect(peek(b, 10)).toEqual({ sizeBytes: 0, hasFds: false, closed: true });
    closeFd(b);
  });

  it('refuses more descriptors than the kernel passes at once', () => {
    const [a, b] = socketPair();
    expect(() => send(a, Uint8Array.of(1), new Array<number>(254).fill(a))).toThrow(HostError);
    closeFds([a, b]);
  });

  it('lets the kernel close what nobody received', () => {
    const [a, b] = socketPair();
    const fd = createEventFd();
    send(a, Uint8Array.of(1), [fd]);
    closeFds([fd, a, b]);
  });

  it('says that descriptors were truncated when no more may be open, and owns those that came', () => {
    const script = fileURLToPath(new URL('./truncated-descriptors.ts', import.meta.url));
    const child = spawnSync('bash', ['-c', `ulimit -n 48; exec "${process.execPath}" "${script}"`], {
      encoding: 'utf8',
    });
    expect(child.stderr).toBe('');
    expect(JSON.parse(child.stdout)).toEqual({
      bytes: [1, 2, 3],
      fdCount: 3,
      truncated: true,
      closed: false,
      leaked: [],
    });
  });
});

describe('listenUnix', () => {
  let folder: string;
  let path: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'ringway-socket-'));
    path = join(folder, 'vm.sock');
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  const refusal = (socketPath: string): string => {
    try {
      closeFd(listenUnix(socketPath));
      return 'listens';
    } catch (error) {
      expect(error).toBeInstanceOf(SocketPathError);
      return (error as Error).message;
    }
  };

  it('is connected to', () => {
    const listenFd = listenUnix(path);
    expect(acceptUnix(listenFd)).toBeNull();
    const client = connectUnix(path);
    const server = acceptUnix(listenFd)!;
    expect(peerPid(server)).toBe(process.pid);
    send(client, Uint8Array.of(42));
    expect([...receive(server, 1).bytes]).toEqual([42]);
    closeFds([client, server, listenFd]);
  });

  it.each([0o600, 0o660, 0o777])('gives the socket file mode %o', (mode) => {
    const listenFd = listenUnix(path, { mode });
    expect(statSync(path).mode & 0o777).toBe(mode);
    closeFd(listenFd);
  });

  it.runIf(process.getuid?.() === 0)('gives the socket file to its owner', () => {
    const listenFd = listenUnix(path, { owner: { uid: 12_345, gid: 23_456 } });
    expect(statSync(path)).toMatchObject({ uid: 12_345, gid: 23_456 });
    chownSync(path, 0, 0);
    closeFd(listenFd);
  });

  it('takes the longest path that the system knows and refuses one byte more', () => {
    const longest = join(folder, 'x'.repeat(SOCKET_PATH_BYTES_MAX - folder.length - 1));
    expect(Buffer.byteLength(longest)).toBe(107);
    expect(refusal(longest)).toBe('listens');
    expect(refusal(`${longest}x`)).toMatch(/socket path of 108 bytes is too long \(at most 107\)/);
  });

  it('counts the bytes of a path, not its characters', () => {
    const text = join(folder, 'ü'.repeat(50));
    expect(text.length).toBeLessThan(107);
    expect(refusal(text)).toMatch(/too long/);
  });

  it('refuses an empty path and one with a zero byte', () => {
    expect(refusal('')).toMatch(/empty or holds a zero byte/);
    expect(refusal(`${path}\0x`)).toMatch(/empty or holds a zero byte/);
    expect(() => checkSocketPath('x'.repeat(200))).toThrow(SocketPathError);
    expect(() => checkSocketPath(path)).not.toThrow();
  });

  it('says that the folder is missing', () => {
    expect(refusal(join(folder, 'no', 'vm.sock'))).toBe(
      `folder ${folder}/no of socket ${folder}/no/vm.sock does not exist`,
    );
  });

  it('says that the folder is a file', () => {
    writeFileSync(join(folder, 'file'), '');
    expect(refusal(join(folder, 'file', 'vm.sock'))).toBe(
      `${folder}/file of socket ${folder}/file/vm.sock is not a folder`,
    );
  });

  it.each(['file', 'folder', 'link'])('does not replace a %s that is no socket', (kind) => {
    if (kind === 'file') writeFileSync(path, 'precious');
    else if (kind === 'folder') mkdirSync(path);
    else symlinkSync(join(folder, 'nowhere'), path);
    expect(refusal(path)).toBe(`${path} exists and is not a socket`);
    if (kind === 'file') expect(statSync(path).size).toBe(8);
  });

  it('leaves a socket that a process listens at alone', () => {
    const listenFd = listenUnix(path);
    expect(refusal(path)).toBe(`socket ${path} is in use by a running process`);
    const client = connectUnix(path);
    closeFds([client, listenFd]);
  });

  it('leaves a socket with a full backlog alone', () => {
    const listenFd = listenUnix(path);
    const clients: number[] = [];
    try {
      for (let i = 0; i < 100; i++) clients.push(connectUnix(path));
      expect.fail('the backlog has no end');
    } catch (error) {
      expect(error).toMatchObject({ code: 'EAGAIN' });
    }
    expect(refusal(path)).toBe(`socket ${path} is in use by a running process`);
    closeFds([...clients, listenFd]);
  });

  it('takes a stale socket over', () => {
    closeFd(listenUnix(path));
    expect(existsSync(path)).toBe(true);
    const listenFd = listenUnix(path);
    closeFds([connectUnix(path), listenFd]);
  });

  it('leaves no socket file behind when its mode or owner cannot be set', () => {
    expect(() => listenUnix(path, { owner: { uid: -2, gid: -2 } })).toThrow();
    expect(existsSync(path)).toBe(false);
  });
});

describe('connectUnix', () => {
  it.each([
    ['ENOENT', () => {}],
    ['ECONNREFUSED', (path: string) => closeFd(listenUnix(path))],
  ] as const)('says %s', (code, prepare) => {
    const folder = mkdtempSync(join(tmpdir(), 'ringway-connect-'));
    const path = join(folder, 'vm.sock');
    prepare(path);
    expect(() => connectUnix(path)).toThrow(
      expect.objectContaining({
        code,
        message: expect.stringContaining(`connecting to ${path}: connect failed`),
      }),
    );
    rmSync(folder, { recursive: true });
  });
});
