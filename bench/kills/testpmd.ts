/**
 * testpmd's virtio-user driver on a Ringway that is killed. It listens: as a client this driver does not connect again.
 * Of split rings nothing is lost: frames circulate, and all are there in the end. Packed rings this driver begins anew by
 * itself, with what was on its way; so there it makes new frames all the time, and losses say nothing.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { Testpmd } from '../../test/peers/index.ts';
import { VIRTIO_USER_EAL_ARGS, virtioUserVdev } from '../../test/peers/virtio-user.ts';
import { RingwayProcess } from '../../test/real/ringway-process.ts';
import { drain, START_COMMAND, tally, untilForwarded } from '../../test/real/testpmd-traffic.ts';
import type { Kill, KillsUnderLoad } from './contract.ts';
import type { Setup } from './embedded.ts';

const NAMES = ['a', 'b'] as const;
const ENOUGH_FRAMES = 5000;
const RUN_MS_MAX = 300;

export async function testpmdUnderLoad({ layout, random }: Omit<Setup, 'role'>): Promise<KillsUnderLoad> {
  const packed = layout === 'packed';
  const ringway = await RingwayProcess.start({
    ports: NAMES,
    portOptions: { a: ',role=client', b: ',role=client' },
  });
  const testpmd = await Testpmd.start({
    vdevs: NAMES.map((name, index) =>
      virtioUserVdev({
        ...{ index, socketPath: ringway.socket(name), mac: `02:00:00:00:01:0${index + 1}`, queuePairs: 1 },
        ...{ server: true, packed, inOrder: true, mergeable: true, vectorized: false },
      }),
    ),
    args: [`--forward-mode=${packed ? 'flowgen' : 'io'}`],
    ealArgs: VIRTIO_USER_EAL_ARGS,
  });
  for (const name of NAMES) await ringway.untilState(name, 'running', 1);
  await testpmd.command(packed ? 'start' : START_COMMAND);
  const received = async (): Promise<number> =>
    (await testpmd.portStats()).reduce((sum, { rxPackets }) => sum + rxPackets, 0);
  return {
    title: `testpmd listening, ${layout}`,
    remark: packed ? 'its driver begins packed rings anew and throws away what was on its way' : undefined,
    kill: async (): Promise<Kill> => {
      // Counters are cleared at rest only (below): under way, some frames are between two of them.
      await untilForwarded(testpmd, ENOUGH_FRAMES);
      await delay(random.between(0, RUN_MS_MAX));
      const killedMs = performance.now();
      ringway.kill();
      await ringway.ended;
      const answers = ringway.restart().then(() => performance.now() - killedMs);
      const before = await received();
      while ((await received()) <= before);
      const outageMs = performance.now() - killedMs;
      const answersMs = await answers;
      for (const name of NAMES) await ringway.untilState(name, 'running', 1);
      if (packed) return { outageMs, answersMs, twice: 0, dropped: 0, lost: null };
      // All of them come to rest, are counted, and set out again.
      await testpmd.command('stop');
      const { lost: missing } = tally(await drain(testpmd));
      // Its counters began with it: what it dropped by name since, as where one of the two ports came back before the other.
      const dropped = await ringway.dropped();
      await testpmd.command('set fwd io');
      await testpmd.command('clear port stats all');
      await testpmd.command(START_COMMAND);
      const lost = missing - dropped;
      return { outageMs, answersMs, dropped, twice: Math.max(0, -lost), lost: Math.max(0, lost) };
    },
    end: async () => {
      if (testpmd.howItEnded() !== null) throw new Error(`testpmd ended: ${testpmd.howItEnded()}`);
      await testpmd.command('stop');
      await drain(testpmd);
      await testpmd.stop();
      await ringway.stop();
    },
  };
}
