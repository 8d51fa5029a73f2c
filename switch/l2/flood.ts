/**
 * Stage: frames that nobody is known to own, and those to groups, go to all ports but their sender, as far as these
 * take floods. One of them is the frame itself, the others are copies in the sender's books. Hot path of one worker.
 */

import { DROP } from './drop-reasons.ts';
import { type ForwardingPort, STAGE_PROTECTED, STAGE_SHUT } from './forwarding-port.ts';
import { COUNT_COPIES, COUNT_FORWARDED, COUNT_OFFERED } from './port-counts.ts';

/** Whether frames of `sender` that are flooded go to `port`. */
export function takesFloods(port: ForwardingPort, sender: ForwardingPort): boolean {
  return port.isFlooded && port !== sender && !areProtected(port, sender);
}

/** Whether no frames go from one to the other. */
export function areProtected(port: ForwardingPort, sender: ForwardingPort): boolean {
  return (port.stages & sender.stages & STAGE_PROTECTED) !== 0;
}

/** Whether no frames of the sender go to the port, or of nobody. */
export function isBarred(port: ForwardingPort, sender: ForwardingPort): boolean {
  return (port.stages & ((sender.stages & STAGE_PROTECTED) | STAGE_SHUT)) !== 0;
}

/** Books `frames` to a port that is barred. */
export function countBarred(port: ForwardingPort, sender: ForwardingPort, frames: number): void {
  if (areProtected(port, sender)) {
    sender.counts[DROP.protected] += frames;
    return;
  }
  sender.counts[COUNT_FORWARDED] += frames;
  port.counts[COUNT_OFFERED] += frames;
  port.counts[DROP.loopShutTo] += frames;
}

/** Whether frames of `sender` to a group that `port` has joined, or routes, go there; whether it takes floods does not matter. */
export function takesGroups(port: ForwardingPort, sender: ForwardingPort): boolean {
  return port.isSwitched && port !== sender && !isBarred(port, sender);
}

/** Books `frames` that were flooded to so many receivers; to none is a drop. */
export function countFlooded(sender: ForwardingPort, frames: number, receivers: number): void {
  if (receivers === 0) sender.counts[DROP.noReceiver] += frames;
  else sender.counts[COUNT_COPIES] += frames * (receivers - 1);
}
