/**
 * What is between the two ends of a row's traffic, started on this machine: a bridge of Linux, Ringway or Open vSwitch.
 * Whoever has a thread that forwards has it on the same processor as the others have: the last one that this process
 * may use. The kernel's bridge has none; its work is done where QEMU runs.
 */
import { allowedCpus } from '../../src/host/affinity.ts';
import { ensurePeers } from '../../test/peers/index.ts';
import { NetworkNamespace } from '../../test/peers/namespaces.ts';
import { OVS_MIB, OvsPeer } from '../peers/ovs.ts';
import { type CleanUp, hugepagesFolder, socketsFolder } from './clean-up.ts';
import { GUEST_NAMES, type GuestName, portOf, type RingwayGuestPort, socketOf } from './guest.ts';
import type { GuestRow } from './rows.ts';
import { rowPorts, SwitchProcess } from './switch-process.ts';
import { makeTapBridge, tapObstacle } from './tap-bridge.ts';

export type Between = {
  /** Socket of a guest's port; null: its card is a tap of the bridge. */
  socketOf(guest: GuestName): string | null;
  /** Where its interfaces are; null: it has none. */
  readonly namespace: NetworkNamespace | null;
  /** Process that forwards; null: the kernel does. */
  readonly pid: number | null;
};

export const forwardingCpu = (): number => allowedCpus().at(-1)!;
export const controlCpu = (): number => allowedCpus()[0]!;

/** @throws when it cannot be started here; what was started by then is in `cleanUp` */
export function startBetween(row: GuestRow, cleanUp: CleanUp): Promise<Between> {
  switch (row.attachment) {
    case 'tap':
      return startBridge(cleanUp);
    case 'ovs':
      return startOvs(row, cleanUp);
    case 'unix':
    case 'vhost-user':
      return startRingway(row, row.attachment, cleanUp);
  }
}

async function startBridge(cleanUp: CleanUp): Promise<Between> {
  const namespace = await makeNamespace(cleanUp);
  await makeTapBridge(namespace);
  return { socketOf: () => null, namespace, pid: null };
}

async function startRingway(row: GuestRow, kind: RingwayGuestPort, cleanUp: CleanUp): Promise<Between> {
  const folder = await socketsFolder(cleanUp);
  const namespace = row.receiver === 'host' ? await makeNamespace(cleanUp) : null;
  const ports = rowPorts(row, kind, folder, namespace?.name ?? null);
  const ringway = await SwitchProcess.start(folder, { ports, cpu: forwardingCpu() });
  cleanUp.push(() => ringway.stop());
  return { socketOf: (guest) => socketOf(folder, portOf(kind, guest)), namespace, pid: ringway.pid };
}

async function startOvs(row: GuestRow, cleanUp: CleanUp): Promise<Between> {
  const missing = (await ensurePeers(['ovs'])).missing.get('ovs');
  if (missing !== undefined) throw new Error(missing);
  // It takes pages from the pool and not from the mount, so the mount must not reserve them.
  const pages = await hugepagesFolder(OVS_MIB, cleanUp, { reserve: false });
  if ('unavailable' in pages) throw new Error(pages.unavailable);
  const namespace = await makeNamespace(cleanUp);
  const ovs = await OvsPeer.start({
    folder: await socketsFolder(cleanUp),
    cpu: forwardingCpu(),
    controlCpu: controlCpu(),
    hugepagesPath: pages.path,
    portCount: GUEST_NAMES.length,
    userspaceTso: row.ovsTso,
    networkNamespace: namespace.name,
  });
  cleanUp.push(() => ovs.stop());
  return {
    socketOf: (guest) => ovs.sockets[GUEST_NAMES.indexOf(guest)]!,
    namespace,
    pid: ovs.pid,
  };
}

async function makeNamespace(cleanUp: CleanUp): Promise<NetworkNamespace> {
  const obstacle = tapObstacle();
  if (obstacle !== null) throw new Error(obstacle);
  const namespace = await NetworkNamespace.create('testbed');
  cleanUp.push(() => namespace.remove());
  return namespace;
}
