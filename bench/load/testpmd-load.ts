/**
 * testpmd as load generator: two virtio-user ports in io mode, where every frame that arrives at one port
 * leaves by the other, so that the frames sent at the start go round for ever. Owns the process.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { Testpmd } from '../../test/peers/index.ts';
import { type LoadGenerator, type LoadKind, type LoadTarget, RING_SIZE, type Window } from './contract.ts';

export type TestpmdLoadOptions = {
  readonly kind: Exclude<LoadKind, 'embedded'>;
  readonly cpu: number;
  /** Processor of the thread that takes commands. */
  readonly controlCpu: number;
  /** Null: pages of 4 KiB. */
  readonly hugepagesPath: string | null;
};

export const TESTPMD_LOAD_MIB = 128;

/** testpmd's ports, one section each in what `show port stats all` prints. */
type PortCounts = { readonly rxPackets: number; readonly rxBytes: number; readonly rxPerSecond: number };

const ADDRESSES = ['02:00:00:00:01:01', '02:00:00:00:01:02'] as const;
const LOG_MS_MAX = 5000;
const LOG_LOOK_MS = 20;
const VECTORISED_LOG = 'using vectorized Rx path';

export class TestpmdLoad implements LoadGenerator {
  readonly addresses = ADDRESSES;
  readonly #testpmd: Testpmd;

  private constructor(testpmd: Testpmd) {
    this.#testpmd = testpmd;
  }

  get pid(): number {
    return this.#testpmd.pid;
  }

  static async start(target: LoadTarget, options: TestpmdLoadOptions): Promise<TestpmdLoad> {
    const receive =
      options.kind === 'vectorised' ? 'mrg_rxbuf=0,in_order=0,vectorized=1' : 'mrg_rxbuf=1,in_order=1';
    const role = target.generatorRole === 'server' ? ',server=1' : '';
    const testpmd = await Testpmd.start({
      vdevs: target.sockets.map(
        (path, i) =>
          `net_virtio_user${i},path=${path},queues=1,queue_size=${RING_SIZE},${receive},mac=${ADDRESSES[i]}${role}`,
      ),
      cores: `${options.controlCpu},${options.cpu}`,
      ealArgs: ['--main-lcore', String(options.controlCpu), '--log-level=pmd.net.virtio.*:info'],
      args: [
        '--forward-mode=io',
        '--total-num-mbufs=8192',
        // What leaves by a port goes to the address of the other one, so that the switch forwards to one port.
        `--eth-peer=0,${ADDRESSES[1]}`,
        `--eth-peer=1,${ADDRESSES[0]}`,
      ],
      memoryMiB: TESTPMD_LOAD_MIB,
      ...(options.hugepagesPath === null ? {} : { hugepagesPath: options.hugepagesPath }),
    });
    if (options.kind === 'vectorised' && !(await saysVectorised(testpmd))) {
      await testpmd.stop();
      throw new Error('testpmd did not choose its vectorised receive path');
    }
    return new TestpmdLoad(testpmd);
  }

  async measure({ frameBytes, warmUpMs, windowMs }: Window): Promise<number> {
    await this.#testpmd.command(`set txpkts ${frameBytes}`);
    await this.#testpmd.command('start tx_first 4');
    try {
      await delay(warmUpMs);
      const before = await this.#counts();
      await delay(windowMs);
      const after = await this.#counts();
      checkFrames(before, after, frameBytes);
      // testpmd's own rate between the two looks, by its own clock: the way of the answer to us costs nothing.
      return after.reduce((sum, port) => sum + port.rxPerSecond, 0);
    } finally {
      await this.#testpmd.command('stop');
    }
  }

  async stop(): Promise<void> {
    await this.#testpmd.stop();
  }

  async #counts(): Promise<PortCounts[]> {
    const text = await this.#testpmd.command('show port stats all');
    return text
      .split('NIC statistics for port ')
      .slice(1)
      .map((section) => ({
        rxPackets: counter(section, 'RX-packets'),
        rxBytes: counter(section, 'RX-bytes'),
        rxPerSecond: counter(section, 'Rx-pps'),
      }));
  }
}

/** DPDK's log comes by another pipe than the prompt that ends the start, so perhaps a moment later. */
async function saysVectorised(testpmd: Testpmd): Promise<boolean> {
  for (let waitedMs = 0; waitedMs < LOG_MS_MAX; waitedMs += LOG_LOOK_MS) {
    if (testpmd.output.includes(VECTORISED_LOG)) return true;
    await delay(LOG_LOOK_MS);
  }
  return false;
}

function counter(section: string, name: string): number {
  const match = new RegExp(`${name}:\\s*(\\d+)`).exec(section);
  if (match === null) throw new Error(`testpmd's statistics lack ${name}:\n${section}`);
  return Number(match[1]);
}

function checkFrames(before: readonly PortCounts[], after: readonly PortCounts[], frameBytes: number): void {
  for (const [i, end] of after.entries()) {
    const frames = end.rxPackets - before[i].rxPackets;
    if (frames === 0) throw new Error(`no frame came through to port ${i}`);
    const meanBytes = (end.rxBytes - before[i].rxBytes) / frames;
    if (Math.abs(meanBytes - frameBytes) > 0.5) {
      throw new Error(`frames of ${meanBytes.toFixed(1)} bytes on average where ${frameBytes} were sent`);
    }
  }
}
