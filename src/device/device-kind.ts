/**
 * The contract between a virtio device of any kind (device.ts: rings, features, memory) and what makes it a network
 * device (net/) or, one day, a block device. device.ts asks all that it cannot know by itself here. Main thread.
 */
import type { AddressMap } from '../memory/gpa-translator.ts';
import type { AddressMiss } from '../memory/iotlb.ts';
import type { Direction } from '../queue/contract.ts';
import type { RingAttachment } from '../vring/attachment.ts';
import type { RingLog } from '../vring/dirty-log.ts';

/** What an attachment says of a ring that only the kind knows. */
export type KindAttachment = Pick<RingAttachment, 'direction' | 'mergeable' | 'headerBytes' | 'asks'>;

/** A ring that the device serves by itself, on the main thread, instead of the workers. */
export interface OwnQueue {
  /** The driver is signalled once afterwards; a signal may have gone to the old descriptor. */
  setCallFd(fd: number): void;
  /** The guest has more memory from now on. */
  setMemory(map: AddressMap): void;
  /** What is written to the guest from now on is marked there; null: nowhere. */
  setLog(log: RingLog | null): void;
  /** Afterwards nothing of the ring is touched. */
  close(): void;
}

export interface DeviceKind {
  readonly offeredFeatures: bigint;
  readonly offeredProtocolFeatures: bigint;
  /** Rings that the front-end may name. */
  readonly ringCount: number;
  /** What to do when the front-end wants more, as part of a sentence. */
  readonly ringCountHint: string;
  directionOf(ringIndex: number): Direction;
  /** What else belongs in the ring's attachment under the negotiated `features`. */
  attachmentOf(ringIndex: number, features: bigint): KindAttachment;
  /** Whether the ring is one for `openOwnQueue`. It may depend on which other rings are started. */
  isOwnQueue(ringIndex: number, features: bigint, isStarted: (ringIndex: number) => boolean): boolean;
  /**
   * Serves the ring. `isNew`: nothing was used of it yet, so its driver has just begun; otherwise it goes on.
   * `onFault` is called when it stops because of its driver, `onMiss` when it waits for translations.
   */
  openOwnQueue(
    attachment: RingAttachment,
    isNew: boolean,
    onFault: () => void,
    onMiss: (misses: readonly AddressMiss[]) => void,
  ): OwnQueue;
  /** Whether the driver uses this ring of those that the workers would serve. */
  isInUse(ringIndex: number): boolean;
  /** These features are agreed on; no ring runs with others. Resolves when the workers follow. */
  negotiated(features: bigint): Promise<void>;
  /** The driver starts afresh: forget what it said by its own queue. */
  driverWasReset(): void;
}
