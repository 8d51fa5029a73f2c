/**
 * Which pages of a guest were written to, for a front-end that migrates it (vhost-user.rst, "Migration"): a bit for each
 * page of 4 KiB by guest-physical address, in memory that the front-end and other threads change too. Whoever writes to a
 * guest by guest-writes.ts marks what he wrote here, *after* it is written: the front-end takes the bits first and copies
 * the pages then, so a page that was copied before the write is copied again.
 *
 * A bit that is set already is left alone, which spares nearly all atomic operations; but it must be looked at after
 * what was written is visible to others: `fence`, once for many pages (docs/architecture.md, "Memory order").
 *
 * A ring that is not logged has none of this, and pays for one look a burst. One thread's object; allocates nothing after
 * its construction.
 */
import * as NET from '../../protocol/virtio/net.ts';
import { PeerSignal } from '../host/peer-signal.ts';
import type { ArenaView } from '../memory/arena-view.ts';
import { type GpaMap, type GpaTranslator, RANGE_WORDS } from '../memory/gpa-translator.ts';
import { loadOrdered32 } from '../memory/ordered.ts';
import { WINDOW_BYTES } from '../memory/window.ts';
import type { Batch } from '../queue/batch.ts';
import * as BATCH from '../queue/batch.ts';
import { CHAIN_DESCRIPTORS_MAX } from './descriptor-list.ts';

// V8 folds a module's own constants into a loop, and loads imported ones again at each use: some 3 ns a frame.
const { NET_HEADER_BYTES } = NET;
const { AT_BYTES, RECORD_SHIFT } = BATCH;

const PAGE_SHIFT = 12;
const PAGE_MASK = 0xfff;
const PAGE_BYTES = 1 << PAGE_SHIFT;
/** Pages are numbers below 2^30, so the upper half of an address has so many values. */
const GPA_HI_END = 1 << 10;
export const LOG_PAGES_MAX = 2 ** 30;

/** Pages `firstPage` to `lastPage`. */
export type PageRange = { readonly firstPage: number; readonly lastPage: number };

/** Where the pages that are written for a ring are marked; plain data that can be posted. */
export type RingLog = {
  /** In the arena, in bytes; up to LOG_PAGES_MAX bits. */
  readonly offset: number;
  readonly sizeBytes: number;
  /** The parts of the ring itself that the device writes to. */
  readonly ownPages: readonly PageRange[];
  /** Signalled after pages were marked; -1: none. */
  readonly signalFd: number;
  /**
   * Of a ring behind an IOMMU, whose descriptors hold no guest-physical addresses: where the guest's memory lies, by which the
   * page of what is written is found.
   */
  readonly regions?: GpaMap;
};

export class DirtyLog {
  /** Bit `b` of word `w` is page 32 w + b; `shift` pages later where the log does not begin at a word. */
  declare private readonly words: Int32Array;
  declare private readonly shift: number;
  declare private readonly pageEnd: number;
  /** Word and bits of the ring itself, in turn. */
  declare private readonly own: Int32Array;
  declare private readonly fenceWord: Int32Array;
  declare private readonly signal: PeerSignal | null;
  private hasMarked = false;
  /** First and last page of what is about to be written, in turn. */
  declare private readonly noted: Int32Array;
  private notedCount = 0;
  /** What is written is marked by where it lies, and not by its address. */
  declare readonly isByPlace: boolean;
  /** Then: first arena offset, end, and guest address minus arena offset of each region. */
  declare private readonly regions: Float64Array;

  constructor(arena: ArenaView, { offset, sizeBytes, ownPages, signalFd, regions }: RingLog) {
    this.isByPlace = regions !== undefined;
    this.regions = Float64Array.from(
      (regions ?? []).flatMap(({ start, end, arenaOffset }) => [
        arenaOffset,
        arenaOffset + end - start,
        start - arenaOffset,
      ]),
    );
    const lead = offset % 4;
    this.words = new Int32Array(arena.buffer, offset - lead, Math.ceil((lead + sizeBytes) / 4));
    this.shift = 8 * lead;
    this.pageEnd = Math.min(8 * sizeBytes, LOG_PAGES_MAX);
    this.fenceWord = new Int32Array(1);
    this.signal = signalFd < 0 ? null : new PeerSignal(signalFd);
    this.noted = new Int32Array(2 * CHAIN_DESCRIPTORS_MAX);
    this.own = this.bitsOf(ownPages);
  }

  /** Control plane: allocates. */
  private bitsOf(ranges: readonly PageRange[]): Int32Array {
    const bits = new Map<number, number>();
    for (const { firstPage, lastPage } of ranges) {
      for (let page = firstPage; page <= Math.min(lastPage, this.pageEnd - 1); page++) {
        const at = page + this.shift;
        bits.set(at >> 5, (bits.get(at >> 5) ?? 0) | (1 << (at & 31)));
      }
    }
    return Int32Array.from([...bits].flat());
  }

  /** What was written to the ring itself: used entries or descriptors, event suppression. */
  markOwn(): void {
    const { own } = this;
    this.fence();
    for (let i = 0; i < own.length; i += 2) this.mark(own[i], own[i + 1]);
    this.tell();
  }

  /** Whole ranges, of which it is not known what was written to. Control plane. */
  markRanges(ranges: readonly PageRange[]): void {
    this.fence();
    for (const { firstPage, lastPage } of ranges) {
      const last = Math.min(lastPage, this.pageEnd - 1) + this.shift;
      for (let bit = firstPage + this.shift; bit <= last; bit = (bit | 31) + 1) {
        const from = -1 << (bit & 31);
        this.mark(bit >> 5, bit >> 5 === last >> 5 ? from & (-1 >>> (31 - (last & 31))) : from);
      }
    }
    this.tell();
  }

  /** A stretch of the guest's memory, by an address whose halves are given, is about to be written; see `markNoted`. */
  note(gpaLo: number, gpaHi: number, sizeBytes: number): void {
    if (this.isByPlace || gpaHi >>> 0 >= GPA_HI_END || sizeBytes <= 0) return;
    const first = (gpaHi << (32 - PAGE_SHIFT)) | (gpaLo >>> PAGE_SHIFT);
    const at = this.notedCount;
    this.noted[at] = first;
    this.noted[at + 1] = first + (((gpaLo & PAGE_MASK) + sizeBytes - 1) >> PAGE_SHIFT);
    this.notedCount = at + 2;
  }

  /** It is not written after all. */
  forgetNoted(): void {
    this.notedCount = 0;
  }

  /** It is written. */
  markNoted(): void {
    const { noted, notedCount } = this;
    this.fence();
    for (let i = 0; i < notedCount; i += 2) {
      for (let page = noted[i]; page <= noted[i + 1] && page < this.pageEnd; page++) {
        const at = page + this.shift;
        this.mark(at >> 5, 1 << (at & 31));
      }
    }
    this.notedCount = 0;
  }

  /** A stretch of the arena is written. */
  markPlace(offset: number, sizeBytes: number): void {
    const { regions } = this;
    this.fence();
    for (let at = 0; at < regions.length; at += RANGE_WORDS) {
      const from = Math.max(offset, regions[at]);
      const to = Math.min(offset + sizeBytes, regions[at + 1]);
      if (from >= to) continue;
      const gpa = from + regions[at + 2];
      const end = Math.min(this.pageEnd, Math.floor((gpa + (to - from) - 1) / PAGE_BYTES) + 1);
      for (let page = Math.floor(gpa / PAGE_BYTES); page < end; page++) {
        const bit = page + this.shift;
        this.mark(bit >> 5, 1 << (bit & 31));
      }
    }
  }

  /**
   * Frames that a tight loop wrote, each behind a header of twelve bytes at `tags.placedAt`, all in the piece of memory
   * that the translator remembers.
   */
  markPlaced(translator: GpaTranslator, batch: Batch, order: Int32Array, from: number, end: number): void {
    if (this.isByPlace) {
      this.markFrames(translator.hitWindow, batch, order, from, end);
      return;
    }
    if (translator.hitHi >>> 0 >= GPA_HI_END) return;
    const { words } = this;
    const { records } = batch;
    const { placedAt } = batch.tags;
    const hitLo = translator.hitLo | 0;
    const reachBytes = (batch.bytesMax + NET_HEADER_BYTES - 1) | 0;
    const bitEnd = (this.pageEnd + this.shift) | 0;
    const firstBit = (((translator.hitHi << (32 - PAGE_SHIFT)) | (hitLo >>> PAGE_SHIFT)) + this.shift) | 0;
    // Where the piece's first page would begin.
    const pageIndex = (translator.hitIndex - (hitLo & PAGE_MASK)) | 0;
    let word = 0;
    let bits = 0;
    this.fence();
    for (let k = from | 0; k < end; k++) {
      const start = (placedAt[k] - pageIndex) | 0;
      let at = (firstBit + (start >> PAGE_SHIFT)) | 0;
      let last = at;
      // Most frames lie in one page, and then it does not matter how long they are.
      if (((start & PAGE_MASK) + reachBytes) >> PAGE_SHIFT !== 0) {
        const frameBytes = records[(order[k] << RECORD_SHIFT) + AT_BYTES];
        last = (firstBit + ((start + frameBytes + NET_HEADER_BYTES - 1) >> PAGE_SHIFT)) | 0;
      }
      if (last >= bitEnd) last = bitEnd - 1;
      for (; at <= last; at++) {
        if (at >> 5 !== word) {
          if (bits !== 0 && (loadOrdered32(words, word) & bits) !== bits) this.mark(word, bits);
          word = at >> 5;
          bits = 0;
        }
        bits |= 1 << at;
      }
    }
    if (bits !== 0) this.mark(word, bits);
  }

  private tell(): void {
    if (this.hasMarked && this.signal !== null) this.signal.send();
    this.hasMarked = false;
  }

  private markFrames(window: number, batch: Batch, order: Int32Array, from: number, end: number): void {
    const { placedAt } = batch.tags;
    for (let k = from; k < end; k++) {
      const frameBytes = batch.records[(order[k] << RECORD_SHIFT) + AT_BYTES];
      this.markPlace(window * WINDOW_BYTES + placedAt[k], frameBytes + NET_HEADER_BYTES);
    }
  }

  /** Neighbours of a page are marked by others at the same time, and the front-end takes marks away. */
  private mark(word: number, bits: number): void {
    const { words } = this;
    if ((loadOrdered32(words, word) & bits) === bits) return;
    Atomics.or(words, word, bits);
    this.hasMarked = true;
  }

  /** All that was written before is visible to others before anything is read after. */
  private fence(): void {
    Atomics.store(this.fenceWord, 0, 0);
  }
}
