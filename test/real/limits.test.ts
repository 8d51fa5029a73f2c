/**
 * Rules for what ports may do, with real peers. A Linux guest in QEMU that sends and is sent more than it may, floods, and
 * talks to a protected port: each is dropped by its name. And loops that a bridge of the kernel makes of two TAP ports in a
 * network namespace of the test: one of the ports is shut.
 */
import { once } from 'node:events';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { DropReason } from '../../switch/l2/drop-reasons.ts';
import {
  type Child,
  LinuxGuest,
  peersForTests,
  runIperf3,
  startChild,
  vhostUserArgs,
} from '../peers/index.ts';
import { PacketSocket, TEST_ETHERTYPE, TestNamespace, tapUnavailable, titleWith } from '../port/tap-world.ts';
import { RingwayProcess } from './ringway-process.ts';

const peers = await peersForTests(['qemu']);
const unavailable = tapUnavailable();
const HOST = '10.56.0.1';
const GUEST = '10.56.0.2';
const SECONDS = 3;

describe.skipIf(peers.skip || unavailable !== null)(
  peers.title(titleWith('a QEMU guest that does more than it may', unavailable)),
  () => {
    const namespace = new TestNamespace();
    let ringway: RingwayProcess;
    let guest: LinuxGuest;
    let iperf3: Child;

    const dropped = async (name: string, reason: DropReason): Promise<number> =>
      (await ringway.port(name)).drops[reason];

    beforeAll(async () => {
      namespace.add();
      const tap = `tap:tap0,namespace=${namespace.name},mac=02:00:00:00:00:01,addresses=${HOST}/24`;
      ringway = await RingwayProcess.start({ ports: ['vm'], args: ['--port', `host=${tap}`] });
      guest = await LinuxGuest.start({
        name: 'guest',
        qemuArgs: vhostUserArgs({
          socketPath: ringway.socket('vm'),
          mac: '52:54:00:00:00:02',
          queuePairs: 1,
          memoryMiB: 256,
        }),
      });
      await guest.configureNetwork(`${GUEST}/24`);
      const [program, ...args] = namespace.exec('iperf3', '-s', '--forceflush');
      iperf3 = await startChild(program, args);
      await once(iperf3.process.stdout, 'data');
      expect((await guest.ping(HOST)).received).toBe(5);
    });

    afterAll(async () => {
      await guest?.stop();
      iperf3?.kill();
      await iperf3?.exited;
      try {
        expect(await ringway?.stop()).toBe(0);
      } finally {
        namespace.remove();
      }
    });

    test.each([
      ['rateIn', { rateIn: '2M' }, [], 'vm', 'rateIn'],
      ['framesIn', { framesIn: 200 }, [], 'vm', 'rateIn'],
      ['rateOut', { rateOut: '2M' }, ['-R'], 'vm', 'rateOut'],
    ] as const)(
      '%s holds what it sends or is sent, and the rest is dropped',
      async (_, limit, way, port, reason) => {
        const before = await dropped(port, reason);
        await ringway.set('vm', limit);
        const args = ['-u', '-b', '20M', '-l', '1250', ...way];
        const startMs = performance.now();
        const { receivedBytes } = await runIperf3(guest, HOST, { seconds: SECONDS, args });
        const passedS = (performance.now() - startMs) / 1000;
        await ringway.set('vm', Object.fromEntries(Object.keys(limit).map((key) => [key, null])));
        // 2 Mbit/s or 200 frames of 1,250 bytes, with the burst, for as long as a busy machine let it send; how exact it is the
        // bench tells.
        expect(receivedBytes).toBeLessThan((2_000_000 / 8) * (passedS + 1));
        expect(receivedBytes).toBeGreaterThan(50_000);
        expect(await dropped(port, reason)).toBeGreaterThan(before + 1000);
      },
    );

    test('storms of broadcast, multicast and unknown frames are held, and known ones pass', async () => {
      await ringway.set('vm', { stormBroadcast: 1, stormMulticast: 1, stormUnknown: 1 });
      // Each asks for an address that nobody has.
      await guest.run(`for i in $(seq 100 199); do ping -c 1 -w 1 10.56.0.$i & done; wait`);
      expect(await dropped('vm', 'stormBroadcast')).toBeGreaterThan(10);
      await guest.runOk('ip route add 224.0.0.0/4 dev eth0');
      await guest.run('ping -c 40 -i 0.01 -W 1 239.1.2.3');
      expect(await dropped('vm', 'stormMulticast')).toBeGreaterThan(10);
      await guest.runOk('arp -s 10.56.0.77 02:00:00:00:00:77');
      await guest.run('ping -c 40 -i 0.01 -W 1 10.56.0.77');
      expect(await dropped('vm', 'stormUnknown')).toBeGreaterThan(10);
      await guest.runOk(`arp -s ${HOST} 02:00:00:00:00:01`);
      expect(await guest.ping(HOST, { count: 20 })).toEqual({ sent: 20, received: 20 });
      await ringway.set('vm', { stormBroadcast: null, stormMulticast: null, stormUnknown: null });
    });

    test('protected ports do not reach each other', async () => {
      await ringway.set('vm', { protected: 'on' });
      expect((await guest.ping(HOST, { count: 3 })).received).toBe(3);
      await ringway.set('host', { protected: 'on' });
      // What was learned behind it was forgotten as it was set.
      namespace.ip(`neigh replace ${GUEST} lladdr 52:54:00:00:00:02 dev tap0`);
      const [program, ...args] = namespace.exec('busybox', 'ping', '-c', '2', '-w', '2', GUEST);
      await (await startChild(program, args)).exited;
      expect(await guest.ping(HOST, { count: 3, waitS: 1 })).toEqual({ sent: 3, received: 0 });
      expect(await dropped('vm', 'protected')).toBeGreaterThan(0);
      await ringway.set('host', { protected: null });
      expect((await guest.ping(HOST, { count: 3 })).received).toBe(3);
    });
  },
);

describe.skipIf(unavailable !== null)(
  titleWith('two TAP ports in one bridge of the kernel', unavailable),
  () => {
    const namespace = new TestNamespace();
    let ringway: RingwayProcess;

    beforeAll(async () => {
      namespace.add();
      const taps = ['a', 'b', 'c'].flatMap((name) => [
        '--port',
        `${name}=tap:${name}0,namespace=${namespace.name},loop-shut-seconds=2`,
      ]);
      ringway = await RingwayProcess.start({ ports: [], args: taps });
      for (const name of ['a', 'b', 'c']) await ringway.untilState(name, 'running');
      namespace.ip('link add br0 type bridge');
      namespace.ip('link set br0 up');
    });

    afterAll(async () => {
      try {
        expect(await ringway?.stop()).toBe(0);
      } finally {
        namespace.remove();
      }
    });

    const connect = (): void => {
      for (const name of ['a0', 'b0']) namespace.ip(`link set ${name} master br0`);
    };
    const disconnect = (): void => {
      for (const name of ['a0', 'b0']) namespace.ip(`link set ${name} nomaster`);
    };
    const setAll = async (settings: Readonly<Record<string, unknown>>): Promise<void> => {
      for (const name of ['a', 'b', 'c']) await ringway.set(name, settings);
    };

    test('a probe has the younger one shut, again and again until the loop is gone', async () => {
      connect();
      await setAll({ loopGuard: 'probe' });
      let report = await ringway.port('b');
      await ringway.until(async () => {
        report = await ringway.port('b');
        return report.shut !== null;
      });
      const { shut, reason, state } = report;
      expect(shut?.why).toBe('a frame that was sent out of port a came in by it');
      expect(reason).toMatch(
        /^shut for [0-2] s because of a loop: a frame that was sent out of port a came in by it$/,
      );
      expect(state).toBe('running');
      expect((await ringway.port('a')).shut).toBe(null);
      const line = 'is shut for 2 s because of a loop';
      await ringway.until(async () => ringway.log.split(line).length > 2);
      expect((await ringway.port('b')).drops.loopProbe).toBeGreaterThan(0);
      disconnect();
      await ringway.until(async () => (await ringway.port('b')).shut === null);
      expect(ringway.log).not.toContain('"port":"a","msg":"is shut');
    });

    test('it is open at once when its guard is set', async () => {
      await ringway.set('b', { loopShutSeconds: 3600 });
      connect();
      await ringway.until(async () => (await ringway.port('b')).shut !== null);
      disconnect();
      await ringway.set('b', { loopGuard: 'off', loopShutSeconds: 2 });
      expect((await ringway.port('b')).shut).toBe(null);
      await setAll({ loopGuard: 'off' });
    });

    test('an address that goes round has one of the two shut, and not the port that it came from', async () => {
      // No probes: frames without a tag are in no VLAN there.
      for (const name of ['a', 'b'])
        await ringway.set(name, { trunks: '5', loopGuard: 'on', loopShutSeconds: 3600 });
      await ringway.set('c', { tag: 5, loopGuard: 'on' });
      connect();
      const socket = new PacketSocket(namespace, 'c0');
      const frame = new Uint8Array(60).fill(0xff, 0, 6);
      frame.set([2, 0, 0, 0, 0, 9], 6);
      frame.set([TEST_ETHERTYPE >> 8, TEST_ETHERTYPE & 255], 12);
      for (let i = 0; i < 20; i++) socket.send(frame);
      await ringway.until(async () => (await ringway.ports()).some(({ shut }) => shut !== null));
      const shut = (await ringway.ports()).filter((port) => port.shut !== null);
      expect(shut.map(({ name }) => name)).toEqual([expect.stringMatching(/^[ab]$/)]);
      expect(shut[0].shut?.why).toBe(
        'the address 02:00:00:00:00:09 in VLAN 5, which port c had before, moves to it again and again',
      );
      // The loop is open: nothing goes round any more, and the books balance at the end.
      socket.close();
      disconnect();
    });
  },
);
