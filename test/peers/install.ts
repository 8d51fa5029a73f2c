/**
 * Runs once before any test file of a project is loaded: installs what its tests need. Files decide at their top, when
 * they are loaded, what they skip; asked before something was installed, that question has the wrong answer for good.
 *
 * With RINGWAY_INSTALL_PEERS=required nothing may be missing: the run fails and says what is. Continuous integration
 * sets it, since there a test that is skipped passes for one that holds.
 */
import type { TestProject } from 'vitest/node';
import { ensurePeers, type PeerName, type PeersReport, REQUIRED } from './packages.ts';

/** What the tests of each project ask for, by its name. */
export const PEERS_OF_PROJECT: Readonly<Record<string, readonly PeerName[]>> = {
  unit: ['dpdk', 'assemblers', 'iproute2', 'ethtool', 'libpcap', 'systemd', 'fish', 'zsh'],
  'real peers': [
    'qemu',
    'emulated-cards',
    'uml',
    'testpmd',
    'dpdk',
    'iproute2',
    'ethtool',
    'frr',
    'systemd',
    'ovs-dummy',
    'tshark',
    'prometheus',
    'chromium',
    'debootstrap',
    'libvirt',
  ],
};

export default async function install({ name }: Pick<TestProject, 'name'>): Promise<void> {
  await installFor(name);
}

/** @throws Error in a run that requires them, when some are missing */
export async function installFor(
  project: string,
  ensure: (wanted: readonly PeerName[]) => Promise<Pick<PeersReport, 'missing'>> = ensurePeers,
  isRequired = process.env.RINGWAY_INSTALL_PEERS === REQUIRED,
): Promise<void> {
  const wanted = PEERS_OF_PROJECT[project];
  if (wanted === undefined)
    throw new Error(`test/peers/install.ts does not know what project ${project} needs`);
  const { missing } = await ensure(wanted);
  if (!isRequired || missing.size === 0) return;
  const reasons = [...missing].map(([name, reason]) => `${name}: ${reason}`);
  throw new Error(`RINGWAY_INSTALL_PEERS=${REQUIRED}, but ${reasons.join(' ')}`);
}
