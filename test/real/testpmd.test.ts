/**
 * DPDK's testpmd as front-end: two virtio-user ports on one Ringway, frames circulating between them and
 * counted on both sides.
 */
import { afterEach, describe, expect, test } from 'vitest';
import type { VhostUserDetails } from '../../src/port/vhost-user/port.ts';
import { peersForTests, Testpmd } from '../peers/index.ts';
import { RingwayProcess } from './ringway-process.ts';

const peers = await peersForTests(['testpmd']);

/** testpmd sends 4 bursts of 32 frames from each of its two ports, and each frame goes round for ever. */
const FRAMES_STARTED = 2 * 4 * 32;
const ENOUGH_FRAMES = 200_000;

type Shape = {
  readonly title: string;
  readonly queuePairs: 1 | 2;
  readonly mergeable: boolean;
  readonly server: boolean;
  /** For Ringway; two of them make two workers, which share the receive queues. */
  readonly cpus?: string;
};

const SHAPES: readonly Shape[] = [
  { title: 'mergeable, 1 queue pair', queuePairs: 1, mergeable: true, server: false },
  { title: 'not mergeable, 1 queue pair', queuePairs: 1, mergeable: false, server: false },
  { title: 'mergeable, 2 queue pairs', queuePairs: 2, mergeable: true, server: false },
  { title: 'not mergeable, 2 queue pairs', queuePairs: 2, mergeable: false, server: false },
  { title: 'testpmd listens, Ringway connects (server=1)', queuePairs: 1, mergeable: true, server: true },
  { title: 'two workers, 2 queue pairs', queuePairs: 2, mergeable: true, server: false, cpus: '0,1' },
];

describe.skipIf(peers.skip)(peers.title('testpmd, two virtio-user ports'), () => {
  let ringway: RingwayProcess | undefined;
  let testpmd: Testpmd | undefined;

  afterEach(async () => {
    await testpmd?.stop();
    await ringway?.stop();
    testpmd = undefined;
    ringway = undefined;
  });

  test.each(SHAPES)('$title: no frame is lost', async ({ queuePairs, mergeable, server, cpus }) => {
    const role = server ? ',role=client' : '';
    ringway = await RingwayProcess.start({
      ports: ['a', 'b'],
      portOptions: { a: role, b: role },
      args: cpus === undefined ? [] : ['--cpus', cpus],
    });
    testpmd = await Testpmd.start({
      vdevs: ['a', 'b'].map((port, i) => {
        const queues = `queues=${queuePairs},queue_size=512,mrg_rxbuf=${mergeable ? 1 : 0}`;
        const listen = server ? ',server=1' : '';
        return `net_virtio_user${i},path=${ringway!.socket(port)},${queues}${listen},mac=02:00:00:00:01:0${i + 1}`;
      }),
      args: ['--forward-mode=io', `--rxq=${queuePairs}`, `--txq=${queuePairs}`],
    });
    await ringway.untilState('a', 'running', queuePairs);
    await ringway.untilState('b', 'running', queuePairs);

    await testpmd.command('start tx_first 4');
    await untilForwarded(testpmd, ENOUGH_FRAMES);
    await testpmd.command('stop');

    const stats = await testpmd.portStats();
    const sent = stats[0].txPackets + stats[1].txPackets;
    const received = stats[0].rxPackets + stats[1].rxPackets;
    // The last burst may still be on its way when testpmd counts.
    await ringway.until(async () => (await forwarded(ringway!)) === sent);
    const workers = new Set((await ringway.port('a')).queues.map(({ worker }) => worker ?? 0));
    expect(workers.size).toBe(cpus === undefined ? 1 : 2);
    const [a, b] = await Promise.all([ringway.port('a'), ringway.port('b')]);
    expect(sum(a.drops) + sum(b.drops)).toBe(0);
    // What testpmd did not take back was on its way when it stopped.
    expect(sent - received).toBeGreaterThanOrEqual(0);
    expect(sent - received).toBeLessThanOrEqual(FRAMES_STARTED * queuePairs);
    expect(a.counters.ingressFrames + b.counters.ingressFrames).toBe(sent);
    expect(a.counters.egressFrames + b.counters.egressFrames).toBe(sent);
    expect((a.details as VhostUserDetails).features.includes('NET_MRG_RXBUF')).toBe(mergeable);
    expect((await ringway.fdb()).entries.map(({ mac }) => mac).sort()).toEqual([
      '02:00:00:00:01:01',
      '02:00:00:00:01:02',
    ]);
  });

  test('testpmd that goes away and comes back is served again', async () => {
    ringway = await RingwayProcess.start({ ports: ['a', 'b'] });
    const vdevs = ['a', 'b'].map((port, i) => `net_virtio_user${i},path=${ringway!.socket(port)}`);
    for (let round = 0; round < 2; round++) {
      testpmd = await Testpmd.start({ vdevs, args: ['--forward-mode=io'] });
      await testpmd.command('start tx_first 4');
      await untilForwarded(testpmd, ENOUGH_FRAMES / 10);
      testpmd.kill();
      await testpmd.exited;
      testpmd = undefined;
      await ringway.untilState('a', 'waiting');
      await ringway.untilState('b', 'waiting');
    }
  });
});

/** Asks testpmd, which is the event to wait for here: it answers when it has counted. */
async function untilForwarded(testpmd: Testpmd, frames: number): Promise<void> {
  const deadline = AbortSignal.timeout(60_000);
  for (;;) {
    const stats = await testpmd.portStats();
    if (Math.min(...stats.map((port) => port.rxPackets)) >= frames) return;
    if (deadline.aborted) throw new Error(`testpmd forwarded too little: ${JSON.stringify(stats)}`);
  }
}

async function forwarded(ringway: RingwayProcess): Promise<number> {
  const reports = await ringway.ports();
  return reports.reduce((total, port) => total + port.counters.egressFrames, 0);
}

function sum(counters: Readonly<Record<string, number>>): number {
  return Object.values(counters).reduce((total, value) => total + value, 0);
}
