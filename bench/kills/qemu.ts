/**
 * QEMU's front-end, with drivers that this process plays, on a Ringway that is killed. While Ringway is away QEMU itself
 * would empty a ring that it is told of, and throw the frames away; so kicks are held back, and frames wait in the rings.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { QtestGuest } from '../../test/peers/qtest/index.ts';
import { NumberedTraffic } from '../../test/real/numbered-traffic.ts';
import { RingwayProcess } from '../../test/real/ringway-process.ts';
import type { Kill, KillsUnderLoad } from './contract.ts';
import type { Setup } from './embedded.ts';

const NAMES = ['a', 'b'] as const;
/** Turns of the traffic in which all is taken that was delivered before the kill. */
const TURNS_TO_TAKE = 50;

export async function qemuUnderLoad({ layout, role, random }: Setup): Promise<KillsUnderLoad> {
  const portOptions = Object.fromEntries(NAMES.map((name) => [name, `,role=${role}`]));
  const ringway = await RingwayProcess.start({ ports: NAMES, portOptions });
  const guests = await Promise.all(
    NAMES.map((name, i) =>
      QtestGuest.start({
        name,
        nics: [
          {
            ...{ id: 'nic', slot: 4, mac: `52:54:00:00:00:0${i + 1}`, socketPath: ringway.socket(name) },
            ...{ server: role === 'client', properties: { ioeventfd: false } },
          },
        ],
      }),
    ),
  );
  const drivers = guests.map((guest) => guest.nic('nic'));
  for (const driver of drivers) await driver.initialise({ layout });
  for (const name of NAMES) await ringway.untilState(name, 'running', 1);
  const traffic = new NumberedTraffic(drivers);
  const came = (): number => traffic.tally.received + traffic.tally.doubled;
  const until = async (holds: () => boolean): Promise<void> => {
    while (!holds()) await nextTurn();
  };
  return {
    title: `QEMU, ${layout}, Ringway as ${role}`,
    ...(role === 'server' && {
      remark: 'QEMU tries to connect once a second, and not before one has passed',
    }),
    kill: async (): Promise<Kill> => {
      const goal = traffic.tally.sent + random.between(200, 3000);
      await traffic.during(until(() => traffic.tally.sent >= goal));
      const { doubled, lost } = traffic.tally;
      for (const driver of drivers) driver.holdKicks();
      const killedMs = performance.now();
      ringway.kill();
      let outageMs = 0;
      let answersMs = 0;
      const through = async (): Promise<void> => {
        await ringway.ended;
        const answers = ringway.restart().then(() => {
          answersMs = performance.now() - killedMs;
        });
        for (let turn = 0; turn < TURNS_TO_TAKE; turn++) await nextTurn();
        const before = came();
        await until(() => came() > before);
        outageMs = performance.now() - killedMs;
        await answers;
        for (const name of NAMES) await ringway.untilState(name, 'running', 1);
        for (const driver of drivers) await driver.untilConfig(() => driver.isLinkUp());
        for (const driver of drivers) driver.releaseKicks();
      };
      await traffic.during(through());
      await traffic.settle();
      const missing = traffic.writeOff();
      let dropped = 0;
      // Counters are read a moment after a burst.
      await ringway
        .until(async () => {
          dropped = await ringway.dropped();
          return dropped >= missing;
        })
        .catch(() => {});
      await traffic.exchange(50);
      const { tally } = traffic;
      if (tally.damaged > 0) throw new Error(`${tally.damaged} frames were damaged`);
      return {
        ...{ outageMs, answersMs, dropped },
        twice: tally.doubled - doubled,
        lost: Math.max(0, tally.lost - lost - dropped),
      };
    },
    end: async () => {
      for (const guest of guests) {
        await guest.machine.qmp('query-status');
        await guest.close();
      }
      await ringway.stop();
    },
  };
}
