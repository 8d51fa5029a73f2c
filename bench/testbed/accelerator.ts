/**
 * Whether QEMU can use KVM here. That /dev/kvm opens does not say so: in a virtual machine it may be there and no
 * guest come up. So a guest without a card is booted by it, once for each process, which takes about a second where
 * KVM works. The peer `qemu` must be there.
 */
import { closeSync, openSync } from 'node:fs';
import { LinuxGuest } from '../../test/peers/index.ts';
import { ACCELERATORS, type Accelerator } from './rows.ts';

export const ACCELERATOR_CHOICES = ['auto', ...ACCELERATORS] as const;
export type AcceleratorChoice = (typeof ACCELERATOR_CHOICES)[number];

const DEVICE = '/dev/kvm';
const BOOT_TIMEOUT_MS = 10_000;

let found: Promise<Accelerator> | undefined;

/** `auto`: KVM where it works. */
export async function chooseAccelerator(choice: AcceleratorChoice): Promise<Accelerator> {
  if (choice !== 'auto') return choice;
  found ??= bootsByKvm().then((boots) => (boots ? 'kvm' : 'tcg'));
  return found;
}

async function bootsByKvm(): Promise<boolean> {
  try {
    closeSync(openSync(DEVICE, 'r+'));
    const guest = await LinuxGuest.start({
      name: 'probe',
      accel: 'kvm',
      qemuArgs: [],
      bootTimeoutMs: BOOT_TIMEOUT_MS,
    });
    await guest.stop();
    return true;
  } catch {
    return false;
  }
}
