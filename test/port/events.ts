/** Where a port under test tells what happened, for the tests to wait for. */

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
  async said(pattern: RegExp, times = 1): Promise<void> {
    while (this.all.filter((text) => pattern.test(text)).length < times) {
      await new Promise<void>((resolve) => this.#wake.push(resolve));
    }
  }

  #say(text: string): void {
    this.all.push(text);
    for (const wake of this.#wake.splice(0)) wake();
  }
}
