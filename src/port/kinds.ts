/**
 * The registry of queues: how a worker opens the queues of each kind, said once. A new kind
 * of queue is a line in `Attachments` and an entry in `QUEUE_KINDS`; its port and its settings are registered in
 * switch/config/kinds/index.ts. Worker thread; the types are for everybody.
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

/** What a queue of each kind is described by when it is attached: plain data that can be posted. */
type Attachments = {
  readonly ring: RingAttachment;
  readonly pcap: PcapAttachment;
  readonly unix: UnixAttachment;
  readonly tap: TapAttachment;
  readonly dpdk: DpdkAttachment;
};

export type QueueKindName = keyof Attachments;

/** Everything that a worker needs to use a queue; `kind` says of what. */
export type QueueAttachment<Kind extends QueueKindName = QueueKindName> = {
  [K in Kind]: Attachments[K] & { readonly kind: K };
}[Kind];

type QueueKind<Attachment> = {
  readonly openIngress: (arena: ArenaView, attachment: Attachment) => IngressQueue;
  /** `shared`: other workers open the same queue, so that every burst takes its lock. */
  readonly openEgress: (arena: ArenaView, attachment: Attachment, shared: boolean) => EgressQueue;
};

const QUEUE_KINDS: { readonly [Kind in QueueKindName]: QueueKind<QueueAttachment<Kind>> } = {
  ring: {
    openIngress: (arena, attachment) => new FromGuest(arena, attachment),
    openEgress: (arena, attachment, shared) => new ToGuest(arena, attachment, shared),
  },
  pcap: {
    openIngress: (arena, attachment) => new PcapIngress(arena, attachment),
    openEgress: (arena, attachment, shared) => new PcapEgress(arena, attachment, shared),
  },
  unix: { openIngress: openUnixIngress, openEgress: openUnixEgress },
  tap: {
    openIngress: (arena, attachment) => new TapIngress(arena, attachment),
    openEgress: (arena, attachment, shared) => new TapEgress(arena, attachment, shared),
  },
  dpdk: {
    openIngress: (arena, attachment) => new DpdkIngress(arena, attachment),
    openEgress: (arena, attachment, shared) => new DpdkEgress(arena, attachment, shared),
  },
};

/** @throws when the queue's other side cannot be used, which is a bug of the port that attached it */
export function openIngress<Kind extends QueueKindName>(
  arena: ArenaView,
  attachment: QueueAttachment<Kind>,
): IngressQueue {
  return QUEUE_KINDS[attachment.kind].openIngress(arena, attachment);
}

/** `shared`: other workers open the same queue, so that every burst takes its lock. */
export function openEgress<Kind extends QueueKindName>(
  arena: ArenaView,
  attachment: QueueAttachment<Kind>,
  shared: boolean,
): EgressQueue {
  return QUEUE_KINDS[attachment.kind].openEgress(arena, attachment, shared);
}
