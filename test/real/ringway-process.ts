/**
 * Ringway as its users start it: the command line in a process of its own, asked through its control socket.
 * Owns the process and its temporary folder. Called by the tests with real peers.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readlinkSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { isDeepStrictEqual } from 'node:util';
import { askControl } from '../../switch/control/client.ts';
import type { FdbReport, PortReport } from '../../switch/control/report.ts';
import { withDeadline } from '../peers/deadline.ts';
import { expectBalancedBooks } from './books.ts';

/** Counters change without a line in the log. */
const ASK_AGAIN_MS = 50;
/** Descriptors that were the same so many times in a row are at rest. */
const QUIET_LOOKS = 4;
const UNTIL_MS_MAX = 30_000;
const END_MS_MAX = 60_000;
const PROGRAM = fileURLToPath(new URL('../../switch/cli/ringway.js', import.meta.url));

export type RingwayOptions = {
  /** Names of server ports; each gets `socket(name)`. */
  readonly ports: readonly string[];
  /** Paths of their sockets that are not in its folder. */
  readonly sockets?: Readonly<Record<string, string>>;
  /** Kind of a port with a socket that is not vhost-user. */
  readonly kinds?: Readonly<Record<string, string>>;
  /** More text for a port, such as `,role=client`; `{folder}` stands for the folder of its sockets. */
  readonly portOptions?: Readonly<Record<string, string>>;
  readonly args?: readonly string[];
  /** Starts Node with these arguments, its standard error in a pipe; left out: as a child of the test. */
  readonly spawn?: (args: readonly string[]) => ChildProcess;
};

export class RingwayProcess {
  readonly folder = mkdtempSync(join(tmpdir(), 'ringway-test-'));
  readonly #options: RingwayOptions;
  #child: ChildProcess;
  #exited: Promise<number | null>;
  readonly #lines: string[] = [];
  #onLine: (() => void)[] = [];
  readonly #atExit = (): void => void this.#child.kill('SIGKILL');

  private constructor(options: RingwayOptions) {
    this.#options = options;
    this.#child = this.#spawn();
    this.#exited = exitOf(this.#child);
    process.once('exit', this.#atExit);
  }

  /** Starts it; resolves when it answers. */
  static async start(options: RingwayOptions): Promise<RingwayProcess> {
    const ringway = new RingwayProcess(options);
    await ringway.#untilItAnswers();
    return ringway;
  }

  /** Ends it as a crash would and starts it again, with the same ports at the same sockets. */
  async killAndRestart(): Promise<void> {
    this.kill();
    await this.restart();
  }

  /** At once, in the middle of whatever it is at. */
  kill(): void {
    this.#child.kill('SIGKILL');
  }

  /** Resolves when the process is gone. */
  get ended(): Promise<unknown> {
    return this.#exited;
  }

  /** Once it has ended. */
  async restart(moreArgs: readonly string[] = []): Promise<void> {
    await this.#exited;
    this.#child = this.#spawn(moreArgs);
    this.#exited = exitOf(this.#child);
    await this.#untilItAnswers();
  }

  /** Starts another process that takes over; resolves when it answers and the one before is gone. */
  async takeOver(moreArgs: readonly string[] = []): Promise<void> {
    const before = this.#exited;
    this.#child = this.#spawn(['--takeover', ...moreArgs]);
    this.#exited = exitOf(this.#child);
    // One that does not come to take over ends, and the one before goes on.
    const isTaken = Promise.race([before.then((code) => code === 0), this.#exited.then(() => false)]);
    if (!(await isTaken))
      throw new Error(`Ringway did not end in order when it was taken over:\n${this.log}`);
    await this.#untilItAnswers();
  }

  /** Starts another process that does not come to take over, and ends by itself. */
  async failTakeOver(moreArgs: readonly string[] = []): Promise<void> {
    const begun = this.#lines.length;
    const child = this.#spawn(['--takeover', ...moreArgs]);
    if ((await exitOf(child)) === 0) throw new Error(`it took over:\n${this.log}`);
    await this.until(async () =>
      this.#lines.slice(begun).some((line) => line.includes('takeover came to nothing')),
    );
  }

  get pid(): number {
    return this.#child.pid!;
  }

  get controlSocket(): string {
    return join(this.folder, 'control.sock');
  }

  /** Begins to end it as a user would; `restart` waits for the end. */
  endInOrder(): void {
    this.#child.kill('SIGTERM');
  }

  get log(): string {
    return this.#lines.join('\n');
  }

  socket(port: string): string {
    return this.#options.sockets?.[port] ?? join(this.folder, `${port}.sock`);
  }

  ports(): Promise<PortReport[]> {
    return askControl<PortReport[]>(this.controlSocket, '/v1/ports');
  }

  /** Frames that it has dropped since it began, for whatever reason. */
  async dropped(): Promise<number> {
    const counts = (await this.ports()).flatMap(({ drops }) => Object.values(drops));
    return counts.reduce((sum, count) => sum + count, 0);
  }

  async port(name: string): Promise<PortReport> {
    return askControl<PortReport>(this.controlSocket, `/v1/ports/${name}`);
  }

  /** How many descriptors it holds, by what they are, once that does not change any more. */
  async quietDescriptors(): Promise<Record<string, number>> {
    let counts = this.#descriptors();
    const deadline = AbortSignal.timeout(UNTIL_MS_MAX);
    // Lines that it logs make no look: several may come at once.
    for (let looks = 0; looks < QUIET_LOOKS; ) {
      if (deadline.aborted) throw new Error(`Ringway's descriptors change on: ${JSON.stringify(counts)}`);
      await delay(ASK_AGAIN_MS);
      const now = this.#descriptors();
      looks = isDeepStrictEqual(now, counts) ? looks + 1 : 0;
      counts = now;
    }
    return counts;
  }

  #descriptors(): Record<string, number> {
    const counts: Record<string, number> = {};
    for (const fd of readdirSync(`/proc/${this.pid}/fd`)) {
      try {
        const what = readlinkSync(`/proc/${this.pid}/fd/${fd}`).replace(/\[\d+\]$/, '');
        counts[what] = (counts[what] ?? 0) + 1;
      } catch {
        // Closed meanwhile.
      }
    }
    return counts;
  }

  /** Resolves when it holds as many descriptors of each kind as `wanted` says. */
  async untilDescriptors(wanted: Readonly<Record<string, number>>): Promise<void> {
    try {
      await this.until(async () => isDeepStrictEqual(this.#descriptors(), wanted));
    } catch (cause) {
      const counts = JSON.stringify([wanted, this.#descriptors()]);
      throw new Error(`Ringway holds other descriptors than before (before, now): ${counts}`, { cause });
    }
  }

  /** Changes settings of a port that runs, as `ringway set` does. */
  set(name: string, settings: Readonly<Record<string, unknown>>): Promise<PortReport> {
    return askControl<PortReport>(this.controlSocket, `/v1/ports/${name}`, {
      method: 'PATCH',
      body: settings,
    });
  }

  fdb(): Promise<FdbReport> {
    return askControl<FdbReport>(this.controlSocket, '/v1/fdb');
  }

  /** Resolves when `holds` does: asked now, after each line that Ringway logs, and now and then. 30 s at most. */
  async until(holds: () => Promise<boolean>): Promise<void> {
    const deadline = AbortSignal.timeout(UNTIL_MS_MAX);
    for (;;) {
      const nextLine = new Promise<void>((resolve) => {
        this.#onLine = [resolve];
      });
      if (await holds().catch(() => false)) return;
      await Promise.race([nextLine, delay(ASK_AGAIN_MS), this.#exited]);
      if (deadline.aborted || this.#child.exitCode !== null || this.#child.signalCode !== null) {
        const ports = await this.ports().then(JSON.stringify, String);
        throw new Error(
          `Ringway did not come to the state awaited; its ports: ${ports}; its log:\n${this.log}`,
        );
      }
    }
  }

  untilState(port: string, state: PortReport['state'], queuePairs?: number): Promise<void> {
    return this.until(async () => {
      const report = await this.port(port);
      return report.state === state && (queuePairs === undefined || report.queuePairs === queuePairs);
    });
  }

  /** Ends it as a user would and answers its exit code. Stop the traffic first: the books must balance. */
  async stop(): Promise<number | null> {
    try {
      await expectBalancedBooks(this.controlSocket);
    } finally {
      this.#child.kill('SIGTERM');
      await withDeadline(this.#exited, END_MS_MAX, () => `Ringway does not end; its log:\n${this.log}`);
      process.off('exit', this.#atExit);
      rmSync(this.folder, { recursive: true, force: true });
    }
    return this.#exited;
  }

  #spawn(moreArgs: readonly string[] = []): ChildProcess {
    const options = this.#options;
    const ports = options.ports.flatMap((name) => [
      '--port',
      `${name}=${kindOf(options, name)}${this.socket(name)}${(options.portOptions?.[name] ?? '').replaceAll('{folder}', this.folder)}`,
    ]);
    const args = [
      PROGRAM,
      'run',
      ...ports,
      '--control',
      this.controlSocket,
      ...(options.args ?? []),
      ...moreArgs,
    ];
    const child =
      options.spawn?.(args) ?? spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 'pipe'] });
    createInterface({ input: child.stderr! }).on('line', (line) => {
      this.#lines.push(line);
      for (const call of this.#onLine) call();
    });
    return child;
  }

  #untilItAnswers(): Promise<void> {
    return this.until(async () => (await this.ports()).length >= this.#options.ports.length);
  }
}

async function exitOf(child: ChildProcess): Promise<number | null> {
  const [code] = await once(child, 'exit');
  return code as number | null;
}

function kindOf({ kinds }: RingwayOptions, name: string): string {
  const kind = kinds?.[name];
  return kind === undefined ? '' : `${kind}:`;
}
