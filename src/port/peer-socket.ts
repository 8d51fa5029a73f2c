/**
 * Where the one peer of a port on a UNIX stream socket comes from: in role server it connects to us
 * (listener.ts), in role client it listens and we connect. The steps of the supervisor that both kinds of such
 * ports share. Main thread.
 */
import assert from 'node:assert';
import type { HandedSocket } from '../host/bound-socket.ts';
import { HostError } from '../host/errors.ts';
import { PeerFds } from '../host/peer-fds.ts';
import { checkSocketPath, connectUnix, type ListenOptions } from '../host/unix-socket.ts';
import { Listener, type ListenerEvents } from './listener.ts';
import type { RetryPauses, Trouble } from './supervisor.ts';

/** `server`: Ringway listens; `client`: the peer listens and Ringway connects. */
export type SocketRole = 'server' | 'client';

/** Errors of connect that only mean: try again later. */
const NOT_SERVED = new Set(['ENOENT', 'ECONNREFUSED', 'EAGAIN']);

export class PeerSocket {
  static readonly PAUSES: RetryPauses = { minMs: 50, maxMs: 1000 };
  readonly #path: string;
  readonly #role: SocketRole;
  readonly #listener: Listener;
  readonly #refusesDescriptors: boolean;
  /** Accepted and not taken yet, otherwise -1. */
  #acceptedFd = -1;

  /** `peerFds`: as of Listener. */
  constructor(
    path: string,
    role: SocketRole,
    options: ListenOptions,
    events: ListenerEvents,
    peerFds = new PeerFds(),
  ) {
    this.#path = path;
    this.#role = role;
    this.#listener = new Listener(path, options, events, peerFds);
    this.#refusesDescriptors = options.refusesDescriptors === true;
  }

  /** Why no peer can connect to us, for the user; null: nothing is in the way. */
  get trouble(): string | null {
    const { trouble } = this.#listener;
    return trouble === null ? null : `nobody can connect: ${trouble}`;
  }

  /** When to try again after a peer that was in earnest: who connects to us is not made to wait. */
  get retryAfterUse(): 'now' | 'soon' {
    return this.#role === 'server' ? 'now' : 'soon';
  }

  /** Lets nobody in, and connects to nobody. Once it is open. */
  freeze(): void {
    this.#listener.freeze();
  }

  /** Goes on; `inUseFd` as of Listener. */
  thaw(inUseFd = -1): void {
    this.#listener.thaw(inUseFd);
  }

  /** Of a frozen one: the socket that listens, null where none does; and a connection that nobody took yet, or -1. */
  handOver(): { readonly listening: HandedSocket | null; readonly acceptedFd: number } {
    const listening = this.#role === 'server' ? this.#listener.handOver() : null;
    return {
      listening: listening === null || listening.fd < 0 ? null : listening,
      acceptedFd: this.#acceptedFd,
    };
  }

  /**
   * What another process had, in place of `open`: the socket that listens, and the connection in use, which is the first
   * one that is taken. Frozen until `thaw`. @throws SocketPathError
   */
  takeOver(listening: HandedSocket | null, connectionFd: number): void {
    this.#acceptedFd = connectionFd;
    if (listening === null) this.open();
    else this.#listener.takeOver(listening);
    this.freeze();
  }

  /** @throws SocketPathError */
  open(): void {
    if (this.#role === 'server') this.#listener.open();
    else checkSocketPath(this.#path);
  }

  attend(signal: AbortSignal): Promise<boolean> | null {
    // Taken over.
    if (this.#acceptedFd >= 0) return Promise.resolve(true);
    return this.#role === 'server' ? this.#accept(signal) : null;
  }

  /** The connection; the caller owns it. @throws HostError when nobody listens, in role client */
  take(): number {
    if (this.#role === 'client' && this.#acceptedFd < 0)
      return connectUnix(this.#path, this.#refusesDescriptors);
    const fd = this.#acceptedFd;
    assert(fd >= 0, 'a connection was accepted before it is taken');
    this.#acceptedFd = -1;
    return fd;
  }

  /** The peer is being let go of: who connects from now on waits for it or, if it was the last one, is refused. */
  letGo(isLast: boolean): void {
    if (isLast) this.#listener.close();
    else this.#listener.hold();
  }

  close(): void {
    this.#listener.close();
  }

  explain(error: unknown): Trouble | null {
    return error instanceof HostError && NOT_SERVED.has(error.code) ? { reason: null } : null;
  }

  async #accept(signal: AbortSignal): Promise<boolean> {
    const fd = await this.#listener.next(signal);
    if (fd !== null) this.#acceptedFd = fd;
    return fd !== null;
  }
}
