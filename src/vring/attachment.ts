/** A virtqueue as a port attaches it to the data path; the device (src/device/) makes one for each ring. */
import type { AddressMap } from '../memory/gpa-translator.ts';
import type { QueueAttachmentBase } from '../queue/contract.ts';
import type { RingLog } from './dirty-log.ts';

export type RingLayoutKind = 'split' | 'packed';

/** Plain data that can be posted. Offsets are in the arena. */
export type RingAttachment = QueueAttachmentBase & {
  readonly kind: 'ring';
  readonly layout: RingLayoutKind;
  /** Descriptors; a power of two where the layout is split. */
  readonly size: number;
  /** The descriptor table, or the descriptor ring. */
  readonly descOffset: number;
  /** The driver area: the avail ring, or the driver's event suppression. */
  readonly driverOffset: number;
  /** The device area: the used ring, or the device's event suppression. */
  readonly deviceOffset: number;
  readonly eventIdx: boolean;
  readonly indirect: boolean;
  readonly inOrder: boolean;
  readonly mergeable: boolean;
  readonly headerBytes: number;
  /** OFFLOAD_* bits of what frames from the guest may ask for; 0: what its headers say means nothing. */
  readonly asks: number;
  /** -1: none; the ring is polled, or never signalled. */
  readonly kickFd: number;
  readonly callFd: number;
  /** Of kind `iova`: the ring is behind an IOMMU, and what the map lacks may come. */
  readonly map: AddressMap;
  /** The ring's record in the arena (ring-record.ts); left out: it has none. */
  readonly recordOffset?: number;
  /** A packed ring's region in the arena that its front-end keeps (packed/inflight-words.ts); left out: it has none. */
  readonly inflightOffset?: number;
  /** The driver is signalled once when the ring is opened: a signal may have been lost with who used the ring before. */
  readonly signalsFirst?: boolean;
  /** Null: what is written to the guest is not logged. */
  readonly log: RingLog | null;
};
