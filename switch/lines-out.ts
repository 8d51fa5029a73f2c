/**
 * Lines for an output of the process that may stop taking them: its disk is full, its reader stalls or is gone, the
 * terminal is stopped. Writing never waits and never throws. What cannot be written is kept, up to a bound, and tried
 * again; from the first line on that finds no room all are lost, until everything kept is out. Then it is told how many.
 * Main thread.
 */
import { ERRNO, errnoText } from '../src/host/errors.ts';
import { UnblockedOutput } from '../src/host/unblocked-output.ts';

/** As UnblockedOutput. */
export type Output = Pick<UnblockedOutput, 'write' | 'awaitReady'>;

export type LinesOutOptions = {
  readonly output: Output;
  readonly keptBytesMax?: number;
  /** Calls back once, after a while. */
  readonly later?: (callback: () => void) => void;
};

const KEPT_BYTES_MAX = 2 ** 18;
const RETRY_MS = 250;
/** How long the end of the process may wait for a reader that is slow. */
const END_WAITS_MS = 500;

export class LinesOut {
  /** Called when lines were lost and it works again: how many, and what had been wrong. */
  onLost: (lines: number, why: string) => void = () => {};
  readonly #output: Output;
  readonly #keptBytesMax: number;
  readonly #later: (callback: () => void) => void;
  /** What is not written yet; the first of them perhaps in part. */
  #kept: Uint8Array[] = [];
  #keptBytes = 0;
  #lost = 0;
  #errno: number = ERRNO.EAGAIN;
  #isRetrying = false;

  constructor({ output, keptBytesMax = KEPT_BYTES_MAX, later = retryLater }: LinesOutOptions) {
    this.#output = output;
    this.#keptBytesMax = keptBytesMax;
    this.#later = later;
  }

  /** `text` ends with a line break. */
  write(text: string): void {
    const bytes = Buffer.from(text);
    // However long, one is kept: with it there is something to be tried again.
    const hasRoom = this.#kept.length === 0 || this.#keptBytes + bytes.length <= this.#keptBytesMax;
    if (this.#lost > 0 || !hasRoom) {
      this.#lost++;
      return;
    }
    this.#kept.push(bytes);
    this.#keptBytes += bytes.length;
    if (this.#isRetrying) return;
    this.#flush();
    if (this.#kept.length > 0) this.#retry();
  }

  /** Writes what is left, at the end of the process: waits for a slow reader, but only so long. */
  end(waitsMs = END_WAITS_MS): void {
    const endMs = performance.now() + waitsMs;
    this.#flush();
    while (this.#kept.length > 0 && this.#errno === ERRNO.EAGAIN) {
      const leftMs = Math.ceil(endMs - performance.now());
      if (leftMs <= 0 || !this.#output.awaitReady(leftMs)) return;
      this.#flush();
    }
  }

  #retry(): void {
    this.#isRetrying = true;
    this.#later(() => {
      this.#isRetrying = false;
      this.#flush();
      if (this.#kept.length > 0) this.#retry();
    });
  }

  #flush(): void {
    while (this.#kept.length > 0) {
      const [first] = this.#kept;
      const taken = this.#output.write(first);
      if (taken <= 0) {
        this.#errno = -taken;
        return;
      }
      this.#keptBytes -= taken;
      if (taken < first.length) this.#kept[0] = first.subarray(taken);
      else this.#kept.shift();
    }
    const lost = this.#lost;
    if (lost === 0) return;
    this.#lost = 0;
    this.onLost(lost, this.#errno === ERRNO.EAGAIN ? 'nobody read them' : errnoText(this.#errno));
  }
}

function retryLater(callback: () => void): void {
  setTimeout(callback, RETRY_MS).unref();
}

const outputs = new Map<number, LinesOut>();

/** The one of this descriptor; what it still has at the end of the process is written then, if it can be. */
export function linesOut(fd: 1 | 2): LinesOut {
  let lines = outputs.get(fd);
  if (lines === undefined) {
    lines = new LinesOut({ output: new UnblockedOutput(fd) });
    outputs.set(fd, lines);
    process.on('exit', () => outputs.get(fd)?.end());
  }
  return lines;
}
