/**
 * What a driver's ring (driver-ring.ts) asks of a ring layout: where the ring lies, how a buffer is described,
 * what the device has used, and who wants to be told. A buffer is known by its id, below the ring's size; in a
 * split ring that is the index of its first descriptor. One thread's object, as the ring that has it.
 */
import type { DriverMemory } from './guest-memory.ts';

/** The device did something that a driver can tell is wrong. */
export class DeviceError extends Error {
  override name = 'DeviceError';
}

export function notOutstanding(id: number): DeviceError {
  return new DeviceError(`the device used buffer ${id}, which it does not have`);
}

export type LayoutOptions = {
  readonly memory: DriverMemory;
  /** Descriptors. */
  readonly size: number;
  readonly eventIdx: boolean;
  /** The device uses buffers in the order in which they were offered (VIRTIO 1.3, sections 2.7.9 and 2.8.9). */
  readonly inOrder: boolean;
  /** Packed: each descriptor of a chain has the buffer's id, as Linux writes it. Default: only the last, which counts. */
  readonly idInAll?: boolean;
};

/** A part of a buffer, by guest-physical address; `flags` of its own, besides those of the whole buffer. */
export type Piece = { readonly gpa: number; readonly sizeBytes: number; readonly flags?: number };

export interface DriverLayout {
  /** Offsets in guest memory of the three parts; SET_VRING_ADDR names the same places. */
  readonly descOffset: number;
  readonly driverOffset: number;
  readonly deviceOffset: number;
  /** Descriptors that neither side has in use. */
  readonly freeCount: number;
  /** Buffers that were offered and not taken back by `takeUsed` yet. */
  readonly outstandingCount: number;
  /** Bytes that the device wrote to the used buffer last taken. */
  readonly usedBytes: number;
  /** In order: no mark of its own came with the buffer, so it counts as written completely. */
  readonly usedIsWhole: boolean;

  /** A free buffer's id, with one descriptor; call only when `freeCount` is not 0, and offer in this order. */
  takeId(): number;
  /** Offers a buffer of one descriptor; the device sees it after `publish`. The address as two int32 halves. */
  offer(id: number, gpaLo: number, gpaHi: number, sizeBytes: number, flags: number): void;
  /** Offers a buffer of several descriptors, which must be free, one of them by `takeId`. Each has `flags` and its own. */
  offerChain(id: number, pieces: readonly Piece[], flags: number): void;
  /** Fills an indirect table; its first byte is the view's. */
  writeTable(table: DataView, pieces: readonly Piece[], flags: number): void;
  /** Shows the device what was offered; answers whether it asks to be kicked for that. */
  publish(): boolean;
  /** Used buffers that wait. @throws DeviceError: what the device wrote makes no sense */
  usedWaiting(): number;
  /** Takes the next used buffer; call only when one waits. Answers its id, which may be any number. */
  takeUsed(): number;
  /** Gives back the descriptors of a buffer that was taken, in the same order if the ring is in order. */
  free(id: number): void;
  /** As `free` and `takeId` in one, for a buffer of one descriptor. */
  exchange(id: number): number;
  /** Asks for an interrupt at the next used buffer. */
  arm(): void;
  /** Asks for no interrupts. */
  disarm(): void;
  /**
   * Where a back-end that knows nothing of the ring goes on: after the last buffer that was used. As
   * SET_VRING_BASE carries it: 16 bits of a split ring, 32 of a packed one.
   */
  base(): number;
  /** Makes a ring that was not used yet start at another base, as after a migration. */
  startAt(base: number): void;
}
