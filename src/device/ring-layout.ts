/**
 * Where a split ring's three parts lie in the arena. Each part's whole length must be shared memory and
 * aligned as VIRTIO 1.3, section 2.7 demands.
 */
import type { VringAddr } from '../../protocol/vhost-user/codec.ts';
import {
  AVAIL_ALIGN,
  availRingBytes,
  DESC_ALIGN,
  descTableBytes,
  USED_ALIGN,
  usedRingBytes,
} from '../../protocol/virtio/split-ring.ts';
import type { GuestMemory } from '../memory/guest-memory.ts';

/** Offsets in the arena. */
export type SplitRingLayout = {
  readonly descOffset: number;
  readonly driverOffset: number;
  readonly deviceOffset: number;
};

const NO_MEMORY =
  'the front-end shared no memory (QEMU: give the guest a memory-backend object with share=on, and -numa node,memdev=)';

/** The layout, or one sentence on why the ring cannot run there. */
export function placeRing(size: number, addresses: VringAddr, memory: GuestMemory): SplitRingLayout | string {
  const parts = [
    { name: 'descriptor table', uva: addresses.descUva, sizeBytes: descTableBytes(size), align: DESC_ALIGN },
    { name: 'avail ring', uva: addresses.availUva, sizeBytes: availRingBytes(size), align: AVAIL_ALIGN },
    { name: 'used ring', uva: addresses.usedUva, sizeBytes: usedRingBytes(size), align: USED_ALIGN },
  ];
  if (memory.sizeBytes === 0) return NO_MEMORY;
  const offsets: number[] = [];
  for (const { name, uva, sizeBytes, align } of parts) {
    const offset = memory.offsetOfUva(uva, sizeBytes);
    if (offset === null) return `its ${name} (${sizeBytes} bytes) does not lie in the shared memory`;
    if (offset % align !== 0) return `its ${name} is not aligned to ${align} bytes`;
    offsets.push(offset);
  }
  return { descOffset: offsets[0], driverOffset: offsets[1], deviceOffset: offsets[2] };
}
