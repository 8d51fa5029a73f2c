/**
 * File descriptors: closing, flags, seals, what lies behind them, and eventfds. A descriptor is a number
 * that exactly one object owns; the owner closes it once.
 */
import { fstatSync, readlinkSync } from 'node:fs';
import { checked, ERRNO } from './errors.ts';
import { lastErrno, libc } from './libc.ts';
import { printable } from './printable.ts';

const F_DUPFD_CLOEXEC = 1030;
const F_GETFL = 3;
const F_SETFL = 4;
const F_ADD_SEALS = 1033;
const F_GET_SEALS = 1034;
const F_SEAL_SEAL = 1;
const F_SEAL_SHRINK = 2;
const O_NONBLOCK = 0o4000;
const EFD_NONBLOCK = 0o4000;
const EFD_CLOEXEC = 0o2000000;

export function closeFd(fd: number): void {
  checked(libc.close(fd), 'close', `closing descriptor ${fd}`);
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

/** Sets O_NONBLOCK on the open file, which the peer that sent the descriptor shares. */
export function setNonBlocking(fd: number): void {
  const doing = `making descriptor ${fd} non-blocking`;
  const flags = checked(libc.fcntl(fd, F_GETFL, 0), 'fcntl(F_GETFL)', doing);
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

/** @throws Error with Node's own fields when the descriptor is not open. */
export function fileFacts(fd: number): FileFacts {
  const stat = fstatSync(fd);
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

/** What /proc calls the file, for messages to the user: a path, `/memfd:name (deleted)`, `socket:[…]`; made printable. */
export function describeFd(fd: number): string {
  try {
    return printable(readlinkSync(`/proc/self/fd/${fd}`));
  } catch {
    return `descriptor ${fd}`;
  }
}

export function createEventFd(): number {
  return checked(libc.eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), 'eventfd', 'creating an eventfd');
}

const ONE = new Uint8Array(new BigUint64Array([1n]).buffer);
const drained = new Uint8Array(512);

/**
 * Signals an eventfd (or pipe). Allocates nothing. Answers false when the other side is gone or the pipe is
 * full: a full pipe has a wake-up waiting already, and a dead peer's connection says so by itself.
 */
export function signalFd(fd: number): boolean {
  return libc.write(fd, ONE, 8) === 8;
}

/**
 * Takes what waits in a non-blocking eventfd or pipe; bounded, so a peer that keeps writing cannot hold us.
 * Answers false for a pipe whose writer is gone, and for one that cannot be read: it is ready for ever and must not be
 * waited for.
 */
export function drainFd(fd: number): boolean {
  for (let turn = 0; turn < 16; turn++) {
    const count = libc.read(fd, drained, drained.length);
    if (count === 0) return false;
    if (count < 0) return wouldBlock();
    if (count < drained.length) return true;
  }
  return true;
}

/** Whether a failed read or write would only have had to wait. */
export function wouldBlock(): boolean {
  return lastErrno() === ERRNO.EAGAIN;
}
