/**
 * How long `ringway run` takes from the command to sockets that take connections, as whoever starts it sees it: the
 * command is spawned, and the folder of the sockets is watched until a connection to the last port's is taken.
 * `node bench/start/main.ts --help`; docs/benchmarks.md says what it means.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, watch } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { spreadOf } from '../statistics.ts';

const CHECKOUT = fileURLToPath(new URL('../../switch/cli/ringway.sh', import.meta.url));
const HELP = `node bench/start/main.ts [--program PATH]… [--starts 15] [--ports 2] [--served] [--json]
  --program  the command ringway to start; may be repeated, they take turns (default: this checkout's)
  --starts   of each, after one that is not counted
  --ports    so many sockets
  --served   measures until the log says that it runs: workers and the control socket are there too
  --json     prints every sample instead of the table`;

const { values } = parseArgs({
  options: {
    program: { type: 'string', multiple: true, default: [CHECKOUT] },
    starts: { type: 'string', default: '15' },
    ports: { type: 'string', default: '2' },
    served: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});
if (values.help) {
  process.stdout.write(`${HELP}\n`);
  process.exit(0);
}

type Start = { readonly wallMs: number; readonly cpuMs: number };

/** Until all `sockets` take connections. */
async function untilListening(folder: string, sockets: readonly string[]): Promise<void> {
  const changes = watch(folder);
  try {
    while (!sockets.every((path) => existsSync(path))) await once(changes, 'change');
  } finally {
    changes.close();
  }
  for (const path of sockets) while (!(await takesConnection(path)));
}

function takesConnection(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
    socket.once('connect', () => socket.destroy());
  });
}

async function untilServed(child: ChildProcess): Promise<void> {
  let text = '';
  for await (const part of child.stderr!.setEncoding('utf8')) {
    text += part;
    if (text.includes('"msg":"running"')) return;
  }
  throw new Error(`it ended: ${text}`);
}

const CLOCK_TICK_MS = 10;

/** Of all its threads so far; the shell before it is in it, as it became this process. */
function cpuMsOf(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /, '')
    .split(' ');
  return (Number(fields[11]) + Number(fields[12])) * CLOCK_TICK_MS;
}

async function startOnce(program: string): Promise<Start> {
  const folder = mkdtempSync(join(tmpdir(), 'ringway-start-'));
  const sockets = Array.from({ length: Number(values.ports) }, (_, i) => join(folder, `vm${i}.sock`));
  const ports = sockets.flatMap((path, i) => ['--port', `vm${i}=${path}`]);
  const begin = performance.now();
  const child = spawn(program, ['run', ...ports], {
    stdio: ['ignore', 'ignore', values.served ? 'pipe' : 'ignore'],
  });
  const exited = once(child, 'exit');
  const ended = exited.then(([code]) =>
    Promise.reject(new Error(`${program} ended with ${code}: ${readdirSync(folder)}`)),
  );
  ended.catch(() => {});
  try {
    await Promise.race([values.served ? untilServed(child) : untilListening(folder, sockets), ended]);
    return { wallMs: performance.now() - begin, cpuMs: cpuMsOf(child.pid!) };
  } finally {
    child.kill('SIGTERM');
    await exited;
    rmSync(folder, { recursive: true, force: true });
  }
}

const programs = values.program;
const samples = new Map(programs.map((program) => [program, [] as Start[]]));
for (let round = -1; round < Number(values.starts); round++) {
  for (const program of programs) {
    const start = await startOnce(program);
    // The first one fills caches: of the disk, and of what Node compiled.
    if (round >= 0) samples.get(program)!.push(start);
  }
}
if (values.json) process.stdout.write(`${JSON.stringify(Object.fromEntries(samples), null, 2)}\n`);
else {
  process.stdout.write('least  median  most ms   CPU ms\n');
  for (const [program, starts] of samples) {
    const wall = spreadOf(starts.map(({ wallMs }) => wallMs));
    const cpu = spreadOf(starts.map(({ cpuMs }) => cpuMs));
    const columns = [wall.min, wall.median, wall.max].map((ms) => ms.toFixed(0).padStart(5));
    process.stdout.write(`${columns.join('   ')}   ${cpu.median.toFixed(0).padStart(8)}   ${program}\n`);
  }
}
