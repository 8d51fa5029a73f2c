/**
 * Stage: copies of a port's frames for the ports that mirror it, of those VLANs that they want, with the tag that they get
 * them with. What is lost here is the mirror's loss alone. Hot path of one worker.
 */
import type { Batch } from '../../src/queue/batch.ts';
import { BATCH_FRAMES_MAX } from '../../src/queue/batch.ts';
import { PUSH_BYTES_MAX, TAG_BYTES } from '../../src/queue/frame-tags.ts';
import type { ForwardingPort } from './forwarding-port.ts';
import type { Outlets } from './outlets.ts';
import { COUNT_COPIES, COUNT_FORWARDED } from './port-counts.ts';
import { vlanOfFrame } from './vlan/shown-vlan.ts';

/** Frames of the wanted VLANs, and tags that were there before; each worker has this module for itself. */
const chosen = new Int32Array(BATCH_FRAMES_MAX);
const kept0 = new Int32Array(BATCH_FRAMES_MAX);
const kept1 = new Int32Array(BATCH_FRAMES_MAX);

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
  const mirrors = isIngress ? port.mirrorsIn : port.mirrorsOut;
  for (let i = 0; i < mirrors.length; i++) {
    const { copyVlans, copyTag } = mirrors[i];
    let frames = count;
    let list = order;
    if (copyVlans !== null) {
      frames = choose(copyVlans, batch, order, count, port, isIngress);
      list = chosen;
      if (frames === 0) continue;
    }
    const copies =
      copyTag === 0
        ? outlets.deliverCopies(mirrors[i], batch, list, frames, port.id, isIngress)
        : deliverTagged(outlets, mirrors[i], batch, list, frames, port.id, isIngress);
    sender.counts[COUNT_COPIES] += copies;
    sender.counts[COUNT_FORWARDED] += copies;
  }
}

function choose(
  vlans: Uint8Array,
  batch: Batch,
  order: Int32Array,
  count: number,
  port: ForwardingPort,
  isIngress: boolean,
): number {
  let frames = 0;
  for (let k = 0; k < count; k++)
    if (vlans[vlanOfFrame(batch, order[k], port, isIngress)] === 1) chosen[frames++] = order[k];
  return frames;
}

/** With a tag more in front, or, of two that are pushed already, in place of the first one. */
function deliverTagged(
  outlets: Outlets,
  to: ForwardingPort,
  batch: Batch,
  order: Int32Array,
  count: number,
  portId: number,
  isIngress: boolean,
): number {
  const { tags } = batch;
  const { isPushUniform, push0, push1, pushBytes } = tags;
  const addedBytes = pushBytes === PUSH_BYTES_MAX ? 0 : TAG_BYTES;
  for (let k = 0; k < count; k++) {
    const frame = order[k];
    kept0[k] = tags.pushes0[frame];
    kept1[k] = tags.pushes1[frame];
  }
  for (let k = 0; k < count; k++) {
    const frame = order[k];
    const own0 = isPushUniform ? push0 : kept0[k];
    const own1 = isPushUniform ? push1 : kept1[k];
    tags.pushes0[frame] = to.copyTag;
    tags.pushes1[frame] = addedBytes === 0 ? own1 : own0;
    batch.makeRoom(frame, addedBytes);
  }
  tags.isPushUniform = false;
  tags.pushBytes = pushBytes + addedBytes;
  batch.bytesMax += addedBytes;
  const copies = outlets.deliverCopies(to, batch, order, count, portId, isIngress);
  batch.bytesMax -= addedBytes;
  tags.pushBytes = pushBytes;
  tags.isPushUniform = isPushUniform;
  for (let k = 0; k < count; k++) {
    const frame = order[k];
    batch.makeRoom(frame, -addedBytes);
    tags.pushes0[frame] = kept0[k];
    tags.pushes1[frame] = kept1[k];
  }
  return copies;
}
