/**
 * DPDK's testpmd as a peer: it forwards frames between its ports, driven by commands on its standard input, which
 * need not be a terminal. With `net_virtio_user` ports it is a vhost-user front-end (a guest without a virtual
 * machine), with `net_vhost` ports a back-end (another switch).
 * Owns: the process. Called by tests and benchmarks, once `ensurePeers(['testpmd'])` has said that it is there.
 */
import { randomBytes } from 'node:crypto';
import { type Child, findProgram, startChild, TextLog } from './child.ts';
import { settlesWithin, withDeadline } from './deadline.ts';

const prompt = 'testpmd> ';
/** Ends the echo of a command. What testpmd prints has plain line ends. */
const endOfEcho = '\r\n';

export interface TestpmdOptions {
  /**
   * One entry for each port, such as `net_virtio_user0,path=/tmp/a.sock,queues=2,queue_size=1024,mac=…` (client),
   * the same with `server=1` (testpmd listens, and its start waits for the other side to connect), or
   * `net_vhost0,iface=/tmp/a.sock,queues=1` (back-end). testpmd sets them up one after another.
   */
  vdevs: readonly string[];
  /** Processors, the first for commands, the others for forwarding. Default '0,1'. */
  cores?: string;
  /** Arguments of testpmd itself, after `--`, such as `--forward-mode=txonly`, `--rxq=2`, `--txq=2`. */
  args?: readonly string[];
  /** More arguments for DPDK, before `--`. */
  ealArgs?: readonly string[];
  /** Default: pages of 4 KiB from a memfd, which virtio-user can share too. With hugepages: folder of a hugetlbfs. */
  hugepagesPath?: string;
  /** Default 256. */
  memoryMiB?: number;
  /** Until the first prompt; default 60,000. */
  startTimeoutMs?: number;
  signal?: AbortSignal;
}

export interface PortStats {
  port: number;
  rxPackets: number;
  txPackets: number;
  rxMissed: number;
  rxErrors: number;
  txErrors: number;
  rxBytes: number;
  txBytes: number;
}

export class Testpmd {
  readonly pid: number;
  /** Exit code, or null when a signal ended it. */
  readonly exited: Promise<number | null>;
  readonly #child: Child;
  readonly #log: TextLog;
  readonly #errors: TextLog;
  #unread = '';
  #onText: (() => void) | undefined;
  #queue: Promise<unknown> = Promise.resolve();

  private constructor(child: Child) {
    this.#child = child;
    this.pid = child.pid;
    this.exited = child.exited;
    this.#log = new TextLog(child.process.stdout);
    this.#errors = new TextLog(child.process.stderr);
    child.process.stdout.on('data', (text: string) => {
      this.#unread += text;
      this.#onText?.();
    });
  }

  /** Starts testpmd; resolves at its first prompt, with all ports set up and forwarding not yet begun. */
  static async start(options: TestpmdOptions): Promise<Testpmd> {
    // Without it, printf to a pipe is held back until 4 KiB have come together.
    const program = ['-o0', findProgram('dpdk-testpmd') ?? 'dpdk-testpmd'];
    const args = [...program, ...ealArguments(options), '--', '-i', ...testpmdArguments(options)];
    const testpmd = new Testpmd(await startChild('stdbuf', args));
    options.signal?.addEventListener('abort', () => testpmd.kill(), { once: true });
    if (options.signal?.aborted) testpmd.kill();
    try {
      const text = await testpmd.#untilPrompt(options.startTimeoutMs ?? 60_000, 'its start', '');
      const portCount = text.split('\nConfiguring Port ').length - 1;
      // A port that cannot be set up, such as one whose socket is not there, does not stop testpmd.
      if (portCount !== options.vdevs.length) {
        throw new Error(testpmd.#describe(`has ${portCount} of ${options.vdevs.length} ports`));
      }
      return testpmd;
    } catch (error) {
      testpmd.kill();
      await testpmd.exited;
      throw error;
    }
  }

  /** All that testpmd wrote (last 1 MiB of each of its two outputs). */
  get output(): string {
    return `${this.#log.text}${this.#errors.text}`;
  }

  /** "code 1" or "SIGSEGV"; null while it runs. */
  howItEnded(): string | null {
    return this.#child.hasExited() ? this.#child.howItEnded() : null;
  }

  /** Runs an interactive command, after those asked for earlier; returns what it wrote up to the next prompt. */
  command(line: string, options: { timeoutMs?: number } = {}): Promise<string> {
    const result = this.#queue.then(() => this.#commandNow(line, options.timeoutMs ?? 30_000));
    this.#queue = result.catch(() => {});
    return result;
  }

  /** The counters of all ports, since the start or the last `clear port stats all`. */
  async portStats(): Promise<PortStats[]> {
    return parsePortStats(await this.command('show port stats all'));
  }

  /** Ends it with `quit`, which stops and closes the ports; by force after 10 s. */
  async stop(): Promise<void> {
    if (!this.#child.hasExited()) this.#child.process.stdin.end('\nquit\n');
    if (!(await settlesWithin(this.exited, 10_000))) this.kill();
    await this.exited;
  }

  /** Ends it with SIGKILL, as a crash would. */
  kill(): void {
    this.#child.kill();
  }

  async #commandNow(line: string, timeoutMs: number): Promise<string> {
    this.#unread = '';
    this.#child.process.stdin.write(`${line}\n`);
    return this.#untilPrompt(timeoutMs, line, endOfEcho);
  }

  /** Resolves with the text between `start` and the next prompt; prompts before `start` are late ones. */
  async #untilPrompt(timeoutMs: number, what: string, start: string): Promise<string> {
    const found = new Promise<string>((resolve, reject) => {
      this.#onText = () => {
        const from = this.#unread.indexOf(start);
        const end = from < 0 ? -1 : this.#unread.indexOf(prompt, from);
        if (end >= 0) resolve(this.#unread.slice(from + start.length, end));
      };
      void this.exited.then(() =>
        reject(new Error(this.#describe(`ended, ${this.#child.howItEnded()}, during ${what}`))),
      );
      this.#onText();
    });
    try {
      return await withDeadline(found, timeoutMs, () =>
        this.#describe(`no prompt ${timeoutMs} ms after ${what}`),
      );
    } finally {
      this.#onText = undefined;
    }
  }

  #describe(problem: string): string {
    const tail = (text: string): string => text.trimEnd().split('\n').slice(-15).join('\n');
    return `testpmd: ${problem}\n${tail(this.#log.text)}\n${tail(this.#errors.text)}`;
  }
}

function ealArguments(options: TestpmdOptions): string[] {
  const memory =
    options.hugepagesPath === undefined
      ? ['--no-huge']
      : // One file for each segment list keeps the number of shared regions below vhost-user's limit of 8.
        ['--huge-dir', options.hugepagesPath, '--single-file-segments'];
  return [
    ...['-l', options.cores ?? '0,1', '-m', String(options.memoryMiB ?? 256), ...memory],
    ...['--no-pci', '--no-telemetry', '--file-prefix', `ringway-${randomBytes(6).toString('hex')}`],
    ...options.vdevs.flatMap((vdev) => ['--vdev', vdev]),
    ...(options.ealArgs ?? []),
  ];
}

function testpmdArguments(options: TestpmdOptions): readonly string[] {
  const args = options.args ?? [];
  // The default number of buffers would not fit into the memory taken here.
  return args.some((arg) => arg.startsWith('--total-num-mbufs'))
    ? args
    : ['--total-num-mbufs=16384', ...args];
}

function parsePortStats(text: string): PortStats[] {
  const sections = text.split(/#+ NIC statistics for port /).slice(1);
  return sections.map((section) => {
    const counter = (name: string): number => {
      const match = new RegExp(`${name}:\\s*(\\d+)`).exec(section);
      if (match === null) throw new Error(`testpmd's statistics lack ${name}:\n${section}`);
      return Number(match[1]);
    };
    return {
      port: Number.parseInt(section, 10),
      rxPackets: counter('RX-packets'),
      txPackets: counter('TX-packets'),
      rxMissed: counter('RX-missed'),
      rxErrors: counter('RX-errors'),
      txErrors: counter('TX-errors'),
      rxBytes: counter('RX-bytes'),
      txBytes: counter('TX-bytes'),
    };
  });
}
