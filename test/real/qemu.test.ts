/**
 * Real guests: Linux in QEMU, connected by the README's QEMU line (without KVM), talking to each other
 * through one Ringway. Once with memory from hugetlbfs, once from a memfd.
 */
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import {
  type Hugepages,
  LinuxGuest,
  peersForTests,
  runIperf3,
  startIperf3Server,
  takeHugepages,
  untilEchoesAnswered,
  vhostUserArgs,
} from '../peers/index.ts';
import { expectEveryQueueUsed } from './queue-use.ts';
import { RingwayProcess } from './ringway-process.ts';

const peers = await peersForTests(['qemu']);
const MEMORY_MIB = 256;
const QUEUE_PAIRS = 2;
/** All 20 with the full matrix of testpmd. */
const KILLS = process.env.RINGWAY_TESTPMD_MATRIX === 'full' ? 20 : 3;

const TAKEOVERS = Math.round(2 * Number(process.env.RINGWAY_SEARCH ?? 1));

const MEMORIES = [
  { title: 'hugetlbfs by memory-backend-file', huge: true },
  { title: 'memory-backend-memfd', huge: false },
] as const;

describe.skipIf(peers.skip).each(MEMORIES)(peers.title('two QEMU guests, $title'), ({ huge }) => {
  let hugepages: Hugepages | undefined;
  let ringway: RingwayProcess;
  let a: LinuxGuest;
  let b: LinuxGuest;

  beforeAll(async () => {
    if (huge) {
      const taken = await takeHugepages((2 * MEMORY_MIB) / 2);
      if ('unavailable' in taken) throw new Error(taken.unavailable);
      hugepages = taken;
    }
    ringway = await RingwayProcess.start({ ports: ['a', 'b'] });
    [a, b] = await Promise.all([boot(ringway, 'a', 1, hugepages), boot(ringway, 'b', 2, hugepages)]);
  });

  afterAll(async () => {
    await Promise.all([a?.stop(), b?.stop()]);
    expect(await ringway?.stop()).toBe(0);
    await hugepages?.release();
  });

  test('ping without loss, and the addresses are learned', async () => {
    expect(await a.ping('10.0.0.2', { count: 20 })).toEqual({ sent: 20, received: 20 });
    expect(await b.ping('10.0.0.1', { count: 20, sizeBytes: 1400 })).toEqual({ sent: 20, received: 20 });
    const { entries } = await ringway.fdb();
    expect(entries.find(({ mac }) => mac === '52:54:00:00:00:01')?.port).toBe('a');
    expect(entries.find(({ mac }) => mac === '52:54:00:00:00:02')?.port).toBe('b');
  });

  test('both queue pairs run and carry traffic', async () => {
    for (const guest of [a, b]) await guest.runOk('ethtool -L eth0 combined 2');
    await ringway.untilState('a', 'running', QUEUE_PAIRS);
    await ringway.untilState('b', 'running', QUEUE_PAIRS);
    await startIperf3Server(b);
    const traffic = () => runIperf3(a, '10.0.0.2', { seconds: 2, args: ['-P', '8'] });
    await expectEveryQueueUsed(ringway, 'b', 2 * QUEUE_PAIRS, traffic);
  });

  test('TCP in both directions', async () => {
    for (const args of [[], ['-R']]) {
      const { receivedBytes } = await runIperf3(a, '10.0.0.2', { seconds: 2, args });
      expect(receivedBytes).toBeGreaterThan(1_000_000);
    }
    const reports = await ringway.ports();
    for (const { name, reason } of reports) expect({ name, reason }).toEqual({ name, reason: null });
  });

  test('one queue pair again, and back', async () => {
    await a.runOk('ethtool -L eth0 combined 1');
    await ringway.untilState('a', 'running', 1);
    expect(await a.ping('10.0.0.2')).toEqual({ sent: 5, received: 5 });
    await a.runOk('ethtool -L eth0 combined 2');
    await ringway.untilState('a', 'running', 2);
    expect(await a.ping('10.0.0.2')).toEqual({ sent: 5, received: 5 });
  });

  test('a guest that reboots comes back', async () => {
    await b.reboot();
    await b.configureNetwork('10.0.0.2/24');
    await ringway.untilState('b', 'running');
    expect(await a.ping('10.0.0.2')).toEqual({ sent: 5, received: 5 });
  });
});

describe.skipIf(peers.skip)(peers.title('three QEMU guests'), () => {
  test('one that is killed leaves the other two undisturbed', async () => {
    const ringway = await RingwayProcess.start({ ports: ['a', 'b', 'c'] });
    const guests = await Promise.all(['a', 'b', 'c'].map((name, i) => boot(ringway, name, i + 1)));
    const [a, b, c] = guests as [LinuxGuest, LinuxGuest, LinuxGuest];
    onTestFinished(async () => {
      await Promise.all(guests.map((guest) => guest.stop()));
      expect(await ringway.stop()).toBe(0);
    });
    expect(await a.ping('10.0.0.3')).toEqual({ sent: 5, received: 5 });
    const pings = a.ping('10.0.0.2', { count: 40 });
    const lastOfC = c.exited;
    c.kill();
    await lastOfC;
    await ringway.untilState('c', 'waiting');
    expect(await pings).toEqual({ sent: 40, received: 40 });
    expect(await b.ping('10.0.0.1')).toEqual({ sent: 5, received: 5 });
    expect((await ringway.port('a')).state).toBe('running');
    const again = await boot(ringway, 'c', 3);
    guests.push(again);
    expect(await a.ping('10.0.0.3')).toEqual({ sent: 5, received: 5 });
  });
});

describe.skipIf(peers.skip)(peers.title('two QEMU guests that connect again'), () => {
  test('go on when Ringway was killed, again and again', async () => {
    const ringway = await RingwayProcess.start({ ports: ['a', 'b'] });
    const guests: LinuxGuest[] = [];
    onTestFinished(async () => {
      await Promise.all(guests.map((guest) => guest.stop()));
      expect(await ringway.stop()).toBe(0);
    });
    guests.push(
      ...(await Promise.all(['a', 'b'].map((name, i) => boot(ringway, name, i + 1, undefined, 1)))),
    );
    const [a, b] = guests;
    for (let kill = 0; kill < KILLS; kill++) {
      expect(await a.ping('10.0.0.2')).toEqual({ sent: 5, received: 5 });
      await ringway.killAndRestart();
      for (const name of ['a', 'b']) await ringway.untilState(name, 'running');
      // Frames of before the kill may still be on their way.
      await a.ping('10.0.0.2');
    }
    expect(await a.ping('10.0.0.2')).toEqual({ sent: 5, received: 5 });
    expect(await b.ping('10.0.0.1', { sizeBytes: 1400 })).toEqual({ sent: 5, received: 5 });
    for (const { name, reason } of await ringway.ports())
      expect({ name, reason }).toEqual({ name, reason: null });
  });
});

describe.skipIf(peers.skip)(peers.title('two QEMU guests whose Ringway is taken over'), () => {
  test(`ping without loss through ${TAKEOVERS} takeovers`, {
    timeout: 60_000 * (2 + TAKEOVERS),
  }, async () => {
    const ringway = await RingwayProcess.start({ ports: ['a', 'b'] });
    const guests: LinuxGuest[] = [];
    onTestFinished(async () => {
      await Promise.all(guests.map((guest) => guest.stop()));
      expect(await ringway.stop()).toBe(0);
    });
    // Without "reconnect" QEMU does not come back: a connection that ended would be the end of the guest's network.
    guests.push(...(await Promise.all(['a', 'b'].map((name, i) => boot(ringway, name, i + 1)))));
    const [a, b] = guests;
    await ringway.untilState('a', 'running');
    expect(await a.ping('10.0.0.2')).toEqual({ sent: 5, received: 5 });
    for (let takeover = 0; takeover < TAKEOVERS; takeover++) {
      let isOver = false;
      const taken = ringway.takeOver().finally(() => {
        isOver = true;
      });
      while (!isOver) {
        await Promise.all([
          a.ping('10.0.0.2', { count: 50, intervalMs: 10 }),
          b.ping('10.0.0.1', { count: 50, intervalMs: 10, sizeBytes: 1400 }),
        ]);
      }
      await taken;
    }
    // By the guests' kernels: ping itself may leave before it has counted the last answer.
    const asked = await Promise.all([a, b].map((guest) => untilEchoesAnswered(guest)));
    expect(asked[0].sent).toBeGreaterThan(50 * TAKEOVERS);
    for (const { sent, answered } of asked) expect(answered).toBe(sent);
    for (const { name, drops } of await ringway.ports())
      expect({ name, dropped: Object.values(drops).filter((count) => count > 0) }).toEqual({
        name,
        dropped: [],
      });
    for (const { name, state, reason } of await ringway.ports())
      expect({ name, state, reason }).toEqual({ name, state: 'running', reason: null });
  });
});

describe.skipIf(peers.skip)(peers.title('a QEMU guest whose memory is not shared'), () => {
  test('is said with the fix', async () => {
    const ringway = await RingwayProcess.start({ ports: ['a'] });
    const card = vhostUserArgs({
      socketPath: ringway.socket('a'),
      mac: macOf(1),
      queuePairs: 1,
      memoryMiB: 192,
    });
    const guest = await LinuxGuest.start({
      name: 'a',
      qemuArgs: card.map((argument) => argument.replace('share=on', 'share=off')),
    });
    onTestFinished(async () => {
      await guest.stop();
      await ringway.stop();
    });
    await guest.run('ip link set eth0 up');
    await ringway.until(async () => (await ringway.port('a')).reason?.includes('share=on') === true);
    expect(ringway.log).toContain('share=on');
  });
});

const macOf = (number: number): string => `52:54:00:00:00:0${number}`;

/** A guest with two processors on port `name`, with address 10.0.0.`number`. */
async function boot(
  ringway: RingwayProcess,
  name: string,
  number: number,
  hugepages?: Hugepages,
  reconnectS?: number,
): Promise<LinuxGuest> {
  const guest = await LinuxGuest.start({
    name,
    cpus: 2,
    qemuArgs: vhostUserArgs({
      socketPath: ringway.socket(name),
      mac: macOf(number),
      queuePairs: QUEUE_PAIRS,
      memoryMiB: MEMORY_MIB,
      ...(reconnectS === undefined ? {} : { reconnectS }),
      ...(hugepages === undefined ? {} : { hugepagesPath: hugepages.path }),
    }),
  });
  await guest.configureNetwork(`10.0.0.${number}/24`);
  return guest;
}
