/**
 * The interrupts of a guest's cards. Lines are shared and level-triggered: each card that may have raised one is asked,
 * which takes its interrupt back, until none has any. Owned by the guest; it follows it to another machine.
 */
import type { QtestClient } from './qtest-client.ts';
import type { VirtioPci } from './virtio-pci.ts';

type Handler = (isr: number) => void;

export class Interrupts {
  readonly #handlers = new Map<VirtioPci, Handler>();
  #unwatch = (): void => {};
  #isLooking = false;
  #wasRaised = false;

  /** Listens to the lines of that machine from now on. */
  attach(qtest: QtestClient): void {
    this.#unwatch();
    this.#unwatch = qtest.watchIrqs(() => this.#raised());
  }

  /** Calls `handler` with the bits of `ISR` of each interrupt of the device. */
  add(device: VirtioPci, handler: Handler): void {
    this.#handlers.set(device, handler);
    // One that was raised before makes no edge.
    this.#raised();
  }

  remove(device: VirtioPci): void {
    this.#handlers.delete(device);
  }

  clear(): void {
    this.#handlers.clear();
  }

  #raised(): void {
    this.#wasRaised = true;
    if (this.#isLooking) return;
    this.#isLooking = true;
    // QEMU has gone; whoever waits for it is told otherwise.
    this.#look().catch(() => {});
  }

  async #look(): Promise<void> {
    try {
      while (this.#wasRaised) {
        this.#wasRaised = false;
        for (const [device, handler] of [...this.#handlers]) {
          const isr = await device.isr();
          if (isr === 0) continue;
          this.#wasRaised = true;
          handler(isr);
        }
      }
    } finally {
      // In the same turn: one that is raised after the last look would be nobody's otherwise.
      this.#isLooking = false;
    }
  }
}
