/**
 * The arena: one reserved range of addresses that every guest's memory is mapped into, so that a frame can
 * be copied from any guest to any other within one ArrayBuffer. This file owns the range and says which part
 * of it is taken; what is mapped there belongs to guest-memory.ts, how a thread sees it to arena-view.ts.
 * Main thread only. Offsets are bytes from the arena's start.
 */
import { type Budget, regionBudget } from '../host/budgets.ts';
import { type BusFaults, busFaults } from '../host/bus-faults.ts';
import { mapZeroPagesElsewhere } from '../host/elsewhere.ts';
import type { Watch } from '../host/event-loop.ts';
import {
  enterPages,
  mapFileAt,
  mapZeroPagesAt,
  releaseAddressSpace,
  reserveAddressSpace,
} from '../host/mapping.ts';

export const ARENA_BYTES_DEFAULT = 2 ** 40;
export const ARENA_BYTES_MIN = 2 ** 32;
/**
 * Parts are placed at multiples of this, or of the file's page size where that is larger; and what lies within one
 * such 2 MiB belongs to one owner, because faults are told apart by it (bus-faults.ts).
 */
const PLACEMENT_BYTES = 2 ** 21;
const GIB = 2 ** 30;
/** Who unmaps more of a guest may be the last to hold its file, and frees its pages: 0.3 s a GiB. */
const UNMAPPED_AT_ONCE_BYTES = 2 ** 25;

/** Where the arena lies, as other threads need it to see it (ArenaView). */
export type ArenaLocation = { readonly address: number; readonly sizeBytes: number };

export class ArenaFullError extends Error {
  override name = 'ArenaFullError';
}

type Extent = {
  readonly offset: number;
  readonly endOffset: number;
  readonly pageBytes: number;
  readonly mayBeLost: boolean;
};

export type Placement = {
  readonly fd: number;
  /** A multiple of `pageBytes`, as is `sizeBytes`. */
  readonly fileOffset: number;
  readonly sizeBytes: number;
  readonly pageBytes: number;
  /** Where it should lie if that is free, so that it continues its neighbour, which has the same owner. */
  readonly preferredOffset: number | null;
  /** A guest's: where it is not there when it is touched, zeros are read and `wasLost` tells. Otherwise we end. */
  readonly mayBeLost?: boolean;
  /** How many parts its owner has already. */
  readonly ownerParts?: number;
};

export class Arena {
  readonly location: ArenaLocation;
  /** Where the reservation begins: up to 1 GiB before the arena, which is aligned. */
  readonly #reservedAddress: number;
  /** Of the parts that may be lost: those of guests. */
  readonly #regions: Budget;
  /** Taken parts, by offset. */
  #extents: Extent[] = [];
  /** Those that are being unmapped by another thread. */
  readonly #leaving = new Set<Extent>();
  /** Resolved when one of these is gone; null: nobody has asked. */
  #departure: PromiseWithResolvers<void> | null = null;
  #isReleased = false;
  readonly #faults: BusFaults | null = busFaults();

  private constructor(reservedAddress: number, location: ArenaLocation, regions: Budget) {
    this.#regions = regions;
    this.#reservedAddress = reservedAddress;
    this.location = location;
  }

  /**
   * Reserves `sizeBytes` of addresses, or half as often as the system refuses (`ulimit -v`, strict
   * overcommit), down to 4 GiB. @throws HostError when not even that is to be had.
   */
  static reserve(sizeBytes: number = ARENA_BYTES_DEFAULT, regions = regionBudget()): Arena {
    for (
      let tryBytes = roundUp(Math.max(sizeBytes, ARENA_BYTES_MIN), GIB);
      ;
      tryBytes = roundUp(tryBytes / 2, GIB)
    ) {
      try {
        // Huge pages need aligned addresses, so the range starts at a multiple of the largest, 1 GiB.
        const reserved = reserveAddressSpace(tryBytes + GIB);
        return new Arena(reserved, { address: roundUp(reserved, GIB), sizeBytes: tryBytes }, regions);
      } catch (error) {
        if (tryBytes <= ARENA_BYTES_MIN) throw error;
      }
    }
  }

  /** Maps a file's part into a free place and answers its offset. @throws ArenaFullError, BudgetError, HostError */
  map(placement: Placement): number {
    if (placement.mayBeLost !== true) return this.#map(placement);
    this.#regions.take(1, placement.ownerParts ?? 0);
    try {
      return this.#map(placement);
    } catch (error) {
      this.#regions.give(1);
      throw error;
    }
  }

  #map(placement: Placement): number {
    const offset = this.#choose(placement);
    const address = this.location.address + offset;
    const { sizeBytes, fd, fileOffset, pageBytes, mayBeLost = false } = placement;
    try {
      mapFileAt(address, sizeBytes, fd, fileOffset, `mapping ${sizeBytes} bytes of guest memory`);
    } catch (error) {
      // A file may refuse after the kernel took away what lay there before; a hole must not stay.
      mapZeroPagesAt(address, sizeBytes);
      throw error;
    }
    const extent = { offset, endOffset: offset + sizeBytes, pageBytes, mayBeLost };
    let at = this.#extents.length;
    while (at > 0 && this.#extents[at - 1].offset > offset) at--;
    this.#extents.splice(at, 0, extent);
    this.#cover(extent);
    return offset;
  }

  /** Enters what is in memory of all that front-ends share into the page tables (enterPages). Nothing is mapped meanwhile. */
  async enterPages(): Promise<void> {
    for (const { offset, endOffset, mayBeLost } of [...this.#extents])
      if (mayBeLost) await enterPages(this.location.address + offset, endOffset - offset);
  }

  /**
   * Puts zero pages back over what `map` placed at `offset`, over a large part of a guest a little later. No worker may use that part any
   * more, and nothing else is placed there before.
   */
  unmap(offset: number): void {
    const extent = this.#extents.find((each) => each.offset === offset && !this.#leaving.has(each));
    if (extent === undefined) throw new Error(`nothing is mapped at arena offset ${offset}`);
    const sizeBytes = extent.endOffset - offset;
    if (!extent.mayBeLost || sizeBytes < UNMAPPED_AT_ONCE_BYTES) {
      mapZeroPagesAt(this.location.address + offset, sizeBytes);
      this.#forget(extent);
      return;
    }
    this.#leaving.add(extent);
    mapZeroPagesElsewhere(this.location.address + offset, sizeBytes, () => {
      this.#leaving.delete(extent);
      this.#forget(extent);
      this.#departure?.resolve();
      this.#departure = null;
      if (this.#isReleased) this.release();
    });
  }

  /** Resolves when a part that is being unmapped is gone, and free for others; null: none is. */
  nextDeparture(): Promise<void> | null {
    if (this.#leaving.size === 0) return null;
    this.#departure ??= Promise.withResolvers();
    return this.#departure.promise;
  }

  /** The part is free for others. */
  #forget(extent: Extent): void {
    const { offset } = extent;
    const index = this.#extents.indexOf(extent);
    this.#extents.splice(index, 1);
    if (extent.mayBeLost) this.#regions.give(1);
    this.#faults?.uncover(this.location.address + offset, extent.endOffset - offset);
    // The same owner may have more within the same 2 MiB.
    for (
      let at = index - 1;
      at >= 0 && this.#extents[at].endOffset > roundDown(offset, PLACEMENT_BYTES);
      at--
    )
      this.#cover(this.#extents[at]);
    for (let at = index; at < this.#extents.length; at++) {
      if (this.#extents[at].offset >= roundUp(extent.endOffset, PLACEMENT_BYTES)) break;
      this.#cover(this.#extents[at]);
    }
  }

  /** Whether something of a part that may be lost was not there when it was touched, until it is unmapped. */
  wasLost(offset: number, sizeBytes: number): boolean {
    return this.#faults?.wasHit(this.location.address + offset, sizeBytes) ?? false;
  }

  /** Calls `onLoss` soon after something was not there when it was touched; `wasLost` tells what. */
  watchLosses(onLoss: () => void): Watch {
    return this.#faults?.watch(onLoss) ?? { close: () => {} };
  }

  #cover({ offset, endOffset, pageBytes, mayBeLost }: Extent): void {
    if (mayBeLost) this.#faults?.cover(this.location.address + offset, endOffset - offset, pageBytes);
  }

  get mappedBytes(): number {
    return this.#extents
      .filter((extent) => !this.#leaving.has(extent))
      .reduce((sum, extent) => sum + extent.endOffset - extent.offset, 0);
  }

  /** Gives the addresses back. Every view of the arena, in any thread, is dangling afterwards. */
  release(): void {
    this.#isReleased = true;
    if (this.#leaving.size > 0) return;
    releaseAddressSpace(this.#reservedAddress, this.location.sizeBytes + GIB);
  }

  #choose({ preferredOffset, sizeBytes, pageBytes }: Placement): number {
    if (preferredOffset !== null && preferredOffset % pageBytes === 0) {
      const endOffset = roundUp(preferredOffset + sizeBytes, PLACEMENT_BYTES);
      if (this.#isFree(preferredOffset, endOffset)) return preferredOffset;
    }
    // Large guests start at a multiple of 1 GiB, so that few windows (arena-view.ts) cover them.
    const alignBytes = Math.max(pageBytes, sizeBytes >= GIB ? GIB : PLACEMENT_BYTES);
    let offset = 0;
    for (const extent of this.#extents) {
      if (offset + sizeBytes <= roundDown(extent.offset, PLACEMENT_BYTES)) break;
      offset = roundUp(Math.max(offset, extent.endOffset), alignBytes);
    }
    if (offset + sizeBytes > this.location.sizeBytes) {
      throw new ArenaFullError(
        `no ${sizeBytes} bytes left in the arena of ${this.location.sizeBytes} bytes: raise the arena size`,
      );
    }
    return offset;
  }

  #isFree(offset: number, endOffset: number): boolean {
    if (offset < 0 || endOffset > this.location.sizeBytes) return false;
    return this.#extents.every((extent) => endOffset <= extent.offset || offset >= extent.endOffset);
  }
}

export function roundUp(value: number, multiple: number): number {
  return Math.ceil(value / multiple) * multiple;
}

export function roundDown(value: number, multiple: number): number {
  return Math.floor(value / multiple) * multiple;
}
