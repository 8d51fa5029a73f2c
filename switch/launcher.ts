/**
 * The processes between whoever gave the command and this one: `npx` and `npm run` with their shell, and ringway.js
 * under a Node that is too old. They pass on signals if they can; one that was killed cannot, and the switch would go on
 * with nobody to stop it, and hold the sockets that the next start wants. So its end is ours too. Main thread.
 */
import { readFileSync } from 'node:fs';
import { closeFd } from '../src/host/descriptor.ts';
import { descriptorLoop } from '../src/host/event-loop.ts';
import { openProcess } from '../src/host/process-fd.ts';
import { heededSignals } from './ignored-signals.ts';

/** Process id of ringway.js, when it has started this process. */
export const LAUNCHER_VARIABLE = 'RINGWAY_LAUNCHER';
/** How often to look where the kernel has no descriptors of processes (before 5.3). */
const LOOK_MS = 500;

type Environment = Readonly<Record<string, string | undefined>>;

/** What is asked about a process; null for one that is gone. */
export type ProcessTable = {
  parentOf(pid: number): number | null;
  commandOf(pid: number): readonly string[] | null;
};

/** The launchers, nearest first: each the parent of the one before, the first of this process. Null: one is gone already. */
export function launchersOf(
  parent: number,
  environment: Environment,
  processes: ProcessTable,
  isInBackground = false,
): number[] | null {
  const launchers: number[] = [];
  let next: number | null = parent;
  const launcher = environment[LAUNCHER_VARIABLE];
  if (launcher !== undefined) {
    if (Number(launcher) !== parent) return null;
    launchers.push(parent);
    next = processes.parentOf(parent);
  }
  // Set in everything that npm starts, and in what that starts; whether it is npm that waits for us is seen from who does.
  if (next === null || environment.npm_lifecycle_event === undefined) return launchers;
  // A script of npm that puts it in the background wants it to stay when the script is over.
  if (isInBackground) return launchers;
  if (isNpm(processes.commandOf(next))) return [...launchers, next];
  const beyond = processes.parentOf(next);
  const isShellOfNpm =
    beyond !== null && processes.commandOf(next)?.[1] === '-c' && isNpm(processes.commandOf(beyond));
  return isShellOfNpm ? [...launchers, next, beyond] : launchers;
}

/** It names itself `npm exec …`, all in one; before that, its program is the second word. */
function isNpm(command: readonly string[] | null): boolean {
  return (
    command !== null && (/^np[mx]( |$)/.test(command[0]) || /\/np[mx](-cli\.js)?$/.test(command[1] ?? ''))
  );
}

/** Resolves when a launcher of this process is gone; never where there is none. */
export function launcherGone(): Promise<void> {
  const launchers = launchersOf(process.ppid, process.env, PROC, !heededSignals().includes('SIGINT'));
  delete process.env[LAUNCHER_VARIABLE];
  if (launchers === null) return Promise.resolve();
  return new Promise((resolve) => {
    for (const pid of launchers) watch(pid, resolve);
    // One that went before it was watched is not our ancestor any more.
    if (!areAncestors(launchers)) resolve();
  });
}

function watch(pid: number, onGone: () => void): void {
  const fd = openProcess(pid);
  if (fd === null) {
    const parent = PROC.parentOf(pid);
    setInterval(() => PROC.parentOf(pid) !== parent && onGone(), LOOK_MS).unref();
    return;
  }
  const watched = descriptorLoop().watch(fd, () => {
    watched.close();
    closeFd(fd);
    onGone();
  });
}

function areAncestors(launchers: readonly number[]): boolean {
  return launchers.every((pid, i) => pid === (i === 0 ? process.ppid : PROC.parentOf(launchers[i - 1])));
}

const PROC: ProcessTable = {
  parentOf(pid) {
    const status = readProc(pid, 'status');
    const parent = status && /^PPid:\s*(\d+)$/m.exec(status);
    return parent ? Number(parent[1]) : null;
  },
  commandOf(pid) {
    return readProc(pid, 'cmdline')?.split('\0') ?? null;
  },
};

function readProc(pid: number, file: string): string | null {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8');
  } catch {
    return null;
  }
}
