/**
 * Hosts made of network namespaces: each has its own interfaces, addresses and bridge tables, and two of them are
 * connected by a veth pair as two machines by a cable. Made with iproute2's `ip` and `bridge`, by the commands that
 * docs/multi-host.md gives.
 * Owns: the namespaces it made, removed by `remove` or when this process exits; those of processes that were killed
 * are removed when the next one is made. Called by tests, on any thread. Needs root.
 */
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { findProgram, runProgram } from './child.ts';

/** Names are PREFIX-PID-NUMBER-LABEL: unique on the machine, and the process they belong to can be told. */
const PREFIX = 'ringway-test';
const ownName = new RegExp(`^${PREFIX}-(\\d+)-`);

const existing = new Set<string>();
let lastNumber = 0;

export class NetworkNamespace {
  readonly name: string;

  private constructor(name: string) {
    this.name = name;
  }

  /** An empty namespace with its loopback up. `label` is for people who look at the machine meanwhile. */
  static async create(label: string): Promise<NetworkNamespace> {
    if (lastNumber === 0) await removeLeftovers();
    const namespace = new NetworkNamespace(`${PREFIX}-${process.pid}-${++lastNumber}-${label}`);
    if (existing.size === 0) process.once('exit', removeExisting);
    existing.add(namespace.name);
    await runOk('ip', ['netns', 'add', namespace.name]);
    await namespace.ip('link set lo up');
    return namespace;
  }

  /** Runs `ip` in it, the arguments as in a shell: `namespace.ip('link set tap0 up')`. Returns what it prints. */
  ip(args: string): Promise<string> {
    return runOk('ip', ['-n', this.name, ...args.split(' ')]);
  }

  /** Runs `bridge` in it, as `ip`. */
  bridge(args: string): Promise<string> {
    return runOk('bridge', ['-n', this.name, ...args.split(' ')]);
  }

  /** Program and arguments that run `program` in it. The process stays the one started: `ip` executes the program. */
  command(program: string, args: readonly string[]): [string, string[]] {
    return ['ip', ['netns', 'exec', this.name, findProgram(program) ?? program, ...args]];
  }

  /** Whatever still runs in it keeps its interfaces; end that before. */
  async remove(): Promise<void> {
    if (!existing.delete(this.name)) return;
    if (existing.size === 0) process.off('exit', removeExisting);
    await runOk('ip', ['netns', 'del', this.name]);
  }
}

/** A cable: an interface named `device` in each of the two, up, with the addresses ("192.0.2.1/24") and the MTU. */
export async function connectNamespaces(
  ends: readonly [
    { namespace: NetworkNamespace; address: string },
    { namespace: NetworkNamespace; address: string },
  ],
  options: { device: string; mtu: number },
): Promise<void> {
  const { device, mtu } = options;
  const [near, far] = ends;
  await near.namespace.ip(
    `link add ${device} mtu ${mtu} type veth peer name ${device} netns ${far.namespace.name} mtu ${mtu}`,
  );
  for (const { namespace, address } of ends) {
    await namespace.ip(`addr add ${address} dev ${device}`);
    await namespace.ip(`link set ${device} up`);
  }
}

export type VxlanOptions = {
  /** The VXLAN network identifier; the device is named `vxlanVNI`, the bridge `br0`. */
  readonly vni: number;
  /** This host's address in the underlay, without prefix length. */
  readonly local: string;
  /** What guests may send at most: at least 50 bytes less than the underlay's MTU. */
  readonly mtu: number;
  /** `kernel`: the VXLAN device learns from frames. `control-plane`: a routing daemon writes its table. */
  readonly learning: 'kernel' | 'control-plane';
};

/** The bridge `br0` with a VXLAN device plugged in, both up. */
export async function addVxlanBridge(namespace: NetworkNamespace, options: VxlanOptions): Promise<void> {
  const { vni, local, mtu, learning } = options;
  const device = `vxlan${vni}`;
  const byControlPlane = learning === 'control-plane';
  await namespace.ip('link add br0 type bridge');
  // The host has no address in the guests' network, and its own IPv6 announcements would appear there.
  await namespace.ip('link set br0 addrgenmode none');
  await namespace.ip(
    `link add ${device} mtu ${mtu} type vxlan id ${vni} local ${local} dstport 4789${byControlPlane ? ' nolearning' : ''}`,
  );
  await namespace.ip(`link set ${device} addrgenmode none master br0`);
  if (byControlPlane) await namespace.bridge(`link set dev ${device} learning off`);
  await namespace.ip(`link set ${device} up`);
  await namespace.ip('link set br0 up');
}

export type FdbEntry = {
  readonly mac: string;
  /** Underlay address of the host behind which it is; for entries of the VXLAN device itself. */
  readonly dst?: string;
  readonly flags: readonly string[];
};

/** The table of one interface, as `bridge fdb show` prints it. */
export async function fdbOf(namespace: NetworkNamespace, device: string): Promise<FdbEntry[]> {
  const entries = JSON.parse(
    await runOk('bridge', ['-j', '-n', namespace.name, 'fdb', 'show', 'dev', device]),
  );
  return (entries as { mac: string; dst?: string; flags: string[] }[]).map(({ mac, dst, flags }) => ({
    mac,
    ...(dst === undefined ? {} : { dst }),
    flags,
  }));
}

/** Why hosts cannot be made here, in one sentence; undefined when they can. Tries it. */
export async function whyNoNamespaces(): Promise<string | undefined> {
  if (process.getuid?.() !== 0) return 'network namespaces need root';
  if (findProgram('ip') === undefined || findProgram('bridge') === undefined) return 'iproute2 is missing';
  let namespace: NetworkNamespace | undefined;
  try {
    namespace = await NetworkNamespace.create('probe');
    await addVxlanBridge(namespace, { vni: 1, local: '127.0.0.1', mtu: 1450, learning: 'control-plane' });
    return undefined;
  } catch (error) {
    return `this kernel or container lacks something: ${(error as Error).message}`;
  } finally {
    await namespace?.remove().catch(() => {});
  }
}

async function runOk(program: string, args: readonly string[]): Promise<string> {
  const { code, output } = await runProgram(program, args);
  if (code !== 0) throw new Error(`${program} ${args.join(' ')}: ${output.trim() || `code ${code}`}`);
  return output;
}

async function removeLeftovers(): Promise<void> {
  const { output } = await runProgram('ip', ['netns', 'list']);
  for (const line of output.split('\n')) {
    const match = ownName.exec(line);
    if (match === null || existsSync(`/proc/${match[1]}`)) continue;
    await runProgram('ip', ['netns', 'del', line.split(' ')[0]]); // another process may have done it meanwhile
  }
}

function removeExisting(): void {
  for (const name of existing) {
    try {
      execFileSync(findProgram('ip') ?? 'ip', ['netns', 'del', name], { stdio: 'ignore' });
    } catch {
      // The process ends anyway; the next one to make a namespace tries again.
    }
  }
}
