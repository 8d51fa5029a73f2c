/**
 * System calls whose length a peer decides, made by Node's pool of threads, so that the main thread does not wait:
 * closing what it sent (the last one to close a memory file gives its pages back, 0.3 s a GiB; whoever watches a file
 * by epoll can hold it up; a pipe is held by who writes to it), and unmapping its memory. Two at a time, because the
 * pool is small and others need it; the rest waits its turn, for ever if need be. Main thread.
 */
import { libc } from './libc.ts';
import { mapZeroPagesSoon } from './mapping.ts';

const AT_ONCE_MAX = 2;

type Call = { readonly fd: number | null; readonly make: (done: () => void) => void };

const waiting: Call[] = [];
const atWork = new Set<Call>();
let closingCount = 0;

/** Closes a descriptor, sooner or later; nobody may use it any more. */
export function closeElsewhere(fd: number, onClosed: () => void = () => {}): void {
  closingCount++;
  add({
    fd,
    make: (done) =>
      libc.closeAsync(fd, () => {
        closingCount--;
        onClosed();
        done();
      }),
  });
}

/** As mapping.ts's `mapZeroPagesAt`. What lay there may be there until `onDone`. */
export function mapZeroPagesElsewhere(address: number, sizeBytes: number, onDone: () => void): void {
  add({
    fd: null,
    make: (done) =>
      mapZeroPagesSoon(address, sizeBytes, () => {
        onDone();
        done();
      }),
  });
}

/** Descriptors that are not closed yet. */
export function closingElsewhere(): readonly number[] {
  return [...atWork, ...waiting].map(({ fd }) => fd).filter((fd) => fd !== null);
}

/** How many these are. */
export function closingElsewhereCount(): number {
  return closingCount;
}

/** Whether a call goes on, so that an orderly end of the process would wait for it. */
export function isBusyElsewhere(): boolean {
  return atWork.size > 0;
}

/** Ends the process without waiting for its threads. */
export function endAtOnce(exitCode: number): void {
  libc._exit(exitCode);
}

function add(call: Call): void {
  waiting.push(call);
  next();
}

function next(): void {
  while (atWork.size < AT_ONCE_MAX) {
    const call = waiting.shift();
    if (call === undefined) return;
    atWork.add(call);
    call.make(() => {
      atWork.delete(call);
      next();
    });
  }
}
