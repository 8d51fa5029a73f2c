/**
 * Two Linux guests that send each other a TCP stream each, all along: Ringway is killed and started again, taken over
 * twice, one guest is migrated, and Ringway is killed and taken over once more. Both streams end whole. Prints a time line
 * (docs/upgrade.md).
 */
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { LinuxGuest, peersForTests, vhostUserArgs } from '../peers/index.ts';
import { LongTransfer, TimeLine } from './long-transfer.ts';
import { RingwayProcess } from './ringway-process.ts';
import { tellStandstill } from './standstill.ts';

const peers = await peersForTests(['qemu']);
const MEMORY_MIB = 192;
const STAYER = '10.0.0.1';
const MOVER = '10.0.0.2';
const MOVER_MAC = '52:54:00:00:00:02';
const UNDER_WAY_BYTES = 5_000_000;
const LAYOUTS = ['split', 'packed'] as const;

describe.skipIf(peers.skip).each(LAYOUTS)(
  peers.title('TCP between two QEMU guests with %s rings'),
  (layout) => {
    test('goes on through kill -9, takeover and migration, and comes whole', async ({ annotate }) => {
      const ringway = await RingwayProcess.start({ ports: ['stayer', 'mover', 'moved'] });
      const guests: LinuxGuest[] = [];
      onTestFinished(async (context) => {
        await tellStandstill(context, ringway, guests);
        await Promise.all(guests.map((guest) => guest.stop()));
        expect(await ringway.stop()).toBe(0);
      });
      const argsOf = (port: string, mac: string): string[] =>
        vhostUserArgs({
          ...{ socketPath: ringway.socket(port), mac, queuePairs: 1, memoryMiB: MEMORY_MIB, reconnectS: 1 },
          deviceProperties: `mrg_rxbuf=on,packed=${layout === 'packed' ? 'on' : 'off'}`,
        });
      const boot = async (name: string, mac: string, address: string): Promise<LinuxGuest> => {
        const guest = await LinuxGuest.start({ name, qemuArgs: argsOf(name, mac) });
        guests.push(guest);
        await guest.configureNetwork(`${address}/24`);
        return guest;
      };
      const [stayer, mover] = await Promise.all([
        boot('stayer', '52:54:00:00:00:01', STAYER),
        boot('mover', MOVER_MAC, MOVER),
      ]);
      const transfers = [
        await LongTransfer.start('up', mover, stayer, STAYER, 5001),
        await LongTransfer.start('down', stayer, mover, MOVER, 5002),
      ];
      const line = new TimeLine(ringway, ['stayer', 'mover', 'moved']);
      onTestFinished(() => line.end());
      const happens = async (text: string, what: () => Promise<void>): Promise<void> => {
        await line.untilBytes(UNDER_WAY_BYTES);
        line.event(text);
        await what();
      };
      await happens('kill -9', () => ringway.killAndRestart());
      await happens('takeover', () => ringway.takeOver());
      await happens('takeover again', () => ringway.takeOver());
      const uri = `unix:${join(ringway.folder, 'migration.sock')}`;
      const moved = await LinuxGuest.start({
        name: 'moved',
        qemuArgs: argsOf('moved', MOVER_MAC),
        incoming: { uri, from: mover },
      });
      guests.push(moved);
      await happens('migration begins', () => mover.migrateTo(moved, uri));
      line.event('migrated');
      for (const transfer of transfers) transfer.follow(mover, moved);
      const isAt = async (port: string): Promise<boolean> =>
        (await ringway.fdb()).entries.some((entry) => entry.mac === MOVER_MAC && entry.port === port);
      // The guest announces itself.
      await ringway.until(() => isAt('moved'));
      await happens('kill -9 of the one that took over', () => ringway.killAndRestart());
      await happens('takeover from the one after that', () => ringway.takeOver());
      await line.untilBytes(UNDER_WAY_BYTES);
      line.event('the senders stop');
      for (const transfer of transfers) {
        const { blocks, sentSum, receivedSum } = await transfer.end();
        expect(blocks).toBeGreaterThan(0);
        expect(receivedSum).toBe(sentSum);
        line.event(`${blocks} blocks of 256 KiB, sha256 at both ends ${receivedSum.slice(0, 16)}…`);
      }
      await line.end();
      console.log(
        `TCP both ways, ${layout} rings, Mbit/s that Ringway delivered to both guests:\n${line.text()}`,
      );
      await annotate(
        ['kill -9', 'takeover', 'takeover again', 'migration begins', 'migrated']
          .map((text) => `${text}: ${line.pauseAfterMs(text)} ms without a byte`)
          .join('; '),
      );
      for (const { name, reason } of await ringway.ports()) {
        if (name !== 'mover') expect([name, reason]).toEqual([name, null]);
      }
    });
  },
);
