/**
 * What a split and a packed ring differ in (VIRTIO 1.3, sections 2.7 and 2.8): finding the next chains, walking
 * one, marking it used, and the two event suppressions. Everything else exists once and has a layout (ring.ts,
 * from-guest.ts, to-guest.ts). The tight loops over single plain descriptors, `gatherPlain` and `placePlain`, exist
 * for each layout, because there a call a frame would cost as much as the frame.
 *
 * Chains are taken in order and used in order, so IN_ORDER is met whether it was negotiated or not. A burst walks
 * some chains (`walk`), uses as many of them from the first on as it needs (`useWalked`), and forgets the rest
 * (`forgetWalked`). What is used becomes visible to the driver with `publish`.
 */
import type { Batch } from '../queue/batch.ts';
import { CHAIN_DESCRIPTORS_MAX, type DescriptorList } from './descriptor-list.ts';
import type { FromGuest } from './from-guest.ts';
import type { Ring } from './ring.ts';
import type { ToGuest } from './to-guest.ts';

/** Most chains walked and not yet used: a frame with MRG_RXBUF may need as many as it may have descriptors. */
export const WALKED_CHAINS_MAX = CHAIN_DESCRIPTORS_MAX;

/** Longest frame that `gatherPlain` takes: longer ones are counted as work besides (from-guest.ts). */
export const PLAIN_FRAME_BYTES_MAX = 16_384;

export interface RingLayout {
  /** Takes over the positions from QueueState's words: at attach, and when another worker may have moved them. */
  load(words: Int32Array): void;
  /** Keeps the positions in QueueState's words. */
  store(words: Int32Array): void;
  /**
   * Whether a chain waits beyond those that were walked: 1 or more, 0, or NO_SENSE when the driver's index makes none.
   * Looks at the driver's memory only when none is known.
   */
  waiting(): number;
  /** Reads the next chain into the list. Answers a RING_FAULT. Call only when one waits. */
  walk(ring: Ring, list: DescriptorList): number;
  /** Marks the first walked chain used, with so many bytes written to it. */
  useWalked(writtenBytes: number): void;
  /** To the driver: marks the first `count` walked chains used, which make a frame, each with the bytes written to it. */
  useFrame(writtenBytes: Int32Array, count: number): void;
  forgetWalked(): void;
  /** Makes what was used visible to the driver. Answers whether it wants to be signalled. */
  publish(): boolean;
  /** Asks the driver to kick for the next chain. */
  armWake(): void;
  disarmWake(): void;
  /** From the driver: describes the frames of waiting chains, as `FromGuest.gather`. Answers how many were taken. */
  gatherPlain(ring: FromGuest, batch: Batch): number;
  /**
   * To the driver: places `order[from]` up to `order[count - 1]`, until one needs more than a plain descriptor.
   * Answers the place in `order` of that one, or `count`.
   */
  placePlain(ring: ToGuest, batch: Batch, order: Int32Array, from: number, count: number): number;
}

export const NO_SENSE = -1;
