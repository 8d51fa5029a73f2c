/**
 * Unmapping what peers sent by Node's pool of threads, so that the main thread does not wait: who unmaps a memory file
 * last gives its pages back (0.3 s a GiB). One at a time, because the pool has four threads and others need them.
 * Nobody can hold it up. Also the end of a process that has such calls, or those of closing.ts, at work. Main thread.
 */
import { isClosingElsewhere } from './closing.ts';
import { libc } from './libc.ts';
import { mapZeroPagesSoon } from './mapping.ts';

type Unmapping = { readonly address: number; readonly sizeBytes: number; readonly onDone: () => void };

/** The first is at work. */
const unmappings: Unmapping[] = [];

/** As mapping.ts's `mapZeroPagesAt`. What lay there may be there until `onDone`. */
export function mapZeroPagesElsewhere(address: number, sizeBytes: number, onDone: () => void): void {
  unmappings.push({ address, sizeBytes, onDone });
  if (unmappings.length === 1) unmapFirst();
}

function unmapFirst(): void {
  const [first] = unmappings;
  if (first === undefined) return;
  mapZeroPagesSoon(first.address, first.sizeBytes, () => {
    unmappings.shift();
    first.onDone();
    unmapFirst();
  });
}

/** Whether a call goes on, so that an orderly end of the process would wait for it. */
export function isBusyElsewhere(): boolean {
  return isClosingElsewhere() || unmappings.length > 0;
}

/** Ends the process without waiting for its threads. */
export function endAtOnce(exitCode: number): void {
  libc._exit(exitCode);
}
