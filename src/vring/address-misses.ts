/**
 * What a parked ring will need besides that for which it is parked: a look at the chains that wait, so that one turn of asking
 * and answering does for many buffers. A driver that maps each buffer by itself would otherwise cost a turn for each.
 * Nothing is used of what is looked at, and it is looked at again later. Allocates: a ring is seldom parked, or slow.
 */
import { ACCESS_READ, ACCESS_WRITE, type AddressMiss, IOMMU_PAGE_BYTES } from '../memory/iotlb.ts';
import { DescriptorList } from './descriptor-list.ts';
import { RING_FAULT } from './faults.ts';
import type { RingLayout } from './layout.ts';
import type { Ring } from './ring.ts';

const CHAINS_MAX = 32;
/** Of one ring at a time. */
export const MISSES_MAX = 32;

/** `first` and what else of the next chains has no translation, a page at a time. Walked chains are forgotten. */
export function missesAhead(ring: Ring, layout: RingLayout, first: AddressMiss): AddressMiss[] {
  const { translator, tables } = ring;
  const access = translator === tables ? ACCESS_READ : ACCESS_WRITE;
  const list = new DescriptorList();
  const misses = new Map<bigint, AddressMiss>([[pageOf(first.iova), first]]);
  for (let chain = 0; chain < CHAINS_MAX && misses.size < MISSES_MAX && layout.waiting() > 0; chain++) {
    list.clear();
    const fault = layout.walk(ring, list);
    if (fault === RING_FAULT.INDIRECT_ADDRESS) {
      const iova = wide(tables.missedLo, tables.missedHi);
      if (!misses.has(pageOf(iova))) misses.set(pageOf(iova), { iova, access: ACCESS_READ });
      continue;
    }
    if (fault !== RING_FAULT.NONE) break;
    for (let i = 0; i < list.count && misses.size < MISSES_MAX; i++) {
      const start = wide(list.gpaLo[i], list.gpaHi[i]);
      const sizeBytes = list.sizeBytes[i] >>> 0;
      for (let done = 0; done < Math.max(sizeBytes, 1) && misses.size < MISSES_MAX; ) {
        const iova = start + BigInt(done);
        const isKnown = translator.locateSome(list.gpaLo[i], list.gpaHi[i], done, sizeBytes - done) >= 0;
        if (isKnown && sizeBytes > 0) {
          done += translator.contiguousBytes;
          continue;
        }
        if (!isKnown && !misses.has(pageOf(iova))) misses.set(pageOf(iova), { iova, access });
        done += IOMMU_PAGE_BYTES - Number(iova % BigInt(IOMMU_PAGE_BYTES));
      }
    }
  }
  layout.forgetWalked();
  return [...misses.values()];
}

const pageOf = (iova: bigint): bigint => iova / BigInt(IOMMU_PAGE_BYTES);

/** Of halves that are int32. */
function wide(lo: number, hi: number): bigint {
  return (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0);
}
