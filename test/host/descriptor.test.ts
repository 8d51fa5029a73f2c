/** Descriptors, eventfds, seals and readable errors. */
import { spawnSync } from 'node:child_process';
import {
  closeSync,
  fstatSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { allowedCpus, pinnableCpus, pinThread } from '../../src/host/affinity.ts';
import {
  closeFd,
  closeFds,
  createEventFd,
  describeFd,
  drainFd,
  duplicateFd,
  fileFacts,
  sealAgainstShrinking,
  setNonBlocking,
  signalFd,
} from '../../src/host/descriptor.ts';
import { EpollSet } from '../../src/host/epoll.ts';
import { checked, HostError } from '../../src/host/errors.ts';
import {
  createMemoryFile,
  mapFile,
  mapFileAt,
  mapZeroPagesAt,
  releaseAddressSpace,
  reserveAddressSpace,
  viewMemory,
} from '../../src/host/mapping.ts';
import { socketPair } from '../../src/host/unix-socket.ts';
import { type OpenFds, openedSince, openFds } from './open-fds.ts';
import { makeBlocking, semaphore } from './shared-descriptors.ts';

let before: OpenFds;
beforeEach(() => {
  before = openFds();
});
afterEach(() => expect(openedSince(before)).toEqual([]));

/** Bits of O_… that `fd` was opened with, as /proc tells them. */
function flagsOf(fd: number): number {
  return Number.parseInt(/^flags:\s*(\d+)/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))![1], 8);
}

const O_CLOEXEC = 0o2000000;
const O_NONBLOCK = 0o4000;

function blockingEventFd(): number {
  const fd = createEventFd();
  makeBlocking(fd);
  return fd;
}

describe('errors', () => {
  it('say what was done, which call failed and why', () => {
    const error = new HostError('mmap', 12, 'mapping 4096 bytes');
    expect(error.message).toBe('mapping 4096 bytes: mmap failed with ENOMEM (out of memory)');
    expect(error).toMatchObject({ name: 'HostError', call: 'mmap', errno: 12, code: 'ENOMEM' });
  });

  it('name a code without a meaning, and a number without a code', () => {
    expect(new HostError('x', 40, 'doing').message).toBe('doing: x failed with ELOOP');
    expect(new HostError('x', 9999, 'doing').code).toBe('E9999');
    // Two names for one number: code elsewhere compares with this one.
    expect(new HostError('x', 11, 'doing').message).toBe('doing: x failed with EAGAIN (would block)');
  });

  it('come from the last call of this thread', () => {
    expect(() => closeFd(1_000_000)).toThrow(/closing descriptor 1000000: close failed with EBADF/);
    expect(checked(0, 'x', 'doing')).toBe(0);
    expect(checked(7, 'x', 'doing')).toBe(7);
  });
});

describe('descriptors', () => {
  it('are close-on-exec, also as duplicates', () => {
    const fd = createEventFd();
    const twin = duplicateFd(fd);
    const memory = createMemoryFile('x', 4096);
    const sockets = socketPair();
    for (const each of [fd, twin, memory, ...sockets]) expect(flagsOf(each) & O_CLOEXEC).toBe(O_CLOEXEC);
    for (const each of [fd, ...sockets]) expect(flagsOf(each) & O_NONBLOCK).toBe(O_NONBLOCK);
    closeFds([fd, twin, memory, ...sockets]);
  });

  it('can be made non-blocking, twice as well', () => {
    const fd = openSync('/dev/zero', 'r');
    expect(flagsOf(fd) & O_NONBLOCK).toBe(0);
    setNonBlocking(fd);
    setNonBlocking(fd);
    expect(flagsOf(fd) & O_NONBLOCK).toBe(O_NONBLOCK);
    closeSync(fd);
  });

  it('are described as /proc does', () => {
    const event = createEventFd();
    const memory = createMemoryFile('guest', 4096);
    const [a, b] = socketPair();
    expect(describeFd(event)).toBe('anon_inode:[eventfd]');
    expect(describeFd(memory)).toBe('/memfd:guest (deleted)');
    expect(describeFd(a)).toMatch(/^socket:\[\d+\]$/);
    expect(describeFd(1_000_000)).toBe('descriptor 1000000');
    const hostile = createMemoryFile('vm\u001b[2J\n\u202e', 4096);
    expect(describeFd(hostile)).toBe('/memfd:vm\\x1b[2J\\x0a\\u202e (deleted)');
    closeFd(hostile);
    closeFds([event, memory, a, b]);
  });

  it('tell what kind of file they are', () => {
    const memory = createMemoryFile('guest', 12_345);
    const event = createEventFd();
    const { ino, dev } = fstatSync(memory);
    expect(fileFacts(memory)).toMatchObject({
      sizeBytes: 12_345,
      isRegularFile: true,
      inode: ino,
      device: dev,
    });
    expect(fileFacts(event).isRegularFile).toBe(false);
    closeFds([memory, event]);
  });
});

describe('eventfds', () => {
  it('count signals until they are drained', () => {
    const fd = createEventFd();
    const epoll = new EpollSet();
    epoll.add(fd);
    expect(epoll.wait(0)).toBe(0);
    expect([signalFd(fd), signalFd(fd)]).toEqual([true, true]);
    expect(epoll.wait(0)).toBe(1);
    expect(epoll.readyFd(0)).toBe(fd);
    drainFd(fd);
    expect(epoll.wait(0)).toBe(0);
    epoll.remove(fd);
    epoll.close();
    closeFd(fd);
  });

  it('are drained without waiting, though a peer made them blocking', () => {
    const fd = createEventFd();
    makeBlocking(fd);
    drainFd(fd);
    signalFd(fd);
    drainFd(fd);
    drainFd(fd);
    signalFd(fd);
    expect(countIn(fd)).toBe(1n);
    closeFd(fd);
  });

  it('whose descriptor is gone say false', () => {
    const fd = createEventFd();
    closeFd(fd);
    expect(signalFd(fd)).toBe(false);
  });
});

/** What is read from an eventfd. */
function countIn(fd: number): bigint {
  const count = new BigUint64Array(1);
  readSync(fd, count);
  return count[0];
}

describe('EpollSet', () => {
  it.each([
    ['counts', () => createEventFd()],
    ['is a semaphore', () => semaphore(0)],
    ['is blocking', () => blockingEventFd()],
  ])('tells each signal of an eventfd that nobody reads once, if it %s', (_which, make) => {
    const epoll = new EpollSet();
    const fd = make();
    signalFd(fd);
    epoll.addSignals(fd);
    for (let round = 0; round < 3; round++) {
      expect([epoll.wait(0), epoll.readyFd(0)]).toEqual([1, fd]);
      expect(epoll.wait(0)).toBe(0);
      signalFd(fd);
      signalFd(fd);
    }
    epoll.remove(fd);
    expect(epoll.wait(0)).toBe(0);
    closeFd(fd);
    epoll.close();
  });

  it('refuses what cannot be waited for', () => {
    const epoll = new EpollSet();
    const memory = createMemoryFile('x', 4096);
    expect(() => epoll.add(memory)).toThrow(/watching descriptor \d+: epoll_ctl failed with EPERM/);
    expect(() => epoll.remove(memory)).toThrow(HostError);
    closeFd(memory);
    epoll.close();
  });

  it('tells every ready descriptor, and the end of the other side', () => {
    const epoll = new EpollSet();
    const fds = Array.from({ length: 70 }, () => createEventFd());
    for (const fd of fds) epoll.add(fd);
    for (const fd of fds) signalFd(fd);
    const seen = new Set<number>();
    for (let round = 0; round < 2; round++) {
      const count = epoll.wait(0);
      for (let i = 0; i < count; i++) {
        seen.add(epoll.readyFd(i));
        drainFd(epoll.readyFd(i));
      }
    }
    expect(seen).toEqual(new Set(fds));
    const [a, b] = socketPair();
    epoll.add(a);
    closeFd(b);
    expect([epoll.wait(0), epoll.readyFd(0)]).toEqual([1, a]);
    epoll.close();
    closeFds([...fds, a]);
  });
});

describe('seals', () => {
  it('keep a memory file from shrinking but not from growing', () => {
    const fd = createMemoryFile('x', 8192);
    expect(sealAgainstShrinking(fd)).toBe(true);
    expect(sealAgainstShrinking(fd)).toBe(true);
    expect(() => ftruncateSync(fd, 4096)).toThrow(/EPERM/);
    ftruncateSync(fd, 16_384);
    expect(fileFacts(fd).sizeBytes).toBe(16_384);
    closeFd(fd);
  });

  it('are not for other files', () => {
    const folder = mkdtempSync(join(tmpdir(), 'ringway-seal-'));
    const fd = openSync(join(folder, 'plain'), 'w+');
    const [a, b] = socketPair();
    expect(sealAgainstShrinking(a)).toBe(false);
    closeFds([a, b]);
    closeSync(fd);
    rmSync(folder, { recursive: true });
  });
});

describe('mappings', () => {
  it('show a file in reserved address space, then zero pages again', () => {
    const address = reserveAddressSpace(65_536);
    const bytes = new Uint8Array(viewMemory(address, 65_536));
    const fd = createMemoryFile('x', 8192);
    writeSync(fd, Uint8Array.of(1, 2, 3), 0, 3, 4096);
    mapFileAt(address + 8192, 4096, fd, 4096, 'testing');
    expect([...bytes.subarray(8191, 8196)]).toEqual([0, 1, 2, 3, 0]);
    bytes[8192] = 77;
    const other = mapFile(8192, fd, 'testing');
    expect(new Uint8Array(viewMemory(other, 8192))[4096]).toBe(77);
    mapZeroPagesAt(address + 8192, 4096);
    expect([...bytes.subarray(8191, 8196)]).toEqual([0, 0, 0, 0, 0]);
    bytes[8192] = 78;
    expect(new Uint8Array(viewMemory(other, 8192))[4096]).toBe(77);
    releaseAddressSpace(other, 8192);
    releaseAddressSpace(address, 65_536);
    closeFd(fd);
  });

  it('say what was refused', () => {
    const address = reserveAddressSpace(8192);
    const event = createEventFd();
    expect(() => mapFileAt(address, 4096, event, 0, 'mapping 4096 bytes of guest memory')).toThrow(
      /mapping 4096 bytes of guest memory: mmap failed with ENODEV/,
    );
    expect(() => reserveAddressSpace(2 ** 50)).toThrow(/reserving .* mmap failed with ENOMEM/);
    closeFd(event);
    releaseAddressSpace(address, 8192);
  });
});

describe('affinity', () => {
  it('pins to a processor that is allowed and refuses one that does not exist', () => {
    const allowed = allowedCpus();
    expect(allowed.length).toBeGreaterThan(0);
    expect(() => pinThread(1023)).toThrow(
      /pinning a thread to CPU 1023: sched_setaffinity failed with EINVAL/,
    );
    expect(allowedCpus()).toEqual(allowed);
  });

  it('can pin to processors that it was started to keep away from', () => {
    const cpus = pinnableCpus();
    const [first] = allowedCpus();
    const program = fileURLToPath(new URL('./pinnable-cpus.ts', import.meta.url));
    const { status, stdout } = spawnSync('taskset', ['-c', String(first), process.execPath, program], {
      encoding: 'utf8',
    });
    expect(status).toBe(0);
    expect(JSON.parse(stdout)).toEqual({ allowed: [first], pinnable: cpus, pinnedTo: [cpus.at(-1)] });
  });

  it('keeps every thread off some, also new ones, unless none would be left', () => {
    const program = fileURLToPath(new URL('./affinity-of-threads.ts', import.meta.url));
    const { status, stdout } = spawnSync(process.execPath, [program], { encoding: 'utf8' });
    expect(status).toBe(0);
    const { before, after, masks, kept } = JSON.parse(stdout);
    expect(after).toEqual(before.length > 1 ? before.slice(1) : before);
    expect(masks).toHaveLength(1);
    expect(kept).toEqual(after);
  });
});
