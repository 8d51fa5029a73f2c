/**
 * From an attachment to the queue object of its kind: the one place that knows all kinds of queues. Worker
 * thread.
 */
import type { ArenaView } from '../memory/arena-view.ts';
import type { EgressQueue, IngressQueue } from '../queue/contract.ts';
import type { RingAttachment } from '../vring/attachment.ts';
import { FromGuest } from '../vring/from-guest.ts';
import { ToGuest } from '../vring/to-guest.ts';
import { type DpdkAttachment, DpdkEgress, DpdkIngress } from './dpdk/queues.ts';
import { PcapEgress } from './pcap/egress.ts';
import { PcapIngress } from './pcap/ingress.ts';
import type { PcapAttachment } from './pcap/queues.ts';
import { type TapAttachment, TapEgress, TapIngress } from './tap/queues.ts';
import { openUnixEgress, openUnixIngress, type UnixAttachment } from './unix/queues.ts';

/** Everything that a worker needs to use a queue; `kind` says of what. Plain data that can be posted. */
export type QueueAttachment =
  | RingAttachment
  | PcapAttachment
  | UnixAttachment
  | TapAttachment
  | DpdkAttachment;

/** @throws when the queue's other side cannot be used, which is a bug of the port that attached it */
export function openIngress(arena: ArenaView, attachment: QueueAttachment): IngressQueue {
  switch (attachment.kind) {
    case 'ring':
      return new FromGuest(arena, attachment);
    case 'pcap':
      return new PcapIngress(arena, attachment);
    case 'unix':
      return openUnixIngress(arena, attachment);
    case 'tap':
      return new TapIngress(arena, attachment);
    case 'dpdk':
      return new DpdkIngress(arena, attachment);
  }
}

/** `shared`: other workers open the same queue, so that every burst takes its lock. */
export function openEgress(arena: ArenaView, attachment: QueueAttachment, shared: boolean): EgressQueue {
  switch (attachment.kind) {
    case 'ring':
      return new ToGuest(arena, attachment, shared);
    case 'pcap':
      return new PcapEgress(arena, attachment, shared);
    case 'unix':
      return openUnixEgress(arena, attachment, shared);
    case 'tap':
      return new TapEgress(arena, attachment, shared);
    case 'dpdk':
      return new DpdkEgress(arena, attachment, shared);
  }
}
