/**
 * The memory that one front-end shares: its regions, mapped into the arena, and the two translations,
 * front-end-virtual (ring addresses in messages) and guest-physical (addresses in descriptors), to arena
 * offsets. Main thread only; workers get `gpaMap()`. A table is checked whole before anything changes.
 * vhost-user.rst, "Memory region description".
 */
import assert from 'node:assert/strict';
import type { MemRegion } from '../../protocol/vhost-user/codec.ts';
import { fileFacts } from '../host/descriptor.ts';
import type { Arena } from './arena.ts';
import type { GpaMap, GpaRange } from './gpa-translator.ts';
import { ADDRESS_MAX, MemoryError, mapPeerFile, type PeerMapping } from './peer-mapping.ts';

/** A region as it lies in the arena. All fields in bytes. */
export type MappedRegion = PeerMapping & {
  readonly gpa: number;
  readonly uva: number;
  readonly sizeBytes: number;
  readonly mmapOffset: number;
};

export class GuestMemory {
  readonly #arena: Arena;
  #regions: MappedRegion[] = [];
  /**
   * How often each region was added. QEMU before 8.1 adds (and removes) every region once for each queue
   * pair on the one connection, so the same region of the same file may come again.
   */
  readonly #timesAdded = new Map<MappedRegion, number>();
  /** The regions by user address, contiguous neighbours as one; null: to be made when asked for. */
  #uvaRanges: readonly GpaRange[] | null = null;

  constructor(arena: Arena) {
    this.#arena = arena;
  }

  get regions(): readonly MappedRegion[] {
    return this.#regions;
  }

  get sizeBytes(): number {
    return this.#regions.reduce((sum, region) => sum + region.sizeBytes, 0);
  }

  /**
   * Maps one more region, or takes it over where it lies in `before`, the memory that this one is to succeed. `fd` stays
   * the caller's, who may close it afterwards: the mapping keeps the file.
   * @throws MemoryError for what the front-end did wrong, NoRoomError, HostError for what the system refused
   */
  add(region: MemRegion, fd: number, before: GuestMemory | null = null): void {
    const checked = checkedRegion(region);
    const known = this.#findSame(checked, fd);
    if (known !== undefined) {
      this.#timesAdded.set(known, this.#timesAddedOf(known) + 1);
      return;
    }
    for (const other of this.#regions) refuseOverlap(checked, other);
    const kept = before === null ? undefined : before.#findSame(checked, fd);
    const mapped = kept ?? this.#map(checked, fd);
    this.#timesAdded.set(mapped, 1);
    this.#regions = [...this.#regions, mapped].sort((a, b) => a.gpa - b.gpa);
    this.#uvaRanges = null;
  }

  /**
   * The memory that is left when a region is removed as often as this is called: less by it, unless it was added more
   * often. It must match in guest address, user address and size. Nothing is unmapped before `unmapBut`.
   * @throws MemoryError when there is no such region
   */
  without(region: MemRegion): GuestMemory {
    const mapped = this.find(region);
    const timesLeft = this.#timesAddedOf(mapped) - 1;
    const rest = new GuestMemory(this.#arena);
    rest.#regions = timesLeft > 0 ? this.#regions : this.#regions.filter((other) => other !== mapped);
    for (const other of rest.#regions) rest.#timesAdded.set(other, this.#timesAddedOf(other));
    if (timesLeft > 0) rest.#timesAdded.set(mapped, timesLeft);
    return rest;
  }

  /** Unmaps all that is not part of `other` too. No worker may use that, and this object is not used again. */
  unmapBut(other: GuestMemory): void {
    for (const region of this.#regions) {
      if (!other.#regions.includes(region)) this.#arena.unmap(region.mappingOffset);
    }
  }

  /** Which byte of which file a front-end-virtual address is, as a text to compare; null: it is not shared. */
  fileByteAt(uva: bigint): string | null {
    const found = this.#regions.find(
      (region) => uva >= BigInt(region.uva) && uva < BigInt(region.uva + region.sizeBytes),
    );
    if (found === undefined) return null;
    return `${found.device}:${found.inode}:${found.mmapOffset + Number(uva) - found.uva}`;
  }

  #findSame(region: CheckedRegion, fd: number): MappedRegion | undefined {
    return this.#regions.find((mapped) => isSameRegion(mapped, region, fd));
  }

  /** As the messages said it: each region as often as it was added. */
  get additions(): readonly MappedRegion[] {
    return this.#regions.flatMap((region) =>
      new Array<MappedRegion>(this.#timesAddedOf(region)).fill(region),
    );
  }

  #timesAddedOf(mapped: MappedRegion): number {
    const times = this.#timesAdded.get(mapped);
    assert(times !== undefined && times > 0, 'a mapped region was added at least once');
    return times;
  }

  /** The mapped region that matches in guest address, user address and size. @throws MemoryError */
  find(region: MemRegion): MappedRegion {
    const found = this.#regions.find(
      (mapped) =>
        BigInt(mapped.gpa) === region.gpa &&
        BigInt(mapped.uva) === region.uva &&
        BigInt(mapped.sizeBytes) === region.sizeBytes,
    );
    if (found === undefined) {
      throw new MemoryError(`there is no region at ${hex(region.gpa)} of ${region.sizeBytes} bytes`);
    }
    return found;
  }

  /** Unmaps everything. No worker may use any of it. */
  clear(): void {
    for (const region of this.#regions) this.#arena.unmap(region.mappingOffset);
    this.#regions = [];
    this.#uvaRanges = null;
    this.#timesAdded.clear();
  }

  /** The first region of which something was not there when it was touched; its contents are lost. */
  get lostRegion(): MappedRegion | null {
    return this.#regions.find((region) => this.#arena.wasLost(region.arenaOffset, region.sizeBytes)) ?? null;
  }

  /** What workers translate descriptors with: ranges by guest address, contiguous neighbours as one. */
  gpaMap(): GpaMap {
    return mergedRanges(this.#regions, (region) => region.gpa);
  }

  /** Ranges by front-end-virtual address, contiguous neighbours as one. */
  get uvaMap(): readonly GpaRange[] {
    // Asked three times for each ring, and a front-end decides how often and over how many regions.
    this.#uvaRanges ??= mergedRanges(this.#regions, (region) => region.uva);
    return this.#uvaRanges;
  }

  /** Arena offset of a front-end-virtual range, or null when not all of it is shared contiguously. */
  offsetOfUva(uva: bigint, sizeBytes: number): number | null {
    return offsetIn(this.uvaMap, uva, sizeBytes);
  }

  /** Whether a front-end-virtual range lies in the regions, which need not be neighbours in the arena. */
  holdsUva(uva: bigint, sizeBytes: bigint): boolean {
    let at = uva;
    for (const { start, end } of this.uvaMap) {
      if (at < BigInt(start)) return false;
      if (at < BigInt(end)) at = BigInt(end);
      if (at >= uva + sizeBytes) return true;
    }
    return false;
  }

  #map(region: CheckedRegion, fd: number): MappedRegion {
    const before = this.#regions.find((other) => other.gpa + other.sizeBytes === region.gpa);
    const mapping = mapPeerFile(this.#arena, {
      what: `region at ${hex(region.gpa)}`,
      fd,
      fileOffset: region.mmapOffset,
      sizeBytes: region.sizeBytes,
      preferredOffset: before === undefined ? null : before.arenaOffset + before.sizeBytes,
      ownerParts: this.#regions.length,
    });
    return { ...region, ...mapping };
  }
}

type CheckedRegion = Pick<MappedRegion, 'gpa' | 'uva' | 'sizeBytes' | 'mmapOffset'>;

function checkedRegion(region: MemRegion): CheckedRegion {
  const { gpa, uva, sizeBytes, mmapOffset } = region;
  if (sizeBytes === 0n) throw new MemoryError(`region at ${hex(gpa)} is empty`);
  for (const [what, start] of [
    ['guest address', gpa],
    ['user address', uva],
    ['mmap offset', mmapOffset],
  ] as const) {
    if (start + sizeBytes > ADDRESS_MAX) {
      throw new MemoryError(
        `region at ${hex(gpa)}: ${what} ${hex(start)} + ${sizeBytes} bytes is out of range`,
      );
    }
  }
  return { gpa: Number(gpa), uva: Number(uva), sizeBytes: Number(sizeBytes), mmapOffset: Number(mmapOffset) };
}

function isSameRegion(mapped: MappedRegion, region: CheckedRegion, fd: number): boolean {
  const fields = ['gpa', 'uva', 'sizeBytes', 'mmapOffset'] as const;
  if (fields.some((field) => mapped[field] !== region[field])) return false;
  const file = fileFacts(fd);
  return file.device === mapped.device && file.inode === mapped.inode;
}

function refuseOverlap(region: CheckedRegion, other: MappedRegion): void {
  const overlaps = (a: number, b: number): boolean => a < b + other.sizeBytes && b < a + region.sizeBytes;
  if (overlaps(region.gpa, other.gpa) || overlaps(region.uva, other.uva)) {
    throw new MemoryError(`region at ${hex(region.gpa)} overlaps the one at ${hex(other.gpa)}`);
  }
}

function mergedRanges(
  regions: readonly MappedRegion[],
  startOf: (region: MappedRegion) => number,
): GpaRange[] {
  const merged: { start: number; end: number; arenaOffset: number }[] = [];
  for (const region of [...regions].sort((a, b) => startOf(a) - startOf(b))) {
    const start = startOf(region);
    const last = merged.at(-1);
    const continues =
      last?.end === start && last.arenaOffset + (last.end - last.start) === region.arenaOffset;
    if (last !== undefined && continues) last.end += region.sizeBytes;
    else merged.push({ start, end: start + region.sizeBytes, arenaOffset: region.arenaOffset });
  }
  return merged;
}

function offsetIn(ranges: readonly GpaRange[], address: bigint, sizeBytes: number): number | null {
  if (address >= ADDRESS_MAX) return null;
  const start = Number(address);
  const range = ranges.find((candidate) => candidate.start <= start && start + sizeBytes <= candidate.end);
  return range === undefined ? null : range.arenaOffset + (start - range.start);
}

function hex(address: bigint | number): string {
  return `0x${address.toString(16)}`;
}
