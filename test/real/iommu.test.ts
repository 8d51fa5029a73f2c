/**
 * Real guests behind an emulated IOMMU: Linux in QEMU with `intel-iommu`, whose driver maps each buffer by itself or, with
 * `iommu=pt`, all memory once. QEMU is the front-end that translates. Both layouts of rings.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { LinuxGuest, peersForTests, runIperf3, startIperf3Server, vhostUserArgs } from '../peers/index.ts';
import { RingwayProcess } from './ringway-process.ts';

const peers = await peersForTests(['qemu']);
const PINGS = { sent: 20, received: 20 };

/** `type`: as Linux calls the domain of the card. */
const GUESTS = [
  { title: 'that map each buffer', kernelArgs: 'intel_iommu=on', type: 'DMA-FQ', leastBytes: 50_000 },
  { title: 'with iommu=pt', kernelArgs: 'intel_iommu=on iommu=pt', type: 'identity', leastBytes: 5_000_000 },
] as const;

describe.skipIf(peers.skip).each(GUESTS)(
  peers.title('two QEMU guests behind an IOMMU $title'),
  ({ kernelArgs, type, leastBytes }) => {
    let ringway: RingwayProcess;
    let a: LinuxGuest;
    let b: LinuxGuest;

    async function boot(name: string, number: number, packed: 'on' | 'off'): Promise<LinuxGuest> {
      const guest = await LinuxGuest.start({
        name,
        machine: 'q35',
        kernelArgs,
        qemuArgs: [
          ...['-device', 'intel-iommu,intremap=off,device-iotlb=on'],
          // Cards on the root bus have no ATS, and then QEMU does not tell what is translated no more.
          ...['-device', 'pcie-root-port,id=rp1'],
          ...vhostUserArgs({
            socketPath: ringway.socket(name),
            mac: `52:54:00:00:00:0${number}`,
            queuePairs: 1,
            memoryMiB: 256,
            reconnectS: 1,
            deviceProperties: `bus=rp1,iommu_platform=on,ats=on,disable-legacy=on,packed=${packed}`,
          }),
        ],
      });
      await guest.configureNetwork(`10.0.0.${number}/24`);
      return guest;
    }

    beforeAll(async () => {
      const features = ',features=iommu';
      ringway = await RingwayProcess.start({ ports: ['a', 'b'], portOptions: { a: features, b: features } });
      [a, b] = await Promise.all([boot('a', 1, 'off'), boot('b', 2, 'on')]);
    });

    afterAll(async () => {
      await Promise.all([a?.stop(), b?.stop()]);
      expect(await ringway?.stop()).toBe(0);
    });

    async function expectFine(): Promise<void> {
      for (const { name, state, reason, details, drops } of await ringway.ports()) {
        expect({ name, state, reason }).toEqual({ name, state: 'running', reason: null });
        expect(details.features).toContain('ACCESS_PLATFORM');
        // What was read was what the guest wrote.
        expect([drops.queueStopped, drops.tooShort, drops.badSegmentRequest]).toEqual([0, 0, 0]);
      }
    }

    test('ping without loss', async () => {
      expect(await a.runOk('cat /sys/kernel/iommu_groups/*/type | sort -u')).toBe(`${type}\n`);
      expect(await a.ping('10.0.0.2', { count: 20 })).toEqual(PINGS);
      expect(await b.ping('10.0.0.1', { count: 20, sizeBytes: 1400 })).toEqual(PINGS);
      await expectFine();
    });

    test('TCP in both directions', async () => {
      await startIperf3Server(b);
      for (const args of [[], ['-R']]) {
        const { receivedBytes } = await runIperf3(a, '10.0.0.2', { seconds: 3, args });
        expect(receivedBytes).toBeGreaterThan(leastBytes);
      }
      await expectFine();
    });

    test('come back after a reboot, and after Ringway was killed', async () => {
      await b.reboot();
      await b.configureNetwork('10.0.0.2/24');
      expect(await a.ping('10.0.0.2', { count: 20 })).toEqual(PINGS);
      await ringway.killAndRestart();
      for (const name of ['a', 'b']) await ringway.untilState(name, 'running');
      await a.ping('10.0.0.2');
      expect(await b.ping('10.0.0.1', { count: 20 })).toEqual(PINGS);
      await expectFine();
    });
  },
);

describe.skipIf(peers.skip)(peers.title('a QEMU guest that asks for an IOMMU'), () => {
  test('uses guest-physical addresses where the machine has none', async () => {
    const ringway = await RingwayProcess.start({ ports: ['a'], portOptions: { a: ',features=iommu' } });
    const guest = await LinuxGuest.start({
      name: 'a',
      qemuArgs: vhostUserArgs({
        socketPath: ringway.socket('a'),
        mac: '52:54:00:00:00:01',
        queuePairs: 1,
        memoryMiB: 192,
        deviceProperties: 'iommu_platform=on,disable-legacy=on',
      }),
    });
    try {
      await guest.configureNetwork('10.0.0.1/24');
      await ringway.untilState('a', 'running');
      expect((await ringway.port('a')).details.features).not.toContain('ACCESS_PLATFORM');
    } finally {
      await guest.stop();
      await ringway.stop();
    }
  });
});
