/** Descriptors that came with a message. A handler takes those it keeps; the session closes the rest. */
import { closeFds } from '../host/descriptor.ts';

export class IncomingFds {
  #fds: number[];

  constructor(fds: readonly number[]) {
    this.#fds = [...fds];
  }

  /** The next descriptor, now the caller's; null when there is none left. */
  take(): number | null {
    return this.#fds.shift() ?? null;
  }

  closeRest(): void {
    closeFds(this.#fds);
    this.#fds = [];
  }
}
