/**
 * Two guests in User-Mode Linux, whose front-end is the kernel's own: its call descriptors are sockets, it frees its
 * rings after disabling them, and it hands over the control virtqueue. They ping each other, speak TCP, and lose and
 * get back their cards, with split and packed rings, and with kicks and calls by message.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { VhostUserDetails } from '../../src/port/vhost-user/port.ts';
import { peersForTests, runIperf3, startIperf3Server, UmlGuest } from '../peers/index.ts';
import { RingwayProcess } from './ringway-process.ts';

const peers = await peersForTests(['uml']);
const NAMES = ['a', 'b'] as const;
type Name = (typeof NAMES)[number];
const ADDRESSES = { a: '10.0.0.1', b: '10.0.0.2' } as const;
const MACS = { a: '52:54:00:00:00:01', b: '52:54:00:00:00:02' } as const;
const SETUPS = [
  { layout: 'packed', pairs: 2, more: '', notified: 'by descriptors' },
  { layout: 'split', pairs: 1, more: ',features=no-packed', notified: 'by descriptors' },
  { layout: 'packed', pairs: 1, more: ',features=in-band', notified: 'in band' },
] as const;

describe.skipIf(peers.skip).each(SETUPS)(
  peers.title('two guests in User-Mode Linux, $layout rings, notified $notified'),
  ({ layout, pairs, more, notified }) => {
    let ringway: RingwayProcess;
    const guests = {} as Record<Name, UmlGuest>;

    beforeAll(async () => {
      // An address that stays: the kernel would choose another one each time that the driver is loaded.
      const optionsOf = (name: Name): string => `,config-space=on,mac=${MACS[name]},queues=${pairs}${more}`;
      ringway = await RingwayProcess.start({
        ports: NAMES,
        portOptions: Object.fromEntries(NAMES.map((name) => [name, optionsOf(name)])),
      });
      const booting = NAMES.map(async (name) => {
        guests[name] = await UmlGuest.start({ name, socketPath: ringway.socket(name) });
        await guests[name].configureNetwork(`${ADDRESSES[name]}/24`);
      });
      // One that fails must not keep the other from being ended.
      await Promise.allSettled(booting);
      await Promise.all(booting);
    });

    afterAll(async () => {
      await Promise.all(Object.values(guests).map((guest) => guest.stop()));
      expect(await ringway?.stop()).toBe(0);
    });

    async function expectPings(): Promise<void> {
      expect(await guests.a.ping(ADDRESSES.b)).toEqual({ sent: 5, received: 5 });
      expect(await guests.b.ping(ADDRESSES.a, { sizeBytes: 1400 })).toEqual({ sent: 5, received: 5 });
    }

    test('ping both ways, over the rings that were asked for', async () => {
      await expectPings();
      for (const { name, state, reason, details } of await ringway.ports()) {
        expect({ name, state, reason }).toEqual({ name, state: 'running', reason: null });
        const { features, protocolFeatures } = details as VhostUserDetails;
        expect(features.includes('RING_PACKED')).toBe(layout === 'packed');
        expect(protocolFeatures).toContain('BACKEND_REQ');
        expect(protocolFeatures.includes('INBAND_NOTIFICATIONS')).toBe(notified === 'in band');
      }
    });

    test('TCP both ways', async () => {
      await startIperf3Server(guests.b);
      for (const args of [[], ['-R']]) {
        const { receivedBytes } = await runIperf3(guests.a, ADDRESSES.b, { seconds: 2, args });
        expect(receivedBytes).toBeGreaterThan(1_000_000);
      }
    });

    test('a card that is down and up again', async () => {
      for (const name of NAMES) {
        await guests[name].runOk('ip link set eth0 down && ip link set eth0 up');
        await expectPings();
      }
    });

    test('a driver that is unloaded, which frees its rings, and loaded again', async () => {
      for (let round = 0; round < 3; round++) {
        for (const name of NAMES) {
          await guests[name].runOk('rmmod virtio_net');
          await guests[name].runOk('modprobe virtio_net');
          await guests[name].configureNetwork(`${ADDRESSES[name]}/24`);
          await expectPings();
        }
      }
    });

    test('their kernels live on, without a complaint', async () => {
      for (const name of NAMES) {
        expect(await guests[name].runOk('echo alive')).toBe('alive\n');
        expect(guests[name].bootCount).toBe(1);
        expect(await guests[name].runOk('dmesg')).not.toMatch(/Kernel panic|BUG:|WARNING:|read returned/);
      }
      for (const { name, reason } of await ringway.ports())
        expect({ name, reason }).toEqual({ name, reason: null });
    });

    test('their kernels live on, without cards, when Ringway was killed: this front-end does not come back', async () => {
      await ringway.killAndRestart();
      for (const name of NAMES) {
        await guests[name].runOk('until ! ip link show eth0 > /dev/null 2>&1; do sleep 0.1; done');
        expect(await guests[name].runOk('echo alive')).toBe('alive\n');
        expect(guests[name].bootCount).toBe(1);
      }
    });
  },
);
