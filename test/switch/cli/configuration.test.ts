/** `ringway apply`, `ringway show` and SIGHUP, of a real process. No guests. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, it } from 'vitest';

const MAIN = fileURLToPath(new URL('../../../switch/cli/main.ts', import.meta.url));

/** Each question is a process. */
const TIMEOUT_MS = 120_000;

let folder = '';
let file = '';
let child: ChildProcess | null = null;
let lines: AsyncIterator<string>;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'ringway-apply-'));
  file = join(folder, 'ringway.yaml');
});
afterEach(async () => {
  if (child !== null && child.exitCode === null) {
    const exited = new Promise((resolve) => child?.once('exit', resolve));
    child.kill('SIGKILL');
    await exited;
  }
  rmSync(folder, { recursive: true, force: true });
});

/** Writes the file; each port has a socket in the folder. */
function write(ports: Readonly<Record<string, string>>, more = ''): void {
  const entries = Object.entries(ports).map(
    ([name, settings]) => `  ${name}: { socket: ${folder}/${name}.sock${settings} }`,
  );
  writeFileSync(file, `ports:\n${entries.join('\n')}\n${more}`);
}

async function run(): Promise<void> {
  // Without a terminal, whoever runs the tests.
  child = spawn(process.execPath, [MAIN, 'run', '--config', file], {
    detached: true,
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  lines = createInterface({ input: child.stderr as NodeJS.ReadableStream })[Symbol.asyncIterator]();
  await logged('"running"');
}

async function logged(text: string): Promise<string> {
  for (;;) {
    const { value, done } = await lines.next();
    if (done === true) throw new Error(`it ended before it said ${text}`);
    if (value.includes(text)) return value;
  }
}

function ringway(...args: string[]): { code: number | null; stdout: string; stderr: string } {
  const { status, stdout, stderr } = spawnSync(process.execPath, [MAIN, ...args, '--control', folder], {
    encoding: 'utf8',
  });
  return { code: status, stdout, stderr };
}

it(
  'applies a file, shows what runs, and refuses a file as a whole by its lines',
  async () => {
    write({ a: '', b: ', tag: 10' });
    await run();
    write({ a: ', tag: 20', c: ', queues: 2' });
    const difference = `- port b, socket ${folder}/b.sock\n~ port a: tag default -> 20\n+ port c, socket ${folder}/c.sock\n`;
    expect(ringway('apply', file, '--dry-run')).toEqual({ code: 0, stdout: difference, stderr: '' });
    expect(existsSync(join(folder, 'c.sock'))).toBe(false);
    expect(ringway('apply', file)).toEqual({ code: 0, stdout: difference, stderr: '' });
    expect([existsSync(join(folder, 'b.sock')), existsSync(join(folder, 'c.sock'))]).toEqual([false, true]);
    expect(ringway('apply', file).stdout).toBe('It runs as the file says already.\n');

    expect(ringway('set', 'a', 'tag=30').code).toBe(0);
    const { stdout: shown } = ringway('show', '--yaml');
    expect(shown).toBe(
      `ports:\n  a:\n    socket: ${folder}/a.sock\n    tag: 30\n  c:\n    socket: ${folder}/c.sock\n    queues: 2\n`,
    );
    writeFileSync(join(folder, 'shown.yaml'), shown);
    expect(ringway('apply', join(folder, 'shown.yaml')).stdout).toBe('It runs as the file says already.\n');

    write({ a: ', tag: 9999', c: ', sockt: x' });
    const refused = ringway('apply', file);
    expect(refused).toMatchObject({ code: 2, stdout: '' });
    expect(refused.stderr).toMatch(
      /ringway\.yaml:2: ports\.a\.tag: 9999 .*ringway\.yaml:3: ports\.c\.sockt: unknown/,
    );
    // The socket of another program: the port before it is taken back too.
    write({ a: ', tag: 30', c: ', queues: 2', d: '', e: '' });
    writeFileSync(join(folder, 'e.sock'), 'not a socket');
    const taken = ringway('apply', file);
    expect(taken.code).toBe(2);
    expect(taken.stderr).toContain(`${folder}/e.sock`);
    expect(existsSync(join(folder, 'd.sock'))).toBe(false);
    expect(ringway('show').stdout).toBe(shown);
  },
  TIMEOUT_MS,
);

it(
  'reads its file again at SIGHUP, and goes on as it was where that is wrong',
  async () => {
    write({ a: '' });
    await run();
    const hangUp = (): boolean => process.kill(child?.pid ?? 0, 'SIGHUP');
    write({ a: ', tag: 7', b: '' });
    hangUp();
    expect(await logged('applied: + port b')).toContain(`${folder}/b.sock`);
    write({ a: ', tag: x' });
    hangUp();
    expect(await logged('was not applied')).toContain('ringway.yaml:2: ports.a.tag: x is not allowed');
    write({ a: ', tag: 7', b: '' }, 'idleUs: 5\n');
    hangUp();
    expect(await logged('was not applied')).toContain('a running switch keeps idleUs');
    write({ a: ', tag: 7', b: '' });
    hangUp();
    await logged('says what runs already');
    expect(ringway('ports').stdout).toContain('b.sock');
  },
  TIMEOUT_MS,
);
