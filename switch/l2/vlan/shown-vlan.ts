/**
 * The VLAN that a frame is in while it is shown, for what chooses frames by it: captures and mirrors. Hot path of ports that
 * have those.
 */
import type { Batch } from '../../../src/queue/batch.ts';
import { isTag, vlanOf } from '../../../src/queue/frame-tags.ts';
import type { ForwardingPort } from '../forwarding-port.ts';

/**
 * `isIngress`: it came in from the port, and its tags are in it still; the VLAN is what it would be admitted to. Otherwise it is about
 * to be placed there.
 */
export function vlanOfFrame(
  batch: Batch,
  frame: number,
  { vlan }: ForwardingPort,
  isIngress: boolean,
): number {
  if (!isIngress) return vlanOf(batch.tags.outerOf(frame));
  const word = batch.word3Of(frame);
  return vlanOf(vlan.outerOf(isTag(word) ? word : 0));
}
