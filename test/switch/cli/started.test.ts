/**
 * The switch as people start it: by nohup, npm, an older Node, with a log that nobody reads. The real program in a
 * process of its own.
 */
import { type ChildProcess, type SpawnOptions, spawn, spawnSync } from 'node:child_process';
import {
  closeSync,
  copyFileSync,
  existsSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readSync,
  rmSync,
  watch,
  writeFileSync,
} from 'node:fs';
import { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { VersionReport } from '../../../switch/control/api.ts';
import { askControl } from '../../../switch/control/client.ts';
import { LAUNCHER_VARIABLE } from '../../../switch/launcher.ts';
import { narrowPipe } from '../../narrow-pipe.ts';

const pathOf = (name: string): string =>
  fileURLToPath(new URL(`../../../switch/cli/${name}`, import.meta.url));
/** Every way to start it. */
const COMMANDS: Readonly<Record<string, readonly string[]>> = {
  'ringway.sh': [pathOf('ringway.sh')],
  'ringway.js': [process.execPath, pathOf('ringway.js')],
  'main.ts': [process.execPath, pathOf('main.ts')],
};
/** As if it were one. */
const OLDER_NODE = [
  process.execPath,
  '--import',
  `data:text/javascript,${encodeURIComponent("Object.defineProperty(process, 'versions', { value: { node: '20.0.0' } })")}`,
] as const;

let folder = '';
let control = '';
let environment: NodeJS.ProcessEnv = {};
const started: ChildProcess[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'ringway-started-'));
  control = join(folder, 'ringway.sock');
  const { RINGWAY_CONTROL: _, ...rest } = process.env;
  // Should a debugger be opened, then where nobody else's is.
  const options = `${process.env.NODE_OPTIONS ?? ''} --inspect-port=0`;
  environment = { ...rest, XDG_RUNTIME_DIR: folder, TMPDIR: folder, NODE_OPTIONS: options };
});

afterEach(async () => {
  // The switch itself, where what was started is not it; its parent is this process or one of ours.
  const pid = await switchPid().catch(() => null);
  if (pid !== null) process.kill(pid, 'SIGKILL');
  for (const child of started.splice(0)) child.kill('SIGKILL');
  rmSync(folder, { recursive: true, force: true });
});

const RUN = (): string[] => ['run', '--control', control, '--port', `a=${join(folder, 'a.sock')}`];

type Run = { readonly child: ChildProcess; readonly closed: Promise<number | null>; stderr(): string };

/** Resolves when it answers. `closed`: all that wrote to its stderr are gone. */
async function start(command: readonly string[], options: SpawnOptions = {}): Promise<Run> {
  const child = spawn(command[0], command.slice(1), { env: environment, stdio: 'pipe', ...options });
  started.push(child);
  let text = '';
  child.stdout?.resume();
  child.stderr?.setEncoding('utf8').on('data', (part: string) => {
    text += part;
  });
  const closed = new Promise<number | null>((resolve) => child.once('close', resolve));
  await Promise.race([answers(), closed.then((code) => Promise.reject(new Error(`${code}: ${text}`)))]);
  return { child, closed, stderr: () => text };
}

async function answers(): Promise<void> {
  const changes = watch(folder);
  try {
    while (!existsSync(control)) await new Promise((resolve) => changes.once('change', resolve));
  } finally {
    changes.close();
  }
  // It is bound a moment before it listens, and of that nothing tells.
  while ((await switchPid().catch(() => null)) === null)
    await new Promise((resolve) => setTimeout(resolve, 10));
}

async function switchPid(): Promise<number> {
  return (await askControl<VersionReport>(control, '/v1/version')).pid;
}

/** Once it has answered after the signal, that signal has had its effect. */
async function afterSignal(signal: NodeJS.Signals): Promise<void> {
  process.kill(await switchPid(), signal);
  await switchPid();
}

const leftBehind = (): string[] => readdirSync(folder).filter((name) => name.endsWith('.sock'));
const stoppedBy = ({ stderr }: Run): unknown =>
  stderr()
    .split('\n')
    .filter((line) => line.includes('"stopping"'))
    .map((line) => {
      const { signal, reason } = JSON.parse(line);
      return signal ?? reason;
    });

describe.each(Object.entries(COMMANDS))('%s', (_, command) => {
  it('survives SIGHUP where it has no terminal, and SIGUSR1 opens no debugger', async () => {
    const run = await start(['setsid', ...command, ...RUN()]);
    await afterSignal('SIGHUP');
    await afterSignal('SIGUSR1');
    process.kill(await switchPid(), 'SIGTERM');
    await run.closed;
    expect(stoppedBy(run)).toEqual(['SIGTERM']);
    expect(run.stderr()).not.toContain('Debugger');
    expect(leftBehind()).toEqual([]);
  });

  it('ends by SIGHUP when its terminal does, but not with nohup', async () => {
    const line = ['exec', ...command, ...RUN()].join(' ');
    const run = await start(['script', '-qec', line, '/dev/null']);
    process.kill(await switchPid(), 'SIGHUP');
    await run.closed;
    expect(leftBehind()).toEqual([]);

    const withNohup = line.replace('exec', 'exec env _=/usr/bin/nohup nohup');
    // nohup writes what goes to a terminal into a file of its folder.
    const other = await start(['script', '-qec', withNohup, '/dev/null'], { cwd: folder });
    await afterSignal('SIGHUP');
    process.kill(await switchPid(), 'SIGTERM');
    await other.closed;
    expect(leftBehind()).toEqual([]);
  });
});

describe('the command', () => {
  it('is the switch, with no process between, and leaves alone what it was started to ignore', async () => {
    const run = await start(['sh', '-c', 'trap "" INT; exec "$0" "$@"', ...COMMANDS['ringway.sh'], ...RUN()]);
    expect(await switchPid()).toBe(run.child.pid);
    await afterSignal('SIGINT');
    process.kill(await switchPid(), 'SIGTERM');
    await run.closed;
    expect(stoppedBy(run)).toEqual(['SIGTERM']);
  });

  it('says that Node is too old where no newer one is at hand, which the user can mend', () => {
    const alone = join(folder, 'ringway.mjs');
    copyFileSync(pathOf('ringway.js'), alone);
    const { status, stdout, stderr } = spawnSync(
      OLDER_NODE[0],
      [...OLDER_NODE.slice(1), alone, '--version'],
      {
        env: environment,
        encoding: 'utf8',
      },
    );
    expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
    expect(stderr).toMatch(/^ringway: Node 24 or later is needed, this is 20\.0\.0 \([^\n]+\)\n$/);
  });

  it('works through a link, as npm installs it', async () => {
    const link = join(folder, 'ringway');
    spawnSync('ln', ['-s', ...COMMANDS['ringway.sh'], link]);
    const { status, stdout } = spawnSync(link, ['--version'], { env: environment, encoding: 'utf8' });
    expect([status, stdout]).toEqual([0, expect.stringMatching(/^\d+\.\d+\.\d+\n$/)]);
  });
});

describe('a launcher that is killed takes the switch with it', () => {
  it('ringway.js under an older Node', async () => {
    const run = await start([...OLDER_NODE, pathOf('ringway.js'), ...RUN()]);
    expect(await switchPid()).not.toBe(run.child.pid);
    run.child.kill('SIGKILL');
    await run.closed;
    expect(stoppedBy(run)).toEqual(['the process that started it is gone']);
    expect(leftBehind()).toEqual([]);
  });

  it('one that is gone before the switch looks', async () => {
    environment[LAUNCHER_VARIABLE] = '4194305';
    const child = spawn(process.execPath, [pathOf('main.ts'), ...RUN()], { env: environment, stdio: 'pipe' });
    started.push(child);
    expect(await new Promise((resolve) => child.once('close', resolve))).toBe(0);
    expect(leftBehind()).toEqual([]);
  });

  it.each(['SIGKILL', 'SIGTERM'] as const)('npm, by %s', async (signal) => {
    const script = [...COMMANDS['ringway.sh'], ...RUN()].join(' ');
    writeFileSync(join(folder, 'package.json'), JSON.stringify({ name: 'x', scripts: { switch: script } }));
    const run = await start(['npm', 'run', 'switch'], { cwd: folder });
    expect(await switchPid()).not.toBe(run.child.pid);
    run.child.kill(signal);
    await run.closed;
    expect(leftBehind()).toEqual([]);
  });
});

describe('a log that is not taken', () => {
  /** Each port that comes or goes wrong is a line at least. */
  async function fillLog(): Promise<void> {
    for (let i = 0; i < 60; i++) {
      const body = { kind: 'pcap', file: join(folder, 'missing', 'c.pcap'), direction: 'read' };
      await askControl(control, '/v1/ports/c', { method: 'PUT', body });
      await askControl(control, '/v1/ports/c', { method: 'DELETE' });
    }
  }

  it('because nobody reads it: the switch answers, says later what was lost, and ends', async () => {
    const path = join(folder, 'log');
    const { reader, writer } = narrowPipe(path);
    const run = await start([...COMMANDS['main.ts'], ...RUN()], { stdio: ['ignore', 'ignore', writer] });
    closeSync(writer);
    await fillLog();
    process.kill(await switchPid(), 'SIGTERM');
    expect(await run.closed).toBe(0);
    expect(readSync(reader, Buffer.alloc(65_536))).toBeGreaterThan(2000);
    closeSync(reader);
    expect(leftBehind()).toEqual([]);
  });

  it('because its reader is gone, and the one of the QEMU lines too', async () => {
    const run = await start([...COMMANDS['main.ts'], ...RUN()]);
    run.child.stderr?.destroy();
    run.child.stdout?.destroy();
    await fillLog();
    process.kill(await switchPid(), 'SIGTERM');
    expect(await run.closed).toBe(0);
  });

  it('because its terminal is stopped', async () => {
    const CTRL_S = '\x13';
    const line = ['exec', ...COMMANDS['main.ts'], ...RUN(), '--log-level', 'trace'].join(' ');
    const run = await start(['script', '-qec', line, '/dev/null']);
    run.child.stdin?.write(CTRL_S);
    await fillLog();
    process.kill(await switchPid(), 'SIGTERM');
    await run.closed;
    expect(leftBehind()).toEqual([]);
  });

  it('because the disk is full', async () => {
    const full = openSync('/dev/full', 'w');
    const run = await start([...COMMANDS['main.ts'], ...RUN()], { stdio: ['ignore', full, full] });
    closeSync(full);
    await fillLog();
    process.kill(await switchPid(), 'SIGTERM');
    expect(await run.closed).toBe(0);
  });
});

it('a command whose output has no room in a pipe writes all of it', async () => {
  const path = join(folder, 'pipe');
  const { reader, writer } = narrowPipe(path);
  const command = [...COMMANDS['main.ts'].slice(1), 'completion', 'bash'];
  started.push(spawn(process.execPath, command, { stdio: ['ignore', writer, 'inherit'], env: environment }));
  closeSync(writer);
  // Meanwhile there is time for the other one to come to its end.
  const whole = spawnSync(process.execPath, command, { env: environment }).stdout;
  expect(whole.length).toBeGreaterThan(8192);
  expect(await buffer(new Socket({ fd: reader, writable: false }))).toEqual(whole);
});
