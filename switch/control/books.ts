/**
 * The books of a port and of the switch: what came in and was copied is what went out and was dropped by name (the law
 * stands in l2/port-counts.ts). Adds up what queues and workers count. Main thread.
 */
import { type PortCounters as QueueCounters, sumLost } from '../../src/queue/state.ts';
import { DROP_REASONS, type DropReason } from '../l2/drop-reasons.ts';
import { COUNT_COPIES, COUNT_FORWARDED, COUNT_OFFERED, PORT_COUNTS } from '../l2/port-counts.ts';

/** Frames and bytes of a port, from the switch's side, and the other terms of its books. */
export type PortCounters = QueueCounters & {
  /** Copies that were made of its frames by flooding and mirroring. */
  readonly copies: number;
  /** Its frames and their copies that were offered to ports. */
  readonly forwarded: number;
  /** Frames and copies that were offered to it. */
  readonly offered: number;
};

export type Books = {
  readonly counters: PortCounters;
  readonly drops: Readonly<Record<DropReason, number>>;
};

/** Of one port: its queues' counters, its QueueState blocks, and what the workers counted about it. */
export function booksOf(queues: QueueCounters, states: SharedArrayBuffer, counts: Float64Array): Books {
  const drops = Object.fromEntries(DROP_REASONS.map(({ name }, at) => [name, counts[at]])) as Record<
    DropReason,
    number
  >;
  // What an interface or socket did not take from the worker is known only to its queue.
  drops.notTaken += sumLost(new Float64Array(states));
  return {
    counters: {
      ...queues,
      copies: counts[COUNT_COPIES],
      forwarded: counts[COUNT_FORWARDED],
      offered: counts[COUNT_OFFERED],
    },
    drops,
  };
}

const NOTHING: QueueCounters = { ingressFrames: 0, ingressBytes: 0, egressFrames: 0, egressBytes: 0 };
/** Of nothing at all. */
export const NO_BOOKS: Books = booksOf(NOTHING, new SharedArrayBuffer(0), new Float64Array(PORT_COUNTS));

/** The sum of the books of several ports. */
export function sumBooks(books: readonly Books[]): Books {
  // So that every term is there although there is no port.
  const all = [NO_BOOKS, ...books];
  return {
    counters: sumRecords(all.map(({ counters }) => counters)),
    drops: sumRecords(all.map(({ drops }) => drops)),
  };
}

function sumRecords<Key extends string>(
  records: readonly Readonly<Record<Key, number>>[],
): Record<Key, number> {
  const sums: Partial<Record<Key, number>> = {};
  for (const record of records) {
    for (const key of Object.keys(record) as Key[]) sums[key] = (sums[key] ?? 0) + record[key];
  }
  return sums as Record<Key, number>;
}

/** What does not balance, as sentences; none when all is well. Call at a quiet moment. */
export function imbalances(name: string, { counters, drops }: Books, isWhole: boolean): string[] {
  const dropped = (side: 'sender' | 'receiver'): number =>
    DROP_REASONS.filter((reason) => reason.side === side).reduce(
      (sum, reason) => sum + drops[reason.name],
      0,
    );
  const { ingressFrames, egressFrames, copies, forwarded, offered } = counters;
  const laws: [string, number, number][] = [
    ['in + copies = forwarded + drops of the sender', ingressFrames + copies, forwarded + dropped('sender')],
    ['offered = out + drops of the receiver', offered, egressFrames + dropped('receiver')],
  ];
  if (isWhole) laws.push(['forwarded = offered', forwarded, offered]);
  return laws
    .filter(([, left, right]) => left !== right)
    .map(([law, left, right]) => `${name}: ${law} does not hold: ${left} and ${right}`);
}
