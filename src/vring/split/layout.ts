/**
 * A split ring (VIRTIO 1.3, section 2.7): the descriptor table and the avail ring that the driver writes, the used
 * ring that we write, running indices, and both event suppressions. One thread's object.
 */
import {
  AVAIL_ENTRIES,
  AVAIL_F_NO_INTERRUPT,
  RING_IDX,
  USED_ENTRIES,
  USED_F_NO_NOTIFY,
} from '../../../protocol/virtio/split-ring.ts';
import type { ArenaView } from '../../memory/arena-view.ts';
import { loadOrdered16 } from '../../memory/ordered.ts';
import type { Batch } from '../../queue/batch.ts';
import { STATE_AVAIL_NEXT, STATE_USED_NEXT } from '../../queue/state.ts';
import type { RingAttachment } from '../attachment.ts';
import type { DescriptorList } from '../descriptor-list.ts';
import type { FromGuest } from '../from-guest.ts';
import { publishWord16, writeUsedEntry, writeWord16 } from '../guest-writes.ts';
import { NO_SENSE, type RingLayout, WALKED_CHAINS_MAX } from '../layout.ts';
import type { Ring } from '../ring.ts';
import type { ToGuest } from '../to-guest.ts';
import { walkChain } from './chain.ts';
import { gatherPlain } from './gather.ts';
import { placePlain } from './place.ts';

export class SplitLayout implements RingLayout {
  declare readonly size: number;
  declare readonly mask: number;
  /** Four words a descriptor: address low, address high, length, flags | next << 16. */
  declare readonly desc: Int32Array;
  declare readonly avail: Uint16Array;
  declare private readonly used16: Uint16Array;
  declare readonly used32: Int32Array;
  declare private readonly eventIdx: boolean;
  /** Running 16-bit indices: the next chain to use, how far the driver has come, the next used entry. */
  availNext = 0;
  availSeen = 0;
  usedNext = 0;
  private usedPublished = 0;
  /** Heads of the chains that were walked from `availNext` on. */
  declare private readonly walkedHeads: Int32Array;
  private walkedCount = 0;
  private walkedUsed = 0;

  constructor(arena: ArenaView, attachment: RingAttachment) {
    const { size } = attachment;
    this.size = size;
    this.mask = size - 1;
    this.eventIdx = attachment.eventIdx;
    this.desc = new Int32Array(arena.buffer, attachment.descOffset, size * 4);
    this.avail = new Uint16Array(arena.buffer, attachment.driverOffset, 3 + size);
    this.used16 = new Uint16Array(arena.buffer, attachment.deviceOffset, 3 + size * 4);
    this.used32 = new Int32Array(arena.buffer, attachment.deviceOffset, USED_ENTRIES + size * 2);
    this.walkedHeads = new Int32Array(WALKED_CHAINS_MAX);
  }

  load(words: Int32Array): void {
    this.availNext = words[STATE_AVAIL_NEXT];
    this.availSeen = this.availNext;
    this.usedNext = words[STATE_USED_NEXT];
    this.usedPublished = this.usedNext;
    this.forgetWalked();
  }

  store(words: Int32Array): void {
    words[STATE_AVAIL_NEXT] = this.availNext;
    words[STATE_USED_NEXT] = this.usedNext;
  }

  waiting(): number {
    const walked = this.walkedCount - this.walkedUsed;
    const known = ((this.availSeen - this.availNext) & 0xffff) - walked;
    if (known > 0) return known;
    // Seen with it: all that the driver wrote before it moved the index.
    this.availSeen = loadOrdered16(this.avail, RING_IDX);
    const waiting = (this.availSeen - this.availNext) & 0xffff;
    if (waiting <= this.size) return waiting - walked;
    this.availSeen = this.availNext;
    return NO_SENSE;
  }

  walk(ring: Ring, list: DescriptorList): number {
    const ahead = this.walkedCount - this.walkedUsed;
    const head = this.avail[AVAIL_ENTRIES + ((this.availNext + ahead) & this.mask)];
    this.walkedHeads[this.walkedCount++] = head;
    return walkChain(ring, this, head, list);
  }

  useWalked(writtenBytes: number): void {
    const head = this.walkedHeads[this.walkedUsed++];
    if (this.walkedUsed === this.walkedCount) this.forgetWalked();
    writeUsedEntry(this.used32, USED_ENTRIES + ((this.usedNext & this.mask) << 1), head, writtenBytes);
    this.usedNext = (this.usedNext + 1) & 0xffff;
    this.availNext = (this.availNext + 1) & 0xffff;
  }

  useFrame(writtenBytes: Int32Array, count: number): void {
    for (let chain = 0; chain < count; chain++) this.useWalked(writtenBytes[chain]);
  }

  forgetWalked(): void {
    this.walkedCount = 0;
    this.walkedUsed = 0;
  }

  publish(): boolean {
    if (this.usedNext === this.usedPublished) return false;
    const publishedBefore = this.usedPublished;
    this.usedPublished = this.usedNext;
    // Entries are visible before the index, and the index before the driver's wish is read.
    publishWord16(this.used16, RING_IDX, this.usedNext);
    return this.#wantsSignal(publishedBefore);
  }

  /** Section 2.7.7: by flag, or with EVENT_IDX when `used_event` is one of the entries just published. */
  #wantsSignal(publishedBefore: number): boolean {
    if (!this.eventIdx) return (loadOrdered16(this.avail, 0) & AVAIL_F_NO_INTERRUPT) === 0;
    const usedEvent = loadOrdered16(this.avail, AVAIL_ENTRIES + this.size);
    return ((this.usedNext - usedEvent - 1) & 0xffff) < ((this.usedNext - publishedBefore) & 0xffff);
  }

  /** Section 2.7.10. */
  armWake(): void {
    if (this.eventIdx) publishWord16(this.used16, AVAIL_ENTRIES + this.size * 4, this.availNext);
    else publishWord16(this.used16, 0, 0);
  }

  /** With EVENT_IDX an event index that lies behind asks for nothing, and flags must stay zero. */
  disarmWake(): void {
    writeWord16(this.used16, 0, this.eventIdx ? 0 : USED_F_NO_NOTIFY);
  }

  gatherPlain(ring: FromGuest, batch: Batch): number {
    return gatherPlain(this, ring, batch);
  }

  placePlain(ring: ToGuest, batch: Batch, order: Int32Array, from: number, count: number): number {
    return placePlain(this, ring, batch, order, from, count);
  }
}
