/** Where a port under test tells what happened, for the tests to wait for. */
import { withDeadline } from '../peers/deadline.ts';

/** Longer than any port takes, also where there is much else to do; a test may take longer. */
const WAIT_MS = 20_000;

/** What a port said, and a way to wait for it. */
export class Events {
  readonly all: string[] = [];
  #wake: (() => void)[] = [];

  readonly sink = {
    info: (text: string) => this.#say(text),
    warn: (text: string) => this.#say(`warning: ${text}`),
    disconnected: () => this.#say('disconnected'),
  };

  /** Resolves when `pattern` was said `times` times since the start. */
  said(pattern: RegExp, times = 1): Promise<void> {
    const told = (): string =>
      `${pattern} was not said ${times} times in ${WAIT_MS} ms, but: ${JSON.stringify(this.all)}`;
    return withDeadline(this.#untilSaid(pattern, times), WAIT_MS, told);
  }

  async #untilSaid(pattern: RegExp, times: number): Promise<void> {
    while (this.all.filter((text) => pattern.test(text)).length < times) {
      await new Promise<void>((resolve) => this.#wake.push(resolve));
    }
  }

  #say(text: string): void {
    this.all.push(text);
    for (const wake of this.#wake.splice(0)) wake();
  }
}
