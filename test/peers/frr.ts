/**
 * FRR's zebra and bgpd in a network namespace, without a service manager: each pair has its own configuration,
 * sockets and process identifiers in a temporary folder. They exchange by BGP EVPN (RFC 7432, with VXLAN: RFC 8365)
 * which MAC address is behind which host, and write it into the kernel's tables.
 * Owns: the two processes and the folder. Called by tests, once `ensurePeers(['frr'])` has said that FRR is there.
 */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Child, runProgram, startChild, TextLog, temporaryFolder } from './child.ts';
import type { NetworkNamespace } from './namespaces.ts';

export type FrrOptions = {
  /** All hosts are in this autonomous system. */
  readonly asNumber: number;
  /** This host's address in the underlay; also its BGP identifier. */
  readonly address: string;
  /** The other hosts' addresses in the underlay. */
  readonly neighbors: readonly string[];
};

export class Frr {
  readonly #child: Child;
  readonly #log: TextLog;
  readonly #folder: string;
  readonly #cleanUp: () => Promise<void>;

  private constructor(child: Child, folder: string, cleanUp: () => Promise<void>) {
    this.#child = child;
    this.#log = new TextLog(child.process.stdout);
    this.#folder = folder;
    this.#cleanUp = cleanUp;
  }

  /** Starts both. They connect to each other, and to the neighbours, in their own time. */
  static async start(namespace: NetworkNamespace, options: FrrOptions): Promise<Frr> {
    const { path, remove } = await temporaryFolder('ringway-frr-');
    await writeFile(join(path, 'zebra.conf'), '');
    await writeFile(join(path, 'bgpd.conf'), evpnConfig(options));
    // The daemons change their user, which would lift the parent-death signal of `startChild`. As the first
    // process of a PID namespace the shell takes them with it, however it ends.
    const shell = ['--pid', '--fork', '--kill-child=KILL', '/bin/sh', '-c', startScript(path)];
    const child = await startChild(...namespace.command('unshare', shell));
    return new Frr(child, path, remove);
  }

  /** What the daemons have logged. */
  get log(): string {
    return this.#log.text;
  }

  /** Runs a command of FRR's shell and returns what it prints, or throws. */
  async vtysh(command: string): Promise<string> {
    const { code, output } = await runProgram('vtysh', ['--vty_socket', this.#folder, '-c', command]);
    if (code !== 0) throw new Error(`vtysh -c '${command}': ${output.trim()}`);
    return output;
  }

  /** Neighbours whose EVPN session is up. Empty as long as the daemons do not answer. */
  async establishedNeighbors(): Promise<string[]> {
    const text = await this.vtysh('show bgp l2vpn evpn summary json').catch(() => '{}');
    const { peers } = parseJson(text) as { peers?: Record<string, { state: string }> };
    return Object.entries(peers ?? {}).flatMap(([address, { state }]) =>
      state === 'Established' ? [address] : [],
    );
  }

  /** Addresses learned from other hosts, each with the host's underlay address. */
  async remoteMacs(vni: number): Promise<Map<string, string>> {
    const { macs } = parseJson(await this.vtysh(`show evpn mac vni ${vni} json`)) as {
      macs?: Record<string, { type: string; remoteVtep?: string }>;
    };
    const remote = Object.entries(macs ?? {}).filter(([, { type }]) => type === 'remote');
    return new Map(remote.map(([mac, { remoteVtep = '' }]) => [mac, remoteVtep]));
  }

  /** Ends both at once, as a power cut would: what they wrote into the kernel's tables stays there. */
  async stop(): Promise<void> {
    this.#child.kill();
    await this.#child.exited;
    await this.#cleanUp();
  }
}

/** The configuration that docs/multi-host.md explains, with short timers. */
export function evpnConfig({ asNumber, address, neighbors }: FrrOptions): string {
  return [
    `router bgp ${asNumber}`,
    ` bgp router-id ${address}`,
    ' no bgp default ipv4-unicast',
    ' timers bgp 3 9',
    ...neighbors.flatMap((neighbor) => [
      ` neighbor ${neighbor} remote-as ${asNumber}`,
      ` neighbor ${neighbor} timers connect 1`,
    ]),
    ' address-family l2vpn evpn',
    ...neighbors.map((neighbor) => `  neighbor ${neighbor} activate`),
    '  advertise-all-vni',
    ' exit-address-family',
    '',
  ].join('\n');
}

function startScript(folder: string): string {
  const common = `-P 0 -z ${folder}/zserv.api --vty_socket ${folder} --log stdout`;
  const daemon = (name: string): string =>
    `/usr/lib/frr/${name} ${common} -f ${folder}/${name}.conf -i ${folder}/${name}.pid &`;
  return [
    'set -e',
    `chown -R frr:frr ${folder}`,
    // Each daemon keeps its crash log in a folder named by its process identifier, and in two PID namespaces these
    // are the same. `ip netns exec` has given us a mount namespace of our own.
    'mkdir -p /var/tmp/frr',
    'mount -t tmpfs -o mode=1777 tmpfs /var/tmp/frr',
    daemon('zebra'),
    `until [ -S ${folder}/zserv.api ]; do sleep 0.05; done`,
    daemon('bgpd'),
    'wait',
  ].join('\n');
}

/** vtysh may print a line about its own configuration before the answer. */
function parseJson(text: string): unknown {
  const start = text.indexOf('{');
  return start < 0 ? {} : JSON.parse(text.slice(start));
}
