/**
 * testpmd as load generator between two ports: every frame that arrives is sent again, so the frames sent at the
 * start go to and fro for ever. In macswap mode a frame comes back by the port that it arrived at, in io mode it
 * leaves by the other; either way each port sends from its own address to the other's. Owns the process; main thread.
 */
import type { Testpmd } from '../../test/peers/index.ts';
import type { LoadGenerator, LoadTarget, Window, WindowWatch } from './contract.ts';
import { addressOfPort, measureWindow, startTestpmd, type TestpmdLoadOptions } from './testpmd-ports.ts';

const ADDRESSES = [addressOfPort(0), addressOfPort(1)] as const;

export class TestpmdLoad implements LoadGenerator {
  readonly addresses = ADDRESSES;
  readonly #testpmd: Testpmd;

  private constructor(testpmd: Testpmd) {
    this.#testpmd = testpmd;
  }

  static async start(target: LoadTarget, options: TestpmdLoadOptions): Promise<TestpmdLoad> {
    const testpmd = await startTestpmd(target, options, [
      '--total-num-mbufs=8192',
      // The frames sent at the start go to the address of the other port, so that the switch forwards to one port.
      `--eth-peer=0,${ADDRESSES[1]}`,
      `--eth-peer=1,${ADDRESSES[0]}`,
    ]);
    return new TestpmdLoad(testpmd);
  }

  get pid(): number {
    return this.#testpmd.pid;
  }

  async measure(window: Window, watch?: WindowWatch): Promise<number> {
    await this.#testpmd.command(`set txpkts ${window.frameBytes}`);
    await this.#testpmd.command('start tx_first 4');
    try {
      return await measureWindow(this.#testpmd, window, watch);
    } finally {
      await this.#testpmd.command('stop');
    }
  }

  async stop(): Promise<void> {
    await this.#testpmd.stop();
  }
}
