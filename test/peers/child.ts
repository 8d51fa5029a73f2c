/**
 * Starts the peers' processes so that none outlives the test process: they are killed when it exits, and by the
 * kernel (PR_SET_PDEATHSIG, through util-linux' `setpriv`) when it is itself killed.
 * Owns: the list of running children and of temporary folders, both emptied at exit. Called by the other files of this folder, on any thread.
 */
import { type ChildProcessByStdio, execFile, spawn } from 'node:child_process';
import { accessSync, constants, rmSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import type { Readable, Writable } from 'node:stream';

/** Longest piece of a child's output that is kept, in UTF-16 units; older text is dropped. */
const maxLogLength = 1 << 20;

export interface Child {
  readonly process: ChildProcessByStdio<Writable, Readable, Readable>;
  readonly pid: number;
  /** Exit code; null when a signal ended it. Never rejects. */
  readonly exited: Promise<number | null>;
  hasExited(): boolean;
  /** "code 1" or "SIGSEGV", once it has exited. */
  howItEnded(): string;
  kill(): void;
}

const running = new Set<Child>();
const temporaryFolders = new Set<string>();
let exitHookInstalled = false;

/**
 * Starts a program, with copies of `passedFds` as its descriptors 3, 4 and so on; for 'pipe' a socket, whose other end
 * is in `process.stdio`. Rejects when it cannot be started
 * at all.
 */
export async function startChild(
  program: string,
  args: readonly string[],
  passedFds: readonly (number | 'pipe')[] = [],
): Promise<Child> {
  installExitHook();
  const setpriv = findProgram('setpriv');
  const path = findProgram(program) ?? program;
  const line = setpriv === undefined ? [path, ...args] : [setpriv, '--pdeathsig', 'KILL', path, ...args];
  const process = spawn(line[0], line.slice(1), {
    stdio: ['pipe', 'pipe', 'pipe', ...passedFds],
  }) as ChildProcessByStdio<Writable, Readable, Readable>;
  let over = false;
  let end = 'not at all';
  const exited = new Promise<number | null>((resolve) => {
    process.once('exit', (code, signal) => {
      end = signal ?? `code ${code}`;
      over = true;
      running.delete(child);
      resolve(code);
    });
  });
  // A child that has gone closes its standard input under us; its exit says why.
  process.stdin.on('error', () => {});
  await new Promise<void>((resolve, reject) => {
    process.once('spawn', resolve);
    process.once('error', reject);
  });
  const child: Child = {
    process,
    pid: process.pid!,
    exited,
    hasExited: () => over,
    howItEnded: () => end,
    kill: () => {
      if (!over) process.kill('SIGKILL');
    },
  };
  if (!over) running.add(child);
  return child;
}

function installExitHook(): void {
  if (exitHookInstalled) return;
  exitHookInstalled = true;
  process.on('exit', () => {
    for (const child of running) child.kill();
    for (const folder of temporaryFolders) rmSync(folder, { recursive: true, force: true });
  });
}

/** Makes a folder below /tmp that is removed by the function returned with it, or else when this process exits. */
export async function temporaryFolder(prefix: string): Promise<{ path: string; remove(): Promise<void> }> {
  installExitHook();
  const path = await mkdtemp(join(tmpdir(), prefix));
  temporaryFolders.add(path);
  return {
    path,
    remove: async () => {
      await rm(path, { recursive: true, force: true });
      temporaryFolders.delete(path);
    },
  };
}

/** Keeps the last part of a stream's text. */
export class TextLog {
  #text = '';

  constructor(stream: Readable) {
    stream.setEncoding('utf8');
    stream.on('data', (text: string) => {
      this.#text = (this.#text + text).slice(-maxLogLength);
    });
  }

  get text(): string {
    return this.#text;
  }
}

/** Looks a program up in PATH and in the folders for root's programs, which PATH may lack. */
export function findProgram(name: string): string | undefined {
  const folders = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/sbin', '/usr/bin', '/bin'];
  return folders
    .filter((folder) => folder !== '')
    .map((folder) => join(folder, name))
    .find(isExecutable);
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

export interface ProgramResult {
  code: number;
  output: string;
}

/** Runs a program to its end; standard output and error come as one text. Code -1: not started, or timed out. */
export function runProgram(
  program: string,
  args: readonly string[],
  options: { timeoutMs?: number; cwd?: string; env?: Record<string, string> } = {},
): Promise<ProgramResult> {
  const settings = {
    encoding: 'utf8' as const,
    timeout: options.timeoutMs ?? 60_000,
    maxBuffer: 1 << 26,
    env: { ...process.env, ...options.env },
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
  };
  return new Promise((resolve) => {
    execFile(findProgram(program) ?? program, args, settings, (error, stdout, stderr) => {
      const code = error === null ? 0 : typeof error.code === 'number' ? error.code : -1;
      resolve({ code, output: stdout + stderr });
    });
  });
}
