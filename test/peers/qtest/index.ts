/**
 * QEMU as a vhost-user front-end without a guest: the drivers are played by the test, on the rings of src/frontend/.
 * Start with `QtestGuest.start`; guest.ts says what can be done to it, net-driver.ts what its cards can do.
 */
export { type Dimm, QtestGuest } from './guest.ts';
export { type MachineOptions, QtestMachine } from './machine.ts';
export { VirtioBalloon, VirtioMem } from './memory-devices.ts';
export { NET_DRIVER_FEATURES, NetDriver, type NetDriverChoice } from './net-driver.ts';
export type { NicOptions } from './nic.ts';
export { PciCard } from './pci.ts';
export type { QtestClient } from './qtest-client.ts';
export { STATUS, VIRTIO_TYPE, VirtioPci } from './virtio-pci.ts';
