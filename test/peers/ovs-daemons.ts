/**
 * What any Open vSwitch needs to run apart from that of the machine: a folder with its database, sockets and state, and
 * its two daemons. Which switch it is, and how that is asked and ended, is its owner's business. Main thread.
 */
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { type Child, runProgram, startChild, TextLog } from './child.ts';
import { settlesWithin } from './deadline.ts';

const SCHEMA = '/usr/share/openvswitch/vswitch.ovsschema';
const START_TIMEOUT_MS = 30_000;
const STOP_TIMEOUT_MS = 10_000;

export class OvsDaemons {
  /** The switch, once it was started. */
  switch: Child | null = null;
  readonly #folder: string;
  readonly #logs: TextLog[] = [];
  #database: Child | null = null;

  constructor(folder: string) {
    this.#folder = folder;
  }

  path(name: string): string {
    return join(this.#folder, name);
  }

  /** Where the switch is asked. */
  get controlPath(): string {
    return this.path('switch.ctl');
  }

  /** A new and empty database, which `vsctl` changes. */
  async startDatabase(): Promise<void> {
    const file = this.path('conf.db');
    await runChecked('ovsdb-tool', ['create', file, SCHEMA]);
    const remote = `--remote=punix:${this.path('db.sock')}`;
    this.#database = await this.#daemon('ovsdb-server', [file, remote, `--unixctl=${this.path('db.ctl')}`]);
    await this.retry('the database', () => this.vsctl('--no-wait', 'init'));
  }

  /** `before`: words of a command that becomes the program. */
  async startSwitch(program: string, args: readonly string[], before: readonly string[] = []): Promise<void> {
    const places = [`unix:${this.path('db.sock')}`, `--unixctl=${this.controlPath}`];
    this.switch = await this.#daemon(program, [...places, ...args], before);
  }

  vsctl(...args: string[]): Promise<string> {
    return runChecked('ovs-vsctl', [`--db=unix:${this.path('db.sock')}`, '--timeout=20', ...args]);
  }

  appctl(...args: string[]): Promise<string> {
    return runChecked('ovs-appctl', ['--timeout=20', '-t', this.controlPath, ...args]);
  }

  /** Asks again until there is an answer. */
  async retry(what: string, ask: () => Promise<unknown>): Promise<void> {
    const deadlineMs = performance.now() + START_TIMEOUT_MS;
    for (;;) {
      try {
        await ask();
        return;
      } catch (error) {
        if (performance.now() > deadlineMs) {
          throw new Error(`Open vSwitch: ${what} did not answer: ${(error as Error).message}`);
        }
      }
      await delay(100);
    }
  }

  /** What went wrong, with the end of what the daemon that was started last wrote. */
  explain(error: unknown): Error {
    const log = this.#logs.at(-1)?.text.slice(-1500) ?? '';
    return new Error(`${(error as Error).message}\n${log}`.trimEnd());
  }

  /** Ends both. `askSwitch`: asks the switch to end. */
  async stop(askSwitch: (child: Child) => void | Promise<void>): Promise<void> {
    if (this.switch !== null && !this.switch.hasExited()) {
      await askSwitch(this.switch);
      await end(this.switch);
    }
    if (this.#database !== null) {
      this.#database.process.kill('SIGTERM');
      await end(this.#database);
    }
  }

  async #daemon(program: string, args: readonly string[], before: readonly string[] = []): Promise<Child> {
    const variables = ['OVS_RUNDIR', 'OVS_DBDIR', 'OVS_LOGDIR', 'OVS_SYSCONFDIR'];
    const places = variables.map((name) => `${name}=${this.#folder}`);
    const child = await startChild('env', [...places, ...before, program, ...args, '--no-chdir']);
    child.process.stdout.resume();
    this.#logs.push(new TextLog(child.process.stderr));
    return child;
  }
}

async function end(child: Child): Promise<void> {
  if (!(await settlesWithin(child.exited, STOP_TIMEOUT_MS))) child.kill();
  await child.exited;
}

async function runChecked(program: string, args: readonly string[]): Promise<string> {
  const { code, output } = await runProgram(program, args);
  if (code !== 0) throw new Error(`${program} ${args.at(-1)} ended with code ${code}: ${output.trim()}`);
  return output;
}
