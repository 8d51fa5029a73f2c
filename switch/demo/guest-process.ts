/** The demo's handle on one guest's process: starts it, talks to it, ends it. Main thread of `ringway demo`. */
import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import {
  type FromGuestMessage,
  type GuestCounts,
  type GuestPlan,
  NO_COUNTS,
  type ToGuestMessage,
} from './messages.ts';

/** The guest's program, beside this file: source or compiled. */
const PROGRAM = new URL(import.meta.url.endsWith('.ts') ? './guest.ts' : './guest.js', import.meta.url);

type Waiter = {
  readonly kind: FromGuestMessage['kind'];
  resolve(counts: GuestCounts): void;
  reject(error: Error): void;
};

/** A guest's process failed or ended before it should. */
export class GuestError extends Error {
  override name = 'GuestError';
}

export class GuestProcess {
  readonly name: string;
  /** The last figures that it told. */
  counts: GuestCounts = NO_COUNTS;
  readonly #child: ChildProcess;
  readonly #exited: Promise<void>;
  readonly #waiters: Waiter[] = [];
  #failure: Error | null = null;
  #isEnding = false;

  constructor(name: string, plan: GuestPlan) {
    this.name = name;
    this.#child = fork(fileURLToPath(PROGRAM), [JSON.stringify(plan)], {
      // Not the parent's own options: an inspector's port cannot be shared.
      // A guest is no debugger's business either.
      execArgv: ['--disable-sigusr1'],
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    });
    this.#child.on('message', (message: FromGuestMessage) => this.#onMessage(message));
    this.#exited = new Promise((resolve) => {
      this.#child.on('error', (error) => {
        this.#fail(`cannot be started: ${error.message}`);
        resolve();
      });
      this.#child.on('exit', (code, signal) => {
        this.#fail(`ended unexpectedly (${signal ?? `exit code ${code}`})`);
        resolve();
      });
    });
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  tell(message: ToGuestMessage): void {
    if (this.#child.connected) this.#child.send(message, () => {});
  }

  /** The next message of that kind; its figures, if it has any. @throws Error when the guest fails or ends */
  heard(kind: FromGuestMessage['kind']): Promise<GuestCounts> {
    return new Promise((resolve, reject) => {
      if (this.#failure !== null) reject(this.#failure);
      else this.#waiters.push({ kind, resolve, reject });
    });
  }

  /** Rejects when the guest fails or ends before `end` was called; otherwise stays pending. */
  failed(): Promise<never> {
    return this.heard('failed') as Promise<never>;
  }

  /** Ends the process and waits until it is gone. */
  async end(): Promise<void> {
    this.#isEnding = true;
    // SIGKILL: it holds nothing that needs to be put in order, and it may be in the middle of a busy loop.
    if (this.#child.pid !== undefined) this.#child.kill('SIGKILL');
    await this.#exited;
  }

  #onMessage(message: FromGuestMessage): void {
    if (message.kind === 'failed') {
      this.#fail(message.message);
      return;
    }
    if ('counts' in message) this.counts = message.counts;
    for (const waiter of this.#waiters.filter(({ kind }) => kind === message.kind)) {
      this.#waiters.splice(this.#waiters.indexOf(waiter), 1);
      waiter.resolve(this.counts);
    }
  }

  #fail(what: string): void {
    if (this.#isEnding || this.#failure !== null) return;
    this.#failure = new GuestError(`guest ${this.name}: ${what}`);
    for (const waiter of this.#waiters.splice(0)) waiter.reject(this.#failure);
  }
}
