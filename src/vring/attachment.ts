/** A virtqueue as a port attaches it to the data path; the device (src/device/) makes one for each ring. */
import type { GpaMap } from '../memory/gpa-translator.ts';
import type { QueueAttachmentBase } from '../queue/contract.ts';

/** Plain data that can be posted. Offsets are in the arena. */
export type RingAttachment = QueueAttachmentBase & {
  readonly kind: 'split';
  readonly size: number;
  readonly descOffset: number;
  readonly availOffset: number;
  readonly usedOffset: number;
  readonly eventIdx: boolean;
  readonly indirect: boolean;
  readonly mergeable: boolean;
  readonly headerBytes: number;
  /** -1: none; the ring is polled, or never signalled. */
  readonly kickFd: number;
  readonly callFd: number;
  readonly map: GpaMap;
};
