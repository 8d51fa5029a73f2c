/** Descriptors that came with a message. A handler takes those it keeps; the session closes the rest. */
import type { PeerFds } from '../host/peer-fds.ts';
import { PeerError } from './peer-error.ts';

export class IncomingFds {
  /** Aborted when the connection on which they came has ended, so that nothing needs to be waited for any more. */
  readonly gone: AbortSignal;
  #fds: number[];
  readonly #peerFds: PeerFds;

  constructor(fds: readonly number[], peerFds: PeerFds, gone: AbortSignal) {
    this.#fds = [...fds];
    this.#peerFds = peerFds;
    this.gone = gone;
  }

  /**
   * The next descriptor, now the caller's, who may use it without waiting for anybody; null when there is none left.
   * `unfit` answers why the caller cannot use it, or null. @throws PeerError for one that is unfit or may make us wait
   */
  take(unfit: (fd: number) => string | null = () => null): number | null {
    const [fd] = this.#fds;
    if (fd === undefined) return null;
    const obstacle = this.#peerFds.obstacle(fd) ?? unfit(fd);
    if (obstacle !== null) throw new PeerError(obstacle);
    this.#fds.shift();
    return fd;
  }

  closeRest(): void {
    this.#peerFds.closeRest(this.#fds);
    this.#fds = [];
  }
}
