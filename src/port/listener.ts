/**
 * A UNIX socket that one peer at a time is taken from: listening with mode and owner, accepting, having who comes
 * too early wait, refusing who comes second, pausing when the process is out of descriptors. Main thread.
 */
import assert from 'node:assert';
import { closeFd } from '../host/descriptor.ts';
import { HostError } from '../host/errors.ts';
import { descriptorLoop, type Watch } from '../host/event-loop.ts';
import { PeerFds } from '../host/peer-fds.ts';
import { SocketFile } from '../host/socket-file.ts';
import { acceptUnix, type ListenOptions, listenUnix } from '../host/unix-socket.ts';

/** A second peer may be there because the first has just gone and nobody has seen that yet. */
const LOOK_AGAIN_MS = 50;
/** Some peers try again at once when they are refused. */
const REFUSAL_PAUSE_MS = 1000;

export class Listener {
  readonly #path: string;
  readonly #options: ListenOptions;
  readonly #warn: (message: string) => void;
  #fd = -1;
  #file: SocketFile | null = null;
  #watch: Watch | null = null;
  #pause: NodeJS.Timeout | null = null;
  /** Who waits for the next connection; null: one is in use, or `hold` was called. */
  #waiter: ((fd: number) => void) | null = null;
  /** Whether a second connection was left waiting once. */
  #secondWaited = false;

  constructor(path: string, options: ListenOptions, warn: (message: string) => void) {
    this.#path = path;
    this.#options = options;
    this.#warn = warn;
  }

  /** Listens; connections wait until `next`. @throws SocketPathError, HostError */
  open(): void {
    assert(this.#fd < 0, 'a listener is opened once');
    this.#fd = listenUnix(this.#path, this.#options);
    this.#file = new SocketFile(this.#path);
  }

  /**
   * The next connection, which the caller then owns; null when the signal came first. Who connects after it is
   * refused, until `hold`.
   */
  next(signal: AbortSignal): Promise<number | null> {
    assert(this.#fd >= 0 && this.#waiter === null, 'one waits at a time, while the socket is open');
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
    this.#unwatch();
  }

  /** Stops listening and removes the socket file, if it is still ours. Also when it was never opened. */
  close(): void {
    this.hold();
    this.#file?.remove();
    this.#file = null;
    if (this.#fd >= 0) closeFd(this.#fd);
    this.#fd = -1;
  }

  #look(): void {
    this.#unwatch();
    this.#watch = descriptorLoop().watch(this.#fd, () => this.#onConnection());
  }

  #lookAfter(pauseMs: number): void {
    this.#unwatch();
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
    if (this.#waiter === null && !this.#secondWaited) {
      this.#secondWaited = true;
      this.#lookAfter(LOOK_AGAIN_MS);
      return;
    }
    const fd = this.#accept();
    if (fd === null) return;
    const waiter = this.#waiter;
    this.#waiter = null;
    this.#secondWaited = false;
    if (waiter !== null) {
      waiter(fd);
      return;
    }
    // Accepted and closed, so that the second one is told instead of waiting for ever.
    new PeerFds().closeConnection(fd);
    this.#warn('refused a second connection: one is in use already');
    this.#lookAfter(REFUSAL_PAUSE_MS);
  }

  /** Out of descriptors: the connection stays queued. */
  #accept(): number | null {
    try {
      return acceptUnix(this.#fd);
    } catch (error) {
      if (!(error instanceof HostError)) throw error;
      this.#warn(error.message);
      this.#lookAfter(REFUSAL_PAUSE_MS);
      return null;
    }
  }
}
