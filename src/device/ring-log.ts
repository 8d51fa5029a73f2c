/**
 * Which pages of a ring itself the device writes to, for the log of migration (vhost-user.rst, "Migration", and
 * VHOST_VRING_F_LOG of SET_VRING_ADDR): all of each area, because a ring has few pages and one burst comes past most of
 * them. Pure. Main thread.
 */
import type { VringAddr } from '../../protocol/vhost-user/codec.ts';
import { VRING_FLAG_LOG } from '../../protocol/vhost-user/messages.ts';
import { EVENT_SUPPRESS_BYTES } from '../../protocol/virtio/packed-ring.ts';
import { descTableBytes, usedRingBytes } from '../../protocol/virtio/split-ring.ts';
import type { GpaMap } from '../memory/gpa-translator.ts';
import { LOG_BYTES_MAX, LOG_PAGE_BYTES } from '../memory/log-memory.ts';
import type { RingLayoutKind } from '../vring/attachment.ts';
import type { PageRange } from '../vring/dirty-log.ts';
import type { RingPlaces } from './ring-places.ts';

const GPA_END = LOG_BYTES_MAX * 8 * LOG_PAGE_BYTES;

/**
 * `isTranslated`: the ring is behind an IOMMU, and what is named for the log is no guest-physical address (QEMU names the used
 * ring's IOVA), so all is looked up where it lies. Of a ring without the flag none. A split ring's used ring is at the address that the message names for the log. A packed
 * ring has no used ring: its descriptors are written to, and the device's event suppression, which QEMU names for the log;
 * so both are looked up where they lie, and what is named is marked besides.
 */
export function ringLogOf(
  layout: RingLayoutKind,
  size: number,
  { flags, logGpa }: Pick<VringAddr, 'flags' | 'logGpa'>,
  { descOffset, deviceOffset }: RingPlaces,
  map: GpaMap,
  isTranslated = false,
): readonly PageRange[] {
  if ((flags & VRING_FLAG_LOG) === 0) return [];
  if (layout === 'split' && isTranslated) return pagesOfArena(map, deviceOffset, usedRingBytes(size));
  if (layout === 'split') return pagesAt(logGpa, usedRingBytes(size));
  return [
    ...pagesOfArena(map, descOffset, descTableBytes(size)),
    ...pagesOfArena(map, deviceOffset, EVENT_SUPPRESS_BYTES),
    ...(isTranslated ? [] : pagesAt(logGpa, EVENT_SUPPRESS_BYTES)),
  ];
}

/** Of all that is shared. */
export function allPages(map: GpaMap): readonly PageRange[] {
  return map.filter(({ start }) => start < GPA_END).map(({ start, end }) => pages(start, end - start));
}

/** None where no log reaches; a front-end may name any address. */
function pagesAt(gpa: bigint, sizeBytes: number): PageRange[] {
  return gpa < BigInt(GPA_END) ? [pages(Number(gpa), sizeBytes)] : [];
}

/** What is contiguous in the arena may be several pieces of the guest's memory. */
function pagesOfArena(map: GpaMap, offset: number, sizeBytes: number): PageRange[] {
  return map.flatMap(({ start, end, arenaOffset }) => {
    const from = Math.max(offset, arenaOffset);
    const to = Math.min(offset + sizeBytes, arenaOffset + end - start);
    const gpa = start + from - arenaOffset;
    return from < to && gpa < GPA_END ? [pages(gpa, to - from)] : [];
  });
}

function pages(gpa: number, sizeBytes: number): PageRange {
  return {
    firstPage: Math.floor(gpa / LOG_PAGE_BYTES),
    lastPage: Math.floor((gpa + sizeBytes - 1) / LOG_PAGE_BYTES),
  };
}
