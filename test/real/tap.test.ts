/**
 * A real guest that talks to the host through a TAP port: Linux in QEMU on one side, the kernel that the tests
 * run on in a network namespace of the test on the other; and again after Ringway was killed.
 */
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { askControl } from '../../switch/control/client.ts';
import type { PortReport } from '../../switch/control/report.ts';
import {
  type Child,
  LinuxGuest,
  peersForTests,
  runIperf3,
  runProgram,
  startChild,
  vhostUserArgs,
} from '../peers/index.ts';
import { TestNamespace, tapUnavailable, titleWith } from '../port/tap-world.ts';
import { expectBalancedBooks } from './books.ts';

const peers = await peersForTests(['qemu']);
const unavailable = tapUnavailable();
const PROGRAM = fileURLToPath(new URL('../../switch/cli/main.ts', import.meta.url));
const HOST = '10.55.0.1';
const GUEST = '10.55.0.2';
const ASK_AGAIN_MS = 50;
const UNTIL_MS_MAX = 60_000;
const ringwayLog: string[] = [];

/** Ringway between QEMU, which listens at `socketPath`, and a TAP interface in the namespace. */
async function startRingway(socketPath: string, folder: string, namespace: string): Promise<Child> {
  const tap = `tap:tap0,namespace=${namespace},queues=2,mac=02:00:00:00:00:01,addresses=${HOST}/24+fd55::1/64`;
  const ports = ['--port', `vm=${socketPath},role=client`, '--port', `host=${tap}`];
  const args = [PROGRAM, 'run', ...ports, '--control', join(folder, 'control.sock')];
  const child = await startChild(process.execPath, args);
  child.process.stdout.resume();
  child.process.stderr.on('data', (data) => ringwayLog.push(String(data)));
  return child;
}

describe.skipIf(peers.skip || unavailable !== null)(
  peers.title(titleWith('a QEMU guest and the host by a TAP port', unavailable)),
  () => {
    const namespace = new TestNamespace();
    let folder: string;
    let ringway: Child;
    let guest: LinuxGuest;
    let iperf3: Child;

    const socketPath = (): string => join(folder, 'qemu.sock');
    const start = (): Promise<Child> => startRingway(socketPath(), folder, namespace.name);

    async function port(name: string): Promise<PortReport> {
      return askControl<PortReport>(join(folder, 'control.sock'), `/v1/ports/${name}`);
    }

    async function until(what: string, holds: () => Promise<boolean>): Promise<void> {
      const deadline = AbortSignal.timeout(UNTIL_MS_MAX);
      while (!(await holds())) {
        const end = ringway.hasExited() ? `Ringway ended, ${ringway.howItEnded()}` : 'not in time';
        if (ringway.hasExited() || deadline.aborted)
          throw new Error(`${what}: ${end}: ${ringwayLog.join('')}`);
        await delay(ASK_AGAIN_MS);
      }
    }

    function untilRunning(name: string): Promise<void> {
      return until(`port ${name} runs`, async () => {
        const report = await port(name).catch(() => null);
        return report?.state === 'running' && report.queuePairs > 0;
      });
    }

    /** Requests from the host to the guest, and how many were answered. Ping would not wait as long for the last of several. */
    async function pingGuest(count: number): Promise<number> {
      const [program, ...args] = namespace.exec('busybox', 'ping', '-c', '1', '-W', '10', GUEST);
      let answered = 0;
      for (let i = 0; i < count; i++) if ((await runProgram(program!, args)).code === 0) answered++;
      return answered;
    }

    beforeAll(async () => {
      namespace.add({ ipv6: true });
      folder = mkdtempSync(join(tmpdir(), 'ringway-tap-'));
      // QEMU boots the guest when the back-end has connected, which tries again until QEMU listens.
      ringway = await start();
      guest = await LinuxGuest.start({
        name: 'guest',
        cpus: 2,
        qemuArgs: vhostUserArgs({
          socketPath: socketPath(),
          mac: '52:54:00:00:00:02',
          queuePairs: 2,
          memoryMiB: 256,
          server: true,
        }),
      });
      await guest.configureNetwork(`${GUEST}/24`);
      // An address is held back at first, to see whether others have it.
      const ipv6 = '/proc/sys/net/ipv6/conf/eth0';
      await guest.runOk(`echo 0 > ${ipv6}/accept_dad && echo 0 > ${ipv6}/disable_ipv6`);
      await guest.runOk('ip -6 addr add fd55::2/64 dev eth0');
      await until('its address is its own', async () => namespace.ip('-6 addr show tap0 tentative') === '');
      const [program, ...args] = namespace.exec('iperf3', '-s', '--forceflush');
      iperf3 = await startChild(program!, args);
      await once(iperf3.process.stdout, 'data');
    });

    afterAll(async () => {
      await guest?.stop();
      try {
        if (ringway !== undefined) await expectBalancedBooks(join(folder, 'control.sock'));
      } finally {
        for (const child of [iperf3, ringway]) {
          child?.kill();
          await child?.exited;
        }
        namespace.remove();
        rmSync(folder, { recursive: true, force: true });
      }
    });

    test('ping in both directions', async () => {
      expect(await guest.ping(HOST, { count: 20 })).toEqual({ sent: 20, received: 20 });
      expect(await guest.ping(HOST, { count: 5, sizeBytes: 1400 })).toEqual({ sent: 5, received: 5 });
      expect(await pingGuest(5)).toBe(5);
      expect(await guest.ping('fd55::1')).toEqual({ sent: 5, received: 5 });
    });

    test('TCP in both directions', async () => {
      for (const args of [[], ['-R'], ['-P', '4'], ['-P', '4', '-R']]) {
        const { receivedBytes } = await runIperf3(guest, HOST, { seconds: 2, args });
        expect(receivedBytes, args.join(' ')).toBeGreaterThan(1_000_000);
      }
      const { state, reason, queuePairs, counters } = await port('host');
      expect({ state, reason, queuePairs }).toEqual({ state: 'running', reason: null, queuePairs: 2 });
      expect(counters.ingressBytes).toBeGreaterThan(2_000_000);
      expect(counters.egressBytes).toBeGreaterThan(2_000_000);
    });

    test('again after Ringway was killed and started anew', async () => {
      ringway.kill();
      await ringway.exited;
      ringway = await start();
      await untilRunning('host');
      await untilRunning('vm');
      expect(await guest.ping(HOST)).toEqual({ sent: 5, received: 5 });
      expect(await pingGuest(5)).toBe(5);
    });

    test('again after the interface was deleted', async () => {
      namespace.ip('link delete tap0');
      // Ringway makes a new one and gives it its addresses.
      await until('tap0 is there', async () => namespace.has('tap0'));
      await untilRunning('host');
      expect(await guest.ping(HOST)).toEqual({ sent: 5, received: 5 });
      const { receivedBytes } = await runIperf3(guest, HOST, { seconds: 1 });
      expect(receivedBytes).toBeGreaterThan(100_000);
    });
  },
);
