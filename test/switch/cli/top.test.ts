/** `ringway top` in a terminal, which util-linux' `script` plays, and in a pipe; asked is a made-up process. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { serveControl } from '../../../switch/control/serve.ts';
import { findProgram } from '../../peers/child.ts';
import { softwareMissing } from '../../peers/software.ts';
import { figuresReport, portFigures } from '../top/reports.ts';

const PROGRAM = fileURLToPath(new URL('../../../switch/cli/main.ts', import.meta.url));
const ENTERED = '\u001b[?1049h';
const LEFT = '\u001b[?1049l';
const hasScript = findProgram('script') !== undefined;

let folder = '';
let control = '';
let server: { close(): Promise<void> };
const children: ChildProcess[] = [];

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'ringway-top-'));
  control = join(folder, 'c.sock');
  const report = figuresReport({
    ports: [portFigures('vm0', { drops: { noBuffer: 5 } }), portFigures('vm1')],
  });
  server = await serveControl(control, { fetch: () => Response.json(report) });
});

afterEach(async () => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
  await server.close();
  rmSync(folder, { recursive: true, force: true });
});

class Top {
  readonly child: ChildProcess;
  output = '';
  /** When all of its output is here, too. */
  readonly #exited: Promise<unknown[]>;
  #onOutput = (): void => {};

  constructor(program: string, args: readonly string[], env: Readonly<Record<string, string>> = {}) {
    this.child = spawn(program, args, { env: { ...process.env, TERM: 'xterm', ...env } });
    children.push(this.child);
    this.#exited = once(this.child, 'close');
    for (const stream of [this.child.stdout, this.child.stderr])
      stream?.setEncoding('utf8').on('data', (text: string) => {
        this.output += text;
        this.#onOutput();
      });
  }

  /** In a terminal of 80 columns and 24 lines. */
  static live(args = '', env: Readonly<Record<string, string>> = {}): Top {
    const line = `stty cols 80 rows 24; exec ${process.execPath} ${PROGRAM} top --control ${control} ${args}`;
    return new Top('script', ['-q', '-e', '-c', line, '/dev/null'], env);
  }

  /** What was shown since `from`, once it has that. */
  async until(text: string | RegExp, from = 0): Promise<string> {
    for (;;) {
      const shown = this.output.slice(from);
      if (typeof text === 'string' ? shown.includes(text) : text.test(shown)) return shown;
      await Promise.race([
        new Promise<void>((resolve) => {
          this.#onOutput = resolve;
        }),
        this.#exited.then(() => {
          if (!this.output.slice(from).match(text)) expect.fail(`it ended: ${this.output}`);
        }),
      ]);
    }
  }

  async key(key: string, shows: string | RegExp): Promise<string> {
    const from = this.output.length;
    this.child.stdin?.write(key);
    return this.until(shows, from);
  }

  /** Of the command, which `script` has started. */
  get ownPid(): number {
    const { pid } = this.child;
    return Number(readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim());
  }

  async exitCode(): Promise<number> {
    const [code] = await this.#exited;
    return code as number;
  }
}

describe.skipIf(!hasScript)(
  hasScript ? 'in a terminal' : `in a terminal (skipped: ${softwareMissing('script')})`,
  () => {
    it('follows keys, and leaves the terminal as it was on q', async () => {
      const top = Top.live();
      await top.until('vm1');
      await top.key('d', /noBuffer[\s\S]*had no room/);
      await top.key('w', 'BURST');
      await top.key('p', '*PORT');
      await top.key('s', '*STATE');
      await top.key('t', 'over 10 s');
      await top.key('q', LEFT);
      expect(await top.exitCode()).toBe(0);
      expect(top.output.indexOf(ENTERED)).toBeLessThan(top.output.indexOf('vm1'));
      expect(top.output.slice(top.output.lastIndexOf(LEFT))).toBe(LEFT);
    });

    it('ends on Ctrl-C and on SIGTERM', async () => {
      const first = Top.live();
      await first.until('vm1');
      await first.key('\u0003', LEFT);
      expect(await first.exitCode()).toBe(0);
      const second = Top.live();
      await second.until('vm1');
      process.kill(second.ownPid, 'SIGTERM');
      await second.until(LEFT);
    });

    it('leaves the terminal as it was when the switch goes away, and says so', async () => {
      const top = Top.live();
      await top.until('vm1');
      await server.close();
      await top.until(LEFT);
      expect(await top.exitCode()).toBe(1);
      expect(top.output.slice(top.output.lastIndexOf(LEFT))).toContain(`no ringway is running at ${control}`);
      server = await serveControl(control, { fetch: () => Response.json(figuresReport()) });
    });

    it('follows the size of the terminal', async () => {
      const top = Top.live();
      await top.until('vm1');
      const from = top.output.length;
      execFileSync('stty', ['-F', readlinkSync(`/proc/${top.ownPid}/fd/0`), 'cols', '132', 'rows', '10']);
      // The title goes as far as the terminal is wide.
      await top.until(/\*PORT {50,}/, from);
      await top.key('q', LEFT);
    });

    it('prints all once where no text can be placed', async () => {
      const top = Top.live('', { TERM: 'dumb' });
      expect(await top.exitCode()).toBe(0);
      expect(top.output).toMatch(/\*PORT[\s\S]*\*WORKER/);
      expect(top.output).not.toContain('\u001b');
    });

    it('is without colours when asked for', async () => {
      const top = Top.live('--view drops', { NO_COLOR: '1' });
      await top.until('noBuffer');
      await top.key('q', LEFT);
      expect(top.output).not.toContain('\u001b[31m');
    });
  },
);

describe('in a pipe', () => {
  it('prints all once and ends', async () => {
    const top = new Top(process.execPath, [PROGRAM, 'top', '--control', control]);
    expect(await top.exitCode()).toBe(0);
    expect(top.output).toMatch(/^ringway 1\.2\.3[\s\S]*\*PORT[\s\S]*vm1[\s\S]*noBuffer[\s\S]*\*WORKER/);
    expect(top.output).not.toContain('\u001b');
    expect(Math.max(...top.output.split('\n').map((line) => line.length))).toBeLessThanOrEqual(80);
  });

  it('refuses what cannot be in one line', async () => {
    const top = new Top(process.execPath, [PROGRAM, 'top', '--view', 'guests']);
    expect(await top.exitCode()).toBe(2);
    expect(top.output).toBe('ringway: --view: guests is not allowed (ports, drops, workers)\n');
  });
});
