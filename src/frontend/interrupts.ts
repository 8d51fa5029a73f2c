/** Those who wait for one ring's interrupt, behind one watch of its call descriptor. Thread of the ring. */
import { drainFd } from '../host/descriptor.ts';
import { descriptorLoop, type Watch } from '../host/event-loop.ts';

/** What is waited for: the ring that was interrupted. */
type Interruptible = {
  /** -1: never interrupted. */
  readonly callFd: number;
  /** False: something waits already. */
  arm(): boolean;
  disarm(): void;
};

export class Interrupts {
  readonly #ring: Interruptible;
  #watch: Watch | null = null;
  #waiters: { resolve(): void; reject(error: Error): void }[] = [];

  constructor(ring: Interruptible) {
    this.#ring = ring;
  }

  wait(): Promise<void> {
    return new Promise((resolve, reject) => {
      const ring = this.#ring;
      if (ring.callFd < 0) {
        reject(new Error('the ring has no call descriptor to wait for'));
        return;
      }
      this.#waiters.push({ resolve, reject });
      this.#watch ??= descriptorLoop().watch(ring.callFd, () => this.#onCall());
      if (!ring.arm()) this.#finish((waiter) => waiter.resolve());
    });
  }

  abandon(error: Error): void {
    this.#finish((waiter) => waiter.reject(error));
  }

  #onCall(): void {
    drainFd(this.#ring.callFd);
    this.#finish((waiter) => waiter.resolve());
  }

  #finish(finish: (waiter: { resolve(): void; reject(error: Error): void }) => void): void {
    this.#watch?.close();
    this.#watch = null;
    this.#ring.disarm();
    for (const waiter of this.#waiters.splice(0)) finish(waiter);
  }
}
