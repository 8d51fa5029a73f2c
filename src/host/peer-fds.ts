/**
 * Descriptors that a peer sent: receiving and closing them without waiting for anybody. What may never answer
 * (peer-files.ts) is never used and never closed: it is kept until the process ends, counted, and a port that brought
 * many is not served any more. There is no way out of that: only `close` takes a descriptor out of a process, and a
 * thread that waits in it holds everything that the process has, even after SIGKILL. The rest is closed by other threads
 * (closing.ts), and no faster than these close it is more read. Main thread.
 */
import { BudgetError } from './budgets.ts';
import { closeFd, describeFd, unixSocketFd } from './descriptor.ts';
import { HostError } from './errors.ts';
import { libc } from './libc.ts';
import { isEmptyForEver, PeerFiles, unreadFds } from './peer-files.ts';
import { PortFds } from './port-fds.ts';
import { acceptUnix, peek, type Received, receive, SCM_FDS_MAX } from './unix-socket.ts';

const SHUT_RD = 0;
const SHUT_RDWR = 2;
/** Reads; more than a socket's buffer holds messages. */
const UNREAD_MAX = 4096;
const UNREAD_BYTES = 8192;
/** Reads and descriptors; some milliseconds. */
const UNREAD_PER_TURN = 512;
/** Before another try at what could not be read. */
const UNREAD_PAUSE_MS = { min: 5, max: 1000 };

/** What is done with the descriptors of one connection. */
export class PeerFds {
  /** The process at the other end, or null. Its mount namespace may know a file's file system when ours does not. */
  readonly peerPid: number | null;
  readonly #port: PortFds;
  readonly #keptBefore: number;
  /** Of descriptors that are held now. */
  readonly #files = new PeerFiles();
  /** Came with a message that is not handled yet. */
  #heldCount = 0;

  constructor(peerPid: number | null = null, port = new PortFds()) {
    this.peerPid = peerPid;
    this.#port = port;
    this.#keptBefore = port.keptCount;
  }

  /** For another connection with the same peer, of the same port. */
  another(): PeerFds {
    return new PeerFds(this.peerPid, this.#port);
  }

  /** How many of this connection were kept. */
  get keptCount(): number {
    return this.#port.keptCount - this.#keptBefore;
  }

  /** Whether no further front-end of the port should be let in, ever. */
  get isTooMany(): boolean {
    return this.#port.isTooMany;
  }

  /** Whether a further front-end of the port has to wait before it is let in, or told why not. */
  get isFull(): boolean {
    return this.#port.isFull;
  }

  /** Whether nothing more should be read until some of what was sent is closed. */
  get isCongested(): boolean {
    return this.#port.isCongested;
  }

  /** As of PortFds. */
  get hangText(): string | null {
    return this.#port.hangText;
  }

  /**
   * Reads from a peer, as `receive` of unix-socket.ts. Not what brings more descriptors than may be opened: the kernel
   * would close in our name those that are too many. They count as held until `closeRest`.
   * @throws HostError; BudgetError in that case
   */
  receive(fd: number, bytesMax: number): Received {
    const received = this.#receive(fd, bytesMax);
    this.#heldCount += received.fds.length;
    this.#port.hold(received.fds.length);
    return received;
  }

  /**
   * Why it cannot be taken; null: it can be used without waiting for anybody. What is looked up for it is remembered
   * until `closeRest`.
   */
  obstacle(fd: number): string | null {
    const { kind, fileSystem } = this.#files.at(fd, this.peerPid);
    if (kind !== 'unasked') return null;
    const what = describeFd(fd);
    if (what.startsWith('socket:') && unixSocketFd(fd))
      return `the descriptor is ${what}, which listens or holds descriptors itself, and may never be closed`;
    return `the descriptor is ${what}${fileSystem === null ? '' : ` on ${fileSystem}`}, which may never answer; taken are eventfds, pipes, UNIX sockets, and memory in memfds, on tmpfs, hugetlbfs or a local disk`;
  }

  /** Never throws and never waits. */
  close(fds: readonly number[]): void {
    for (const fd of fds) this.#close(fd);
    if (this.#heldCount === 0) this.#files.forgetAll();
  }

  /** Of a message that was handled, what nobody took. Never throws and never waits. */
  closeRest(fds: readonly number[]): void {
    for (const fd of fds) this.#close(fd);
    this.#files.forgetAll();
    this.#port.hold(-this.#heldCount);
    this.#heldCount = 0;
  }

  /**
   * Ends and closes a connection. What waits in it unread goes first, because the kernel would close the descriptors
   * among it in our name: as much as one turn of the event loop has time for, the rest in later ones, when they can be
   * opened and those before them are closed. Never throws and never waits; when too many of them must be kept, so is
   * the connection.
   */
  closeConnection(fd: number): void {
    libc.shutdown(fd, SHUT_RDWR);
    this.#closeUnread(fd, UNREAD_MAX, null);
  }

  /** Closes a listening socket, and before it the connections that nobody accepted. Never throws and never waits. */
  closeListener(fd: number): void {
    // Nobody can connect from now on.
    libc.shutdown(fd, SHUT_RD);
    this.#closeUnaccepted(fd, null);
  }

  /** `pauseMs`: it was postponed for so long; null: not yet. */
  #closeUnaccepted(fd: number, pauseMs: number | null): void {
    try {
      for (let next = acceptUnix(fd); next !== null; next = acceptUnix(fd)) this.closeConnection(next);
    } catch (error) {
      if (!(error instanceof HostError)) throw error;
      // The process may open no more files, and somebody still waits.
      this.#postpone(pauseMs, false, (nextMs) => this.#closeUnaccepted(fd, nextMs));
      return;
    }
    this.#endPostponed(pauseMs);
    closeFd(fd);
  }

  #close(fd: number): void {
    const { kind } = this.#files.at(fd, this.peerPid);
    // Its number may be another file's from now on.
    this.#files.forget(fd);
    if (kind === 'unasked' || (unixSocketFd(fd) && !isEmptyForEver(fd))) this.#port.keep();
    else this.#port.close(fd, kind === 'storage');
  }

  #receive(fd: number, bytesMax: number): Received {
    const { room } = this.#port;
    if (room >= SCM_FDS_MAX) return receive(fd, bytesMax);
    const { sizeBytes, hasFds, closed } = peek(fd, bytesMax);
    // Something may have come since, with whatever it brings.
    if (sizeBytes === 0) return { bytes: new Uint8Array(0), fds: [], closed, truncated: false };
    const fdCount = hasFds ? (unreadFds(fd) ?? SCM_FDS_MAX) : 0;
    if (fdCount > Math.max(0, room))
      throw new BudgetError(
        `what came brings ${fdCount === 1 ? '1 descriptor' : `${fdCount} descriptors`}, and only ${Math.max(0, room)} may be opened now: ${this.#port.shortage}`,
      );
    // No more than that: nobody else reads here, so it is still what comes first.
    return receive(fd, sizeBytes);
  }

  /** `pauseMs`: as of `#closeUnaccepted`. */
  #closeUnread(fd: number, readsLeft: number, pauseMs: number | null): void {
    let work = 0;
    for (let left = readsLeft; left > 0; left--) {
      const mustWait = this.#port.isCongested && (unreadFds(fd) ?? SCM_FDS_MAX) > 0;
      const unread = mustWait ? 'not now' : this.#tryReceive(fd);
      if (unread === 'not now') {
        this.#files.forgetAll();
        this.#postpone(pauseMs, work > 0, (nextMs) => this.#closeUnread(fd, left, nextMs));
        return;
      }
      if (unread === 'nothing') {
        this.#files.forgetAll();
        this.#endPostponed(pauseMs);
        closeFd(fd);
        return;
      }
      for (const one of unread) this.#close(one);
      if (this.#port.isTooMany) break;
      work += 1 + unread.length;
      if (work < UNREAD_PER_TURN) continue;
      setImmediate(() => this.#closeUnread(fd, left - 1, pauseMs));
      return;
    }
    this.#files.forgetAll();
    this.#endPostponed(pauseMs);
    this.#port.keep();
  }

  #postpone(pauseMs: number | null, cameFurther: boolean, tryAgain: (pauseMs: number) => void): void {
    if (pauseMs === null) this.#port.holdUnread(1);
    const { min, max } = UNREAD_PAUSE_MS;
    const nextMs = pauseMs === null || cameFurther ? min : Math.min(2 * pauseMs, max);
    setTimeout(() => tryAgain(nextMs), nextMs).unref();
  }

  #endPostponed(pauseMs: number | null): void {
    if (pauseMs !== null) this.#port.holdUnread(-1);
  }

  /** The descriptors that came with what is read now; `not now`: they cannot be opened. */
  #tryReceive(fd: number): readonly number[] | 'nothing' | 'not now' {
    try {
      const { bytes, fds } = this.#receive(fd, UNREAD_BYTES);
      return bytes.length === 0 && fds.length === 0 ? 'nothing' : fds;
    } catch (error) {
      if (error instanceof BudgetError) return 'not now';
      if (!(error instanceof HostError)) throw error;
      return 'nothing';
    }
  }
}
