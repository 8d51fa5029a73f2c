/**
 * testpmd as load generator between many ports, where every port sends to all others in turn. testpmd sends to one
 * address at a time, so the frames are made in steps: in each step every port sends a few to the next of the other
 * ports. In macswap mode a frame that port a sent to port b is sent by b to a, and so on: from the steps on, frames
 * go to and fro between every two ports, and what a port sends is a mixture of all targets. Owns the process; main
 * thread.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { Testpmd } from '../../test/peers/index.ts';
import type { LoadGenerator, LoadTarget, Window, WindowWatch } from './contract.ts';
import { addressOfPort, measureWindow, startTestpmd, type TestpmdLoadOptions } from './testpmd-ports.ts';

/**
 * Frames that each port sends to each other at the start. More of them would travel in longer runs of one target,
 * which is not what is to be measured.
 */
export const FRAMES_PER_TARGET = 4;
const BURST = 32;
/** Open vSwitch remembers for each flow what to do with it, and looks at that again twice a second. */
const SETTLE_MS = 2000;

export class MixedLoad implements LoadGenerator {
  readonly addresses: readonly string[];
  readonly #testpmd: Testpmd;
  /** Once frames came through: a switch may take a moment before it forwards for new ports. */
  #isAnnounced = false;

  private constructor(addresses: readonly string[], testpmd: Testpmd) {
    this.addresses = addresses;
    this.#testpmd = testpmd;
  }

  static async start(target: LoadTarget, options: TestpmdLoadOptions): Promise<MixedLoad> {
    const testpmd = await startTestpmd(target, options, ['--total-num-mbufs=16384']);
    const addresses = target.sockets.map((_, port) => addressOfPort(port));
    return new MixedLoad(addresses, testpmd);
  }

  get pid(): number {
    return this.#testpmd.pid;
  }

  async measure(window: Window, watch?: WindowWatch): Promise<number> {
    await this.#commands(`set txpkts ${window.frameBytes}`, `set burst ${FRAMES_PER_TARGET}`);
    if (!this.#isAnnounced) await this.#announce();
    await this.#emptyRings();
    for (let step = 1; step < this.addresses.length; step++) await this.#sendToNext(step);
    await this.#commands(`set burst ${BURST}`, 'start');
    try {
      const framesPerSecond = await measureWindow(this.#testpmd, window, watch);
      this.#isAnnounced = true;
      return framesPerSecond;
    } finally {
      await this.#commands('stop');
    }
  }

  async stop(): Promise<void> {
    await this.#testpmd.stop();
  }

  /**
   * Every port sends, and nothing that arrives is sent on: what the switch floods, because it has not learned its
   * target yet, must not come back. Then it gets time to forget that it flooded.
   */
  async #announce(): Promise<void> {
    await this.#commands('set flush_rx on', 'set fwd rxonly');
    await this.#sendToNext(1);
    await delay(SETTLE_MS);
  }

  /** What an earlier window left would come on top of the frames of the next. */
  async #emptyRings(): Promise<void> {
    await this.#commands('set flush_rx on', 'set fwd rxonly', 'start', 'stop');
    await this.#commands('set flush_rx off', 'set fwd macswap');
  }

  /** Every port sends a few frames to the one that comes `step` after it. */
  async #sendToNext(step: number): Promise<void> {
    const count = this.addresses.length;
    const peers = this.addresses.map(
      (_, port) => `set eth-peer ${port} ${this.addresses[(port + step) % count]}`,
    );
    await this.#commands(...peers, 'start tx_first', 'stop');
  }

  async #commands(...lines: string[]): Promise<void> {
    for (const line of lines) await this.#testpmd.command(line);
  }
}
