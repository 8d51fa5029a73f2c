/**
 * Measures rows on this machine without containers: starts the switch or the bridge, the guests or testpmd, and
 * ends them again. Owns them while a row is measured, and the folder of sockets.
 */
import { allowedCpus } from '../../src/host/affinity.ts';
import { temporaryFolder } from '../../test/peers/child.ts';
import { ensurePeers, LinuxGuest, type PeerName, takeHugepages } from '../../test/peers/index.ts';
import { TESTPMD_LOAD_MIB, TestpmdLoad } from '../load/testpmd-load.ts';
import { type AcceleratorChoice, chooseAccelerator } from './accelerator.ts';
import { GUEST_MIB, GUEST_NAMES, type GuestPlace, guestOptions, socketOf } from './guest.ts';
import { FRAME_BYTES, measureGuests } from './measure.ts';
import { GUEST_ROWS, type GuestRowName, type MeasuredRow, type RowName, type RowResult } from './rows.ts';
import { SwitchProcess, TESTPMD_PORTS } from './switch-process.ts';
import { makeTapBridge, tapBridgeObstacle } from './tap-bridge.ts';

const HUGEPAGE_MIB = 2;
const WARM_UP_MS = 1000;

export type Run = {
  readonly seconds: number;
  readonly accelerator: AcceleratorChoice;
  note(text: string): void;
};

/** What was started, ended in the opposite order. */
type CleanUp = (() => Promise<void>)[];

/** Never rejects: what goes wrong is the row's reason for not being measured. */
export async function measureHostRow(row: RowName, run: Run): Promise<RowResult> {
  const cleanUp: CleanUp = [];
  try {
    await needPeers(row);
    return await (row === 'virtio-user'
      ? measureVirtioUser(run, cleanUp)
      : measureGuestRow(row, run, cleanUp));
  } catch (error) {
    return { row, notMeasured: firstLine(error) };
  } finally {
    for (const end of cleanUp.reverse()) await end().catch((error) => run.note(firstLine(error)));
  }
}

async function measureGuestRow(name: GuestRowName, run: Run, cleanUp: CleanUp): Promise<MeasuredRow> {
  const { attachment, queuePairs } = GUEST_ROWS[name];
  const accelerator = await chooseAccelerator(run.accelerator);
  const socketFolder = await socketsFolder(cleanUp);
  let namespace: string | null = null;
  if (attachment === 'tap') {
    const obstacle = tapBridgeObstacle();
    if (obstacle !== null) throw new Error(obstacle);
    const bridge = await makeTapBridge();
    cleanUp.push(() => bridge.remove());
    namespace = bridge.namespace;
  } else {
    const ringway = await SwitchProcess.start(socketFolder, attachment);
    cleanUp.push(() => ringway.stop());
  }
  const pages = attachment === 'vhost-user' ? (2 * GUEST_MIB) / HUGEPAGE_MIB : 0;
  const hugepagesPath = await hugepagesFolder(pages, run, cleanUp);
  const place: GuestPlace = { socketFolder, namespace, hugepagesPath, accelerator };
  const guests = await startGuests(name, place, cleanUp);
  return { row: name, accelerator, ...(await measureGuests(guests, { seconds: run.seconds, queuePairs })) };
}

async function startGuests(
  name: GuestRowName,
  place: GuestPlace,
  cleanUp: CleanUp,
): Promise<[LinuxGuest, LinuxGuest]> {
  const starts = GUEST_NAMES.map(async (guest) => {
    const started = await LinuxGuest.start(guestOptions(name, guest, place));
    cleanUp.push(() => started.stop());
    return started;
  });
  // Both have come up or failed before anything is cleaned up.
  await Promise.allSettled(starts);
  const [a, b] = await Promise.all(starts);
  return [a!, b!];
}

async function measureVirtioUser(run: Run, cleanUp: CleanUp): Promise<MeasuredRow> {
  const folder = await socketsFolder(cleanUp);
  const ringway = await SwitchProcess.start(folder, 'testpmd');
  cleanUp.push(() => ringway.stop());
  const hugepagesPath = await hugepagesFolder(TESTPMD_LOAD_MIB / HUGEPAGE_MIB, run, cleanUp);
  const load = await startTestpmd(folder, hugepagesPath);
  cleanUp.push(() => load.stop());
  const framesPerSecond = await measureTestpmd(load, run.seconds);
  return { row: 'virtio-user', framesPerSecond, tcpBitsPerSecond: null, accelerator: null };
}

/** testpmd forwards on the last processor that this process may use, and takes commands on the first. */
export function startTestpmd(folder: string, hugepagesPath: string | null): Promise<TestpmdLoad> {
  const cpus = allowedCpus();
  const [first, second] = TESTPMD_PORTS.map((port) => socketOf(folder, port));
  return TestpmdLoad.start(
    { sockets: [first!, second!], generatorRole: 'client' },
    { kind: 'io-vectorised', cpu: cpus.at(-1)!, controlCpu: cpus[0], hugepagesPath },
  );
}

/** Frames per second, both ways together. */
export async function measureTestpmd(load: TestpmdLoad, seconds: number): Promise<number> {
  const window = { frameBytes: FRAME_BYTES, warmUpMs: WARM_UP_MS, windowMs: seconds * 1000 };
  const { framesPerSecond } = await load.measure(window);
  return framesPerSecond;
}

async function needPeers(row: RowName): Promise<void> {
  const peers: PeerName[] =
    row === 'virtio-user'
      ? ['testpmd']
      : GUEST_ROWS[row].kernel === 'generic'
        ? ['qemu', 'emulated-cards']
        : ['qemu'];
  const [missing] = (await ensurePeers(peers)).missing.values();
  if (missing !== undefined) throw new Error(missing);
}

async function socketsFolder(cleanUp: CleanUp): Promise<string> {
  const folder = await temporaryFolder('ringway-testbed-');
  cleanUp.push(() => folder.remove());
  return folder.path;
}

/** Folder of a hugetlbfs with that many pages of 2 MiB; null when none are wanted or to be had, which is noted. */
async function hugepagesFolder(count: number, run: Run, cleanUp: CleanUp): Promise<string | null> {
  if (count === 0) return null;
  const taken = await takeHugepages(count);
  if ('unavailable' in taken) {
    run.note(`${taken.unavailable} Pages of 4 KiB are used.`);
    return null;
  }
  cleanUp.push(() => taken.release());
  return taken.path;
}

export function firstLine(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return text.split('\n')[0];
}
