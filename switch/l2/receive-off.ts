/**
 * Stage: a port whose frames the switch does not take, because its settings say so or it is shut because of a loop. All that it sent is dropped, what could not be forwarded anyway
 * with it, before any other stage: nothing is learned from it or mirrored, and of its frames not even the addresses are
 * read. They are taken from the queue all the same, so that the other side gets its buffers back. Hot path of one
 * worker.
 */
import type { ForwardingPort } from './forwarding-port.ts';

/** Books `frames`, a whole burst of `sender`, as dropped. */
export function dropAll(sender: ForwardingPort, frames: number): void {
  sender.counts[sender.refusal] += frames;
}
