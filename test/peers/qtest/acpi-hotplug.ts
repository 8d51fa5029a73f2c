/**
 * The guest's part in unplugging on QEMU's `pc` machine, which ACPI's methods play otherwise (QEMU's
 * docs/specs/acpi_pci_hotplug.rst and acpi_mem_hotplug.rst). Plugging needs none. Owns nothing.
 */
import type { QtestClient } from './qtest-client.ts';

const PCI_BASE = 0xae00;
const PCI_EJECT = PCI_BASE + 8;
const PCI_BUS_SELECT = PCI_BASE + 16;

const MEMORY_BASE = 0x0a00;
const MEMORY_SLOT = MEMORY_BASE;
const MEMORY_FLAGS = MEMORY_BASE + 0x14;
const MEMORY_EJECT = 8;

/** Lets go of the card in that slot of bus 0. */
export async function ejectCard(qtest: QtestClient, slot: number): Promise<void> {
  await qtest.out(PCI_BUS_SELECT, 4, 0);
  await qtest.out(PCI_EJECT, 4, 1 << slot);
}

/** Lets go of the memory device in that slot. */
export async function ejectMemory(qtest: QtestClient, slot: number): Promise<void> {
  await qtest.out(MEMORY_SLOT, 4, slot);
  await qtest.out(MEMORY_FLAGS, 1, MEMORY_EJECT);
}
