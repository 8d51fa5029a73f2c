/**
 * What a device's text names, and what Linux says about it before DPDK is asked: most of what can be wrong with a
 * device is seen here, in plainer words than a driver's. Control plane, any thread.
 */
import { existsSync, readFileSync, readlinkSync } from 'node:fs';
import { basename } from 'node:path';
import { DpdkError } from './library.ts';

/** `0000:03:00.0` or `net_af_packet0,iface=eth0`: a device, and its driver's arguments. */
export type DeviceName = {
  /** As DPDK wants it: name and arguments with commas. */
  readonly devargs: string;
  /** Without arguments; the port's name in DPDK. */
  readonly name: string;
  readonly isPci: boolean;
};

const PCI_ADDRESS = /^([0-9a-f]{4,8}:)?[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$/i;
const SYS_PCI = '/sys/bus/pci/devices';
/** Kernel drivers that leave a device to a process. */
const USER_SPACE_DRIVERS = new Set(['vfio-pci', 'igb_uio', 'uio_pci_generic']);
/** Kernel drivers whose devices DPDK shares with the kernel. */
const SHARED_DRIVERS = new Set(['mlx4_core', 'mlx5_core', 'mana', 'hv_netvsc']);
/** Virtual devices with arguments that name an interface which must be there. */
const INTERFACE_USERS = /^net_(af_packet|af_xdp|pcap)/;
const INTERFACE_ARGUMENT = /^(iface|rx_iface|tx_iface|rx_iface_in)=(.+)$/;

const IFF_UP = 1;

/** `;` stands for a comma, which ends a setting on a command line. @throws DpdkError */
export function parseDevice(text: string): DeviceName {
  const devargs = text.trim().replaceAll(';', ',');
  const name = devargs.split(',')[0];
  if (PCI_ADDRESS.test(name)) {
    const full = name.split(':').length === 2 ? `0000:${name}` : name;
    return { devargs: full + devargs.slice(name.length), name: full.toLowerCase(), isPci: true };
  }
  if (!/^[a-z][\w-]*$/i.test(name)) {
    throw new DpdkError(
      `${text} names no device: a PCI address such as 0000:03:00.0, or a virtual device such as net_af_packet0,iface=eth0`,
      false,
    );
  }
  return { devargs, name, isPci: false };
}

/** @throws DpdkError when Linux already knows why the device cannot be used */
export function checkDevice(device: DeviceName): void {
  if (device.isPci) checkPciDevice(device.name, SYS_PCI);
  else for (const name of interfacesOf(device)) checkInterface(device.name, name);
}

/** Interfaces of the host that the virtual device stands on. */
export function interfacesOf(device: DeviceName): string[] {
  if (device.isPci || !INTERFACE_USERS.test(device.name)) return [];
  return device.devargs.split(',').flatMap((argument) => INTERFACE_ARGUMENT.exec(argument)?.[2] ?? []);
}

/** Null: the interface is there; otherwise one sentence. */
export function missingInterface(device: DeviceName): string | null {
  const name = interfacesOf(device).find((each) => !existsSync(`/sys/class/net/${each}`));
  return name === undefined ? null : `${device.name} needs the interface ${name}, which does not exist`;
}

/** Null: the interfaces that it stands on are up; otherwise one sentence. */
export function downInterface(device: DeviceName): string | null {
  const name = interfacesOf(device).find((each) => {
    try {
      return (Number(readFileSync(`/sys/class/net/${each}/flags`, 'utf8')) & IFF_UP) === 0;
    } catch {
      return false;
    }
  });
  return name === undefined ? null : `${name} is down: ip link set ${name} up`;
}

function checkInterface(device: string, name: string): void {
  if (existsSync(`/sys/class/net/${name}`)) return;
  throw new DpdkError(`${device} needs the interface ${name}, which does not exist`);
}

/** `folder`: /sys/bus/pci/devices, or what stands for it in a test. @throws DpdkError */
export function checkPciDevice(address: string, folder: string): void {
  const path = `${folder}/${address}`;
  if (!existsSync(path))
    throw new DpdkError(`there is no PCI device ${address}: see dpdk-devbind.py --status`);
  const driver = linkName(`${path}/driver`);
  if (driver !== null && SHARED_DRIVERS.has(driver)) return;
  const bind = `dpdk-devbind.py --bind=vfio-pci ${address}, or driverctl set-override ${address} vfio-pci`;
  if (driver === null) throw new DpdkError(`PCI device ${address} is bound to no driver: ${bind}`);
  if (!USER_SPACE_DRIVERS.has(driver)) {
    throw new DpdkError(`PCI device ${address} is bound to the kernel's driver ${driver}: ${bind}`);
  }
  if (driver !== 'vfio-pci' || !existsSync(`${path}/iommu_group`)) {
    throw new DpdkError(
      `PCI device ${address} has no IOMMU before it, through which it could reach guests' memory: turn the IOMMU on (firmware; kernel intel_iommu=on or amd_iommu=on) and bind it to vfio-pci`,
    );
  }
}

/** Whether frames' memory must be mapped for the device by hand: it does not see memory through the kernel. */
export function needsDmaMapping(device: DeviceName): boolean {
  return device.isPci;
}

function linkName(path: string): string | null {
  try {
    return basename(readlinkSync(path));
  } catch {
    return null;
  }
}
