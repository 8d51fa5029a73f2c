/**
 * A UNIX socket that this process bound, with the file that leads to it. Such files vanish under running programs: /run
 * is tidied up, a folder is made anew, a volume is mounted over it. The socket lives on and nobody can reach it. So the
 * file is looked at again and again, and made anew with another socket where nothing stands in its place. Main thread.
 */
import assert from 'node:assert';
import { HostError } from './errors.ts';
import { SocketFile, type SocketFileIdentity } from './socket-file.ts';
import { SocketPathError } from './unix-socket.ts';

const LOOK_PERIOD_MS = 1000;
/**
 * Looks that must find nothing, one after the other, before the file is made anew: whoever removes it to put a socket of
 * its own there, as a successor does, is not forestalled.
 */
const LOOKS_FOR_NOTHING = 2;

export type BoundSocketEvents = {
  /** Another socket stands at the path from now on, of descriptor `fd`. `oldFd` is the receiver's to close. */
  renewed(fd: number, oldFd: number): void;
  info(message: string): void;
  warn(message: string): void;
};

/** A socket that is bound, on its way from one process to another. */
export type HandedSocket = { readonly fd: number; readonly file: SocketFileIdentity | null };

export class BoundSocket {
  readonly #path: string;
  readonly #bind: () => number;
  readonly #events: BoundSocketEvents;
  #fd = -1;
  #file: SocketFile | null = null;
  #timer: NodeJS.Timeout | null = null;
  #looksForNothing = 0;
  #trouble: string | null = null;

  /** `bind` makes the socket; it may be called again and again. */
  constructor(path: string, bind: () => number, events: BoundSocketEvents) {
    this.#path = path;
    this.#bind = bind;
    this.#events = events;
  }

  /** Of the socket; -1: it is not open. */
  get fd(): number {
    return this.#fd;
  }

  /** Why nobody can reach the socket; null: it can be reached. */
  get trouble(): string | null {
    return this.#trouble;
  }

  /** @throws SocketPathError, HostError */
  open(): void {
    assert(this.#fd < 0, 'a socket is opened once');
    this.#fd = this.#bind();
    this.#file = this.#fileNow();
    this.lookAfter(true);
  }

  /** Takes over a socket that another process bound; `file`: null where nothing of it was left. */
  takeOver({ fd, file }: HandedSocket): void {
    assert(this.#fd < 0, 'a socket is opened once');
    this.#fd = fd;
    this.#file = file === null ? null : new SocketFile(this.#path, file);
  }

  /** What another process needs to go on with the socket, while it is not looked after here. */
  handOver(): HandedSocket {
    return { fd: this.#fd, file: this.#file?.identity ?? null };
  }

  /** Whether the file is looked after: not while the socket is on its way to another process, or from there. */
  lookAfter(looks: boolean): void {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#timer = null;
    if (!looks || this.#fd < 0) return;
    this.#timer = setInterval(() => this.#look(), LOOK_PERIOD_MS);
    this.#timer.unref();
  }

  /** Removes the file, if it is still ours. Answers the descriptor, which the caller then owns; -1: there is none. */
  release(): number {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#timer = null;
    this.#file?.remove();
    this.#file = null;
    this.#trouble = null;
    this.#looksForNothing = 0;
    const fd = this.#fd;
    this.#fd = -1;
    return fd;
  }

  #look(): void {
    const standing = this.#file?.standing() ?? 'nothing';
    if (standing !== 'nothing') this.#looksForNothing = 0;
    if (standing === 'ours') this.#trouble = null;
    // Never asked whether it is served: each question would be a connection to somebody else's socket.
    else if (standing === 'another')
      this.#say(`at ${this.#path} stands what another program made: remove it, or end that program`);
    else if (++this.#looksForNothing >= LOOKS_FOR_NOTHING) this.#renew();
  }

  #renew(): void {
    let fd: number;
    try {
      fd = this.#bind();
    } catch (error) {
      if (!(error instanceof SocketPathError || error instanceof HostError)) throw error;
      this.#say(`its file is gone: ${error.message}`);
      return;
    }
    const oldFd = this.#fd;
    this.#fd = fd;
    this.#file = this.#fileNow();
    this.#trouble = null;
    this.#looksForNothing = 0;
    this.#events.info(`the file of socket ${this.#path} was gone and was made anew`);
    this.#events.renewed(fd, oldFd);
  }

  /** Null: it is gone already. */
  #fileNow(): SocketFile | null {
    try {
      return new SocketFile(this.#path);
    } catch {
      return null;
    }
  }

  #say(trouble: string): void {
    if (trouble === this.#trouble) return;
    this.#trouble = trouble;
    this.#events.warn(`nobody can reach the socket: ${trouble}`);
  }
}
