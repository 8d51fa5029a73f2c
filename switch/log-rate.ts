/**
 * Keeps a port from filling the log: what its peer does is logged, and a peer may do it thousands of times a second.
 * So many lines are written at once, and afterwards one now and then: the newest, with the number of those that were
 * left out. Main thread.
 */

/** Lines written at once, and after how long one more may be. A port that comes up writes some five. */
export const LINES_AT_ONCE = 20;
export const LINE_MS = 1000;

export type WriteLine = (level: 'info' | 'warn', message: string) => void;

export class LogRate {
  readonly #write: WriteLine;
  #linesLeft = LINES_AT_ONCE;
  #refilledMs = performance.now();
  /** Writes what was left out, as soon as a line may be written; null: nothing was. */
  #timer: NodeJS.Timeout | null = null;
  #leftOut = 0;
  #newest: Parameters<WriteLine> = ['info', ''];

  constructor(write: WriteLine) {
    this.#write = write;
  }

  note(level: 'info' | 'warn', message: string): void {
    this.#refill();
    if (this.#timer === null && this.#linesLeft > 0) {
      this.#linesLeft--;
      this.#write(level, message);
      return;
    }
    this.#leftOut++;
    this.#newest = [level, message];
    // It keeps no process alive that has nothing else to do.
    this.#timer ??= setTimeout(() => this.#writeNewest(), LINE_MS).unref();
  }

  #refill(): void {
    const nowMs = performance.now();
    const lines = Math.floor((nowMs - this.#refilledMs) / LINE_MS);
    if (lines === 0) return;
    this.#linesLeft = Math.min(this.#linesLeft + lines, LINES_AT_ONCE);
    this.#refilledMs = nowMs;
  }

  #writeNewest(): void {
    this.#timer = null;
    this.#refill();
    this.#linesLeft = Math.max(0, this.#linesLeft - 1);
    const [level, message] = this.#newest;
    const others = this.#leftOut - 1;
    this.#leftOut = 0;
    this.#write(level, others === 0 ? message : `${message} (${others} lines before this one were left out)`);
  }
}
