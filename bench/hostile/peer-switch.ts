/**
 * The two switches that peers.ts tries, each as a process of its own with the same sockets: Ringway by its command line,
 * and DPDK's testpmd, which passes on what comes between ports 0 and 1, 2 and 3, 4 and 5 by its vhost library.
 */
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { askControl } from '../../switch/control/client.ts';
import type { PortReport } from '../../switch/control/report.ts';
import { startChild, TextLog } from '../../test/peers/child.ts';
import { settlesWithin } from '../../test/peers/deadline.ts';
import { Testpmd } from '../../test/peers/testpmd.ts';

/** In this order; two that follow one another are a pair. */
export const PORTS = ['hostile', 'partner', 'first', 'second', 'spare', 'idle'] as const;
export type PortName = (typeof PORTS)[number];

export type TriedSwitch = {
  /** How it ended, or null while it runs. */
  readonly ended: () => string | null;
  /** Whether its commands are answered. */
  readonly answers: () => Promise<boolean>;
  /** What it says of the hostile front-end's port; null when it says nothing. */
  readonly reason: () => Promise<string | null>;
  readonly stop: () => Promise<void>;
};

export type SwitchName = keyof typeof SWITCHES;

const ANSWER_MS = 3000;
const STOP_MS = 10_000;
const START_LOOKS = 600;
const START_LOOK_MS = 50;
const PROGRAM = fileURLToPath(new URL('../../switch/cli/main.ts', import.meta.url));

export const socketOf = (folder: string, port: PortName): string => join(folder, `${port}.sock`);

async function isSoon(promise: Promise<unknown>): Promise<boolean> {
  const fulfilled = promise.then(
    () => true,
    () => false,
  );
  return (await settlesWithin(fulfilled, ANSWER_MS)) && (await fulfilled);
}

async function startRingway(folder: string): Promise<TriedSwitch> {
  const control = join(folder, 'control.sock');
  const ports = PORTS.flatMap((port) => ['--port', `${port}=${socketOf(folder, port)}`]);
  const child = await startChild(process.execPath, [PROGRAM, 'run', ...ports, '--control', control]);
  const log = new TextLog(child.process.stderr);
  child.process.stdout.resume();
  const portsNow = (): Promise<PortReport[]> => askControl<PortReport[]>(control, '/v1/ports');
  const started: TriedSwitch = {
    ended: () => (child.hasExited() ? child.howItEnded() : null),
    answers: () => isSoon(portsNow()),
    reason: async () => {
      if (child.hasExited() || !(await isSoon(portsNow()))) return null;
      const port = (await portsNow()).find(({ name }) => name === 'hostile');
      return port === undefined ? null : (port.reason ?? port.state);
    },
    stop: async () => {
      if (!child.hasExited()) child.process.kill('SIGTERM');
      if (!(await settlesWithin(child.exited, STOP_MS))) child.kill();
      await child.exited;
    },
  };
  for (let look = 0; !(await portsNow().catch(() => null)); look++) {
    if (child.hasExited() || look === START_LOOKS) {
      await started.stop();
      throw new Error(`Ringway did not start:\n${log.text}`);
    }
    await new Promise((resolve) => setTimeout(resolve, START_LOOK_MS));
  }
  return started;
}

async function startTestpmd(folder: string): Promise<TriedSwitch> {
  const testpmd = await Testpmd.start({
    vdevs: PORTS.map((port, i) => `net_vhost${i},iface=${socketOf(folder, port)},queues=1`),
    // By itself testpmd locks, and so touches, all of a guest's memory at once, which few users of the library do.
    args: ['--forward-mode=io', '--total-num-mbufs=16384', '--no-mlockall'],
    // Nothing is left behind when it is ended by force.
    ealArgs: ['--no-shconf'],
  });
  await testpmd.command('start');
  return {
    ended: () => testpmd.howItEnded(),
    answers: () => isSoon(testpmd.portStats()),
    reason: async () => null,
    stop: async () => {
      const isWell = testpmd.howItEnded() === null && (await isSoon(testpmd.portStats()));
      if (!isWell) testpmd.kill();
      await testpmd.stop();
    },
  };
}

export const SWITCHES = { Ringway: startRingway, DPDK: startTestpmd } as const;
