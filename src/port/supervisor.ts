/**
 * The life of a port, written once for all kinds: opened, then again and again attached to what is outside and let
 * go of it, with pauses that grow while it cannot be had, and at last closed. It is one asynchronous function, so
 * no two steps of a port ever overlap: whoever stops it waits until the step at work is done, and what that step got
 * is given back. A kind supplies the steps (`PortSteps`) and has no timers of its own for trying again. Main thread.
 *
 *     start ── open ──┬─ attend ── attach ── (lose) ── release ── pause ─┐
 *                     └──────────────────────────────────────────────────┘        stop ── release ── close
 */
import assert from 'node:assert';
import { setTimeout as sleep } from 'node:timers/promises';
import { HostError } from '../host/errors.ts';
import { ArenaFullError } from '../memory/arena.ts';
import type { PortEvents, PortStatus } from './contract.ts';

/** Why a port is not attached, or is no longer. */
export type Trouble = {
  /** For the user, and logged once; null: nothing is said, and what was said before still holds. */
  readonly reason: string | null;
  /**
   * When to try again. `later` (when left out): after a pause that doubles each time; `soon`: after the shortest
   * pause; `now`: without one; `never`: only another configuration helps, or all is done.
   */
  readonly retry?: 'now' | 'soon' | 'later' | 'never';
  /** Logged as information instead of as a warning. */
  readonly isFine?: boolean;
  /** What the log gets where that is another text than `reason`. */
  readonly logged?: string;
};

/** The steps of a kind of port. They are called one after the other, never while another is at work. */
export type PortSteps = {
  /**
   * Once, and done when it returns: gets what the port cannot be without, a listening socket for one. What it
   * throws is thrown by `start`, and the port is gone.
   */
  readonly open: () => void;
  /**
   * Waits until there is something to attach to, for as long as it takes; null: nothing is to be waited for.
   * Resolves with false when the signal ended the wait.
   */
  readonly attend: (signal: AbortSignal) => Promise<boolean> | null;
  /**
   * Gets hold of the outside and attaches the queues. What it throws is explained by `explain`. Whether it throws
   * or not, `release` follows.
   */
  readonly attach: () => Promise<void>;
  /**
   * Lets go of all that `attach` got, as far as it came; resolves when no worker uses any of it. `isLast`: it will
   * not be attached again. What is kept for another try is given back by `close`, too.
   */
  readonly release: (isLast: boolean) => Promise<void>;
  /** Once, at the end: gives back what `open` got, as far as it came. */
  readonly close: () => void;
  /** What an error of `attach` means to the user; null: it is a bug of ours. */
  readonly explain: (error: unknown) => Trouble | null;
  /**
   * The state as the user sees it. `isHeld`: `attach` has begun, and what it got is not lost; otherwise `reason` is
   * what was last in the way, null: nothing.
   */
  readonly describe: (isHeld: boolean, reason: string | null) => PortStatus;
};

/** In milliseconds: the first pause before another try, and the longest. */
export type RetryPauses = { readonly minMs: number; readonly maxMs: number };

type Phase = 'new' | 'serving' | 'ended' | 'gone';

const STOPPED: Trouble = { reason: null, retry: 'never' };

export class Supervisor {
  readonly #steps: PortSteps;
  readonly #events: PortEvents;
  readonly #pauses: RetryPauses;
  readonly #stopping = new AbortController();
  readonly #begun = Promise.withResolvers<void>();
  readonly #gone = Promise.withResolvers<void>();
  #phase: Phase = 'new';
  #pauseMs: number;
  #reason: string | null = null;
  #logged: string | null = null;
  /** Resolved by what ends the attachment; null while there is none. */
  #loss: PromiseWithResolvers<Trouble> | null = null;
  #isLost = false;

  constructor(steps: PortSteps, events: PortEvents, pauses: RetryPauses) {
    assert(pauses.minMs > 0 && pauses.maxMs >= pauses.minMs, 'pauses grow');
    this.#steps = steps;
    this.#events = events;
    this.#pauses = pauses;
    this.#pauseMs = pauses.minMs;
  }

  get status(): PortStatus {
    if (this.#isStopping) return { state: 'stopped', reason: 'the port was stopped' };
    if (this.#phase === 'new') return { state: 'waiting', reason: 'not started yet' };
    if (this.#phase === 'serving') return this.#steps.describe(this.#isHeld, this.#reason);
    return { state: 'stopped', reason: this.#reason };
  }

  /**
   * Begins the life. Resolves after the first try, or when the other side is waited for; does nothing when the port
   * was stopped before. Rejects with what `open` throws: then the port is gone, with nothing left.
   */
  start(): Promise<void> {
    if (this.#isStopping) return Promise.resolve();
    assert.equal(this.#phase, 'new', 'a port is started once');
    this.#phase = 'serving';
    let hasBegun = false;
    this.#begun.promise.then(
      () => {
        hasBegun = true;
      },
      () => {},
    );
    void this.#live().then(this.#begun.resolve, (error: unknown) => {
      // A bug that nobody waits for must end the process.
      if (hasBegun) throw error;
      this.#begun.reject(error);
    });
    return this.#begun.promise;
  }

  /** Ends the life, wherever it is; resolves when nothing of the port is left. May be called again and again. */
  stop(): Promise<void> {
    this.#stopping.abort();
    if (this.#phase === 'new') {
      this.#phase = 'gone';
      this.#gone.resolve();
    }
    this.#loss?.resolve(STOPPED);
    return this.#gone.promise;
  }

  /** What the port is attached to is lost. Of several reasons the first counts; without attachment it is no news. */
  lose(trouble: Trouble): void {
    if (this.#loss === null || this.#isLost || this.#isStopping) return;
    this.#isLost = true;
    this.#note(trouble);
    this.#loss.resolve(trouble);
  }

  get #isHeld(): boolean {
    return this.#loss !== null && !this.#isLost;
  }

  get #isStopping(): boolean {
    return this.#stopping.signal.aborted;
  }

  async #live(): Promise<void> {
    try {
      this.#steps.open();
      await this.#serve();
    } finally {
      this.#steps.close();
      this.#phase = 'gone';
      this.#gone.resolve();
    }
  }

  async #serve(): Promise<void> {
    while (!this.#isStopping) {
      const attending = this.#steps.attend(this.#stopping.signal);
      if (attending !== null) {
        this.#begun.resolve();
        if (!(await attending)) return;
      }
      const { retry } = await this.#attachUntilLost();
      this.#begun.resolve();
      if (retry === 'never') this.#phase = 'ended';
      await this.#pause(retry ?? 'later');
    }
  }

  /** Answers why it is attached no longer, when nothing of the attachment is left. */
  async #attachUntilLost(): Promise<Trouble> {
    const loss = Promise.withResolvers<Trouble>();
    this.#loss = loss;
    this.#isLost = false;
    // Stopped since there was something to attach to: `attach` takes it over, and `release` gives it back.
    if (this.#isStopping) loss.resolve(STOPPED);
    let trouble: Trouble | null = null;
    let isAttached = false;
    try {
      await this.#steps.attach();
      isAttached = true;
      this.#becomeWell();
      this.#begun.resolve();
      trouble = await loss.promise;
    } catch (error) {
      trouble = this.#steps.explain(error) ?? explainCommon(error);
      if (trouble === null) throw error;
      if (!this.#isStopping) this.#note(trouble);
    } finally {
      this.#loss = null;
      const isLast = trouble === null || trouble.retry === 'never' || this.#isStopping;
      await this.#steps.release(isLast);
      // Who lived behind it may turn up behind another port.
      if (isAttached) this.#events.disconnected();
    }
    return trouble;
  }

  #becomeWell(): void {
    if (this.#isLost) return;
    this.#reason = null;
    this.#logged = null;
  }

  #note({ reason, logged, isFine }: Trouble): void {
    if (reason === null) return;
    this.#reason = reason;
    const text = logged ?? reason;
    if (text === this.#logged) return;
    this.#logged = text;
    if (isFine === true) this.#events.info(text);
    else this.#events.warn(text);
  }

  /** Ends early when the port is stopped. */
  async #pause(retry: 'now' | 'soon' | 'later' | 'never'): Promise<void> {
    const { signal } = this.#stopping;
    if (retry === 'never') {
      if (!signal.aborted)
        await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
      return;
    }
    const { minMs, maxMs } = this.#pauses;
    if (retry !== 'later') this.#pauseMs = minMs;
    if (retry === 'now') return;
    const pauseMs = this.#pauseMs;
    this.#pauseMs = Math.min(2 * pauseMs, maxMs);
    await sleep(pauseMs, undefined, { signal }).catch(() => {});
  }
}

/** What the host or the arena may refuse now and grant later, to any kind of port. */
function explainCommon(error: unknown): Trouble | null {
  return error instanceof HostError || error instanceof ArenaFullError ? { reason: error.message } : null;
}
