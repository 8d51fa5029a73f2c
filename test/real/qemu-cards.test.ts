/**
 * A card that a running Linux guest gets and loses, again and again, while the guest's other card is pinged: the kernel's
 * own driver takes it into use, reaches its peer by it, and lets go of it. Nothing is lost on the other card, and Ringway
 * holds as many descriptors and as much memory afterwards as before. 200 times: RINGWAY_SEARCH=1.
 */
import { describe, expect, onTestFinished, test } from 'vitest';
import type { VhostUserDetails } from '../../src/port/vhost-user/port.ts';
import {
  LinuxGuest,
  peersForTests,
  sharedMemoryArgs,
  untilEchoesAnswered,
  vhostUserCardArgs,
} from '../peers/index.ts';
import { plugCommands, removeCommand } from '../peers/qtest/nic.ts';
import { RingwayProcess } from './ringway-process.ts';

const peers = await peersForTests(['qemu']);
const TIMES = process.env.RINGWAY_SEARCH === undefined ? 3 : 200;
const MEMORY_MIB = 192;
/** An emulated guest on a busy machine takes its time. */
const FOUND_WITHIN_MS = 120_000;
/** The guest numbers its devices in the order in which it finds them. */
const [KEPT, PLUGGED] = ['eth0', 'eth1'];

describe.skipIf(peers.skip).each(['split', 'packed'] as const)(
  peers.title('a Linux guest that gets and loses a card with %s rings'),
  (layout) => {
    test(`${TIMES} times, while its other card is pinged`, { timeout: 60_000 + TIMES * 15_000 }, async () => {
      const ringway = await RingwayProcess.start({ ports: ['a', 'b', 'plugged', 'partner'] });
      const guests: LinuxGuest[] = [];
      onTestFinished(async () => {
        await Promise.all(guests.map((guest) => guest.stop()));
        expect(await ringway.stop()).toBe(0);
      });
      const packed = layout === 'packed';
      const cardOf = (port: string, index: number): string[] =>
        vhostUserCardArgs({
          ...{ index, socketPath: ringway.socket(port), mac: `52:54:00:00:0${index}:0a`, queuePairs: 1 },
          deviceProperties: `packed=${packed ? 'on' : 'off'}`,
        });
      const boot = async (name: string, cards: readonly string[]): Promise<LinuxGuest> => {
        const qemuArgs = [...sharedMemoryArgs({ memoryMiB: MEMORY_MIB }), ...cards];
        const guest = await LinuxGuest.start({ name, qemuArgs });
        guests.push(guest);
        return guest;
      };
      const [a, b] = await Promise.all([
        boot('a', cardOf('a', 1)),
        boot('b', [...cardOf('b', 2), ...cardOf('partner', 3)]),
      ]);
      await a.configureNetwork('10.0.0.1/24');
      await b.configureNetwork('10.0.0.2/24');
      await b.configureNetwork('10.0.1.2/24', { device: 'eth1' });
      await b.runOk('(ping -q -i 0.05 10.0.0.1 > /tmp/pings) > /dev/null 2>&1 &');
      const card = {
        ...{ id: 'more', slot: 10, socketPath: ringway.socket('plugged'), mac: '52:54:00:00:04:0a' },
        properties: { packed, 'disable-legacy': 'off' },
      };
      const memoryBytes = async (): Promise<number[]> =>
        (await ringway.ports()).map(({ details }) => (details as VhostUserDetails).memoryBytes);
      let held: { descriptors: Record<string, number>; memory: number[] } | null = null;
      for (let i = 0; i < TIMES; i++) {
        for (const [command, args] of plugCommands(card)) await a.qmp(command, args);
        await a.runOk(`until [ -e /sys/class/net/${PLUGGED} ]; do sleep 0.05; done`, {
          timeoutMs: FOUND_WITHIN_MS,
        });
        await a.configureNetwork('10.0.1.1/24', { device: PLUGGED });
        await ringway.untilState('plugged', 'running', 1);
        expect((await a.ping('10.0.1.2', { count: 3, intervalMs: 20 })).received).toBe(3);
        const gone = a.qmpEvent('DEVICE_DELETED', { timeoutMs: FOUND_WITHIN_MS });
        await a.qmp('device_del', { id: card.id });
        await gone;
        await a.qmp(...removeCommand(card));
        await ringway.untilState('plugged', 'waiting');
        await a.runOk(`until [ ! -e /sys/class/net/${PLUGGED} ]; do sleep 0.05; done`, {
          timeoutMs: FOUND_WITHIN_MS,
        });
        held ??= { descriptors: await ringway.quietDescriptors(), memory: await memoryBytes() };
      }
      await ringway.untilDescriptors(held!.descriptors);
      expect(await memoryBytes()).toEqual(held!.memory);
      await b.runOk('killall -INT ping; while pidof ping > /dev/null; do sleep 0.05; done');
      // By the guest's kernel: ping has ended with some under way, on a slow machine more than one.
      const { sent, answered } = await untilEchoesAnswered(b);
      expect(sent).toBeGreaterThan(20);
      expect(answered).toBe(sent);
      expect(await a.runOk(`cat /sys/class/net/${KEPT}/operstate`)).toMatch(/up|unknown/);
      for (const { name, reason } of await ringway.ports()) {
        if (name !== 'plugged') expect([name, reason]).toEqual([name, null]);
      }
    });
  },
);
