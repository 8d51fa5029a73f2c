/**
 * Which Debian packages the peers need, and how they get onto the machine: installed with apt-get when this
 * process may, else reported as missing with the reason. The guest's kernel is unpacked into the cache folder and
 * not installed, since its installation would build an initramfs and set up a boot loader.
 * Owns: the cache folder. Called at the top of test files and by the benchmarks, in any number of processes at once.
 *
 * RINGWAY_INSTALL_PEERS=0 keeps it from installing anything; `required`: see install.ts.
 */
import { accessSync, constants, existsSync, globSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { chmod, cp, mkdir, mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { findProgram, runProgram } from './child.ts';
import { withFileLock } from './file-lock.ts';
import { softwareMissing } from './software.ts';

export type PeerName =
  | 'qemu'
  | 'emulated-cards'
  | 'uml'
  | 'testpmd'
  | 'dpdk'
  | 'assemblers'
  | 'ovs'
  | 'ovs-dummy'
  | 'iproute2'
  | 'ethtool'
  | 'frr'
  | 'systemd'
  | 'libpcap'
  | 'tshark'
  | 'libvirt'
  | 'debootstrap'
  | 'fish'
  | 'zsh'
  | 'prometheus'
  | 'chromium';

/**
 * Debian's two builds of the same kernel. `cloud` boots faster and has the drivers of virtual cards only;
 * `generic` (the peer `emulated-cards`) has those of emulated hardware too: e1000, e1000e, rtl8139.
 */
export type KernelFlavor = 'cloud' | 'generic';

export interface PeersReport {
  available: Set<PeerName>;
  /** For each peer that is not there: why, in one plain sentence. */
  missing: Map<PeerName, string>;
}

/** Paths that start with "/" are files, perhaps with asterisks, others programs to be found in PATH. */
const requirements: Record<PeerName, { package: string; provides: string }[]> = {
  qemu: [
    { package: 'qemu-system-x86', provides: 'qemu-system-x86_64' },
    { package: 'busybox-static', provides: 'busybox' },
    { package: 'iperf3', provides: 'iperf3' },
    { package: 'ethtool', provides: 'ethtool' },
  ],
  'emulated-cards': [],
  uml: [
    { package: 'user-mode-linux', provides: 'linux.uml' },
    { package: 'busybox-static', provides: 'busybox' },
    { package: 'iperf3', provides: 'iperf3' },
    { package: 'ethtool', provides: 'ethtool' },
  ],
  testpmd: [{ package: 'dpdk-dev', provides: 'dpdk-testpmd' }],
  // For the bindings: the libraries, drivers that the tests use, and headers with a compiler to compare with.
  dpdk: [
    { package: 'libdpdk-dev', provides: '/usr/include/dpdk/rte_ethdev.h' },
    { package: 'librte-meta-allpmds', provides: '/usr/lib/*/librte_net_af_packet.so*' },
    { package: 'librte-meta-allpmds', provides: '/usr/lib/*/librte_net_pcap.so*' },
    { package: 'gcc', provides: 'gcc' },
    { package: 'libc6-dev', provides: '/usr/include/stdio.h' },
  ],
  // For the machine code of src/host, for both processors.
  assemblers: [
    { package: 'binutils', provides: 'as' },
    { package: 'binutils-aarch64-linux-gnu', provides: 'aarch64-linux-gnu-as' },
  ],
  ovs: [
    {
      package: 'openvswitch-switch-dpdk',
      provides: '/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk',
    },
    { package: 'openvswitch-switch', provides: 'ovsdb-server' },
  ],
  // Without DPDK, for its own rules: ports that frames are handed to as text.
  'ovs-dummy': [
    { package: 'openvswitch-switch', provides: '/usr/sbin/ovs-vswitchd' },
    { package: 'openvswitch-switch', provides: 'ovsdb-server' },
  ],
  iproute2: [{ package: 'iproute2', provides: 'bridge' }],
  ethtool: [{ package: 'ethtool', provides: 'ethtool' }],
  frr: [{ package: 'frr', provides: '/usr/lib/frr/bgpd' }],
  systemd: [{ package: 'systemd', provides: '/usr/lib/systemd/systemd' }],
  libpcap: [{ package: 'libpcap0.8', provides: '/usr/lib/*/libpcap.so.0.8' }],
  tshark: [{ package: 'tshark', provides: 'tshark' }],
  // The daemon by itself, without what its services, networks and firewalls need.
  libvirt: [
    { package: 'libvirt-daemon', provides: '/usr/sbin/libvirtd' },
    { package: 'libvirt-daemon', provides: '/usr/sbin/virtlogd' },
    {
      package: 'libvirt-daemon-driver-qemu',
      provides: '/usr/lib/*/libvirt/connection-driver/libvirt_driver_qemu.so',
    },
    { package: 'libvirt-clients', provides: 'virsh' },
    { package: 'qemu-utils', provides: 'qemu-img' },
  ],
  debootstrap: [{ package: 'debootstrap', provides: '/usr/sbin/debootstrap' }],
  fish: [{ package: 'fish', provides: 'fish' }],
  zsh: [{ package: 'zsh', provides: 'zsh' }],
  // It brings promtool.
  prometheus: [
    { package: 'prometheus', provides: 'prometheus' },
    { package: 'prometheus', provides: 'promtool' },
  ],
  chromium: [{ package: 'chromium', provides: 'chromium' }],
};

const kernelMetaPackages: Record<KernelFlavor, string> = {
  cloud: 'linux-image-cloud-amd64',
  generic: 'linux-image-amd64',
};
/** In the cache folder. */
const kernelFolders: Record<KernelFlavor, string> = { cloud: 'kernel', generic: 'kernel-generic' };
/** Which kernel comes with a peer. */
const kernelOfPeer: { readonly [name in PeerName]?: KernelFlavor } = {
  qemu: 'cloud',
  'emulated-cards': 'generic',
};
const policyHelperPath = '/usr/sbin/policy-rc.d';
const aptLockPath = '/var/cache/apt/ringway-peers.lock';
const aptTimeoutMs = 600_000;
/** Of RINGWAY_INSTALL_PEERS. */
export const REQUIRED = 'required';

const reports = new Map<string, Promise<PeersReport>>();

/** Makes sure that the peers are there. Quick, and without starting any process, when they are. */
export function ensurePeers(wanted: readonly PeerName[]): Promise<PeersReport> {
  const key = [...wanted].sort().join(' ');
  let report = reports.get(key);
  if (report === undefined) {
    report = ensureNow(wanted);
    reports.set(key, report);
  }
  return report;
}

export interface TestPeers extends PeersReport {
  /** For `describe.skipIf`. */
  skip: boolean;
  /** Appends to a suite's title why it is skipped, so that the test report says it. */
  title(text: string): string;
}

/** As `ensurePeers`, in the form that test files use: `describe.skipIf(peers.skip)(peers.title('…'), …)`. */
export async function peersForTests(wanted: readonly PeerName[]): Promise<TestPeers> {
  const report = await ensurePeers(wanted);
  const reasons = wanted.flatMap((name) => {
    const reason = report.missing.get(name);
    return reason === undefined ? [] : [`${name}: ${reason}`];
  });
  return {
    ...report,
    skip: reasons.length > 0,
    title: (text) =>
      reasons.length === 0 ? text : `${text} (skipped: ${softwareMissing(reasons.join('; '))})`,
  };
}

async function ensureNow(wanted: readonly PeerName[]): Promise<PeersReport> {
  let failure: string | undefined;
  if (!wanted.every(isComplete)) failure = await tryToInstall(wanted);
  const report: PeersReport = { available: new Set(), missing: new Map() };
  for (const name of wanted) {
    if (isComplete(name)) report.available.add(name);
    else report.missing.set(name, `${describeMissing(name)}${failure ?? 'the packages do not provide it'}.`);
  }
  return report;
}

function isComplete(name: PeerName): boolean {
  return missingPackages(name).length === 0 && missingKernel(name) === undefined;
}

function missingKernel(name: PeerName): KernelFlavor | undefined {
  const flavor = kernelOfPeer[name];
  return flavor === undefined || guestKernel(flavor) !== undefined ? undefined : flavor;
}

function missingPackages(name: PeerName): string[] {
  return requirements[name].filter(({ provides }) => !isProvided(provides)).map((need) => need.package);
}

function isProvided(provides: string): boolean {
  if (!provides.startsWith('/')) return findProgram(provides) !== undefined;
  return provides.includes('*') ? globSync(provides).length > 0 : existsSync(provides);
}

function describeMissing(name: PeerName): string {
  const packages = missingPackages(name);
  const flavor = missingKernel(name);
  if (flavor !== undefined) packages.push(`the kernel of ${kernelMetaPackages[flavor]}`);
  return `${packages.join(', ')} could not be had: `;
}

/** Returns why it did not work, or undefined. */
async function tryToInstall(wanted: readonly PeerName[]): Promise<string | undefined> {
  if (process.arch !== 'x64') return 'the peers are used on x86-64 only';
  if (process.env.RINGWAY_INSTALL_PEERS === '0') return 'RINGWAY_INSTALL_PEERS=0 forbids to install it';
  if (process.getuid?.() !== 0) return 'installing packages needs root';
  if (findProgram('apt-get') === undefined) return 'there is no apt-get here';
  try {
    await withFileLock(aptLockPath, 2 * aptTimeoutMs, () => install(wanted));
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}

/** Another process may have done it all while this one waited for the lock, so what is missing is asked here. */
async function install(wanted: readonly PeerName[]): Promise<void> {
  const packages = [...new Set(wanted.flatMap(missingPackages))];
  const kernels = wanted.map(missingKernel).filter((flavor) => flavor !== undefined);
  if (packages.length === 0 && kernels.length === 0) return;
  await aptGet(['update']);
  if (packages.length > 0) {
    await withoutNewDaemons(() => aptGet(['install', '-y', '--no-install-recommends', ...packages]));
  }
  for (const flavor of kernels) await fetchKernel(flavor);
}

/** Runs apt-get, and once more when it fails: a mirror may be short of breath, or another apt at work. */
async function aptGet(args: readonly string[], cwd?: string): Promise<void> {
  const line = ['-q', '-o', 'DPkg::Lock::Timeout=300', '-o', 'Acquire::Retries=3', ...args];
  const settings = {
    timeoutMs: aptTimeoutMs,
    env: { DEBIAN_FRONTEND: 'noninteractive', LC_ALL: 'C' },
    ...(cwd === undefined ? {} : { cwd }),
  };
  const first = await runProgram('apt-get', line, settings);
  if (first.code === 0) return;
  const second = await runProgram('apt-get', line, settings);
  if (second.code === 0) return;
  const errors = second.output.split('\n').filter((text) => text.startsWith('E:'));
  throw new Error(`apt-get ${args[0]} failed: ${errors.join(' ') || second.output.slice(-200)}`);
}

/**
 * Installing Open vSwitch, FRR or Prometheus starts daemons where a service manager runs. A policy helper that says no prevents
 * it; an existing helper is left as it is, and daemons that are new afterwards are ended.
 */
async function withoutNewDaemons(work: () => Promise<void>): Promise<void> {
  const before = new Set(openVswitchDaemons());
  const ownHelper = !existsSync(policyHelperPath);
  if (ownHelper) {
    await writeFile(policyHelperPath, '#!/bin/sh\nexit 101\n');
    await chmod(policyHelperPath, 0o755);
  }
  try {
    await work();
  } finally {
    if (ownHelper) await rm(policyHelperPath, { force: true });
    for (const pid of openVswitchDaemons()) if (!before.has(pid)) process.kill(pid, 'SIGTERM');
  }
}

function openVswitchDaemons(): number[] {
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  return pids.filter((pid) => /^(ovs-vswitchd|ovsdb-server)$/.test(commandName(pid))).map(Number);
}

function commandName(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/comm`, 'utf8').trim();
  } catch {
    return ''; // it has ended meanwhile
  }
}

export interface GuestKernel {
  version: string;
  /** The kernel as QEMU's `-kernel` takes it. */
  imagePath: string;
  /** Folder with the kernel's modules, named as the version. */
  modulesFolder: string;
}

/** The kernel in one of the cache folders; the newest, should there be several. */
export function guestKernel(flavor: KernelFlavor = 'cloud'): GuestKernel | undefined {
  for (const cache of cacheFolders()) {
    const folder = join(cache, kernelFolders[flavor]);
    const versions = existsSync(folder) ? readdirSync(folder).filter((name) => !name.startsWith('.')) : [];
    const version = versions.sort((a, b) => a.localeCompare(b, 'en', { numeric: true })).at(-1);
    if (version === undefined) continue;
    const imagePath = join(folder, version, 'vmlinuz');
    return { version, imagePath, modulesFolder: join(folder, version, 'modules', version) };
  }
  return undefined;
}

async function fetchKernel(flavor: KernelFlavor): Promise<void> {
  const packageName = await kernelPackage(kernelMetaPackages[flavor]);
  const target = join(cacheFolder(), kernelFolders[flavor]);
  await mkdir(target, { recursive: true });
  // On the same file system as the target, for the rename; with a leading dot, so nobody takes it for a kernel.
  const folder = await mkdtemp(join(target, '.unpack-'));
  try {
    await aptGet(['download', packageName], folder);
    const archive = readdirSync(folder).find((name) => name.endsWith('.deb'))!;
    const unpacked = await runProgram('dpkg-deb', ['-x', join(folder, archive), join(folder, 'root')]);
    if (unpacked.code !== 0) throw new Error(`dpkg-deb could not unpack ${archive}: ${unpacked.output}`);
    await storeKernel(join(folder, 'root'), join(folder, 'kernel'), target);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Folders of a kernel's modules that guests may need something of. */
const keptModules = ['drivers/net', 'drivers/ptp', 'drivers/pps', 'drivers/virtio', 'net', 'lib'];
/** Drivers of network hardware that QEMU does not emulate: nearly all of the generic kernel's. */
const unusedDrivers = /\/drivers\/net\/(wireless|can|dsa|usb|ethernet\/(?!intel$|intel\/e1000|realtek)[^/]+)/;

/** Keeps the image and the drivers that guests may need, about a tenth of what the package holds. */
async function storeKernel(root: string, staging: string, target: string): Promise<void> {
  const version = readdirSync(join(root, 'lib/modules'))[0];
  const modules = join(staging, 'modules', version);
  await mkdir(modules, { recursive: true });
  await rename(join(root, 'boot', `vmlinuz-${version}`), join(staging, 'vmlinuz'));
  for (const part of keptModules) {
    const source = join(root, 'lib/modules', version, 'kernel', part);
    if (!existsSync(source)) continue;
    await cp(source, join(modules, 'kernel', part), {
      recursive: true,
      filter: (path) => !unusedDrivers.test(path),
    });
  }
  await rename(staging, join(target, version));
}

async function kernelPackage(metaPackage: string): Promise<string> {
  const { output } = await runProgram('apt-cache', ['depends', metaPackage]);
  const match = /Depends: (linux-image-\S+)/.exec(output);
  if (match === null) throw new Error(`this distribution has no package ${metaPackage}`);
  return match[1];
}

let chosenCacheFolder: string | undefined;

/** Where the kernel and the archives for the guests are kept: the first of the folders that can be written to. */
export function cacheFolder(): string {
  chosenCacheFolder ??= cacheFolders().find(isUsableFolder);
  if (chosenCacheFolder === undefined)
    throw new Error(`cannot write to any of: ${cacheFolders().join(', ')}`);
  return chosenCacheFolder;
}

function cacheFolders(): string[] {
  const repository = dirname(dirname(import.meta.dirname));
  const perUser = `ringway-cache-${process.getuid?.()}`;
  return [join(repository, 'node_modules', '.cache', 'ringway'), join(tmpdir(), perUser)];
}

function isUsableFolder(path: string): boolean {
  try {
    mkdirSync(path, { recursive: true, mode: 0o755 });
    accessSync(path, constants.W_OK);
    return true;
  } catch {
    return false;
  }
}
