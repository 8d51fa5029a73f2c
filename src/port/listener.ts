/**
 * A UNIX socket that one peer at a time is taken from: listening with mode and owner, accepting, having who comes
 * too early wait, refusing who comes second, pausing when the process is out of descriptors, listening again when the
 * socket's file was removed. Main thread.
 */
import assert from 'node:assert';
import { BoundSocket, type HandedSocket } from '../host/bound-socket.ts';
import { HostError } from '../host/errors.ts';
import { descriptorLoop, type Watch } from '../host/event-loop.ts';
import { PeerFds } from '../host/peer-fds.ts';
import { acceptUnix, isHungUp, type ListenOptions, listenUnix } from '../host/unix-socket.ts';

/**
 * A second peer may be there because the first is just going: the sockets of a process that ends are closed one after
 * the other. One that has gone is waited for, however long the work on what it sent last takes.
 */
const LOOK_AGAIN_MS = 50;
/** Some peers try again at once when they are refused. */
const REFUSAL_PAUSE_MS = 1000;

/** Where a listener tells what happened. */
export type ListenerEvents = {
  info(message: string): void;
  warn(message: string): void;
  /** Another socket takes the place of the one that listened. */
  renewed?(): void;
};

export class Listener {
  readonly #warn: (message: string) => void;
  readonly #socket: BoundSocket;
  readonly #peerFds: PeerFds;
  #watch: Watch | null = null;
  #pause: NodeJS.Timeout | null = null;
  /** Who waits for the next connection; null: one is in use, or `hold` was called. */
  #waiter: ((fd: number) => void) | null = null;
  /** Whether a second connection was left waiting once. */
  #secondWaited = false;
  #isFrozen = false;
  /** The connection that was handed over last, until `hold`; otherwise -1. Its owner closes it right before `hold`. */
  #inUseFd = -1;

  /** `peerFds`: what becomes of descriptors that those send who are refused. */
  constructor(path: string, options: ListenOptions, events: ListenerEvents, peerFds = new PeerFds()) {
    this.#peerFds = peerFds;
    this.#warn = (message) => events.warn(message);
    this.#socket = new BoundSocket(path, () => listenUnix(path, options), {
      renewed: (_, oldFd) => {
        this.#renewed(oldFd);
        events.renewed?.();
      },
      info: (message) => events.info(message),
      warn: (message) => events.warn(message),
    });
  }

  /** Why nobody can connect, although it listens; null: it can be reached. */
  get trouble(): string | null {
    return this.#socket.trouble;
  }

  /** Takes over a socket that another process listens at, frozen. */
  takeOver(socket: HandedSocket): void {
    this.#isFrozen = true;
    this.#socket.takeOver(socket);
  }

  /** What another process needs to go on listening; of a frozen one. */
  handOver(): HandedSocket {
    return this.#socket.handOver();
  }

  /** Lets nobody in, and leaves the file alone: who connects waits. */
  freeze(): void {
    this.#isFrozen = true;
    this.#unwatch();
    this.#socket.lookAfter(false);
  }

  /** Goes on; `inUseFd`: the connection in use that was taken over, -1: as before. */
  thaw(inUseFd = -1): void {
    this.#isFrozen = false;
    if (inUseFd >= 0) this.#inUseFd = inUseFd;
    if (this.#socket.fd < 0) return;
    this.#socket.lookAfter(true);
    if (this.#waiter !== null || this.#inUseFd >= 0) this.#look();
  }

  /** Listens; connections wait until `next`. @throws SocketPathError, HostError */
  open(): void {
    this.#socket.open();
  }

  /**
   * The next connection, which the caller then owns; null when the signal came first. Who connects after it is
   * refused, until `hold`.
   */
  next(signal: AbortSignal): Promise<number | null> {
    assert(this.#socket.fd >= 0 && this.#waiter === null, 'one waits at a time, while the socket is open');
    if (signal.aborted) return Promise.resolve(null);
    return new Promise((resolve) => {
      const abort = (): void => {
        this.hold();
        resolve(null);
      };
      signal.addEventListener('abort', abort, { once: true });
      this.#waiter = (fd) => {
        signal.removeEventListener('abort', abort);
        resolve(fd);
      };
      this.#secondWaited = false;
      this.#look();
    });
  }

  /** Who connects from now on waits for `next`. */
  hold(): void {
    this.#waiter = null;
    this.#inUseFd = -1;
    this.#unwatch();
  }

  /** Stops listening and removes the socket file, if it is still ours. Also when it was never opened. */
  close(): void {
    this.hold();
    const fd = this.#socket.release();
    if (fd >= 0) this.#peerFds.closeListener(fd);
  }

  /** Who waits at the socket before is lost to us: it came while that could be reached, and connects again. */
  #renewed(oldFd: number): void {
    const isLooking = this.#watch !== null || this.#pause !== null;
    this.#unwatch();
    this.#peerFds.closeListener(oldFd);
    if (isLooking) this.#look();
  }

  #look(): void {
    this.#unwatch();
    if (this.#isFrozen) return;
    this.#watch = descriptorLoop().watch(this.#socket.fd, () => this.#onConnection());
  }

  #lookAfter(pauseMs: number): void {
    this.#unwatch();
    if (this.#isFrozen) return;
    this.#pause = setTimeout(() => this.#look(), pauseMs);
  }

  #unwatch(): void {
    if (this.#pause !== null) clearTimeout(this.#pause);
    this.#pause = null;
    this.#watch?.close();
    this.#watch = null;
  }

  #onConnection(): void {
    // An earlier callback of the same turn may have closed the watch.
    if (this.#watch === null) return;
    if (this.#waiter === null && (!this.#secondWaited || isHungUp(this.#inUseFd))) {
      this.#secondWaited = true;
      this.#lookAfter(LOOK_AGAIN_MS);
      return;
    }
    if (this.#waiter === null && this.#peerFds.isTooMany) {
      // Whoever is refused may leave some more; the port will not be served any more when the one in use has gone.
      this.#unwatch();
      return;
    }
    if (this.#peerFds.isFull) {
      this.#lookAfter(this.#peerFds.hangText === null ? LOOK_AGAIN_MS : REFUSAL_PAUSE_MS);
      return;
    }
    const fd = this.#accept();
    if (fd === null) return;
    const waiter = this.#waiter;
    this.#waiter = null;
    this.#secondWaited = false;
    if (waiter !== null) {
      this.#inUseFd = fd;
      waiter(fd);
      return;
    }
    // Gone again: it only asked whether somebody listens.
    const hasGone = isHungUp(fd);
    // Accepted and closed, so that the second one is told instead of waiting for ever.
    this.#peerFds.closeConnection(fd);
    if (!hasGone) this.#warn('refused a second connection: one is in use already');
    this.#lookAfter(REFUSAL_PAUSE_MS);
  }

  /** Out of descriptors: the connection stays queued. */
  #accept(): number | null {
    try {
      return acceptUnix(this.#socket.fd);
    } catch (error) {
      if (!(error instanceof HostError)) throw error;
      this.#warn(error.message);
      this.#lookAfter(REFUSAL_PAUSE_MS);
      return null;
    }
  }
}
