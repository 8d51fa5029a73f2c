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
 */
import { DROP_REASONS } from './drop-reasons.ts';

export const COUNT_COPIES = DROP_REASONS.length;
export const COUNT_FORWARDED = DROP_REASONS.length + 1;
export const COUNT_OFFERED = DROP_REASONS.length + 2;
/** Doubles of a worker's counters of one port. */
export const PORT_COUNTS = DROP_REASONS.length + 3;
