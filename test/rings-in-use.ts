/**
 * Whether the rings of an embedded guest behind an IOMMU are in use: they begin by themselves when translations of where they lie have
 * come, after the guest has connected. What is sent to it before has nowhere to go.
 */
import { vi } from 'vitest';
import type { EmbeddedGuest } from '../src/frontend/index.ts';

const TIMEOUT_MS = 20_000;

/** `queues`: what the switch reports of its port. */
export async function untilRingsAreInUse(
  guest: EmbeddedGuest,
  queues: () => readonly { inUse: boolean }[] | Promise<readonly { inUse: boolean }[]>,
): Promise<void> {
  const areInUse = async (): Promise<boolean> => {
    const rings = await queues();
    return rings.length > 0 && rings.every(({ inUse }) => inUse);
  };
  await vi.waitUntil(areInUse, { timeout: TIMEOUT_MS });
  // Answered when the workers have done as they were told before.
  await guest.iommu?.update(0);
}
