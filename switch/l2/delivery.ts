/**
 * Sends frames of a batch to one port, or to the ports of one flood: what these do not do themselves is done before, once for
 * those that take the same; each port gets them with its tags; and who mirrors or captures a port sees what became of them.
 * Which frames go to which port is decided in forwarder.ts. Hot path of one worker; allocates nothing.
 */
import type { Completion } from '../../src/offload/completion.ts';
import type { Batch } from '../../src/queue/batch.ts';
import * as BATCH from '../../src/queue/batch.ts';
import { PRIORITY_BITS } from '../../src/queue/frame-tags.ts';
import { type Capture, NO_REASON, noteAllDropped } from './capture.ts';
import { DROP } from './drop-reasons.ts';
import { areProtected, countBarred, isBarred } from './flood.ts';
import { type ForwardingPort, STAGE_CAPTURE, STAGE_MIRROR, STAGES_OF_RECEIVER } from './forwarding-port.ts';
import { mirror } from './mirror.ts';
import { dropOfRefusal, missingOffloads, type Outlets } from './outlets.ts';
import * as PORT_COUNTS_TABLE from './port-counts.ts';

// V8 folds a module's own constants into a loop, and loads imported ones again at each use.
const { AS_THEY_CAME, BATCH_FRAMES_MAX } = BATCH;
const { COUNT_COPIES, COUNT_FORWARDED, COUNT_OFFERED } = PORT_COUNTS_TABLE;

export class Delivery {
  declare private readonly batch: Batch;
  declare private readonly capture: Capture;
  declare private readonly outlets: Outlets;
  declare private readonly completion: Completion;
  /** The ports of one flood, which whoever floods lists here for `complete`. */
  readonly receivers: ForwardingPort[] = [];
  /** Of the frames for one port, some that follow one another and get as many tags. */
  declare private readonly stretch: Int32Array;
  /** One frame. */
  declare private readonly order1: Int32Array;

  /** `batch`: of the burst that is being forwarded. */
  constructor(batch: Batch, capture: Capture, outlets: Outlets, completion: Completion) {
    this.batch = batch;
    this.capture = capture;
    this.outlets = outlets;
    this.completion = completion;
    this.stretch = new Int32Array(BATCH_FRAMES_MAX);
    this.order1 = new Int32Array(1);
  }

  deliver(sender: ForwardingPort, port: ForwardingPort, order: Int32Array, count: number): void {
    // Nothing is done but to place them: most deliveries are so, and each may be of a few frames only.
    if (this.#arePlain && port !== sender && (port.stages & STAGES_OF_RECEIVER) === 0 && port.vlan.isPlain) {
      sender.counts[COUNT_FORWARDED] += count;
      this.outlets.deliverPlain(port, this.batch, order, count);
      return;
    }
    if (port === sender) {
      sender.counts[DROP.samePort] += count;
      noteAllDropped(sender, this.batch, order, count, DROP.samePort);
      return;
    }
    if (isBarred(port, sender)) {
      countBarred(port, sender, count);
      this.#captureBarred(sender, port, order, count);
      return;
    }
    if (!this.batch.asks) this.forwardTo(sender, port, this.batch, order, count);
    else {
      this.receivers[0] = port;
      this.complete(sender, 1, order, count);
    }
  }

  /** No frame of the batch has a tag or gets one, and none asks for anything. */
  get #arePlain(): boolean {
    const { asks, tags } = this.batch;
    return !asks && tags.isUniform && (tags.outer | tags.pushBytes) === 0;
  }

  /** Frames some of which ask for something, to the first `receiverCount` of `receivers`. */
  complete(sender: ForwardingPort, receiverCount: number, order: Int32Array, count: number): void {
    const { batch, completion } = this;
    const receivers = this.receivers;
    for (let i = 0; i < receiverCount; i++) {
      const { takes } = receivers[i];
      // Those that take the same are served together, at the first of them.
      if (hasBefore(receivers, i, takes)) continue;
      const isWhole = missingOffloads(batch, order, count, takes) === 0;
      if (!isWhole) {
        // Tags are pushed into what is made.
        if (batch.tags.pushBytes !== 0) batch.makeRoomForAll(0);
        completion.begin(batch, order, count, takes);
      }
      let made = 0;
      let together = 0;
      while (isWhole ? made === 0 : completion.next()) {
        const from = isWhole ? batch : completion.batch;
        const placed = isWhole ? order : AS_THEY_CAME;
        const frames = isWhole ? count : completion.batch.count;
        together = 0;
        for (let r = i; r < receiverCount; r++) {
          if (receivers[r].takes !== takes) continue;
          together++;
          this.forwardTo(sender, receivers[r], from, placed, frames);
        }
        made += frames;
      }
      sender.counts[COUNT_COPIES] += (made - count) * together;
    }
  }

  /** Frames to a port that is barred, for who captures at either. */
  #captureBarred(sender: ForwardingPort, port: ForwardingPort, order: Int32Array, count: number): void {
    if (areProtected(port, sender)) noteAllDropped(sender, this.batch, order, count, DROP.protected);
    else if ((port.stages & STAGE_CAPTURE) !== 0)
      for (let k = 0; k < count; k++) this.capture.notPlaced(port, this.batch, order[k], DROP.loopShutTo);
  }

  /** Frames that ask for nothing that the port does not take, with the tags that it gets them with. */
  forwardTo(
    sender: ForwardingPort,
    port: ForwardingPort,
    batch: Batch,
    order: Int32Array,
    count: number,
  ): void {
    sender.counts[COUNT_FORWARDED] += count;
    const { tags } = batch;
    if (!tags.isUniform) {
      this.#deliverEach(sender, port, batch, order, count);
      return;
    }
    const { outer, inner } = tags;
    if (port.vlan.isPlain && outer === 0) {
      if (tags.pushBytes !== 0) batch.makeRoomForAll(0);
      this.#place(sender, port, batch, order, count);
      return;
    }
    if (!port.vlan.takes(outer, inner)) {
      countNotCarried(port, count);
      if ((port.stages & STAGE_CAPTURE) !== 0)
        for (let k = 0; k < count; k++) this.capture.notPlaced(port, batch, order[k], DROP.vlanNotCarried);
      return;
    }
    port.vlan.choose(outer, inner, priorityOf(sender, outer, inner));
    tags.isPushUniform = true;
    tags.push0 = port.vlan.push0;
    tags.push1 = port.vlan.push1;
    // Stays so for the next port, which mostly gets the same.
    if (tags.pushBytes !== port.vlan.pushBytes) batch.makeRoomForAll(port.vlan.pushBytes);
    this.#place(sender, port, batch, order, count);
  }

  /** Frames of several VLANs: those that follow one another and get as many tags in one go. */
  #deliverEach(
    sender: ForwardingPort,
    port: ForwardingPort,
    batch: Batch,
    order: Int32Array,
    count: number,
  ): void {
    const { stretch } = this;
    const { vlan } = port;
    const { outers, inners, pushes0, pushes1 } = batch.tags;
    batch.tags.isPushUniform = false;
    let frames = 0;
    let pushBytes = 0;
    for (let k = 0; k < count; k++) {
      const frame = order[k];
      if (!vlan.takes(outers[frame], inners[frame])) {
        countNotCarried(port, 1);
        if ((port.stages & STAGE_CAPTURE) !== 0)
          this.capture.notPlaced(port, batch, frame, DROP.vlanNotCarried);
        continue;
      }
      vlan.choose(outers[frame], inners[frame], priorityOf(sender, outers[frame], inners[frame]));
      pushes0[frame] = vlan.push0;
      pushes1[frame] = vlan.push1;
      if (vlan.pushBytes !== pushBytes && frames > 0) {
        this.#placeTagged(sender, port, batch, stretch, frames, pushBytes);
        frames = 0;
      }
      pushBytes = vlan.pushBytes;
      stretch[frames++] = frame;
    }
    if (frames > 0) this.#placeTagged(sender, port, batch, stretch, frames, pushBytes);
  }

  /** Each of the frames gets so many bytes of tags, while it is placed. */
  #placeTagged(
    sender: ForwardingPort,
    port: ForwardingPort,
    batch: Batch,
    order: Int32Array,
    count: number,
    pushBytes: number,
  ): void {
    if (pushBytes === 0) {
      this.#place(sender, port, batch, order, count);
      return;
    }
    for (let k = 0; k < count; k++) batch.makeRoom(order[k], pushBytes);
    batch.tags.pushBytes = pushBytes;
    batch.bytesMax += pushBytes;
    this.#place(sender, port, batch, order, count);
    batch.bytesMax -= pushBytes;
    batch.tags.pushBytes = 0;
    for (let k = 0; k < count; k++) batch.makeRoom(order[k], -pushBytes);
  }

  /** Those that `deliver` could not place. */
  #captureRefused(port: ForwardingPort, batch: Batch): void {
    const { refused, refusedWhy, refusedCount } = batch;
    for (let r = 0; r < refusedCount; r++) {
      this.order1[0] = refused[r];
      this.capture.outgoing(port, batch, this.order1, 1, dropOfRefusal(port, refusedWhy[r]));
    }
  }

  #place(sender: ForwardingPort, port: ForwardingPort, batch: Batch, order: Int32Array, count: number): void {
    const { outlets } = this;
    outlets.deliver(port, batch, order, count);
    if ((port.stages & (STAGE_MIRROR | STAGE_CAPTURE)) === 0) return;
    if ((port.stages & STAGE_CAPTURE) !== 0 && batch.refusedCount > 0) this.#captureRefused(port, batch);
    const placed = outlets.listPlaced(batch, order, count);
    if (placed === 0) return;
    if ((port.stages & STAGE_CAPTURE) !== 0)
      this.capture.outgoing(port, batch, outlets.placed, placed, NO_REASON);
    if ((port.stages & STAGE_MIRROR) !== 0)
      mirror(outlets, port, sender, batch, outlets.placed, placed, false);
  }
}

function hasBefore(receivers: readonly ForwardingPort[], end: number, takes: number): boolean {
  for (let i = 0; i < end; i++) if (receivers[i].takes === takes) return true;
  return false;
}

/** Of the tag that a frame came in with, which of a tunnel is the inner one. */
function priorityOf(sender: ForwardingPort, outer: number, inner: number): number {
  return (sender.vlan.isTunnel ? inner : outer) & PRIORITY_BITS;
}

function countNotCarried({ counts }: ForwardingPort, frames: number): void {
  counts[COUNT_OFFERED] += frames;
  counts[DROP.vlanNotCarried] += frames;
}
