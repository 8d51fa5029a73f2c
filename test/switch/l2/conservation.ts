/**
 * The conservation law over ports as a forwarder has them (switch/l2/port-counts.ts), with what one worker counts and
 * what the ports' queues count. Every fuzz of forwarding asks after each step.
 */
import { QUEUE_STATE_BYTES, sumCounters } from '../../../src/queue/state.ts';
import { type Books, booksOf, imbalances, sumBooks } from '../../../switch/control/books.ts';
import type { ForwardingPort } from '../../../switch/l2/forwarding-port.ts';

export type CountedPort = {
  readonly state: ForwardingPort;
  /** QueueState blocks of all its queues. */
  readonly states: SharedArrayBuffer;
};

export function booksOfPort({ state, states }: CountedPort): Books {
  const pairCount = states.byteLength / QUEUE_STATE_BYTES / 2;
  return booksOf(sumCounters(states, pairCount), states, state.counts);
}

/** What does not balance, of each port and of all; call between bursts, with all ports that ever took part. */
export function imbalancesOf(ports: readonly CountedPort[]): string[] {
  const books = ports.map(booksOfPort);
  return [
    ...books.flatMap((each, i) => imbalances(`port ${ports[i].state.id}`, each, false)),
    ...imbalances('the switch', sumBooks(books), true),
  ];
}
