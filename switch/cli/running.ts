/**
 * How `ringway ports` and `ringway fdb` find the process to ask. A running one leaves a note, `<pid>.json`
 * with the path of its control socket, in a folder that only its user can write to; notes of processes that
 * are gone are removed by whoever finds them. Short-lived processes and the main thread of `run`.
 */
import assert from 'node:assert/strict';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { CONFIG_DEFAULTS } from '../config/schema.ts';
import type { VersionReport } from '../control/api.ts';
import { ControlError } from '../control/control-error.ts';
import { CliError, EXIT } from './cli-error.ts';

export const CONTROL_VARIABLE = 'RINGWAY_CONTROL';
const FOLDER_MODE = 0o700;
const NOTE_BYTES_MAX = 4096;
const LOOK_PERIOD_MS = 60_000;

type Note = { readonly pid: number; readonly control: string };

/** The environment as far as it matters here. */
export type Environment = Readonly<Record<string, string | undefined>>;

/**
 * Folders of this user's notes, the one to write to first. A session has XDG_RUNTIME_DIR and a service
 * started at boot often not, so those who search look into both.
 */
function noteFolders(environment: Environment, uid: number): string[] {
  const bases = [environment.XDG_RUNTIME_DIR, environment.TMPDIR || '/tmp'].filter(
    (base) => base !== undefined,
  );
  return [...new Set(bases.filter((base) => base !== '').map((base) => join(base, `ringway-${uid}`)))];
}

/**
 * Leaves the note of this process, and leaves it again when it was removed, as old files in /tmp are; the answer removes
 * it for good. @throws Error when no folder can be used: the switch works without, `--control` is then needed
 */
export function recordRunning(
  controlSocket: string,
  environment: Environment = process.env,
  lookPeriodMs = LOOK_PERIOD_MS,
): () => void {
  const path = leaveNote(controlSocket, environment);
  const timer = setInterval(() => {
    if (existsSync(path)) return;
    try {
      leaveNote(controlSocket, environment);
    } catch {
      // It was said at the start what is needed without.
    }
  }, lookPeriodMs);
  timer.unref();
  return () => {
    clearInterval(timer);
    rmSync(path, { force: true });
  };
}

/** Answers its path. */
function leaveNote(controlSocket: string, environment: Environment): string {
  const folders = noteFolders(environment, userId());
  const folder = folders.find((candidate) => existsSync(dirname(candidate))) ?? folders[0];
  mkdirSync(folder, { recursive: true, mode: FOLDER_MODE });
  if (!isOurs(folder)) throw new Error(`${folder} is not a folder that only this user can write to`);
  const path = join(folder, `${process.pid}.json`);
  const note: Note = { pid: process.pid, control: resolve(controlSocket) };
  writeFileSync(path, `${JSON.stringify(note)}\n`, { mode: 0o600 });
  return path;
}

/**
 * Path of the control socket to ask: what was given (a socket, or the folder it lies in), else the
 * environment's, else the only process of this user that is running. @throws CliError
 */
export async function findControl(
  given: string | undefined,
  environment: Environment = process.env,
): Promise<string> {
  const named = given ?? environment[CONTROL_VARIABLE];
  if (named !== undefined && named !== '') return socketIn(named);
  const running = await runningProcesses(environment);
  if (running.length === 1) return running[0].control;
  if (running.length === 0) {
    throw new CliError(`no running ringway of this user was found; name its control socket with --control`);
  }
  const list = running.map(({ pid, control }) => `${control} (process ${pid})`).join(', ');
  throw new CliError(`several ringways are running: choose one with --control: ${list}`, EXIT.usage);
}

function socketIn(path: string): string {
  const isFolder = statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
  return isFolder ? join(path, CONFIG_DEFAULTS.controlSocketName) : path;
}

async function runningProcesses(environment: Environment): Promise<Note[]> {
  const folders = noteFolders(environment, userId()).filter(isOurs);
  const notes = folders.flatMap((folder) => readdirSync(folder).map((name) => join(folder, name)));
  const running = await Promise.all(notes.sort().map(runningProcess));
  return running.filter((process) => process !== null);
}

/** The process that left the note, if it still answers; the note of one that is gone is removed. */
async function runningProcess(path: string): Promise<Note | null> {
  const note = readNote(path);
  if (note === null) return null;
  try {
    // A socket can have a new owner after its old one was killed: whose it is, it says itself.
    // Loaded late: a switch leaves its note, and asks nobody.
    const { askControl } = await import('../control/client.ts');
    const { pid } = await askControl<VersionReport>(note.control, '/v1/version');
    if (pid === note.pid) return note;
  } catch (error) {
    if (!(error instanceof ControlError && error.kind === 'unserved')) return note;
  }
  rmSync(path, { force: true });
  return null;
}

function readNote(path: string): Note | null {
  try {
    if (!path.endsWith('.json') || statSync(path).size > NOTE_BYTES_MAX) return null;
    const { pid, control } = JSON.parse(readFileSync(path, 'utf8'));
    return Number.isInteger(pid) && typeof control === 'string' ? { pid, control } : null;
  } catch {
    // Removed meanwhile, or not ours to understand.
    return null;
  }
}

/** Of this process; Linux always has one. */
function userId(): number {
  const uid = process.getuid?.();
  assert(uid !== undefined, 'this is no POSIX system');
  return uid;
}

/** /tmp is open to all: a folder that somebody else made, or can write to, could send us anywhere. */
function isOurs(folder: string): boolean {
  const stat = lstatSync(folder, { throwIfNoEntry: false });
  if (stat === undefined || !stat.isDirectory()) return false;
  return stat.uid === userId() && (stat.mode & 0o022) === 0;
}
