/** Stage: copies of a port's frames for the ports that mirror it. What is lost here is the mirror's loss alone. */
import type { Batch } from '../../src/queue/batch.ts';
import type { ForwardingPort } from './forwarding-port.ts';
import type { Outlets } from './outlets.ts';
import { COUNT_COPIES, COUNT_FORWARDED } from './port-counts.ts';

/**
 * Copies frames that came in from `port` (`isIngress`) or were placed on it. They are copies made of the frames of
 * `sender`, in its books.
 */
export function mirror(
  outlets: Outlets,
  port: ForwardingPort,
  sender: ForwardingPort,
  batch: Batch,
  order: Int32Array,
  count: number,
  isIngress: boolean,
): void {
  const { mirrors } = port;
  for (let i = 0; i < mirrors.length; i++) {
    const copies = outlets.deliverCopies(mirrors[i], batch, order, count, port.id, isIngress);
    sender.counts[COUNT_COPIES] += copies;
    sender.counts[COUNT_FORWARDED] += copies;
  }
}
