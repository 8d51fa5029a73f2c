/**
 * An output of the process (stderr, stdout) that is written without ever waiting for its reader, whatever it is: a pipe
 * that nobody empties, a stopped terminal, a socket of the journal. O_NONBLOCK would do it, but that is a flag of the
 * open file, which the shell and other processes share; so pipes and terminals are opened anew, and sockets are asked
 * for each write. A regular file takes what there is room for. Main thread.
 */
import { closeSync, constants, fstatSync, openSync, type Stats } from 'node:fs';
import { pollFd } from './descriptor.ts';
import { ERRNO } from './errors.ts';
import { lastErrno, libc } from './libc.ts';

const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const POLLOUT = 4;
/** What a pipe that is ready takes without waiting (PIPE_BUF). */
const READY_BYTES = 4096;

type Write = (bytes: Uint8Array) => number;

export class UnblockedOutput {
  readonly #fd: number;
  readonly #write: Write;
  readonly #ownFd: number | null;

  constructor(fd: number) {
    const stat = statOf(fd);
    const waits = stat !== null && (stat.isFIFO() || stat.isCharacterDevice());
    this.#ownFd = waits ? openAnew(fd) : null;
    this.#fd = this.#ownFd ?? fd;
    if (stat?.isSocket()) this.#write = (bytes) => this.#send(bytes);
    // Of another user, perhaps, and so not to be opened: then as much as is sure to be taken at once.
    else if (waits && this.#ownFd === null) this.#write = (bytes) => this.#writeIfReady(bytes);
    else this.#write = (bytes) => libc.write(this.#fd, bytes, bytes.length);
  }

  /** How many of the bytes were taken; none and less: the error number, negative, EAGAIN when it would have waited. */
  write(bytes: Uint8Array): number {
    const taken = this.#write(bytes);
    if (taken > 0) return taken;
    const errno = taken === 0 ? ERRNO.EAGAIN : lastErrno();
    return errno === ERRNO.EINTR ? -ERRNO.EAGAIN : -errno;
  }

  /** Waits until something can be written, or the time is over. */
  awaitReady(timeoutMs: number): boolean {
    return isReady(this.#fd, timeoutMs);
  }

  close(): void {
    if (this.#ownFd !== null) closeSync(this.#ownFd);
  }

  #send(bytes: Uint8Array): number {
    return libc.sendBytes(this.#fd, bytes, bytes.length, MSG_DONTWAIT | MSG_NOSIGNAL);
  }

  #writeIfReady(bytes: Uint8Array): number {
    if (!isReady(this.#fd, 0)) return 0;
    return libc.write(this.#fd, bytes, Math.min(bytes.length, READY_BYTES));
  }
}

function isReady(fd: number, timeoutMs: number): boolean {
  return pollFd(fd, POLLOUT, timeoutMs) !== 0;
}

function statOf(fd: number): Stats | null {
  try {
    return fstatSync(fd);
  } catch {
    return null;
  }
}

function openAnew(fd: number): number | null {
  try {
    return openSync(`/proc/self/fd/${fd}`, constants.O_WRONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
  } catch {
    return null;
  }
}
