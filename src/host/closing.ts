/**
 * Closing what peers sent, so that the main thread does not wait: whoever closes a memory file last gives its pages back
 * (0.3 s a GiB), and whoever watches a file by epoll, or holds a pipe, may hold up its close for as long as he lives.
 *
 * Of one owner (a port) one descriptor is closed at a time, so that he holds up his own. Of all owners two, by two of
 * the four threads of Node's pool. A call that is slow does not count any more, and when both threads of the pool are
 * taken by such calls, the next is made by a thread of its own (native-thread.ts). So hundreds of ports must hang before
 * anybody else notices. Not always by such threads: 400 eventfds of one port, one after the other, take 15 ms by the pool
 * and 250 ms by threads. Not by a larger pool either: its size can be set only in the environment in which the process is
 * started, Node ends the process where the system allows fewer threads, and a pool of 64 is still full after 60 ports.
 * Main thread.
 */
import { libc } from './libc.ts';
import { NativeThread } from './native-thread.ts';

/** Calls that are not slow. */
const AT_ONCE_MAX = 2;
/** Of Node's four; the others are for unmapping and for Node. */
const POOL_THREADS_MAX = 2;
/** Of our own, each for a port that hangs. */
const THREADS_MAX = 256;
/** From there on a call is slow: most take some microseconds. */
const SLOW_MS = 20;
/** From there on somebody holds it up; one that nobody can hold up is slow from there on. */
const HANG_MS = 1000;
const LOOK_FOR_HANG_MS = 250;
/** Between two looks at whether threads have ended. */
const LOOK_AT_THREADS_MS = { min: 1, max: 250 };

/** Whose descriptors are closed. */
export type ClosingOwner = {
  /** That one of his hangs, or none any more: see `hangOf`. */
  readonly onHang?: () => void;
};

export type Hang = {
  /** For how long his first descriptor has not been closed. */
  readonly forMs: number;
  /** His own close hangs; otherwise there is no thread to make it, because others' do. */
  readonly isAtWork: boolean;
};

type Close = {
  readonly fd: number;
  readonly owner: ClosingOwner;
  /** No peer can make it long. */
  readonly endsByItself: boolean;
  /** It is its owner's first since then. */
  firstAtMs: number;
  /** Null: it is not at work. */
  startedAtMs: number | null;
  hangs: boolean;
};

class Closing {
  /** In the order in which they came; the first is at work, or among `#ready`. */
  readonly #queues = new Map<ClosingOwner, Close[]>();
  readonly #ready: Close[] = [];
  /** At work, and not slow so far. */
  readonly #quick = new Set<Close>();
  readonly #threads = new Map<NativeThread, Close>();
  #count = 0;
  #poolCount = 0;
  #slowLook: NodeJS.Timeout | null = null;
  #hangLook: NodeJS.Timeout | null = null;
  #threadLook: NodeJS.Timeout | null = null;
  #threadLookMs = LOOK_AT_THREADS_MS.min;

  get count(): number {
    return this.#count;
  }

  get isAtWork(): boolean {
    return this.#poolCount + this.#threads.size > 0;
  }

  get fds(): readonly number[] {
    return [...this.#queues.values()].flat().map(({ fd }) => fd);
  }

  countOf(owner: ClosingOwner): number {
    return this.#queues.get(owner)?.length ?? 0;
  }

  hangOf(owner: ClosingOwner): Hang | null {
    const first = this.#queues.get(owner)?.[0];
    if (first === undefined || !first.hangs) return null;
    return { forMs: performance.now() - first.firstAtMs, isAtWork: first.startedAtMs !== null };
  }

  add(fd: number, owner: ClosingOwner, endsByItself: boolean): void {
    const close = { fd, owner, endsByItself, firstAtMs: 0, startedAtMs: null, hangs: false };
    this.#count++;
    const queue = this.#queues.get(owner);
    if (queue !== undefined) {
      queue.push(close);
      return;
    }
    this.#queues.set(owner, [close]);
    this.#becomeFirst(close);
  }

  #becomeFirst(close: Close): void {
    close.firstAtMs = performance.now();
    this.#ready.push(close);
    this.#next();
    this.#hangLook ??= this.#lookForHangsSoon();
  }

  #next(): void {
    while (this.#quick.size < AT_ONCE_MAX && this.#ready.length > 0) {
      const [close] = this.#ready;
      if (!this.#start(close)) return;
      this.#ready.shift();
      close.startedAtMs = performance.now();
      this.#quick.add(close);
      this.#slowLook ??= this.#lookForSlowSoon();
    }
  }

  /** False: there is no thread for it. */
  #start(close: Close): boolean {
    if (this.#poolCount < POOL_THREADS_MAX) {
      this.#poolCount++;
      libc.closeAsync(close.fd, () => {
        this.#poolCount--;
        this.#done(close);
      });
      return true;
    }
    const thread = this.#threads.size < THREADS_MAX ? NativeThread.start(libc.closeAddress, close.fd) : null;
    if (thread === null) return false;
    this.#threads.set(thread, close);
    this.#threadLookMs = LOOK_AT_THREADS_MS.min;
    this.#lookAtThreadsSoon();
    return true;
  }

  #done(close: Close): void {
    this.#count--;
    this.#quick.delete(close);
    const queue = this.#queues.get(close.owner) ?? [];
    queue.shift();
    if (queue.length === 0) this.#queues.delete(close.owner);
    if (close.hangs) close.owner.onHang?.();
    if (queue.length > 0) this.#becomeFirst(queue[0]);
    else this.#next();
  }

  #lookForSlowSoon(): NodeJS.Timeout {
    return setTimeout(() => this.#lookForSlow(), SLOW_MS).unref();
  }

  #lookForSlow(): void {
    this.#slowLook = null;
    const nowMs = performance.now();
    for (const close of this.#quick) {
      const isSlow = nowMs - (close.startedAtMs ?? nowMs) >= (close.endsByItself ? HANG_MS : SLOW_MS);
      if (isSlow) this.#quick.delete(close);
    }
    if (this.#quick.size > 0) this.#slowLook = this.#lookForSlowSoon();
    this.#next();
  }

  #lookForHangsSoon(): NodeJS.Timeout {
    return setTimeout(() => this.#lookForHangs(), LOOK_FOR_HANG_MS).unref();
  }

  #lookForHangs(): void {
    const nowMs = performance.now();
    for (const [first] of this.#queues.values()) {
      const isHeldUp = !(first.endsByItself && first.startedAtMs !== null);
      if (first.hangs || !isHeldUp || nowMs - first.firstAtMs < HANG_MS) continue;
      first.hangs = true;
      first.owner.onHang?.();
    }
    // There may be threads again for those for which there was none.
    this.#next();
    this.#hangLook = this.#count > 0 ? this.#lookForHangsSoon() : null;
  }

  #lookAtThreadsSoon(): void {
    if (this.#threadLook !== null) clearTimeout(this.#threadLook);
    this.#threadLook = setTimeout(() => this.#lookAtThreads(), this.#threadLookMs).unref();
    this.#threadLookMs = Math.min(2 * this.#threadLookMs, LOOK_AT_THREADS_MS.max);
  }

  #lookAtThreads(): void {
    const over = [...this.#threads].filter(([thread]) => thread.isOver());
    for (const [thread] of over) this.#threads.delete(thread);
    if (this.#threads.size > 0) this.#lookAtThreadsSoon();
    for (const [, close] of over) this.#done(close);
  }
}

const closing = new Closing();

/**
 * Closes a descriptor that came from `owner`, sooner or later; nobody may use it any more. `endsByItself`: nobody but
 * the kernel decides how long that takes, as with memory.
 */
export function closeElsewhere(fd: number, owner: ClosingOwner, endsByItself = false): void {
  closing.add(fd, owner, endsByItself);
}

/** Descriptors that are not closed yet. */
export function closingElsewhere(): readonly number[] {
  return closing.fds;
}

/** How many these are. */
export function closingElsewhereCount(): number {
  return closing.count;
}

/** How many of these came from `owner`. */
export function closingCountOf(owner: ClosingOwner): number {
  return closing.countOf(owner);
}

/** That one of his descriptors is not closed after a second, because a peer holds up a close; null: none. */
export function hangOf(owner: ClosingOwner): Hang | null {
  return closing.hangOf(owner);
}

/** Whether a close goes on. */
export function isClosingElsewhere(): boolean {
  return closing.isAtWork;
}
