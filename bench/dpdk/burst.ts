/**
 * Bursts through the bindings beside testpmd's on the same virtual devices, a processor each, in turn:
 * `node bench/dpdk/burst.ts [--rounds 5] [--seconds 2] [--cpu 1] [--hugepages /dev/hugepages]`. Prints millions of frames per second, medians.
 *
 * net_null: frames come at once and vanish at once, so what is measured is the moving itself. net_ring: what is sent
 * comes back, so frames sent at the start go round. `io`: the mbufs received are sent, untouched, as testpmd does.
 * `copy`: each is copied to an mbuf of the other side, as the switch does. Every round of ours is a process of its
 * own, as one of testpmd's is.
 *
 * Give testpmd hugepages: without them DPDK puts one mbuf into each page of 4 KiB, all at the same place in it, which
 * halves testpmd's speed; our pools lie in the arena in either case.
 */
import { execFile } from 'node:child_process';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs, promisify } from 'node:util';
import { Arena, ArenaView, copyBytes, Eal, EthPort, RxBurst, TxBurst } from '../../src/dpdk/index.ts';
import { pinThread } from '../../src/host/affinity.ts';
import { Batch } from '../../src/queue/batch.ts';
import { warmUpCopy } from '../../src/queue/copy.ts';
import { Testpmd } from '../../test/peers/index.ts';
import { spreadOf } from '../statistics.ts';

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    seconds: { type: 'string', default: '2' },
    cpu: { type: 'string', default: '1' },
    hugepages: { type: 'string' },
    way: { type: 'string' },
  },
});
const WARM_UP_SECONDS = 0.5;
/** Bursts of 32 that testpmd sends first, and so do we. */
const FIRST_BURSTS = 4;
const LOOPS_PER_LOOK = 2000;
const FRAME_BYTES = 64;

type Way = {
  readonly title: string;
  readonly devices: readonly string[];
  readonly move: 'free' | 'io' | 'copy';
};

const WAYS: Readonly<Record<string, Way>> = {
  nullReceive: { title: 'net_null, receive and free', devices: ['net_null0'], move: 'free' },
  nullIo: { title: 'net_null, io', devices: ['net_null0', 'net_null1'], move: 'io' },
  nullCopy: { title: 'net_null, copy', devices: ['net_null0', 'net_null1'], move: 'copy' },
  ringIo: { title: 'net_ring, io', devices: ['net_ring0'], move: 'io' },
  ringCopy: { title: 'net_ring, copy', devices: ['net_ring0'], move: 'copy' },
};
const TESTPMD: readonly { readonly title: string; readonly vdevs: readonly string[] }[] = [
  { title: 'net_null, io', vdevs: ['net_null0', 'net_null1'] },
  { title: 'net_ring, io', vdevs: ['net_ring0'] },
];

/** One round in this process: moves frames for a while and answers how many a second. */
function measure({ devices, move }: Way, cpu: number, seconds: number): number {
  pinThread(cpu);
  const arena = Arena.reserve(2 ** 33);
  const view = new ArenaView(arena.location);
  warmUpCopy(view);
  const eal = Eal.start({ hugepages: 'never' });
  const options = { queueCount: 1, mtu: null, promiscuous: true, threadCount: 1 };
  const ports = devices.map((device) => EthPort.open(eal, arena, device, options));
  const rx = ports.map((port) => new RxBurst(view, port.rxQueues[0]));
  const tx = ports.map((port) => new TxBurst(view, port.txQueues[0]));
  const batch = new Batch();
  if (devices[0].startsWith('net_ring')) {
    for (let burst = 0; burst < FIRST_BURSTS; burst++) {
      for (let i = 0; i < 32; i++) tx[0].place(FRAME_BYTES, 0);
      tx[0].flush();
    }
  }
  const turn = (loops: number): number => {
    let frames = 0;
    for (let loop = 0; loop < loops; loop++) {
      for (let port = 0; port < rx.length; port++) {
        frames += moveBurst(move, view, rx[port], tx[rx.length - 1 - port], batch);
      }
    }
    return frames;
  };
  const during = (wantedSeconds: number): number => {
    const start = performance.now();
    let frames = 0;
    let nowMs = start;
    for (; nowMs - start < wantedSeconds * 1000; nowMs = performance.now()) frames += turn(LOOPS_PER_LOOK);
    return (frames / (nowMs - start)) * 1000;
  };
  during(WARM_UP_SECONDS);
  return during(seconds);
}

function moveBurst(move: Way['move'], view: ArenaView, rx: RxBurst, tx: TxBurst, batch: Batch): number {
  const count = rx.receive();
  if (count === 0) return 0;
  if (move === 'io') return rx.forward(tx, count);
  if (move === 'copy') {
    batch.clear();
    for (let slot = 0; slot < count; slot++) rx.describe(slot, batch);
    const from = view.windows[rx.windowNumber];
    const to = view.windows[tx.windowNumber];
    for (let i = 0; i < batch.count; i++) {
      const at = tx.place(batch.bytesOf(i), batch.indexOf(i));
      if (at >= 0) copyBytes(view, from, batch.indexOf(i), to, at, batch.bytesOf(i));
    }
    tx.flush();
  }
  rx.free(0, count);
  return count;
}

/** Frames a second that testpmd received, all ports. */
async function measureTestpmd(vdevs: readonly string[], cpu: number, seconds: number): Promise<number> {
  const testpmd = await Testpmd.start({
    vdevs,
    cores: `${cpu === 0 ? 1 : 0},${cpu}`,
    ealArgs: ['--main-lcore', String(cpu === 0 ? 1 : 0)],
    args: [
      '--forward-mode=io',
      `--port-topology=${vdevs.length === 1 ? 'loop' : 'paired'}`,
      '--burst=64',
      '--total-num-mbufs=4096',
    ],
    memoryMiB: 64,
    ...(values.hugepages === undefined ? {} : { hugepagesPath: values.hugepages }),
  });
  try {
    await testpmd.command(vdevs[0].startsWith('net_ring') ? `start tx_first ${FIRST_BURSTS}` : 'start');
    await delay(WARM_UP_SECONDS * 1000);
    const count = async (): Promise<number> =>
      (await testpmd.portStats()).reduce((sum, port) => sum + port.rxPackets, 0);
    const before = await count();
    const start = performance.now();
    await delay(seconds * 1000);
    const frames = (await count()) - before;
    return (frames / (performance.now() - start)) * 1000;
  } finally {
    await testpmd.stop();
  }
}

async function main(): Promise<void> {
  const [cpu, seconds, rounds] = [Number(values.cpu), Number(values.seconds), Number(values.rounds)];
  const own = values.way === undefined ? undefined : WAYS[values.way];
  if (own !== undefined) {
    console.log(measure(own, cpu, seconds));
    return;
  }
  const figures = new Map<string, number[]>();
  const add = (name: string, perSecond: number): void => {
    figures.set(name, [...(figures.get(name) ?? []), perSecond / 1e6]);
  };
  for (let round = 0; round < rounds; round++) {
    for (const { title, vdevs } of TESTPMD) {
      add(`testpmd   ${title}`, await measureTestpmd(vdevs, cpu, seconds));
    }
    for (const [way, { title }] of Object.entries(WAYS)) {
      const args = [
        fileURLToPath(import.meta.url),
        '--way',
        way,
        '--cpu',
        `${cpu}`,
        '--seconds',
        `${seconds}`,
      ];
      const { stdout } = await promisify(execFile)(process.execPath, args);
      add(`bindings  ${title}`, Number(stdout));
    }
  }
  console.log(`millions of frames of ${FRAME_BYTES} bytes per second, ${rounds} rounds in turn`);
  for (const [name, values] of [...figures].sort(([a], [b]) => a.slice(10).localeCompare(b.slice(10)))) {
    const { median, min, max } = spreadOf(values);
    console.log(
      `${name.padEnd(38)} ${median.toFixed(1).padStart(6)}  (${min.toFixed(1)} to ${max.toFixed(1)})`,
    );
  }
}

await main();
