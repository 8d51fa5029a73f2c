/**
 * A set of descriptors to wait for: level triggered those that we read, edge triggered those that are somebody else's
 * and that we never read. A worker blocks on one when it has nothing to do
 * (`wait`); the main thread looks at one whenever Node's loop says that it is readable (event-loop.ts).
 */
import { closeFd } from './descriptor.ts';
import { checked, ERRNO, HostError } from './errors.ts';
import { lastErrno, libc } from './libc.ts';

const EPOLL_CLOEXEC = 0o2000000;
const EPOLL_CTL_ADD = 1;
const EPOLL_CTL_DEL = 2;
const EPOLLIN = 1;
const EPOLLRDHUP = 0x2000;
const EPOLLET = 0x80000000;
/** struct epoll_event is packed on x86-64 (12 bytes) and padded elsewhere (16 bytes). */
const EVENT_BYTES = process.arch === 'x64' ? 12 : 16;
const DATA_OFFSET = EVENT_BYTES - 8;
const EVENTS_MAX = 64;

export class EpollSet {
  readonly fd = checked(libc.epoll_create1(EPOLL_CLOEXEC), 'epoll_create1', 'creating an epoll set');
  readonly #events = new Uint8Array(EVENT_BYTES * EVENTS_MAX);
  readonly #eventsView = new DataView(this.#events.buffer);
  readonly #change = new Uint8Array(EVENT_BYTES);

  /** Watches `fd` for data and for the other side's end. @throws HostError (EPERM: a file of no such kind) */
  add(fd: number): void {
    this.#add(fd, EPOLLIN | EPOLLRDHUP);
  }

  /**
   * Watches an eventfd for signals alone: each tells once, at the next `wait`, whatever the counter holds and though
   * nobody reads it; so does what it holds now. A read might wait for the peer that shares it.
   */
  addSignals(fd: number): void {
    this.#add(fd, EPOLLIN | EPOLLET);
  }

  #add(fd: number, events: number): void {
    const view = new DataView(this.#change.buffer);
    view.setUint32(0, events >>> 0, true);
    view.setInt32(DATA_OFFSET, fd, true);
    checked(
      libc.epoll_ctl(this.fd, EPOLL_CTL_ADD, fd, this.#change),
      'epoll_ctl',
      `watching descriptor ${fd}`,
    );
  }

  /** Must come before `fd` is closed: a duplicate elsewhere would keep it in the set. */
  remove(fd: number): void {
    checked(
      libc.epoll_ctl(this.fd, EPOLL_CTL_DEL, fd, this.#change),
      'epoll_ctl',
      `unwatching descriptor ${fd}`,
    );
  }

  /** Blocks up to `timeoutMs` (-1: without end); answers how many are ready, see `readyFd`. */
  wait(timeoutMs: number): number {
    const count = libc.epoll_wait(this.fd, this.#events, EVENTS_MAX, timeoutMs);
    if (count >= 0) return count;
    const errno = lastErrno();
    if (errno === ERRNO.EINTR) return 0;
    throw new HostError('epoll_wait', errno, 'waiting for descriptors');
  }

  /** The descriptor of the `i`-th ready event of the last `wait`. */
  readyFd(i: number): number {
    return this.#eventsView.getInt32(i * EVENT_BYTES + DATA_OFFSET, true);
  }

  close(): void {
    closeFd(this.fd);
  }
}
