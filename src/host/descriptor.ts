/**
 * File descriptors: closing, flags, seals, what lies behind them, and eventfds. A descriptor is a number
 * that exactly one object owns; the owner closes it once.
 */
import { fstatSync, readFileSync, readlinkSync, type Stats } from 'node:fs';
import { checked, ERRNO, HostError } from './errors.ts';
import { lastErrno, libc } from './libc.ts';
import { reserveAddressSpace, viewMemory } from './mapping.ts';
import { printable } from './printable.ts';

const F_DUPFD_CLOEXEC = 1030;
const F_SETFD = 2;
const FD_CLOEXEC = 1;
const F_GETFL = 3;
const F_SETFL = 4;
const F_ADD_SEALS = 1033;
const F_GET_SEALS = 1034;
const F_SEAL_SEAL = 1;
const F_SEAL_SHRINK = 2;
const O_ACCMODE = 3;
const O_RDWR = 2;
const O_NONBLOCK = 0o4000;
const EFD_NONBLOCK = 0o4000;
const EFD_CLOEXEC = 0o2000000;
const O_PATH = 0o10000000;
const RWF_NOWAIT = 8;
const SOL_SOCKET = 1;
const SO_DOMAIN = 39;
const AF_UNIX = 1;

/**
 * Closes a descriptor. What its file has to say at the end (EIO and the like) is nobody's business here: the kernel
 * has let go of it whatever it answers. @throws HostError only when there is no such descriptor, which is a bug
 */
export function closeFd(fd: number): void {
  if (libc.close(fd) < 0 && lastErrno() === ERRNO.EBADF)
    throw new HostError('close', ERRNO.EBADF, `closing descriptor ${fd}`);
}

export function closeFds(fds: readonly number[]): void {
  for (const fd of fds) closeFd(fd);
}

/** A second descriptor, close-on-exec, for the same open file. */
export function duplicateFd(fd: number): number {
  return checked(
    libc.fcntl(fd, F_DUPFD_CLOEXEC, 0),
    'fcntl(F_DUPFD_CLOEXEC)',
    `duplicating descriptor ${fd}`,
  );
}

/** Keeps a descriptor that came with the start of this process from its children. Answers whether there is such a one. */
export function setCloseOnExec(fd: number): boolean {
  return libc.fcntl(fd, F_SETFD, FD_CLOEXEC) === 0;
}

/** How the file was opened: O_* of open(2). Asked of the kernel alone, never of the file. */
function openFlags(fd: number, doing: string): number {
  return checked(libc.fcntl(fd, F_GETFL, 0), 'fcntl(F_GETFL)', doing);
}

/** Sets O_NONBLOCK on the open file, which the peer that sent the descriptor shares. */
export function setNonBlocking(fd: number): void {
  const doing = `making descriptor ${fd} non-blocking`;
  const flags = openFlags(fd, doing);
  if ((flags & O_NONBLOCK) === 0)
    checked(libc.fcntl(fd, F_SETFL, flags | O_NONBLOCK), 'fcntl(F_SETFL)', doing);
}

/**
 * Keeps a memory file from being truncated, which would turn reads of mapped memory into SIGBUS.
 * Answers whether it is sealed now: only memfds made with MFD_ALLOW_SEALING can be.
 */
export function sealAgainstShrinking(fd: number): boolean {
  const seals = libc.fcntl(fd, F_GET_SEALS, 0);
  if (seals < 0) return false;
  if ((seals & F_SEAL_SHRINK) !== 0) return true;
  if ((seals & F_SEAL_SEAL) !== 0) return false;
  return libc.fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK) === 0;
}

export type FileFacts = {
  readonly sizeBytes: number;
  /** The granularity of mappings: 4,096, or the huge page's size on hugetlbfs. */
  readonly pageBytes: number;
  readonly device: number;
  readonly inode: number;
  readonly isRegularFile: boolean;
};

/** @throws HostError: files of /proc and others may answer anything */
export function fileFacts(fd: number): FileFacts {
  const stat = statOf(fd);
  // hugetlbfs gives its page size as the block size; other file systems may give larger blocks than pages.
  const isHuge = stat.blksize >= 2 ** 21;
  return {
    sizeBytes: stat.size,
    pageBytes: isHuge ? stat.blksize : 4096,
    device: stat.dev,
    inode: stat.ino,
    isRegularFile: stat.isFile(),
  };
}

function statOf(fd: number): Stats {
  try {
    return fstatSync(fd);
  } catch (error) {
    // Node has errno below zero.
    const errno = -((error as NodeJS.ErrnoException).errno ?? 0);
    throw new HostError('fstat', errno, `looking at ${describeFd(fd)}`);
  }
}

/** What /proc calls the file, for messages to the user: a path, `/memfd:name (deleted)`, `socket:[…]`; made printable. */
export function describeFd(fd: number): string {
  try {
    return printable(readlinkSync(`/proc/self/fd/${fd}`));
  } catch {
    return `descriptor ${fd}`;
  }
}

/**
 * What tells an open file from others, also in other processes, as long as it is open somewhere; null: it cannot be told.
 * Descriptors of one file that were opened alike count as the same. Looks at what is open here, and waits for nobody.
 */
export function openFileKey(fd: number): string | null {
  const what = describeFd(fd);
  const { dev, ino } = fstatSync(fd, { bigint: true });
  const mode = openFlags(fd, `looking at ${what}`) & O_ACCMODE;
  if (!what.startsWith('anon_inode:')) return `${dev}:${ino}:${mode}`;
  // All of these have one inode. Linux 5.2.
  const id = /^eventfd-id:\s*(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'));
  return id === null ? null : `eventfd:${id[1]}`;
}

/** Whether the descriptor only names a file, and nothing can be done with it (O_PATH). */
export function onlyNamesFile(fd: number): boolean {
  return (openFlags(fd, `looking at descriptor ${fd}`) & O_PATH) !== 0;
}

/** Whether it was opened for reading and writing. */
export function isReadWrite(fd: number): boolean {
  return (openFlags(fd, `looking at descriptor ${fd}`) & O_ACCMODE) === O_RDWR;
}

/**
 * Whether the file knows of seals: only those of tmpfs (memfds too) and hugetlbfs do, and the kernel looks at no more
 * than which they are.
 */
export function knowsSeals(fd: number): boolean {
  return libc.fcntl(fd, F_GET_SEALS, 0) >= 0;
}

/** Whether it is a UNIX socket. */
export function unixSocketFd(fd: number): boolean {
  return socketOption(fd, SO_DOMAIN) === AF_UNIX;
}

/**
 * An option of SOL_SOCKET that is a number; null: it is no socket, or does not know it. Asked of the socket layer alone,
 * which does not wait for anybody.
 */
export function socketOption(fd: number, name: number): number | null {
  const value = new Int32Array(1);
  const length = new Uint8Array(new Uint32Array([4]).buffer);
  return libc.getsockopt(fd, SOL_SOCKET, name, new Uint8Array(value.buffer), length) === 0 ? value[0] : null;
}

/** Answers whether this kernel and this kind of socket know the option of SOL_SOCKET. */
export function setSocketOption(fd: number, name: number, value: number): boolean {
  const bytes = new Uint8Array(new Int32Array([value]).buffer);
  return libc.setsockopt(fd, SOL_SOCKET, name, bytes, bytes.length) === 0;
}

/** What of `events`, and of what is told unasked (POLLERR, POLLHUP), there is at once or within the time; 0: nothing. */
export function pollFd(fd: number, events: number, timeoutMs: number): number {
  // struct pollfd: the descriptor, 16 bits of what is asked for, 16 bits of what there is.
  const bytes = new Uint8Array(8);
  const view = new DataView(bytes.buffer);
  view.setInt32(0, fd, true);
  view.setUint16(4, events, true);
  return libc.poll(bytes, 1, timeoutMs) > 0 ? view.getUint16(6, true) : 0;
}

export function createEventFd(): number {
  return checked(libc.eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), 'eventfd', 'creating an eventfd');
}

const ONE = new Uint8Array(new BigUint64Array([1n]).buffer);

/**
 * Signals an eventfd that no peer has: where one has, the write may wait for it, and peer-signal.ts is the way.
 * Allocates nothing. Answers whether it was signalled.
 */
export function signalFd(fd: number): boolean {
  return libc.write(fd, ONE, 8) === 8;
}

/** One thread's memory for `drainFd`: an iovec, which points at the bytes behind it. */
class DrainMemory {
  static readonly BYTES = 512;
  readonly vector = reserveAddressSpace(16 + DrainMemory.BYTES);

  constructor() {
    const iovec = new BigUint64Array(viewMemory(this.vector, 16));
    iovec[0] = BigInt(this.vector + 16);
    iovec[1] = BigInt(DrainMemory.BYTES);
  }
}

let drainMemory: DrainMemory | null = null;

/**
 * Takes what waits in an eventfd, our own or one that a peer shares: RWF_NOWAIT keeps this one read from waiting,
 * whatever the peer made of the open file. Answers whether anything waited. Before Linux 5.8 eventfds do not know it, and
 * only O_NONBLOCK helps. Not for pipes and sockets: whoever reads them too may hold their locks.
 */
export function drainFd(fd: number): boolean {
  drainMemory ??= new DrainMemory();
  const { vector } = drainMemory;
  const count = libc.preadv2(fd, vector, 1, -1, RWF_NOWAIT);
  if (count >= 0 || lastErrno() !== ERRNO.EOPNOTSUPP) return count > 0;
  return libc.readAt(fd, vector + 16, DrainMemory.BYTES) > 0;
}
