/**
 * Open vSwitch with DPDK: a bridge in user space with `dpdkvhostuserclient` ports and learning
 * forwarding (action NORMAL, as a new bridge has it). Its database, sockets and state live in the folder
 * given, apart from any Open vSwitch of the machine. Owns both daemons. Main thread.
 */
import { randomBytes } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { OvsDaemons } from '../../test/peers/ovs-daemons.ts';
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

export class OvsPeer implements Peer {
  readonly name = 'ovs';
  readonly generatorRole = 'server';
  readonly sockets: readonly string[];
  readonly #daemons: OvsDaemons;
  readonly #bridge = `rw${randomBytes(4).toString('hex')}`;
  readonly #filePrefix = `ringway-ovs-${randomBytes(4).toString('hex')}`;

  private constructor(folder: string, portCount: number) {
    this.#daemons = new OvsDaemons(folder);
    this.sockets = Array.from({ length: portCount }, (_, port) => join(folder, `o${port}.sock`));
  }

  static async start(options: OvsOptions): Promise<OvsPeer> {
    const ovs = new OvsPeer(options.folder, options.portCount);
    try {
      await ovs.#start(options);
    } catch (error) {
      await ovs.stop();
      throw ovs.#daemons.explain(error);
    }
    return ovs;
  }

  get pid(): number {
    return this.#daemons.switch?.pid ?? 0;
  }

  pause(): void {
    if (this.#daemons.switch !== null) signalProcess(this.#daemons.switch.pid, 'SIGSTOP');
  }

  resume(): void {
    if (this.#daemons.switch !== null) signalProcess(this.#daemons.switch.pid, 'SIGCONT');
  }

  async learned(): Promise<readonly string[]> {
    const table = await this.#daemons.appctl('fdb/show', this.#bridge);
    return table.match(/[0-9a-f]{2}(:[0-9a-f]{2}){5}/g) ?? [];
  }

  /** Its PMD thread counts the cycles of turns with and without frames. */
  async workMeter(): Promise<WorkMeter> {
    const cycles = (): Promise<ReturnType<typeof readCycles>> =>
      this.#daemons.appctl('dpif-netdev/pmd-stats-show').then(readCycles);
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
    await this.#daemons.stop(async () => {
      await this.#daemons.appctl('exit', '--cleanup').catch(() => {});
    });
    await rm(join('/run/dpdk', this.#filePrefix), { recursive: true, force: true });
  }

  async #start(options: OvsOptions): Promise<void> {
    await this.#daemons.startDatabase();
    await this.#configure(options);
    const { networkNamespace: namespace } = options;
    const inNamespace = namespace === undefined ? [] : ['ip', 'netns', 'exec', namespace];
    await this.#daemons.startSwitch(DAEMON, [], inNamespace);
    await this.#daemons.retry('the switch', () => this.#daemons.appctl('version'));
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
    await this.#daemons.vsctl('--no-wait', 'set', 'Open_vSwitch', '.', ...texts);
  }

  async #addPorts(): Promise<void> {
    const bridge = this.#bridge;
    await this.#daemons.vsctl('add-br', bridge, '--', 'set', 'bridge', bridge, 'datapath_type=netdev');
    for (const [i, path] of this.sockets.entries()) {
      const port = `${bridge}p${i}`;
      const type = ['type=dpdkvhostuserclient', `options:vhost-server-path=${path}`];
      await this.#daemons.vsctl('add-port', bridge, port, '--', 'set', 'Interface', port, ...type);
      const error = (await this.#daemons.vsctl('get', 'Interface', port, 'error')).trim();
      if (error !== '[]') throw new Error(`Open vSwitch refused a port: ${error}`);
    }
  }

  /** All ports must be polled on the processor under test. */
  async #checkPlacement(cpu: number): Promise<void> {
    const shown = await this.#daemons.appctl('dpif-netdev/pmd-rxq-show');
    const own = shown.split('pmd thread ').find((section) => section.includes(`core_id ${cpu}:`)) ?? '';
    if (!this.sockets.every((_, i) => own.includes(`${this.#bridge}p${i} `))) {
      throw new Error(`Open vSwitch does not poll all ports on processor ${cpu}:\n${shown}`);
    }
  }
}

function cpuMask(cpu: number): string {
  return `0x${(1n << BigInt(cpu)).toString(16)}`;
}
