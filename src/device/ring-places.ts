/**
 * Where the three areas of a ring lie in the arena: the descriptor area, the driver area and the device area, as
 * VIRTIO calls them in both layouts. Each area's whole length must be shared memory and aligned as VIRTIO 1.3,
 * sections 2.7 (split) and 2.8 (packed), demands. Pure. Main thread.
 */

import type { VringAddr } from '../../protocol/vhost-user/codec.ts';
import { EVENT_SUPPRESS_ALIGN, EVENT_SUPPRESS_BYTES } from '../../protocol/virtio/packed-ring.ts';
import {
  AVAIL_ALIGN,
  availRingBytes,
  DESC_ALIGN,
  descTableBytes,
  USED_ALIGN,
  usedRingBytes,
} from '../../protocol/virtio/split-ring.ts';
import { ADVICE } from '../advice.ts';
import { ACCESS_READ, ACCESS_WRITE, type Access, type AddressMiss } from '../memory/iotlb.ts';
import type { RingAttachment, RingLayoutKind } from '../vring/attachment.ts';

/** Offsets in the arena. */
export type RingPlaces = Pick<RingAttachment, 'descOffset' | 'driverOffset' | 'deviceOffset'>;

/** Of a ring behind an IOMMU: what of it has no translation yet. */
export type RingMisses = { readonly misses: readonly AddressMiss[] };

/** Where addresses of messages lie. */
export type RingMemory = {
  readonly sizeBytes: number;
  /**
   * Arena offset of a range that is to be used so; null when not all of it is shared contiguously; otherwise what of it has
   * no translation yet.
   */
  offsetOfUva(uva: bigint, sizeBytes: number, access: Access): number | null | readonly AddressMiss[];
};

type Area = {
  readonly name: string;
  readonly sizeBytes: number;
  readonly alignBytes: number;
  readonly access: Access;
};
/** In this order: descriptor area, driver area, device area. */
type Areas = readonly [Area, Area, Area];

const AREAS: { readonly [Layout in RingLayoutKind]: (size: number) => Areas } = {
  split: (size) => [
    {
      name: 'descriptor table',
      sizeBytes: descTableBytes(size),
      alignBytes: DESC_ALIGN,
      access: ACCESS_READ,
    },
    { name: 'avail ring', sizeBytes: availRingBytes(size), alignBytes: AVAIL_ALIGN, access: ACCESS_READ },
    {
      name: 'used ring',
      sizeBytes: usedRingBytes(size),
      alignBytes: USED_ALIGN,
      access: ACCESS_READ | ACCESS_WRITE,
    },
  ],
  packed: (size) => [
    {
      name: 'descriptor ring',
      sizeBytes: descTableBytes(size),
      alignBytes: DESC_ALIGN,
      access: ACCESS_READ | ACCESS_WRITE,
    },
    {
      name: 'driver event suppression',
      sizeBytes: EVENT_SUPPRESS_BYTES,
      alignBytes: EVENT_SUPPRESS_ALIGN,
      access: ACCESS_READ,
    },
    {
      name: 'device event suppression',
      sizeBytes: EVENT_SUPPRESS_BYTES,
      alignBytes: EVENT_SUPPRESS_ALIGN,
      access: ACCESS_WRITE,
    },
  ],
};

const NO_MEMORY = ADVICE.noMemoryBackend.reason;

/** What `placeRing` answers. */
type Placed = RingPlaces | RingMisses | string;

export function hasMisses(placed: Placed): placed is RingMisses {
  return typeof placed !== 'string' && 'misses' in placed;
}

export function isPlacedAt(placed: Placed, places: RingPlaces | null): boolean {
  if (places === null || typeof placed === 'string' || hasMisses(placed)) return false;
  const { descOffset, driverOffset, deviceOffset } = placed;
  return (
    descOffset === places.descOffset &&
    driverOffset === places.driverOffset &&
    deviceOffset === places.deviceOffset
  );
}

/** Addresses of the areas as messages name them. */
export function areasOf(
  layout: RingLayoutKind,
  size: number,
  { descUva, availUva, usedUva }: RingUvas,
): { readonly uva: bigint; readonly sizeBytes: number }[] {
  const uvas = [descUva, availUva, usedUva];
  return AREAS[layout](size).map(({ sizeBytes }, i) => ({ uva: uvas[i], sizeBytes }));
}

type RingUvas = Pick<VringAddr, 'descUva' | 'availUva' | 'usedUva'>;

/** The places, or one sentence on why the ring cannot lie there. */
export function placeRing(
  layout: RingLayoutKind,
  size: number,
  addresses: RingUvas,
  memory: RingMemory,
): Placed {
  if (memory.sizeBytes === 0) return NO_MEMORY;
  const uvas = [addresses.descUva, addresses.availUva, addresses.usedUva];
  const offsets: number[] = [];
  const misses: AddressMiss[] = [];
  for (const [i, { name, sizeBytes, alignBytes, access }] of AREAS[layout](size).entries()) {
    const offset = memory.offsetOfUva(uvas[i], sizeBytes, access);
    if (typeof offset === 'object' && offset !== null) {
      misses.push(...offset);
      continue;
    }
    if (offset === null) return `its ${name} (${sizeBytes} bytes) does not lie in the shared memory`;
    if (offset % alignBytes !== 0) return `its ${name} is not aligned to ${alignBytes} bytes`;
    offsets.push(offset);
  }
  if (misses.length > 0) return { misses };
  return { descOffset: offsets[0], driverOffset: offsets[1], deviceOffset: offsets[2] };
}
