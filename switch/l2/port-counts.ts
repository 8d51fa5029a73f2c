/**
 * What a worker counts about a port: drops by name, and the terms that make the books balance. With what the
 * queues count (in, out) there holds at any quiet moment, exactly,
 *
 *     of each port:     in + copies = forwarded + drops on the sender's side
 *                       offered = out + drops on the receiver's side
 *     of the switch:    in + copies = out + drops
 *
 * where `copies` are made of the port's frames by flooding and mirroring, or by the switch itself (an announcement), `forwarded` are its frames and copies that
 * were offered to ports, and `offered` are those that were offered to it. Each worker has counters of its own; the
 * main thread adds them up.
 *
 * Beside the books: how long frames from the port were, by class, and how many went to groups (frame-classes.ts).
 */
import { DROP_REASONS } from './drop-reasons.ts';

/** Longest frame of each class but the last one, in bytes, without what the wire adds. */
export const SIZE_BOUNDS = [64, 128, 256, 512, 1024, 1522, 9022] as const;
export const SIZE_CLASSES = SIZE_BOUNDS.length + 1;

export const COUNT_COPIES = DROP_REASONS.length;
export const COUNT_FORWARDED = DROP_REASONS.length + 1;
export const COUNT_OFFERED = DROP_REASONS.length + 2;
/** Frames that came in to group addresses but broadcast, and to that one, as far as it was looked up where they go. */
export const COUNT_MULTICAST = DROP_REASONS.length + 3;
export const COUNT_BROADCAST = DROP_REASONS.length + 4;
/** Frames that came in, SIZE_CLASSES counters. */
export const COUNT_SIZES = DROP_REASONS.length + 5;
/** Doubles of a worker's counters of one port. */
export const PORT_COUNTS = COUNT_SIZES + SIZE_CLASSES;

/** By position, as a worker has them. */
const NAMES: readonly string[] = [
  ...DROP_REASONS.map(({ name }) => name),
  ...['copies', 'forwarded', 'offered', 'multicast', 'broadcast'],
  ...[...SIZE_BOUNDS, 'more'].map((bound) => `size ${bound}`),
];

/** For another process, whose positions may be others. */
export function namedCounts(counts: Float64Array): Record<string, number> {
  return Object.fromEntries(NAMES.map((name, at) => [name, counts[at]]));
}

/** What has no counter here is left out. */
export function countsNamed(named: Readonly<Record<string, number>>): Float64Array {
  return Float64Array.from(NAMES, (name) => named[name] ?? 0);
}
