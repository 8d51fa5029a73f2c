/**
 * A packed ring (VIRTIO 1.3, section 2.8): one ring of descriptors that the driver makes available and we mark used
 * in place, told apart by wrap counters, and two event suppression structures. One thread's object.
 *
 * We use chains in the order in which they came, so the used position is the available one whenever nothing is in
 * our hands. Of what one burst uses, the first descriptor's flags are written last (`publish`): the driver looks at
 * descriptors in order, so it sees all of the burst or nothing of it. What a burst does is noted first in the ring's
 * record (../ring-record.ts), some words a burst, so that whoever comes after a sudden end can finish it (recovery.ts).
 */
import {
  EVENT_DESC,
  EVENT_DISABLE,
  EVENT_ENABLE,
  EVENT_FLAGS_MASK,
  WRAP_COUNTER,
} from '../../../protocol/virtio/packed-ring.ts';
import { DESC_F_WRITE } from '../../../protocol/virtio/split-ring.ts';
import type { ArenaView } from '../../memory/arena-view.ts';
import { loadOrdered16, loadOrdered32 } from '../../memory/ordered.ts';
import type { Batch } from '../../queue/batch.ts';
import { STATE_AVAIL_NEXT, STATE_USED_NEXT } from '../../queue/state.ts';
import type { RingAttachment } from '../attachment.ts';
import type { DescriptorList } from '../descriptor-list.ts';
import type { FromGuest } from '../from-guest.ts';
import {
  publishWord16,
  publishWord32,
  writeUsedDescriptor,
  writeWord16,
  writeWord32,
} from '../guest-writes.ts';
import { type RingLayout, WALKED_CHAINS_MAX } from '../layout.ts';
import type { Ring } from '../ring.ts';
import * as RECORD from '../ring-record.ts';
import { StandingWords } from '../ring-record.ts';
import type { ToGuest } from '../to-guest.ts';
import { walkChain } from './chain.ts';
import { gatherPlain } from './gather.ts';
import { InflightWords } from './inflight-words.ts';
import { markRead } from './mark-read.ts';
import { availableBits, OWNER_BITS, usedBits } from './owner-bits.ts';
import { placePlain } from './place.ts';

// V8 folds a module's own constants into a loop, and loads imported ones again at each use.
const { FIRST_BYTES, FIRST_WORD, OPEN, OPEN_BIT, PLAIN_BIT, STAND, standWord } = RECORD;

const WRITTEN_BIT = DESC_F_WRITE << 16;
/** 16-bit words of an event suppression structure. */
const OFF_WRAP = 0;
const FLAGS = 1;
const NOTHING = -1;

export class PackedLayout implements RingLayout {
  declare readonly size: number;
  /** Four words a descriptor: address low, address high, length, id | flags << 16. */
  declare readonly desc: Int32Array;
  declare private readonly driver: Uint16Array;
  declare private readonly device: Uint16Array;
  declare private readonly eventIdx: boolean;
  declare readonly inOrder: boolean;
  /** Next descriptor to take, and the wrap counter there, 0 or 1. */
  availAt = 0;
  availWrap = 1;
  /** Next descriptor to mark used. */
  usedAt = 0;
  usedWrap = 1;
  /** What of a burst is published last: place and fourth word of its first used descriptor. */
  firstAt = NOTHING;
  firstWord = 0;
  private publishedAt = 0;
  /** Chains that `gather` took and `publish` marks used: their ids, and their descriptors in the ring. */
  declare readonly takenIds: Int32Array;
  declare readonly takenSlots: Int32Array;
  takenCount = 0;
  declare private readonly walkedIds: Int32Array;
  declare private readonly walkedSlots: Int32Array;
  private walkedCount = 0;
  private walkedUsed = 0;
  /** Where the next chain to walk begins. */
  private walkAt = 0;
  private walkWrap = 1;
  /** From the guest nothing is written, and marking waits until the frames were copied. */
  declare readonly isFromGuest: boolean;
  /** Of the ring's record: where it stands, and the bytes written to the chains of `walkedIds`. */
  declare private readonly standing: Int32Array;
  declare private readonly walkedBytes: Int32Array;
  /** Null: the front-end does not keep where the ring stands. */
  declare private readonly inflight: InflightWords | null;

  constructor(arena: ArenaView, attachment: RingAttachment) {
    const { size } = attachment;
    this.size = size;
    this.eventIdx = attachment.eventIdx;
    this.inOrder = attachment.inOrder;
    this.isFromGuest = attachment.direction === 'ingress';
    this.desc = new Int32Array(arena.buffer, attachment.descOffset, size * 4);
    this.driver = new Uint16Array(arena.buffer, attachment.driverOffset, 2);
    this.device = new Uint16Array(arena.buffer, attachment.deviceOffset, 2);
    const { inflightOffset } = attachment;
    this.inflight = inflightOffset === undefined ? null : new InflightWords(arena, inflightOffset);
    // What is being used lies in the record: from the guest a burst, to the guest a frame.
    const { words, ids, slots, bytes } = new StandingWords(arena, attachment.recordOffset);
    this.standing = words;
    this.walkedBytes = bytes;
    this.takenIds = this.isFromGuest ? ids : new Int32Array(0);
    this.takenSlots = this.isFromGuest ? slots : new Int32Array(0);
    this.walkedIds = this.isFromGuest ? new Int32Array(WALKED_CHAINS_MAX) : ids;
    this.walkedSlots = this.isFromGuest ? new Int32Array(WALKED_CHAINS_MAX) : slots;
  }

  load(words: Int32Array): void {
    const avail = words[STATE_AVAIL_NEXT];
    const used = words[STATE_USED_NEXT];
    this.availAt = avail & ~WRAP_COUNTER;
    this.availWrap = avail >> 15;
    this.usedAt = used & ~WRAP_COUNTER;
    this.usedWrap = used >> 15;
    this.publishedAt = this.usedAt;
    this.firstAt = NOTHING;
    this.takenCount = 0;
    this.forgetWalked();
  }

  store(words: Int32Array): void {
    words[STATE_AVAIL_NEXT] = this.availAt | (this.availWrap << 15);
    words[STATE_USED_NEXT] = this.usedAt | (this.usedWrap << 15);
  }

  waiting(): number {
    const word = loadOrdered32(this.desc, (this.walkAt << 2) + 3);
    return (word & OWNER_BITS) === availableBits(this.walkWrap) ? 1 : 0;
  }

  walk(ring: Ring, list: DescriptorList): number {
    const fault = walkChain(ring, this, this.walkAt, list);
    const at = this.walkedCount++;
    this.walkedIds[at] = this.chainId;
    this.walkedSlots[at] = this.chainSlots;
    this.walkAt += this.chainSlots;
    if (this.walkAt >= this.size) {
      this.walkAt -= this.size;
      this.walkWrap ^= 1;
    }
    return fault;
  }

  /** Of the chain that `walkChain` walked last: its id, and how many descriptors of the ring it has. */
  chainId = 0;
  chainSlots = 0;

  useWalked(writtenBytes: number): void {
    if (this.isFromGuest) {
      this.#useNext(0);
      return;
    }
    this.walkedBytes[this.walkedUsed] = writtenBytes;
    this.#useWritten(1);
  }

  useFrame(writtenBytes: Int32Array, count: number): void {
    for (let chain = 0; chain < count; chain++) this.walkedBytes[chain] = writtenBytes[chain];
    this.#useWritten(count);
  }

  /** The next walked chains, which make a frame: after a sudden end all of them are used or none. */
  #useWritten(count: number): void {
    const { standing, walkedBytes } = this;
    const from = this.walkedUsed;
    standing[STAND] = standWord(this.usedAt | (this.usedWrap << 15), count, from);
    for (let chain = 0; chain < count; chain++) this.#useNext(walkedBytes[from + chain]);
    standing[STAND] = standWord(this.usedAt | (this.usedWrap << 15), 0, 0);
  }

  #useNext(writtenBytes: number): void {
    const at = this.walkedUsed++;
    const slots = this.walkedSlots[at];
    this.availAt += slots;
    if (this.availAt >= this.size) {
      this.availAt -= this.size;
      this.availWrap ^= 1;
    }
    if (this.isFromGuest) {
      this.takenIds[this.takenCount] = this.walkedIds[at];
      this.takenSlots[this.takenCount++] = slots;
    } else {
      this.#markUsed(this.walkedIds[at], slots, writtenBytes, WRITTEN_BIT);
    }
    if (this.walkedUsed === this.walkedCount) this.forgetWalked();
  }

  forgetWalked(): void {
    this.walkedCount = 0;
    this.walkedUsed = 0;
    this.walkAt = this.availAt;
    this.walkWrap = this.availWrap;
  }

  publish(): boolean {
    if (this.takenCount !== 0) this.#useTaken();
    if (this.firstAt === NOTHING) return false;
    const { standing } = this;
    const position = this.usedAt | (this.usedWrap << 15);
    if (!this.isFromGuest) standing[STAND] = position;
    // The flag USED of the first descriptor's word is the wrap counter there.
    if (this.inflight !== null) this.inflight.begin(this.firstAt | ((this.firstWord >>> 31) << 15), position);
    // All of the burst is visible with it, and it is before the driver's wish is read.
    publishWord32(this.desc, (this.firstAt << 2) + 3, this.firstWord);
    if (this.isFromGuest) standing[STAND] = position;
    else standing[OPEN] = 0;
    if (this.inflight !== null) this.inflight.end(position);
    this.firstAt = NOTHING;
    const publishedBefore = this.publishedAt;
    this.publishedAt = this.usedAt;
    return this.#wantsSignal(publishedBefore);
  }

  /** Section 2.8.14 and, for the event suppression structures, 2.8.10. */
  #wantsSignal(publishedBefore: number): boolean {
    const flags = loadOrdered16(this.driver, FLAGS) & EVENT_FLAGS_MASK;
    if (flags === EVENT_DISABLE) return false;
    if (flags !== EVENT_DESC || !this.eventIdx) return true;
    const event = loadOrdered16(this.driver, OFF_WRAP);
    const { size } = this;
    // All three on one line that ends at the used position.
    const before = publishedBefore < this.usedAt ? publishedBefore : publishedBefore - size;
    const wanted = (event & ~WRAP_COUNTER) - (event >> 15 === this.usedWrap ? 0 : size);
    return wanted >= before && wanted < this.usedAt;
  }

  armWake(): void {
    if (!this.eventIdx) {
      publishWord16(this.device, FLAGS, EVENT_ENABLE);
      return;
    }
    writeWord16(this.device, OFF_WRAP, this.availAt | (this.availWrap << 15));
    publishWord16(this.device, FLAGS, EVENT_DESC);
  }

  disarmWake(): void {
    writeWord16(this.device, FLAGS, EVENT_DISABLE);
  }

  gatherPlain(ring: FromGuest, batch: Batch): number {
    return gatherPlain(this, ring, batch);
  }

  placePlain(ring: ToGuest, batch: Batch, order: Int32Array, from: number, count: number): number {
    return placePlain(this, ring, batch, order, from, count);
  }

  /** Marks what `gather` took; with IN_ORDER the last id says it for all (section 2.8.8). */
  #useTaken(): void {
    const { takenIds, takenSlots, takenCount } = this;
    this.takenCount = 0;
    this.standing[STAND] = standWord(this.usedAt | (this.usedWrap << 15), takenCount, 0);
    if (!this.inOrder) {
      markRead(this, takenCount);
      return;
    }
    let slots = 0;
    for (let i = 0; i < takenCount; i++) slots += takenSlots[i];
    this.#markUsed(takenIds[takenCount - 1], slots, 0, 0);
  }

  /** A burst may begin at a plain descriptor of so many bytes; its length is overwritten before it is marked. */
  noteBurst(at: number, wrap: number, bytes: number): void {
    const { standing } = this;
    standing[FIRST_BYTES] = bytes;
    standing[OPEN] = at | (wrap << 15) | OPEN_BIT | PLAIN_BIT;
  }

  /** The first descriptor that a burst uses is marked only with `publish`. */
  openBurst(at: number, wrap: number, word: number, writtenBytes: number): void {
    const { standing } = this;
    this.firstAt = at;
    this.firstWord = word;
    standing[FIRST_WORD] = word;
    standing[FIRST_BYTES] = writtenBytes;
    standing[OPEN] = at | (wrap << 15) | OPEN_BIT;
    writeWord32(this.desc, (at << 2) + 2, writtenBytes);
  }

  #markUsed(id: number, slots: number, writtenBytes: number, written: number): void {
    const word = id | usedBits(this.usedWrap) | written;
    if (this.firstAt === NOTHING) this.openBurst(this.usedAt, this.usedWrap, word, writtenBytes);
    else writeUsedDescriptor(this.desc, this.usedAt << 2, writtenBytes, word);
    this.usedAt += slots;
    // More than once where a driver, against the rules, had us take more descriptors in a burst than the ring has.
    while (this.usedAt >= this.size) {
      this.usedAt -= this.size;
      this.usedWrap ^= 1;
    }
  }
}
