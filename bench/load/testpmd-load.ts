/**
 * testpmd as load generator between two ports: every frame that arrives is sent again, so the frames sent at the
 * start go to and fro for ever. In macswap mode a frame comes back by the port that it arrived at, in io mode it
 * leaves by the other; either way each port sends from its own address to the other's. Owns the process; main thread.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { Testpmd } from '../../test/peers/index.ts';
import {
  type LoadFigures,
  type LoadGenerator,
  type LoadTarget,
  RING_SIZE,
  TESTPMD_LOADS,
  type TestpmdLoadKind,
  type Window,
  type WindowWatch,
} from './contract.ts';

export type TestpmdLoadOptions = {
  readonly kind: TestpmdLoadKind;
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
const RECEIVE_PATHS = {
  vectorised: 'mrg_rxbuf=0,in_order=0,vectorized=1',
  default: 'mrg_rxbuf=1,in_order=1',
} as const;
/** Frames leave by the port that they came in by, or by the other. */
const TOPOLOGIES = { macswap: 'loop', io: 'paired' } as const;

export class TestpmdLoad implements LoadGenerator {
  readonly addresses = ADDRESSES;
  readonly #testpmd: Testpmd;

  private constructor(testpmd: Testpmd) {
    this.#testpmd = testpmd;
  }

  static async start(target: LoadTarget, options: TestpmdLoadOptions): Promise<TestpmdLoad> {
    const testpmd = await startTestpmd(target, options);
    await testpmd.command('set record-burst-stats on');
    return new TestpmdLoad(testpmd);
  }

  get pid(): number {
    return this.#testpmd.pid;
  }

  async measure(window: Window, watch?: WindowWatch): Promise<LoadFigures> {
    await this.#testpmd.command(`set txpkts ${window.frameBytes}`);
    await this.#testpmd.command('start tx_first 4');
    try {
      const framesPerSecond = await measureWindow(this.#testpmd, window, watch);
      const forwarded = await this.#testpmd.command('show fwd stats all');
      return { framesPerSecond, emptyLookShare: emptyLookShareIn(forwarded) };
    } finally {
      await this.#testpmd.command('stop');
    }
  }

  async stop(): Promise<void> {
    await this.#testpmd.stop();
  }
}

/** @throws when it does not start, or takes another receive path than the one asked for */
async function startTestpmd(
  target: LoadTarget,
  { kind, cpu, controlCpu, hugepagesPath }: TestpmdLoadOptions,
): Promise<Testpmd> {
  const { mode, path } = TESTPMD_LOADS[kind];
  const role = target.generatorRole === 'server' ? ',server=1' : '';
  const settings = `queues=1,queue_size=${RING_SIZE},${RECEIVE_PATHS[path]}`;
  const testpmd = await Testpmd.start({
    vdevs: target.sockets.map(
      (socket, port) => `net_virtio_user${port},path=${socket},${settings},mac=${ADDRESSES[port]}${role}`,
    ),
    cores: `${controlCpu},${cpu}`,
    ealArgs: ['--main-lcore', String(controlCpu), '--log-level=pmd.net.virtio.*:info'],
    args: [
      `--forward-mode=${mode}`,
      `--port-topology=${TOPOLOGIES[mode]}`,
      '--total-num-mbufs=8192',
      // The frames sent at the start go to the address of the other port, so that the switch forwards to one port.
      `--eth-peer=0,${ADDRESSES[1]}`,
      `--eth-peer=1,${ADDRESSES[0]}`,
    ],
    memoryMiB: TESTPMD_LOAD_MIB,
    ...(hugepagesPath === null ? {} : { hugepagesPath }),
  });
  if (path === 'vectorised' && !(await saysVectorised(testpmd))) {
    await testpmd.stop();
    throw new Error('testpmd did not choose its vectorised receive path');
  }
  return testpmd;
}

/** Frames per second received by all ports, while testpmd forwards. @throws when a port received none */
async function measureWindow(
  testpmd: Testpmd,
  { frameBytes, warmUpMs, windowMs }: Window,
  watch?: WindowWatch,
): Promise<number> {
  await delay(warmUpMs);
  await watch?.begins();
  const before = await countsOf(testpmd);
  await delay(windowMs);
  const after = await countsOf(testpmd);
  await watch?.ends();
  checkFrames(before, after, frameBytes);
  // testpmd's own rate between the two looks, by its own clock: the way of the answer to us costs nothing.
  return after.reduce((sum, port) => sum + port.rxPerSecond, 0);
}

async function countsOf(testpmd: Testpmd): Promise<PortCounts[]> {
  const text = await testpmd.command('show port stats all');
  return text
    .split('NIC statistics for port ')
    .slice(1)
    .map((section) => ({
      rxPackets: counter(section, 'RX-packets'),
      rxBytes: counter(section, 'RX-bytes'),
      rxPerSecond: counter(section, 'Rx-pps'),
    }));
}

/** Of all ports, since forwarding began; testpmd tells whole percents: `RX-bursts : 3555154 [93% of 0 pkts + …`. */
function emptyLookShareIn(text: string): number {
  let looks = 0;
  let emptyLooks = 0;
  for (const [, count, percent] of text.matchAll(/RX-bursts : (\d+) \[(\d+)% of 0 pkts/g)) {
    looks += Number(count);
    emptyLooks += (Number(count) * Number(percent)) / 100;
  }
  if (looks === 0) throw new Error(`testpmd tells nothing of its bursts:\n${text}`);
  return emptyLooks / looks;
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
