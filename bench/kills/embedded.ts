/** Embedded guests on a Ringway that is killed: they enable their rings once both have come back, so nothing is dropped. */
import { EmbeddedGuest } from '../../src/frontend/index.ts';
import type { RingLayoutKind } from '../../src/vring/attachment.ts';
import { NumberedFlow } from '../../test/numbered-flow.ts';
import { RingwayProcess } from '../../test/real/ringway-process.ts';
import type { Random } from '../../test/vring/random.ts';
import { FIRST_BASES } from '../../test/vring/ring-worlds.ts';
import type { Kill, KillsUnderLoad } from './contract.ts';

const NAMES = ['a', 'b'] as const;
const WAIT_MS = 20_000;

export type Setup = {
  readonly layout: RingLayoutKind;
  readonly role: 'server' | 'client';
  readonly random: Random;
};

export async function embeddedUnderLoad({ layout, role, random }: Setup): Promise<KillsUnderLoad> {
  const isClient = role === 'client';
  const ringway = await RingwayProcess.start({
    ports: NAMES,
    ...(isClient && { portOptions: { a: ',role=client', b: ',role=client' } }),
  });
  const guests = await Promise.all(
    NAMES.map((name) =>
      EmbeddedGuest.connect({
        socketPath: ringway.socket(name),
        role: isClient ? 'server' : 'client',
        mac: `02:00:00:00:00:0${name}`,
        layout,
        waitMs: WAIT_MS,
      }),
    ),
  );
  const flows = [new NumberedFlow(guests[0], guests[1]), new NumberedFlow(guests[1], guests[0])];
  const sum = (of: (flow: NumberedFlow) => number): number => flows.reduce((all, flow) => all + of(flow), 0);
  const run = async (isEnough: () => boolean): Promise<void> => {
    while (!isEnough()) {
      for (const flow of flows) flow.step();
      await new Promise(setImmediate);
    }
  };
  return {
    title: `embedded guests, ${layout}, Ringway as ${role}`,
    kill: async (): Promise<Kill> => {
      const goal = flows[0].sent + random.between(200, 3000);
      await run(() => flows[0].sent >= goal);
      const twice = sum((flow) => flow.twice);
      const killedMs = performance.now();
      ringway.kill();
      await ringway.ended;
      for (const flow of flows) flow.take();
      const base = FIRST_BASES[layout];
      const reached = guests.map((guest) => guest.reconnect({ waitMs: WAIT_MS, base, disabled: true }));
      const answers = ringway.restart().then(() => performance.now() - killedMs);
      await Promise.all(reached);
      const before = sum(({ came }) => came);
      for (const index of [0, 1]) {
        for (const { session } of guests) await session.request('SET_VRING_ENABLE', { index, num: 1 });
      }
      await run(() => sum(({ came }) => came) > before);
      const outageMs = performance.now() - killedMs;
      const answersMs = await answers;
      for (const flow of flows) {
        for (flow.take(); !flow.isDone; flow.take()) await new Promise(setImmediate);
      }
      return {
        ...{ outageMs, answersMs, dropped: 0 },
        twice: sum((flow) => flow.twice) - twice,
        lost: sum(({ sent, distinct }) => sent - distinct),
      };
    },
    end: async () => {
      for (const guest of guests) {
        if (guest.session.isClosed) throw new Error('a guest is cut off');
        guest.close();
      }
      await ringway.stop();
    },
  };
}
