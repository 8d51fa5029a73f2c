/**
 * System calls whose length a peer decides, made by Node's pool of threads, so that the main thread does not wait:
 * closing what it sent (the last one to close a memory file gives its pages back, 0.3 s a GiB; whoever watches a file
 * by epoll can hold it up; a pipe is held by who writes to it), and unmapping its memory. Few at a time, because the
 * pool has four threads and others need them; the rest waits its turn, for ever if need be. Unmapping has a lane of its
 * own: nobody can hold it up, and what is not unmapped is memory that the host does not get back. Main thread.
 */
import { libc } from './libc.ts';
import { mapZeroPagesSoon } from './mapping.ts';

type Call = {
  readonly fd: number | null;
  /** Whose call it is; null: nobody's in particular. */
  readonly owner: object | null;
  readonly make: (done: () => void) => void;
};

/** Calls in the order in which they came, so many at a time, and of one owner one. */
class Lane {
  readonly #atOnceMax: number;
  readonly #waiting: Call[] = [];
  readonly #atWork = new Set<Call>();

  constructor(atOnceMax: number) {
    this.#atOnceMax = atOnceMax;
  }

  get isBusy(): boolean {
    return this.#atWork.size > 0;
  }

  get count(): number {
    return this.#atWork.size + this.#waiting.length;
  }

  get calls(): readonly Call[] {
    return [...this.#atWork, ...this.#waiting];
  }

  add(call: Call): void {
    this.#waiting.push(call);
    this.#next();
  }

  /** Whoever holds up a call holds up his own first. */
  #isServed(owner: object | null): boolean {
    return owner !== null && [...this.#atWork].some((call) => call.owner === owner);
  }

  #next(): void {
    while (this.#atWork.size < this.#atOnceMax) {
      const at = this.#waiting.findIndex((call) => !this.#isServed(call.owner));
      if (at < 0) return;
      const [call] = this.#waiting.splice(at, 1);
      this.#atWork.add(call);
      call.make(() => {
        this.#atWork.delete(call);
        this.#next();
      });
    }
  }
}

const closing = new Lane(2);
const unmapping = new Lane(1);

/** Closes a descriptor that came from `owner`, sooner or later; nobody may use it any more. */
export function closeElsewhere(
  fd: number,
  owner: object | null = null,
  onClosed: () => void = () => {},
): void {
  closing.add({
    fd,
    owner,
    make: (done) =>
      libc.closeAsync(fd, () => {
        onClosed();
        done();
      }),
  });
}

/** As mapping.ts's `mapZeroPagesAt`. What lay there may be there until `onDone`. */
export function mapZeroPagesElsewhere(address: number, sizeBytes: number, onDone: () => void): void {
  unmapping.add({
    fd: null,
    owner: null,
    make: (done) =>
      mapZeroPagesSoon(address, sizeBytes, () => {
        onDone();
        done();
      }),
  });
}

/** Descriptors that are not closed yet. */
export function closingElsewhere(): readonly number[] {
  return closing.calls.map(({ fd }) => fd).filter((fd) => fd !== null);
}

/** How many these are. */
export function closingElsewhereCount(): number {
  return closing.count;
}

/** Whether a call goes on, so that an orderly end of the process would wait for it. */
export function isBusyElsewhere(): boolean {
  return closing.isBusy || unmapping.isBusy;
}

/** Ends the process without waiting for its threads. */
export function endAtOnce(exitCode: number): void {
  libc._exit(exitCode);
}
