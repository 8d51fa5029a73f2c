/**
 * The driver's side of a ring as far as a benchmark needs it: every descriptor is written once, and a lap offers again
 * all that the device has used. Trusts the device.
 */
import { DESC_F_AVAIL, DESC_F_USED } from '../../protocol/virtio/packed-ring.ts';
import { DESC_F_NEXT, DESC_F_WRITE } from '../../protocol/virtio/split-ring.ts';
import type { RingAttachment } from '../../src/vring/attachment.ts';

export class FakeRing {
  readonly #size: number;
  readonly #isPacked: boolean;
  readonly #desc: Int32Array;
  readonly #avail: Uint16Array;
  readonly #used: Uint16Array;
  /** Packed: length, and id with flags, of each descriptor as the driver wrote it; the device overwrites them. */
  readonly #lengths: Int32Array;
  readonly #words: Int32Array;
  /** Packed: the next descriptor to offer, the wrap counter there, and how many were never offered. */
  #at = 0;
  #wrap = 1;
  #fresh: number;

  constructor(buffer: ArrayBuffer, { layout, size, descOffset, driverOffset, deviceOffset }: RingAttachment) {
    this.#size = size;
    this.#fresh = size;
    this.#isPacked = layout === 'packed';
    this.#desc = new Int32Array(buffer, descOffset, size * 4);
    this.#avail = new Uint16Array(buffer, driverOffset, 3 + size);
    this.#used = new Uint16Array(buffer, deviceOffset, 2);
    this.#lengths = new Int32Array(size);
    this.#words = new Int32Array(size);
    // Nobody is to be interrupted: the packed ring's flags lie in the second word, the split ring's in the first.
    this.#avail[this.#isPacked ? 1 : 0] = 1;
  }

  describe(slot: number, gpa: number, sizeBytes: number, isWritable: boolean, hasNext: boolean): void {
    const flags = (isWritable ? DESC_F_WRITE : 0) | (hasNext ? DESC_F_NEXT : 0);
    this.#desc[4 * slot] = gpa;
    this.#desc[4 * slot + 1] = 0;
    this.#desc[4 * slot + 2] = sizeBytes;
    this.#lengths[slot] = sizeBytes;
    if (this.#isPacked) {
      this.#words[slot] = slot | (flags << 16);
      return;
    }
    this.#desc[4 * slot + 3] = flags | (hasNext ? (slot + 1) << 16 : 0);
    this.#avail[2 + slot] = slot;
    this.#words[slot] = hasNext ? 1 : 0;
  }

  /** Offers all descriptors that the device does not have; chains of two are one entry of a split ring. */
  offerAll(): void {
    if (this.#isPacked) {
      while (this.#fresh > 0 || this.#isUsed(this.#at)) this.#offerNext();
      return;
    }
    const isInTwo = this.#words[0] === 1;
    if (isInTwo) for (let i = 0; i < this.#size; i++) this.#avail[2 + i] = (2 * i) % this.#size;
    this.#avail[1] = this.#used[1] + (isInTwo ? this.#size / 2 : this.#size);
  }

  /** Whether the device has used what was offered there in the round before. */
  #isUsed(slot: number): boolean {
    const owner = (this.#wrap === 1 ? 0 : DESC_F_AVAIL | DESC_F_USED) << 16;
    return (this.#desc[4 * slot + 3] & ((DESC_F_AVAIL | DESC_F_USED) << 16)) === owner;
  }

  #offerNext(): void {
    const slot = this.#at;
    const owner = (this.#wrap === 1 ? DESC_F_AVAIL : DESC_F_USED) << 16;
    this.#desc[4 * slot + 2] = this.#lengths[slot];
    this.#desc[4 * slot + 3] = this.#words[slot] | owner;
    if (this.#fresh > 0) this.#fresh--;
    this.#at = (slot + 1) % this.#size;
    if (this.#at === 0) this.#wrap ^= 1;
  }
}
