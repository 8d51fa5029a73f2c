/**
 * DPDK's testpmd as front-end: two virtio-user ports on one Ringway, frames circulating between them and counted on
 * both sides. Every kind of ring that the driver can ask for, in both roles, with 1, 2 and 4 queue pairs; a part
 * of the combinations always, all of them with RINGWAY_TESTPMD_MATRIX=full.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, afterEach, describe, expect, test } from 'vitest';
import type { VhostUserDetails } from '../../src/port/vhost-user/port.ts';
import type { PortReport } from '../../switch/control/report.ts';
import { peersForTests, Testpmd } from '../peers/index.ts';
import {
  expectedVirtioPaths,
  framesLeftLyingMax,
  VIRTIO_USER_EAL_ARGS,
  type VirtioUserRings,
  virtioPathsOf,
  virtioUserVdev,
} from '../peers/virtio-user.ts';
import { RingwayProcess } from './ringway-process.ts';
import { circulate, drain, START_COMMAND, tally, untilForwarded } from './testpmd-traffic.ts';

const peers = await peersForTests(['testpmd']);

const TRAFFIC_MS = 1000;
/** Each ring goes round some hundred times. */
const ENOUGH_FRAMES = 50_000;
/** How often Ringway is killed; all 20 with the full matrix. */
const KILLS = process.env.RINGWAY_TESTPMD_MATRIX === 'full' ? 20 : 3;
const MACS = ['02:00:00:00:01:01', '02:00:00:00:01:02'] as const;

type Shape = VirtioUserRings & {
  readonly queuePairs: 1 | 2 | 4;
  /** testpmd listens and Ringway connects. */
  readonly server: boolean;
  /** For Ringway; two of them make two workers, which share the receive queues. */
  readonly cpus?: string;
  /** Frames of several buffers of 512 bytes, both ways. */
  readonly scattered?: boolean;
  /** What Ringway does not offer. */
  readonly features?: string;
};

const BOTH = [false, true] as const;
const RINGS: readonly VirtioUserRings[] = BOTH.flatMap((packed) =>
  BOTH.flatMap((inOrder) =>
    BOTH.flatMap((mergeable) => BOTH.map((vectorized) => ({ packed, inOrder, mergeable, vectorized }))),
  ),
);

/** As guests have it, and the fastest that the layout has. */
const DEFAULT_RINGS = { inOrder: true, mergeable: true, vectorized: false };
const fastRings = (packed: boolean): VirtioUserRings => ({
  packed,
  inOrder: packed,
  mergeable: false,
  vectorized: true,
});

/** All kinds of rings with one queue pair; each layout with every number of pairs in both roles. */
const REPRESENTATIVE: readonly Shape[] = [
  ...RINGS.map((rings): Shape => ({ ...rings, queuePairs: 1, server: false })),
  ...BOTH.flatMap((packed): Shape[] => [
    { ...DEFAULT_RINGS, packed, queuePairs: 1, server: true },
    { ...DEFAULT_RINGS, packed, queuePairs: 2, server: false },
    { ...fastRings(packed), queuePairs: 2, server: true },
    { ...fastRings(packed), queuePairs: 4, server: false },
    { ...DEFAULT_RINGS, packed, queuePairs: 4, server: true },
  ]),
];

const ALL: readonly Shape[] = BOTH.flatMap((server) =>
  ([1, 2, 4] as const).flatMap((queuePairs) => RINGS.map((rings) => ({ ...rings, queuePairs, server }))),
);

const MATRIX = process.env.RINGWAY_TESTPMD_MATRIX === 'full' ? ALL : REPRESENTATIVE;

/** Beside the matrix: what it has no axis for. */
const OTHERS: readonly Shape[] = BOTH.flatMap((packed): Shape[] => {
  const one = { ...DEFAULT_RINGS, packed, queuePairs: 1, server: false } as const;
  return [
    { ...one, queuePairs: 2, cpus: '0,1' },
    { ...one, scattered: true },
    { ...one, scattered: true, inOrder: false },
    { ...one, scattered: true, vectorized: true },
    { ...one, scattered: true, inOrder: false, features: 'no-indirect' },
  ];
});

function titleOf(shape: Shape): string {
  const flags = [
    shape.packed ? 'packed' : 'split',
    ...(shape.inOrder ? ['in order'] : []),
    ...(shape.mergeable ? ['mergeable'] : []),
    ...(shape.vectorized ? ['vectorized'] : []),
    ...(shape.cpus === undefined ? [] : ['two workers']),
    ...(shape.scattered === true ? ['frames in several buffers'] : []),
    ...(shape.features === undefined ? [] : [shape.features]),
  ];
  const role = shape.server ? 'testpmd listens' : 'testpmd connects';
  return `${flags.join(', ')}; pairs: ${shape.queuePairs}; ${role}`;
}

const table: Record<string, string | number>[] = [];

describe.skipIf(peers.skip)(peers.title('testpmd, two virtio-user ports'), () => {
  let ringway: RingwayProcess | undefined;
  let testpmd: Testpmd | undefined;

  afterEach(async () => {
    await testpmd?.stop();
    const ending = ringway;
    testpmd = undefined;
    ringway = undefined;
    await ending?.stop();
  });

  afterAll(() => {
    if (table.length > 0) console.table(table);
  });

  async function startBoth(shape: Shape): Promise<[RingwayProcess, Testpmd]> {
    const { queuePairs, server, cpus, features } = shape;
    const text = `${server ? ',role=client' : ''}${features === undefined ? '' : `,features=${features}`}`;
    const switching = await RingwayProcess.start({
      ports: ['a', 'b'],
      portOptions: { a: text, b: text },
      args: cpus === undefined ? [] : ['--cpus', cpus],
    });
    ringway = switching;
    const scatter = ['--mbuf-size=640', '--enable-scatter', '--txpkts=400,400,400'];
    testpmd = await Testpmd.start({
      vdevs: vdevsOf(switching, shape),
      // Several flows, so that all queues get some.
      args: [
        ...['--forward-mode=io', '--txonly-multi-flow', `--rxq=${queuePairs}`, `--txq=${queuePairs}`],
        ...(shape.scattered === true ? scatter : []),
      ],
      ealArgs: VIRTIO_USER_EAL_ARGS,
    });
    for (const port of ['a', 'b']) await switching.untilState(port, 'running', queuePairs);
    return [switching, testpmd];
  }

  const SHAPES = [...MATRIX, ...OTHERS].map((shape) => ({ ...shape, title: titleOf(shape) }));

  test.each(SHAPES)('$title: no frame is lost', async (shape) => {
    const [switching, pmd] = await startBoth(shape);
    await circulate(pmd, ENOUGH_FRAMES, TRAFFIC_MS);
    const stats = await drain(pmd);
    const { sent, received, lost } = tally(stats);

    const paths = virtioPathsOf(pmd.output);
    const features = new Set(
      (await switching.ports()).map(({ details }) => featuresOf(details as VhostUserDetails)),
    );
    table.push({
      shape: shape.title,
      rx: paths[0].rx,
      tx: paths[0].tx,
      features: [...features].join(' | '),
      sent,
      received,
      lost,
    });
    expect(paths).toEqual([expectedVirtioPaths(shape), expectedVirtioPaths(shape)]);
    expect([...features]).toEqual([expectedFeatures(shape)]);

    expect(lost).toBeGreaterThanOrEqual(0);
    expect(lost).toBeLessThanOrEqual(2 * shape.queuePairs * framesLeftLyingMax(paths[0]));
    if (lost === 0) expect(bytes(stats, 'rxBytes')).toBe(bytes(stats, 'txBytes'));
    const reports = await untilCounted(switching, sent);
    for (const { drops, queues } of reports) {
      expect(Object.values(drops).filter((count) => count !== 0)).toEqual([]);
      expect(queues.filter(({ frames }) => frames === 0)).toEqual([]);
    }
    const workers = new Set(reports.flatMap(({ queues }) => queues.map(({ worker }) => worker ?? 0)));
    expect(workers.size).toBe(shape.cpus === undefined ? 1 : 2);
    expect((await switching.fdb()).entries.map(({ mac }) => mac).sort()).toEqual([...MACS]);
  });

  test.each(BOTH)('testpmd that goes away and comes back is served again (packed: %s)', async (packed) => {
    const switching = await RingwayProcess.start({ ports: ['a', 'b'] });
    ringway = switching;
    const vdevs = vdevsOf(switching, { ...DEFAULT_RINGS, packed, queuePairs: 1, server: false });
    for (let round = 0; round < 2; round++) {
      testpmd = await Testpmd.start({ vdevs, args: ['--forward-mode=io'] });
      await testpmd.command(START_COMMAND);
      await untilForwarded(testpmd, ENOUGH_FRAMES / 10);
      testpmd.kill();
      await testpmd.exited;
      testpmd = undefined;
      await switching.untilState('a', 'waiting');
      await switching.untilState('b', 'waiting');
    }
  });

  /** Nobody reads what is flooded here, so that most of it is dropped, and all of it must be in the books. */
  test.each(BOTH)(
    'what testpmd sends faster than anybody takes it is counted (packed: %s)',
    async (packed) => {
      const switching = await RingwayProcess.start({ ports: ['a', 'b', 'nobody'] });
      ringway = switching;
      testpmd = await Testpmd.start({
        vdevs: vdevsOf(switching, { ...DEFAULT_RINGS, packed, queuePairs: 2, server: false }),
        args: ['--forward-mode=txonly', '--txonly-multi-flow', '--rxq=2', '--txq=2'],
      });
      for (const port of ['a', 'b']) await switching.untilState(port, 'running', 2);
      await testpmd.command('start');
      await delay(TRAFFIC_MS);
      await testpmd.command('stop');
      const sent = (await testpmd.portStats()).reduce((sum, port) => sum + port.txPackets, 0);
      const taken = async (): Promise<number> =>
        (await switching.ports()).reduce((sum, { counters }) => sum + counters.ingressFrames, 0);
      await switching.until(async () => (await taken()) === sent);
      for (const port of ['a', 'b']) {
        const { counters, drops } = await switching.port(port);
        expect(drops.noBuffer).toBeGreaterThan(0);
        expect(counters.copies).toBeGreaterThan(0);
      }
      expect((await switching.port('nobody')).drops.notReady).toBeGreaterThan(0);
    },
  );

  /**
   * For split rings this driver names base 0, and they go on where their used rings stand. Of packed rings nothing in
   * the guest's memory tells where they stand; it knows that and begins them anew, with what was on its way lost.
   */
  test.each(BOTH)(
    'testpmd that listens goes on when Ringway was killed under traffic, again and again (packed: %s)',
    async (packed) => {
      const shape = { ...DEFAULT_RINGS, packed, queuePairs: 2, server: true } as const;
      const [switching, pmd] = await startBoth(shape);
      for (let kill = 0; kill < KILLS; kill++) {
        await pmd.command('set fwd io');
        await pmd.command(START_COMMAND);
        await untilForwarded(pmd, ENOUGH_FRAMES / 10);
        await switching.killAndRestart();
        for (const port of ['a', 'b']) await switching.untilState(port, 'running', 2);
        await pmd.command('stop');
        await drain(pmd);
        const before = await switching.ports();
        await pmd.command('clear port stats all');
        await pmd.command('set fwd io');
        await circulate(pmd, ENOUGH_FRAMES / 10, 0);
        const { sent, lost } = tally(await drain(pmd));
        expect(lost).toBe(0);
        const reports = await untilCounted(switching, egressFrames(before) + sent);
        for (const { name, reason } of reports) expect({ name, reason }).toEqual({ name, reason: null });
        await pmd.command('clear port stats all');
      }
      if (!packed) expect(switching.log).toMatch(/queue \d+: its base named 0, but it was used up to \d+/);
    },
  );
});

/** testpmd's two ports, on the ports a and b of a Ringway. */
function vdevsOf(ringway: RingwayProcess, shape: Shape): string[] {
  return ['a', 'b'].map((port, index) =>
    virtioUserVdev({ ...shape, index, socketPath: ringway.socket(port), mac: MACS[index] }),
  );
}

const egressFrames = (reports: readonly PortReport[]): number =>
  reports.reduce((sum, { counters }) => sum + counters.egressFrames, 0);

/** Answers the reports once all frames are in them: testpmd has a frame a moment before it is counted. */
async function untilCounted(ringway: RingwayProcess, frames: number): Promise<PortReport[]> {
  let reports = await ringway.ports();
  await ringway
    .until(async () => {
      reports = await ringway.ports();
      return egressFrames(reports) === frames;
    })
    .catch((cause) => {
      throw new Error(`${egressFrames(reports)} of ${frames} frames were counted`, { cause });
    });
  return reports;
}

const bytes = (stats: readonly { rxBytes: number; txBytes: number }[], side: 'rxBytes' | 'txBytes'): number =>
  stats.reduce((sum, port) => sum + port[side], 0);

/** Those that the matrix turns on and off, as they were negotiated. */
function featuresOf({ features }: VhostUserDetails): string {
  return ['RING_PACKED', 'IN_ORDER', 'NET_MRG_RXBUF'].filter((name) => features.includes(name)).join(' ');
}

function expectedFeatures({ packed, inOrder, mergeable }: Shape): string {
  const names = [packed && 'RING_PACKED', inOrder && 'IN_ORDER', mergeable && 'NET_MRG_RXBUF'];
  return names.filter((name) => name !== false).join(' ');
}
