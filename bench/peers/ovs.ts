/**
 * Open vSwitch with DPDK: a bridge in user space with `dpdkvhostuserclient` ports and learning
 * forwarding (action NORMAL, as a new bridge has it). Its database, sockets and state live in the folder
 * given, apart from any Open vSwitch of the machine. Owns both daemons. Main thread.
 */
import { randomBytes } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { type Child, runProgram, startChild, TextLog } from '../../test/peers/child.ts';
import { settlesWithin } from '../../test/peers/deadline.ts';
import { type Peer, signalProcess, type WorkMeter } from './contract.ts';
import { readCycles, shareBetween } from './ovs-cycles.ts';

export type OvsOptions = {
  readonly folder: string;
  readonly cpu: number;
  /** Processor of its other threads. */
  readonly controlCpu: number;
  readonly hugepagesPath: string;
  readonly portCount: number;
  /** Checksum and segmentation offload between its ports; default false, as Open vSwitch's own. */
  readonly userspaceTso?: boolean;
  /**
   * Name of the network namespace of its own interfaces; default: this process's. Two at once need one each, since
   * every one has an interface `ovs-netdev`.
   */
  readonly networkNamespace?: string;
};

export const OVS_MIB = 512;
const DAEMON = '/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk';
const SCHEMA = '/usr/share/openvswitch/vswitch.ovsschema';
const START_TIMEOUT_MS = 30_000;
const STOP_TIMEOUT_MS = 10_000;

export class OvsPeer implements Peer {
  readonly name = 'ovs';
  readonly generatorRole = 'server';
  readonly sockets: readonly string[];
  readonly #folder: string;
  readonly #bridge = `rw${randomBytes(4).toString('hex')}`;
  readonly #filePrefix = `ringway-ovs-${randomBytes(4).toString('hex')}`;
  readonly #logs: TextLog[] = [];
  #database: Child | null = null;
  #switch: Child | null = null;

  private constructor(folder: string, portCount: number) {
    this.#folder = folder;
    this.sockets = Array.from({ length: portCount }, (_, port) => join(folder, `o${port}.sock`));
  }

  static async start(options: OvsOptions): Promise<OvsPeer> {
    const ovs = new OvsPeer(options.folder, options.portCount);
    try {
      await ovs.#start(options);
    } catch (error) {
      await ovs.stop();
      throw new Error(`${(error as Error).message}\n${ovs.#logs.at(-1)?.text.slice(-1500) ?? ''}`.trimEnd());
    }
    return ovs;
  }

  get pid(): number {
    return this.#switch?.pid ?? 0;
  }

  pause(): void {
    if (this.#switch !== null) signalProcess(this.#switch.pid, 'SIGSTOP');
  }

  resume(): void {
    if (this.#switch !== null) signalProcess(this.#switch.pid, 'SIGCONT');
  }

  async learned(): Promise<readonly string[]> {
    const table = await this.#appctl('fdb/show', this.#bridge);
    return table.match(/[0-9a-f]{2}(:[0-9a-f]{2}){5}/g) ?? [];
  }

  /** Its PMD thread counts the cycles of turns with and without frames. */
  async workMeter(): Promise<WorkMeter> {
    const cycles = (): Promise<ReturnType<typeof readCycles>> =>
      this.#appctl('dpif-netdev/pmd-stats-show').then(readCycles);
    let begin = await cycles();
    let end = begin;
    return {
      begins: async () => {
        begin = await cycles();
      },
      ends: async () => {
        end = await cycles();
      },
      busyShare: () => shareBetween(begin, end),
    };
  }

  async stop(): Promise<void> {
    this.resume();
    if (this.#switch !== null && !this.#switch.hasExited()) {
      await this.#appctl('exit', '--cleanup').catch(() => {});
      await end(this.#switch);
    }
    if (this.#database !== null) {
      this.#database.process.kill('SIGTERM');
      await end(this.#database);
    }
    await rm(join('/run/dpdk', this.#filePrefix), { recursive: true, force: true });
  }

  async #start(options: OvsOptions): Promise<void> {
    const databaseFile = this.#path('conf.db');
    await runChecked('ovsdb-tool', ['create', databaseFile, SCHEMA]);
    this.#database = await this.#daemon('ovsdb-server', [
      databaseFile,
      `--remote=punix:${this.#path('db.sock')}`,
      `--unixctl=${this.#path('db.ctl')}`,
    ]);
    await this.#retry('the database', () => this.#vsctl('--no-wait', 'init'));
    await this.#configure(options);
    const { networkNamespace: namespace } = options;
    const inNamespace = namespace === undefined ? [] : ['ip', 'netns', 'exec', namespace];
    this.#switch = await this.#daemon(
      DAEMON,
      [`unix:${this.#path('db.sock')}`, `--unixctl=${this.#path('switch.ctl')}`],
      inNamespace,
    );
    await this.#retry('the switch', () => this.#appctl('version'));
    await this.#addPorts();
    await this.#checkPlacement(options.cpu);
  }

  async #configure({ cpu, controlCpu, hugepagesPath, userspaceTso = false }: OvsOptions): Promise<void> {
    const settings = {
      'dpdk-init': 'true',
      'dpdk-socket-mem': String(OVS_MIB),
      // Beyond it DPDK would take any page that is free, and others' pages are free until they touch them.
      'dpdk-socket-limit': String(OVS_MIB),
      'dpdk-hugepage-dir': hugepagesPath,
      'dpdk-lcore-mask': cpuMask(controlCpu),
      'pmd-cpu-mask': cpuMask(cpu),
      'userspace-tso-enable': String(userspaceTso),
      'dpdk-extra': `--no-pci --no-telemetry --file-prefix ${this.#filePrefix}`,
    };
    const texts = Object.entries(settings).map(([key, value]) => `other_config:${key}="${value}"`);
    await this.#vsctl('--no-wait', 'set', 'Open_vSwitch', '.', ...texts);
  }

  async #addPorts(): Promise<void> {
    const bridge = this.#bridge;
    await this.#vsctl('add-br', bridge, '--', 'set', 'bridge', bridge, 'datapath_type=netdev');
    for (const [i, path] of this.sockets.entries()) {
      const port = `${bridge}p${i}`;
      const type = ['type=dpdkvhostuserclient', `options:vhost-server-path=${path}`];
      await this.#vsctl('add-port', bridge, port, '--', 'set', 'Interface', port, ...type);
      const error = (await this.#vsctl('get', 'Interface', port, 'error')).trim();
      if (error !== '[]') throw new Error(`Open vSwitch refused a port: ${error}`);
    }
  }

  /** All ports must be polled on the processor under test. */
  async #checkPlacement(cpu: number): Promise<void> {
    const shown = await this.#appctl('dpif-netdev/pmd-rxq-show');
    const own = shown.split('pmd thread ').find((section) => section.includes(`core_id ${cpu}:`)) ?? '';
    if (!this.sockets.every((_, i) => own.includes(`${this.#bridge}p${i} `))) {
      throw new Error(`Open vSwitch does not poll all ports on processor ${cpu}:\n${shown}`);
    }
  }

  /** `before`: words of a command that becomes the program. */
  async #daemon(program: string, args: readonly string[], before: readonly string[] = []): Promise<Child> {
    const variables = ['OVS_RUNDIR', 'OVS_DBDIR', 'OVS_LOGDIR', 'OVS_SYSCONFDIR'];
    const places = variables.map((name) => `${name}=${this.#folder}`);
    const child = await startChild('env', [...places, ...before, program, ...args, '--no-chdir']);
    child.process.stdout.resume();
    this.#logs.push(new TextLog(child.process.stderr));
    return child;
  }

  #vsctl(...args: string[]): Promise<string> {
    return runChecked('ovs-vsctl', [`--db=unix:${this.#path('db.sock')}`, '--timeout=20', ...args]);
  }

  #appctl(...args: string[]): Promise<string> {
    return runChecked('ovs-appctl', ['--timeout=20', '-t', this.#path('switch.ctl'), ...args]);
  }

  async #retry(what: string, ask: () => Promise<string>): Promise<void> {
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

  #path(name: string): string {
    return join(this.#folder, name);
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

function cpuMask(cpu: number): string {
  return `0x${(1n << BigInt(cpu)).toString(16)}`;
}
