/**
 * Ringway under test: the command line in a process of its own, one worker pinned to the processor under
 * test, asked through its control socket. Also the scenarios' way to start it with many ports or other
 * settings, and the way to run another checkout of it. Owns the process. Main thread.
 */
import { existsSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { askControl } from '../../switch/control/client.ts';
import type { FdbReport, PortReport, WorkReport } from '../../switch/control/report.ts';
import { type Child, startChild, TextLog } from '../../test/peers/child.ts';
import { settlesWithin } from '../../test/peers/deadline.ts';
import type { RingwayName } from '../plan.ts';
import { type Peer, signalProcess, type WorkMeter } from './contract.ts';
import { RingwayWorkMeter } from './ringway-work.ts';

const CHECKOUT = fileURLToPath(new URL('../..', import.meta.url));
const START_TIMEOUT_MS = 30_000;
const STOP_TIMEOUT_MS = 15_000;
const ASK_AGAIN_MS = 50;

export type RingwayOptions = {
  /** Folder for its sockets; the caller owns it. */
  readonly folder: string;
  readonly cpu: number;
  /** Default 2: `p0` and `p1`. */
  readonly portCount?: number;
  readonly poll?: 'busy' | 'adaptive';
  readonly queuePairsMax?: number;
  readonly fdbCapacity?: number;
  /** Arguments for Node. */
  readonly nodeArgs?: readonly string[];
  /** V8 writes its traces through the C library, which holds them back from a pipe. */
  readonly lineBuffered?: boolean;
  /** With the web page, at `webSocket`. */
  readonly hasPage?: boolean;
  /** Folder of another checkout to run, with its own Node where it has one. */
  readonly checkout?: string;
};

export class RingwayPeer implements Peer {
  readonly name: RingwayName;
  readonly generatorRole = 'client';
  readonly pid: number;
  readonly #options: RingwayOptions;
  readonly #child: Child;
  readonly #out: TextLog;
  readonly #errors: TextLog;

  private constructor(options: RingwayOptions, child: Child) {
    this.name = options.checkout === undefined ? 'ringway' : 'other';
    this.#options = options;
    this.#child = child;
    this.pid = child.pid;
    this.#out = new TextLog(child.process.stdout);
    this.#errors = new TextLog(child.process.stderr);
  }

  static async start(options: RingwayOptions): Promise<RingwayPeer> {
    const configPath = join(options.folder, 'ringway.json');
    await writeFile(configPath, JSON.stringify(configOf(options)));
    const [node, program] = programOf(options.checkout);
    const args = [...(options.nodeArgs ?? []), program, 'run', '--config', configPath, '--log-level', 'warn'];
    const line = [...(options.lineBuffered === true ? ['stdbuf', '-oL'] : []), node, ...args];
    const ringway = new RingwayPeer(options, await startChild(line[0], line.slice(1)));
    try {
      await ringway.until(START_TIMEOUT_MS, 'answer', async () => (await ringway.ports()).length > 0);
    } catch (error) {
      await ringway.stop();
      throw error;
    }
    return ringway;
  }

  get sockets(): readonly string[] {
    return Array.from({ length: portCountOf(this.#options) }, (_, port) => this.socket(port));
  }

  socket(port: number): string {
    return socketPath(this.#options.folder, port);
  }

  /** All that it wrote to standard output, where `--trace-gc` writes too. */
  get output(): string {
    return this.#out.text;
  }

  pause(): void {
    signalProcess(this.pid, 'SIGSTOP');
  }

  resume(): void {
    signalProcess(this.pid, 'SIGCONT');
  }

  ports(): Promise<PortReport[]> {
    return askControl<PortReport[]>(this.controlSocket, '/v1/ports');
  }

  /** As `ringway set`; null takes a setting back. */
  async set(port: string, change: Readonly<Record<string, unknown>>): Promise<void> {
    await askControl(this.controlSocket, `/v1/ports/${port}`, { method: 'PATCH', body: change });
  }

  async learned(): Promise<readonly string[]> {
    const { entries } = await askControl<FdbReport>(this.controlSocket, '/v1/fdb');
    return entries.map(({ mac }) => mac.toLowerCase());
  }

  /** Null for a checkout from before workers told of it. */
  async workMeter(): Promise<WorkMeter | null> {
    const ask = (): Promise<WorkReport[]> => askControl(this.controlSocket, '/v1/workers');
    try {
      await ask();
    } catch (error) {
      if (this.name === 'other') return null;
      throw error;
    }
    return RingwayWorkMeter.calibrate(ask);
  }

  /** Resolves when `holds` does. @throws after `timeoutMs`, or when Ringway ended */
  async until(timeoutMs: number, what: string, holds: () => Promise<boolean>): Promise<void> {
    const deadlineMs = performance.now() + timeoutMs;
    while (!(await holds().catch(() => false))) {
      if (this.#child.hasExited() || performance.now() > deadlineMs) {
        const state = this.#child.hasExited() ? `ended (${this.#child.howItEnded()})` : `did not ${what}`;
        throw new Error(`Ringway ${state}: ${this.#errors.text.slice(-2000)}`);
      }
      await delay(ASK_AGAIN_MS);
    }
  }

  async stop(): Promise<void> {
    this.resume();
    if (!this.#child.hasExited()) this.#child.process.kill('SIGTERM');
    if (!(await settlesWithin(this.#child.exited, STOP_TIMEOUT_MS))) this.#child.kill();
    await this.#child.exited;
  }

  get webSocket(): string {
    return webSocketPath(this.#options.folder);
  }

  get controlSocket(): string {
    return join(this.#options.folder, 'ctl.sock');
  }
}

/** A configuration file; JSON is YAML. */
function configOf(options: RingwayOptions): object {
  const ports = Array.from({ length: portCountOf(options) }, (_, port) => [
    `p${port}`,
    {
      socket: socketPath(options.folder, port),
      ...(options.queuePairsMax === undefined ? {} : { queues: options.queuePairsMax }),
    },
  ]);
  return {
    ports: Object.fromEntries(ports),
    cpus: [options.cpu],
    poll: options.poll ?? 'busy',
    control: join(options.folder, 'ctl.sock'),
    ...(options.hasPage === true && { web: webSocketPath(options.folder) }),
    fdb: {
      // A paused process must not forget addresses while it waits for its turn.
      ageSeconds: 3600,
      ...(options.fdbCapacity === undefined ? {} : { capacity: options.fdbCapacity }),
    },
  };
}

function portCountOf({ portCount }: RingwayOptions): number {
  return portCount ?? 2;
}

/** Node's binary and the program that it runs. */
function programOf(checkout = CHECKOUT): readonly [string, string] {
  const ownNode = join(checkout, 'node_modules/node/bin/node');
  const node = checkout !== CHECKOUT && existsSync(ownNode) ? ownNode : process.execPath;
  return [node, join(checkout, 'switch/cli/ringway.js')];
}

function webSocketPath(folder: string): string {
  return join(folder, 'web.sock');
}

function socketPath(folder: string, port: number): string {
  return join(folder, `p${port}.sock`);
}
