/**
 * Real guests with and without checksum and segmentation offload, and the host behind a TAP port: what Linux says it does
 * itself, data that arrives as it was sent, no checksum that is wrong, and frames as long as they should be.
 */
import { once } from 'node:events';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { askControl } from '../../switch/control/client.ts';
import type { PortReport } from '../../switch/control/report.ts';
import {
  type Child,
  LinuxGuest,
  peersForTests,
  runIperf3,
  startChild,
  startIperf3Server,
  untilListens,
  vhostUserArgs,
} from '../peers/index.ts';
import { TestNamespace, tapUnavailable, titleWith } from '../port/tap-world.ts';
import { RingwayProcess } from './ringway-process.ts';

const peers = await peersForTests(['qemu']);
const unavailable = tapUnavailable();
const NO_OFFLOADS =
  'csum=off,guest_csum=off,guest_tso4=off,guest_tso6=off,guest_ecn=off,host_tso4=off,host_tso6=off,host_ecn=off';
/** QEMU's properties of each guest's card. */
const GUESTS = {
  a: '',
  b: '',
  /** Takes no segmentation, and big buffers instead of merged ones. */
  merges: 'guest_tso4=off,guest_tso6=off,guest_ecn=off,mrg_rxbuf=off',
  none: NO_OFFLOADS,
} as const;
type Name = keyof typeof GUESTS;
const NAMES = Object.keys(GUESTS) as Name[];
const addressOf = (name: Name): string => `10.0.0.${NAMES.indexOf(name) + 1}`;
const HOST = '10.0.0.100';
/** More than a frame on a link has. */
const LONG_FRAME_BYTES = 4000;

describe.skipIf(peers.skip || unavailable !== null)(
  peers.title(titleWith('guests with and without offloads', unavailable)),
  () => {
    const namespace = new TestNamespace();
    let ringway: RingwayProcess;
    const portOptions: Record<string, string> = {};
    const guests = new Map<Name, LinuxGuest>();
    let iperf3: Child;
    const guest = (name: Name): LinuxGuest => guests.get(name)!;

    beforeAll(async () => {
      namespace.add();
      ringway = await RingwayProcess.start({ ports: NAMES, portOptions });
      const tap = { kind: 'tap', interface: 'tap0', namespace: namespace.name, addresses: [`${HOST}/24`] };
      await askControl(ringway.controlSocket, '/v1/ports/host', { method: 'PUT', body: tap });
      await Promise.all(
        NAMES.map(async (name, i) => {
          const properties = GUESTS[name];
          const booted = await LinuxGuest.start({
            name,
            cpus: 1,
            qemuArgs: vhostUserArgs({
              socketPath: ringway.socket(name),
              mac: `52:54:00:00:00:0${i + 1}`,
              queuePairs: 1,
              memoryMiB: 256,
              reconnectS: 1,
              ...(properties === '' ? {} : { deviceProperties: properties }),
            }),
          });
          await booted.configureNetwork(`${addressOf(name)}/24`);
          guests.set(name, booted);
        }),
      );
      const [program, ...args] = namespace.exec('iperf3', '-s', '--forceflush');
      iperf3 = await startChild(program!, args);
      await once(iperf3.process.stdout, 'data');
    });

    afterAll(async () => {
      await Promise.all([...guests.values()].map((each) => each.stop()));
      iperf3?.kill();
      await iperf3?.exited;
      expect(await ringway?.stop()).toBe(0);
      namespace.remove();
    });

    async function port(name: string): Promise<PortReport> {
      return ringway.port(name);
    }

    /** Mean length of the frames that came from a port during an action. */
    async function frameBytesDuring(name: string, action: () => Promise<unknown>): Promise<number> {
      const before = (await port(name)).counters;
      await action();
      const { counters } = await port(name);
      return (counters.ingressBytes - before.ingressBytes) / (counters.ingressFrames - before.ingressFrames);
    }

    /** Checksums that Linux found wrong. */
    async function checksumErrors(name: Name): Promise<number> {
      const text = await guest(name).runOk(
        'awk \'/^(Tcp|Udp):/ { if (!($1 in h)) { h[$1] = 1; for (i = 2; i <= NF; i++) if ($i == "InCsumErrors") at[$1] = i } else sum += $at[$1] } END { print sum + 0 }\' /proc/net/snmp',
      );
      return Number(text.trim());
    }

    async function transfer(from: Name, to: Name): Promise<void> {
      const bytes = 3_000_000;
      await guest(to).runOk('rm -f /tmp/got; (sleep 30 | nc -l -p 5300 > /tmp/got) > /dev/null 2>&1 &');
      await untilListens(guest(to), 5300);
      const sent = await guest(from).runOk(
        `dd if=/dev/urandom bs=1000 count=${bytes / 1000} 2>/dev/null > /tmp/sent; nc ${addressOf(to)} 5300 < /tmp/sent; md5sum < /tmp/sent`,
        { timeoutMs: 60_000 },
      );
      expect(
        Number(
          await guest(to).runOk(
            `for i in $(seq 200); do [ "$(wc -c < /tmp/got)" -eq ${bytes} ] && break; sleep 0.05; done; wc -c < /tmp/got`,
          ),
        ),
      ).toBe(bytes);
      expect(await guest(to).runOk('md5sum < /tmp/got')).toBe(sent);
    }

    test.each([
      ['a', 'on', 'on'],
      ['none', 'off', 'off'],
    ] as const)(
      'guest %s says that its checksums and segments are left to others: %s',
      async (name, csum, tso) => {
        const features = await guest(name).runOk('ethtool -k eth0');
        expect(features).toMatch(new RegExp(`^tx-checksumming: ${csum}`, 'm'));
        expect(features).toMatch(new RegExp(`^tcp-segmentation-offload: ${tso}`, 'm'));
      },
    );

    test.each([
      ['a', 'b'],
      ['a', 'merges'],
      ['a', 'none'],
      ['none', 'a'],
      ['merges', 'a'],
    ] as const)('what %s sends arrives at %s as it was', async (from, to) => {
      await transfer(from, to);
      for (const name of [from, to]) expect(await checksumErrors(name)).toBe(0);
    });

    test('long frames go from guest to guest, and none where nobody segments them', async () => {
      await startIperf3Server(guest('b'));
      const whole = await frameBytesDuring('a', () => runIperf3(guest('a'), addressOf('b')));
      expect(whole).toBeGreaterThan(LONG_FRAME_BYTES);
      const cut = await frameBytesDuring('none', () => runIperf3(guest('none'), addressOf('b')));
      expect(cut).toBeLessThan(1515);
    });

    test('the host and a guest leave segmentation to each other', async () => {
      const up = await frameBytesDuring('a', () => runIperf3(guest('a'), HOST));
      expect(up).toBeGreaterThan(LONG_FRAME_BYTES);
      const down = await frameBytesDuring('host', () => runIperf3(guest('a'), HOST, { args: ['-R'] }));
      expect(down).toBeGreaterThan(LONG_FRAME_BYTES);
      expect(await checksumErrors('a')).toBe(0);
    });

    test('nothing was asked for that could not be', async () => {
      for (const { name, drops } of await ringway.ports()) {
        const { badChecksumRequest, badSegmentRequest, tooManySegments, overMtu } = drops;
        const none = { badChecksumRequest: 0, badSegmentRequest: 0, tooManySegments: 0, overMtu: 0 };
        expect({ name, badChecksumRequest, badSegmentRequest, tooManySegments, overMtu }).toEqual({
          name,
          ...none,
        });
      }
    });

    test('a guest that has more than is offered after a new start goes on with what it has', async () => {
      portOptions.a = ',offloads=no-csum';
      await ringway.killAndRestart();
      expect((await port('a')).settings.offloads).toMatchObject({ csum: false, tso: false });
      await ringway.untilState('a', 'running');
      await ringway.untilState('b', 'running');
      expect((await port('a')).details.features).toContain('NET_HOST_TSO4');
      expect(await guest('b').ping(addressOf('a'), { count: 5, intervalMs: 200 })).toMatchObject({
        received: 5,
      });
      await transfer('a', 'b');
    });
  },
);
