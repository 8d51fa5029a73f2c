/**
 * How Ringway scales: many ports of which two are busy, many ports at once, many addresses, many queue pairs.
 * Each is compared with the small case in turn, on a second Ringway that is paused meanwhile.
 */
import { readFileSync } from 'node:fs';
import {
  FRAMES_IN_FLIGHT,
  type LoadFigures,
  type LoadGenerator,
  type LoadKind,
  type LoadTarget,
  type Window,
} from '../load/contract.ts';
import { CONNECT_MS_MAX, EmbeddedLoad, guestPlans } from '../load/embedded-load.ts';
import { GuestProcess } from '../load/guest-client.ts';
import type { RingwayPeer } from '../peers/ringway.ts';
import { progress } from '../report/progress.ts';
import type { ManyPortsResult, PairResult, ScaleResult } from '../report/results.ts';
import type { Rig } from '../rig.ts';
import { measureCoreDistance } from './core-distance.ts';
import type { Measured } from './disturbance.ts';
import { residentMemory } from './process-facts.ts';

const FRAME_BYTES = 64;
const PORTS = 64;
const PORTS_AT_ONCE = 1000;
/** Descriptors that a port takes in each of the two processes, with some to spare. */
const FDS_PER_PORT = 10;
const IDLE_RING_SIZE = 64;
const ADDRESSES = 1_000_000;
const QUEUE_PAIRS = 16;
const MANY_CONNECT_MS_MAX = 120_000;
const LEARN_MS_MAX = 90_000;

/** One of the two set-ups that are compared. */
type SetUp = {
  readonly title: string;
  readonly ringway: RingwayPeer;
  readonly load: LoadGenerator;
  readonly measure: (window: Window) => Promise<LoadFigures>;
  /** Processes to end besides. */
  readonly idleGuests?: GuestProcess;
};

export async function measureScale(rig: Rig): Promise<ScaleResult> {
  const result: ScaleResult = {};
  const attempt = async (title: string, work: () => Promise<void>): Promise<void> => {
    progress(`scale, ${title}`);
    try {
      await work();
    } catch (error) {
      rig.leaveOut(title, 'scale', error);
    }
  };
  await attempt('64 ports', async () => {
    result.ports64 = await compare(rig, rig.loadKinds[0], [
      () => busyPorts(rig, 2),
      () => busyPorts(rig, PORTS),
    ]);
  });
  await attempt('1,000,000 addresses', async () => {
    result.addresses = await compare(rig, 'embedded', [
      () => addresses(rig, 2),
      () => addresses(rig, ADDRESSES),
    ]);
  });
  await attempt('16 queue pairs', async () => {
    result.queuePairs = await compare(rig, 'embedded', [
      () => queuePairs(rig, 1),
      () => queuePairs(rig, QUEUE_PAIRS),
    ]);
  });
  await attempt('1,000 ports', async () => {
    result.manyPorts = await manyPorts(rig);
  });
  return result;
}

async function compare(
  rig: Rig,
  kind: LoadKind,
  starts: readonly [() => Promise<SetUp>, () => Promise<SetUp>],
): Promise<PairResult> {
  const setUps: SetUp[] = [];
  const measured: Measured<LoadFigures>[][] = [[], []];
  const { warmUpMs, windowMs, scaleRounds, dutCpu, loadCpu } = rig.plan;
  const coreRoundTripNs: [number | null, number | null][] = [];
  try {
    for (const start of starts) {
      const setUp = await start();
      setUps.push(setUp);
      setUp.ringway.pause();
    }
    for (let round = 0; round < scaleRounds; round++) {
      const before = await measureCoreDistance(dutCpu, loadCpu);
      for (const [i, { ringway, load, measure }] of setUps.entries()) {
        ringway.resume();
        const window = { frameBytes: FRAME_BYTES, warmUpMs, windowMs };
        measured[i].push(await rig.undisturbed([ringway.pid, load.pid], () => measure(window)));
        ringway.pause();
      }
      coreRoundTripNs.push([before, await measureCoreDistance(dutCpu, loadCpu)]);
    }
  } finally {
    for (const setUp of setUps) await endSetUp(setUp);
  }
  const [base, scaled] = setUps.map(({ title }, i) => ({
    title,
    framesPerSecond: measured[i].map(({ value }) => value.framesPerSecond),
    disturbedShares: measured[i].map(({ disturbedShare }) => disturbedShare),
  }));
  return { load: kind, coreRoundTripNs, base: base!, scaled: scaled! };
}

async function endSetUp({ ringway, load, idleGuests }: SetUp): Promise<void> {
  ringway.resume();
  await load.stop();
  await idleGuests?.stop();
  await ringway.stop();
}

/** Two busy ports; the others are connected, idle and polled. */
async function busyPorts(rig: Rig, portCount: number): Promise<SetUp> {
  const ringway = await rig.startRingway({ portCount });
  const idleGuests = new GuestProcess(rig.plan.loadCpu);
  try {
    await connectIdle(idleGuests, ringway, 2, portCount, CONNECT_MS_MAX);
    const load = await rig.startLoad(firstTwoPorts(ringway), rig.loadKinds[0]);
    const measure = (window: Window): Promise<LoadFigures> => load.measure(window);
    return { title: `${portCount} ports`, ringway, load, idleGuests, measure };
  } catch (error) {
    await idleGuests.stop();
    await ringway.stop();
    throw error;
  }
}

async function connectIdle(
  guests: GuestProcess,
  ringway: RingwayPeer,
  firstPort: number,
  endPort: number,
  timeoutMs: number,
): Promise<number> {
  const plans = Array.from({ length: endPort - firstPort }, (_, i) => ({
    socketPath: ringway.socket(firstPort + i),
    role: 'client' as const,
    queuePairs: 1,
    ringSize: IDLE_RING_SIZE,
  }));
  const { elapsedMs } = await guests.order({ kind: 'connect', guests: plans }, timeoutMs);
  return elapsedMs;
}

/** Random targets among `count` learned addresses, half of them behind each of two ports. */
async function addresses(rig: Rig, count: number): Promise<SetUp> {
  const ringway = await rig.startRingway(count > 2 ? { fdbCapacity: 2 ** Math.ceil(Math.log2(count)) } : {});
  const perGuest = count / 2;
  let load: EmbeddedLoad | null = null;
  try {
    const generator = await EmbeddedLoad.start(ringway, { cpu: rig.plan.loadCpu });
    load = generator;
    await generator.guests.order({ kind: 'learn', addressesPerGuest: perGuest }, LEARN_MS_MAX);
    const known = (await ringway.learned()).length;
    if (known !== count) throw new Error(`Ringway has learned ${known} of ${count} addresses`);
    const measure = (window: Window): Promise<LoadFigures> => generator.measureTargets(window, perGuest);
    return { title: `${count.toLocaleString('en')} addresses`, ringway, load, measure };
  } catch (error) {
    await load?.stop();
    await ringway.stop();
    throw error;
  }
}

async function queuePairs(rig: Rig, count: number): Promise<SetUp> {
  const ringway = await rig.startRingway({ queuePairsMax: count });
  try {
    const load = await EmbeddedLoad.start(ringway, { cpu: rig.plan.loadCpu, queuePairs: count });
    const measure = (window: Window): Promise<LoadFigures> => load.measure(window);
    return { title: count === 1 ? '1 queue pair' : `${count} queue pairs`, ringway, load, measure };
  } catch (error) {
    await ringway.stop();
    throw error;
  }
}

async function manyPorts(rig: Rig): Promise<ManyPortsResult> {
  const portCount = Math.min(PORTS_AT_ONCE, Math.floor(openFilesMax() / FDS_PER_PORT));
  if (portCount < PORTS_AT_ONCE) rig.note(`The limit on open files allows ${portCount} ports at once here.`);
  const { warmUpMs, windowMs, loadCpu } = rig.plan;
  const ringway = await rig.startRingway({ portCount });
  const guests = new GuestProcess(loadCpu);
  try {
    const two = guestPlans(firstTwoPorts(ringway), 1);
    await guests.order({ kind: 'connect', guests: two }, MANY_CONNECT_MS_MAX);
    const connectMs = await connectIdle(guests, ringway, 2, portCount, MANY_CONNECT_MS_MAX);
    const running = (await ringway.ports()).filter(({ state }) => state === 'running').length;
    if (running !== portCount) throw new Error(`${running} of ${portCount} ports run`);
    const window = { frameBytes: FRAME_BYTES, warmUpMs, windowMs };
    const order = { kind: 'circulate', ...window, inFlight: FRAMES_IN_FLIGHT, addressesPerGuest: 0 } as const;
    const { framesPerSecond } = await guests.order(order, MANY_CONNECT_MS_MAX);
    const { totalMiB, sharedMiB } = residentMemory(ringway.pid);
    return { portCount, connectMs, load: 'embedded', framesPerSecond, residentMiB: totalMiB - sharedMiB };
  } finally {
    await guests.stop();
    await ringway.stop();
  }
}

function firstTwoPorts({ sockets, generatorRole }: RingwayPeer): LoadTarget {
  return { sockets: sockets.slice(0, 2), generatorRole };
}

/** The hard limit, up to which Node raises its own. */
function openFilesMax(): number {
  const match = /^Max open files\s+\S+\s+(\S+)/m.exec(readFileSync('/proc/self/limits', 'utf8'));
  return match === null || match[1] === 'unlimited' ? Number.MAX_SAFE_INTEGER : Number(match[1]);
}
