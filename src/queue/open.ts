/**
 * From an attachment to the queue object of its kind: the one place that knows all kinds of queues. Worker
 * thread.
 */
import type { ArenaView } from '../memory/arena-view.ts';
import type { RingAttachment } from '../vring/attachment.ts';
import { SplitFromGuest } from '../vring/split-from-guest.ts';
import { SplitToGuest } from '../vring/split-to-guest.ts';
import type { EgressQueue, IngressQueue } from './contract.ts';

/** Everything that a worker needs to use a queue; `kind` says of what. Plain data that can be posted. */
export type QueueAttachment = RingAttachment;

/** @throws when the queue's other side cannot be used, which is a bug of the port that attached it */
export function openIngress(arena: ArenaView, attachment: QueueAttachment): IngressQueue {
  switch (attachment.kind) {
    case 'split':
      return new SplitFromGuest(arena, attachment);
  }
}

/** `shared`: other workers open the same queue, so that every burst takes its lock. */
export function openEgress(arena: ArenaView, attachment: QueueAttachment, shared: boolean): EgressQueue {
  switch (attachment.kind) {
    case 'split':
      return new SplitToGuest(arena, attachment, shared);
  }
}
