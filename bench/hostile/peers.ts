/**
 * What one hostile front-end does to a switch and to those beside it, Ringway and DPDK's vhost in turn: a fresh process
 * of the switch for each case, two bystanders that exchange frames, and another front-end that shakes hands meanwhile.
 * `node bench/hostile/peers.ts [CASE…]` prints a table; as root, or some cases are left out.
 */
import { type ChildProcess, execFileSync, fork, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { EmbeddedGuest } from '../../src/frontend/index.ts';
import { settlesWithin } from '../../test/peers/deadline.ts';
import { takeHugepages } from '../../test/peers/hugepages.ts';
import type { BystandersReport } from './peer-bystanders.ts';
import type { CaseName } from './peer-guest.ts';
import { SWITCHES, type SwitchName, socketOf, type TriedSwitch } from './peer-switch.ts';

type Cleanup = () => void | Promise<void>;
/** What a case needs besides, in a fresh folder; a text says why it cannot be had. */
type Prepare = (folder: string) => Promise<string | null>;

type TriedCase = {
  readonly does: string;
  readonly prepare?: Prepare;
  /** Another program instead of peer-guest.ts, with its arguments before the socket. */
  readonly program?: readonly [string, ...string[]];
};

const WATCH_MS = 5000;
const HANDSHAKE_MS = 5000;
const HANDSHAKE_PAUSE_MS = 50;
const DEED_MS = 60_000;
const REPORT_MS = 5000;
const REASON_LENGTH_MAX = 86;
const isRoot = process.getuid?.() === 0;

const onExit = new Set<ChildProcess>();
/** Of the case that is tried; run backwards, after `first`. */
const cleanups: Cleanup[] = [];
const first: Cleanup[] = [];

const smallTmpfs: Prepare = async (folder) => {
  if (!isRoot) return 'it needs root';
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=24M', 'tmpfs', folder]);
  cleanups.push(() => void execFileSync('umount', ['--lazy', folder]));
  return null;
};

/** The guest's memory fills all of them but one. */
const hugepages: Prepare = async (folder) => {
  const taken = await takeHugepages(10, { reserve: true });
  if ('unavailable' in taken) return taken.unavailable;
  cleanups.push(() => taken.release());
  execFileSync('mount', ['--bind', taken.path, folder]);
  cleanups.push(() => void execFileSync('umount', ['--lazy', folder]));
  return null;
};

const muteFileSystem: Prepare = async (folder) => {
  if (!isRoot || !existsSync('/dev/fuse')) return 'it needs root and /dev/fuse';
  const program = fileURLToPath(new URL('../../test/peers/mute-file-system.ts', import.meta.url));
  const server = spawn(process.execPath, [program, folder], { stdio: ['ignore', 'pipe', 'inherit'] });
  onExit.add(server);
  cleanups.push(() => void execFileSync('umount', ['--lazy', folder]));
  // Whoever waits for it is set free, and could not be ended before.
  first.push(() => end(server));
  await once(server.stdout, 'data');
  return null;
};

const CASES: Readonly<Record<CaseName | 'owner flood', TriedCase>> = {
  nothing: { does: 'nothing wrong (for comparison)' },
  truncated: { does: 'its memory, a memfd without seals, is truncated in use' },
  'tmpfs full': { does: 'its memory lies on a tmpfs that is full', prepare: smallTmpfs },
  hole: { does: 'a hole in its hugepages, which another took', prepare: hugepages },
  'file never answers': { does: 'memory in a FUSE file that never answers', prepare: muteFileSystem },
  'dead file': { does: 'a memory file whose `fstat` fails' },
  'call blocks': { does: 'a full call descriptor, made blocking' },
  'one chain of tables': { does: 'one receive chain of 1,024 tables of 1,023 empty buffers (packed)' },
  'chains of empty buffers': { does: '1,024 receive chains of 1,023 empty buffers' },
  'longest chains': { does: '1,024 receive chains with room for a header, then 65,534 empty buffers' },
  '16 sending queues': { does: '16 queues that send chains of 96 buffers, all but one empty, without pause' },
  'base 0': { does: 'comes again with base 0 for used rings' },
  'base is avail': { does: 'comes again with base = avail index while 8 frames wait' },
  '509 regions': { does: '509 memory regions of 4 KiB' },
  'owner flood': { does: '`SET_OWNER` without pause', program: ['flooder.ts', 'owner'] },
};

async function cleanUp(): Promise<void> {
  for (const cleanup of [...first.splice(0), ...cleanups.splice(0).reverse()]) await cleanup();
}

process.on('exit', () => {
  for (const child of onExit) child.kill('SIGKILL');
});
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => void cleanUp().finally(() => process.exit(1)));
}

function start(file: string, ...args: string[]): ChildProcess {
  const child = fork(join(import.meta.dirname, file), args);
  onExit.add(child);
  return child;
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode === null && child.signalCode === null) {
    const exited = once(child, 'exit');
    child.kill('SIGKILL');
    await exited;
  }
  onExit.delete(child);
}

/** The next message, or null when none comes in time or the process ended. */
async function messageOf(child: ChildProcess, waitMs: number): Promise<unknown> {
  const message = Promise.race([
    once(child, 'message').then(([value]) => value as unknown),
    once(child, 'exit').then(() => null),
  ]);
  return (await settlesWithin(message, waitMs)) ? message : null;
}

/** Longest time in which another front-end is served; infinite: not within HANDSHAKE_MS. */
async function longestHandshakeMs(tried: TriedSwitch, socketPath: string): Promise<number> {
  const endMs = performance.now() + WATCH_MS;
  let longestMs = 0;
  while (performance.now() < endMs && tried.ended() === null) {
    const startMs = performance.now();
    const shaken = EmbeddedGuest.connect({ socketPath, waitMs: HANDSHAKE_MS }).then((guest) => guest.close());
    shaken.catch(() => {});
    if (!(await settlesWithin(shaken, HANDSHAKE_MS))) return Number.POSITIVE_INFINITY;
    longestMs = Math.max(longestMs, performance.now() - startMs);
    await new Promise((resolve) => setTimeout(resolve, HANDSHAKE_PAUSE_MS));
  }
  return longestMs;
}

type Row = readonly string[];
const HEAD: Row = [
  'the front-end',
  'switch',
  'its process',
  'what the front-end or its port says',
  "others' hand-shake, ms",
  "bystanders' frames lost",
  'longest pause, ms',
];

const shown = (row: Row): string => `| ${row.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;

/** What stands first in a reason, which may be long and name a folder that is of no interest. */
function firstOf(said: string, folder: string): string {
  const text = said
    .replace(/^.*\(last: /, '')
    .replaceAll(`${folder}/`, '')
    .split(/;| \(/)[0];
  return text.length <= REASON_LENGTH_MAX
    ? text
    : `${text.slice(0, text.lastIndexOf(' ', REASON_LENGTH_MAX))} …`;
}

function processCell(ended: string | null, answers: boolean): string {
  if (ended !== null) return `**ended: ${ended}**`;
  return answers ? 'alive' : '**alive, its commands hang**';
}

function bystanderCells(report: BystandersReport | null, ended: string | null): Row {
  if (ended !== null) return ['all', 'for ever'];
  if (report === null) return ['?', '?'];
  const pause = report.pauseMs.toFixed(0);
  return [`${report.lost} of ${report.sent}`, report.isOver ? `**${pause}, and no end**` : pause];
}

async function tryCase(name: keyof typeof CASES, switchName: SwitchName): Promise<Row> {
  const { does, prepare, program } = CASES[name];
  const folder = mkdtempSync(join(tmpdir(), 'ringway-peers-'));
  const extras = join(folder, 'extras');
  mkdirSync(extras);
  cleanups.push(() => rmSync(folder, { recursive: true, force: true }));
  try {
    const missing = (await prepare?.(extras)) ?? null;
    if (missing !== null) return [does, switchName, `left out: ${missing}`, '', '', '', ''];
    const tried = await SWITCHES[switchName](folder);
    cleanups.push(() => tried.stop());
    const bystanders = start('peer-bystanders.ts', socketOf(folder, 'first'), socketOf(folder, 'second'));
    cleanups.push(() => end(bystanders));
    if ((await messageOf(bystanders, DEED_MS)) !== 'ready') throw new Error('the bystanders did not start');
    const [file, ...args] = program ?? ['peer-guest.ts', name];
    const guest = start(file, ...args, socketOf(folder, 'hostile'), socketOf(folder, 'partner'), extras);
    cleanups.push(() => end(guest));
    const note = await messageOf(guest, DEED_MS);
    const handshakeMs = await longestHandshakeMs(tried, socketOf(folder, 'spare'));
    const answered = messageOf(bystanders, REPORT_MS);
    bystanders.send('report');
    const report = (await answered) as BystandersReport | null;
    const answers = tried.ended() === null && (await tried.answers());
    const reason = await tried.reason();
    const ended = tried.ended();
    const said = [
      program === undefined ? (note as string | null) : '',
      reason === null ? '' : `port: ${firstOf(reason, extras)}`,
    ];
    const handshake = Number.isFinite(handshakeMs) ? handshakeMs.toFixed(0) : `**none in ${HANDSHAKE_MS}**`;
    return [
      does,
      switchName,
      processCell(ended, answers),
      said.filter((each) => each !== null && each !== '').join('; '),
      ended === null ? handshake : 'none',
      ...bystanderCells(report, ended),
    ];
  } finally {
    await cleanUp();
  }
}

const wanted = process.argv.slice(2);
const names = (Object.keys(CASES) as (keyof typeof CASES)[]).filter(
  (name) => wanted.length === 0 || wanted.includes(name),
);
process.stdout.write(`${shown(HEAD)}\n${shown(HEAD.map(() => '---'))}\n`);
for (const name of names) {
  for (const switchName of Object.keys(SWITCHES) as SwitchName[]) {
    process.stdout.write(`${shown(await tryCase(name, switchName))}\n`);
  }
}
process.exit(0);
