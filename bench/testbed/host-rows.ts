/**
 * Starts rows on this machine without containers: the switch or the bridge, and the guests or testpmd, which stand
 * until the row is ended.
 */
import { ensurePeers, LinuxGuest, type PeerName } from '../../test/peers/index.ts';
import { TESTPMD_LOAD_MIB, TestpmdLoad } from '../load/testpmd-load.ts';
import { signalProcess } from '../peers/contract.ts';
import { cpuTimeMs } from '../scenarios/process-facts.ts';
import { type AcceleratorChoice, chooseAccelerator } from './accelerator.ts';
import { type Between, controlCpu, forwardingCpu, startBetween } from './between.ts';
import { type CleanUp, endAll, hugepagesFolder, type Note, socketsFolder } from './clean-up.ts';
import { GUEST_MIB, type GuestPlace, guestOptions, guestsOf, socketOf, usesVhostUser } from './guest.ts';
import { HostEnd } from './host-end.ts';
import { type Ends, FRAME_BYTES, measureEnds, setUpGuests, setUpSender } from './measure.ts';
import type { StandingRow } from './rounds.ts';
import { type Figure, GUEST_ROWS, type GuestRowName, type RowName } from './rows.ts';
import { SwitchProcess, TESTPMD_PORTS, testpmdPorts } from './switch-process.ts';

const WARM_UP_MS = 1000;

export type Run = {
  readonly seconds: number;
  readonly figures: readonly Figure[];
  readonly accelerator: AcceleratorChoice;
  readonly note: Note;
};

/** @throws when it cannot be started; nothing of it is left then */
export async function startHostRow(row: RowName, run: Run): Promise<StandingRow> {
  const cleanUp: CleanUp = [];
  try {
    await needPeers(row);
    return row === 'virtio-user'
      ? await startVirtioUser(run, cleanUp)
      : await startGuestRow(row, run, cleanUp);
  } catch (error) {
    await endAll(cleanUp, run.note);
    throw error;
  }
}

async function startGuestRow(name: GuestRowName, run: Run, cleanUp: CleanUp): Promise<StandingRow> {
  const { seconds, figures } = run;
  const { queuePairs } = GUEST_ROWS[name];
  const accelerator = await chooseAccelerator(run.accelerator);
  const between = await startBetween(GUEST_ROWS[name], cleanUp);
  const guests = await startGuests(name, between, { run, accelerator }, cleanUp);
  const ends = await setUpEnds(guests, between, queuePairs, cleanUp);
  const { pid } = between;
  const switchTime = pid === null ? {} : { switchTimeMs: () => cpuTimeMs(pid) };
  return {
    accelerator,
    measure: () => measureEnds(ends, { seconds, queuePairs, figures, ...switchTime }),
    // Stopping a guest takes an answer of the switch, so that is paused after it and resumed before it.
    pause: async () => {
      for (const guest of guests) await guest.qmp('stop');
      if (pid !== null) signalProcess(pid, 'SIGSTOP');
    },
    resume: async () => {
      if (pid !== null) signalProcess(pid, 'SIGCONT');
      for (const guest of guests) await guest.qmp('cont');
    },
    end: async () => {
      if (pid !== null) signalProcess(pid, 'SIGCONT');
      await endAll(cleanUp, run.note);
    },
  };
}

async function startGuests(
  name: GuestRowName,
  between: Between,
  { run, accelerator }: { readonly run: Run; readonly accelerator: GuestPlace['accelerator'] },
  cleanUp: CleanUp,
): Promise<LinuxGuest[]> {
  const row = GUEST_ROWS[name];
  const names = guestsOf(row);
  const hugepagesPath = usesVhostUser(row)
    ? await hugepagesOr4KiB(names.length * GUEST_MIB, run, cleanUp)
    : null;
  const namespace = row.attachment === 'tap' ? between.namespace!.name : null;
  const starts = names.map(async (guest) => {
    const place: GuestPlace = { socketPath: between.socketOf(guest), namespace, hugepagesPath, accelerator };
    const started = await LinuxGuest.start(guestOptions(name, guest, place));
    cleanUp.push(() => started.stop());
    return started;
  });
  // All have come up or failed before anything is cleaned up.
  await Promise.allSettled(starts);
  return Promise.all(starts);
}

async function setUpEnds(
  [sender, receiver]: readonly LinuxGuest[],
  between: Between,
  queuePairs: number,
  cleanUp: CleanUp,
): Promise<Ends> {
  if (receiver !== undefined) {
    await setUpGuests([sender!, receiver], queuePairs);
    return [sender!, receiver];
  }
  const host = await HostEnd.start(between.namespace!);
  cleanUp.push(() => host.stop());
  await setUpSender(sender!, queuePairs);
  return [sender!, host];
}

async function startVirtioUser(run: Run, cleanUp: CleanUp): Promise<StandingRow> {
  if (!run.figures.includes('frames')) throw new Error('testpmd sends frames only.');
  const folder = await socketsFolder(cleanUp);
  // testpmd forwards on the processor where the worker is in other rows.
  const ports = testpmdPorts(folder);
  const ringway = await SwitchProcess.start(folder, { ports, cpu: null });
  cleanUp.push(() => ringway.stop());
  const load = await startTestpmd(folder, await hugepagesOr4KiB(TESTPMD_LOAD_MIB, run, cleanUp));
  cleanUp.push(() => load.stop());
  return {
    accelerator: null,
    measure: async () => {
      const framesPerSecond = await measureTestpmd(load, run.seconds);
      return { framesPerSecond, tcpBitsPerSecond: null, switchCpus: null };
    },
    // Neither of them polls between measurements.
    pause: async () => {},
    resume: async () => {},
    end: () => endAll(cleanUp, run.note),
  };
}

/** testpmd forwards on the last processor that this process may use, and takes commands on the first. */
export function startTestpmd(folder: string, hugepagesPath: string | null): Promise<TestpmdLoad> {
  const [first, second] = TESTPMD_PORTS.map((port) => socketOf(folder, port));
  return TestpmdLoad.start(
    { sockets: [first!, second!], generatorRole: 'client' },
    { kind: 'io-vectorised', cpu: forwardingCpu(), controlCpu: controlCpu(), hugepagesPath },
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

/** Folder of a hugetlbfs; null when there is none to be had, which is noted. */
async function hugepagesOr4KiB(sizeMiB: number, run: Run, cleanUp: CleanUp): Promise<string | null> {
  const taken = await hugepagesFolder(sizeMiB, cleanUp);
  if ('path' in taken) return taken.path;
  run.note(`${taken.unavailable} Pages of 4 KiB are used.`);
  return null;
}
