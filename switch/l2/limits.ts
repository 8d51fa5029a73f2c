/**
 * Stage: how much a port may send and be sent, in bits and in frames a second, and how many of its broadcast, multicast
 * and unknown unicast frames are flooded (storm control). Of a burst the first frames pass, as long as their bucket
 * (port-meters.ts) has anything left; the others are dropped by name. What a port sends is limited before anything is learned
 * of it; unknown frames are known as such only after look-up.
 *
 * Bits are those of the frame from its addresses to the end of its payload, as they are counted, without checksum,
 * preamble and gap. A frame that asks to be cut into segments is as many frames as come of it. Hot path of one worker.
 */
import type { Batch } from '../../src/queue/batch.ts';
import * as BATCH from '../../src/queue/batch.ts';
import { noteDropped } from './capture.ts';
import { leaveOut } from './checks.ts';
import { Clock } from './clock.ts';
import { DROP } from './drop-reasons.ts';
import { type ForwardingPort, STAGE_CAPTURE } from './forwarding-port.ts';
import { isLinkLocal } from './link-local.ts';
import type { Meter } from './meter.ts';

// V8 folds a module's own constants into a loop, and loads imported ones again at each use: some 3 ns a frame.
const { AS_THEY_CAME, AT_BYTES, AT_TARGET, AT_WORD0, AT_WORD1, RECORD_SHIFT } = BATCH;

const BITS_PER_BYTE = 8;
/** Kinds of frames that are flooded. */
export const BROADCAST = 1;
export const MULTICAST = 2;
const UNICAST = 0;

export class Limits {
  declare readonly clock: Clock;
  /** Of the frames that `passingBits` lets pass. */
  private bytes = 0;

  constructor(clock = new Clock()) {
    this.clock = clock;
  }

  /** Limits and storms of what a port sends. Answers whether frames are left. */
  sent(batch: Batch, sender: ForwardingPort, verdicts: Int32Array): boolean {
    const { bitsIn, framesIn, broadcast, multicast } = sender.meters;
    // What is flooded too often takes nothing from what else the port may send.
    if (broadcast.isOn && !this.groups(batch, sender, verdicts, broadcast, BROADCAST, DROP.stormBroadcast))
      return false;
    if (multicast.isOn && !this.groups(batch, sender, verdicts, multicast, MULTICAST, DROP.stormMulticast))
      return false;
    if (!bitsIn.isOn && !framesIn.isOn) return true;
    const passes = this.passing(batch, AS_THEY_CAME, batch.count, framesIn, bitsIn);
    return keepFirst(batch, sender, passes, DROP.rateIn);
  }

  /** How many of these frames, the first ones, may be sent to the port. */
  passingTo({ meters }: ForwardingPort, batch: Batch, order: Int32Array, count: number): number {
    return this.passing(batch, order, count, meters.framesOut, meters.bitsOut);
  }

  /** All frames have one target, which nobody is known to have. Answers whether frames are left. */
  unknownAlike(batch: Batch, sender: ForwardingPort): boolean {
    if ((batch.records[AT_WORD0] & 1) !== 0) return true;
    return keepFirst(batch, sender, this.passingFrames(batch, sender.meters.unknown), DROP.stormUnknown);
  }

  /** Frames with targets, of which `isFlooded` says whether nobody is known to have them. Answers whether frames are left. */
  unknown(
    batch: Batch,
    sender: ForwardingPort,
    verdicts: Int32Array,
    isFlooded: (target: number) => boolean,
  ): boolean {
    const { unknown } = sender.meters;
    const { count, records } = batch;
    let level = 0;
    let tokens = 0;
    let isFilled = false;
    let hasDrops = false;
    for (let frame = 0; frame < count; frame++) {
      const at = frame << RECORD_SHIFT;
      if ((records[at + AT_WORD0] & 1) !== 0 || !isFlooded(records[at + AT_TARGET])) continue;
      if (!isFilled) {
        level = unknown.fill(this.clock.us(), count);
        isFilled = true;
      }
      if (unknown.isAbove(level, tokens)) tokens += batch.segmentCountOf(frame);
      else {
        verdicts[frame] = DROP.stormUnknown + 1;
        hasDrops = true;
      }
    }
    if (tokens > 0) unknown.spend(tokens);
    return !hasDrops || leaveOut(batch, verdicts, sender);
  }

  /** Frames to groups of one kind. Answers whether frames of any kind are left. */
  private groups(
    batch: Batch,
    sender: ForwardingPort,
    verdicts: Int32Array,
    meter: Meter,
    kind: number,
    reason: number,
  ): boolean {
    const { count, records } = batch;
    if (batch.alike) {
      if (kindOf(records[AT_WORD0], records[AT_WORD1], sender) !== kind) return true;
      return keepFirst(batch, sender, this.passingFrames(batch, meter), reason);
    }
    let level = 0;
    let tokens = 0;
    let isFilled = false;
    let hasDrops = false;
    for (let frame = 0; frame < count; frame++) {
      const at = frame << RECORD_SHIFT;
      const word0 = records[at + AT_WORD0];
      if ((word0 & 1) === 0 || kindOf(word0, records[at + AT_WORD1], sender) !== kind) continue;
      if (!isFilled) {
        level = meter.fill(this.clock.us(), count);
        isFilled = true;
      }
      if (meter.isAbove(level, tokens)) tokens += batch.segmentCountOf(frame);
      else {
        verdicts[frame] = reason + 1;
        hasDrops = true;
      }
    }
    if (tokens > 0) meter.spend(tokens);
    return !hasDrops || leaveOut(batch, verdicts, sender);
  }

  /** How many frames of the batch, the first ones, pass; they are paid for. */
  private passingFrames(batch: Batch, meter: Meter): number {
    const passes = fittingFrames(batch, AS_THEY_CAME, batch.count, meter, this.clock.us());
    if (passes > 0) meter.spend(framesOf(batch, AS_THEY_CAME, passes));
    return passes;
  }

  private passing(batch: Batch, order: Int32Array, count: number, frames: Meter, bits: Meter): number {
    const nowUs = this.clock.us();
    let passes = count;
    if (frames.isOn) passes = fittingFrames(batch, order, count, frames, nowUs);
    if (bits.isOn && passes > 0) {
      passes = this.fittingBits(batch, order, passes, bits, nowUs);
      if (passes > 0) bits.spend(this.bytes * BITS_PER_BYTE);
    }
    if (frames.isOn && passes > 0) frames.spend(framesOf(batch, order, passes));
    return passes;
  }

  private fittingBits(batch: Batch, order: Int32Array, count: number, bits: Meter, nowUs: number): number {
    const { records } = batch;
    let bytes = bytesOf(records, order, count);
    const level = bits.fill(nowUs, bytes * BITS_PER_BYTE);
    let passes = count;
    if (!bits.isAbove(level, bytes * BITS_PER_BYTE)) {
      bytes = 0;
      passes = 0;
      while (passes < count && bits.isAbove(level, bytes * BITS_PER_BYTE)) {
        bytes += records[(order[passes] << RECORD_SHIFT) + AT_BYTES];
        passes++;
      }
    }
    this.bytes = bytes;
    return passes;
  }
}

function bytesOf(records: Int32Array, order: Int32Array, count: number): number {
  let bytes = 0;
  if (order === AS_THEY_CAME) {
    const end = count << RECORD_SHIFT;
    for (let at = AT_BYTES; at < end; at += 1 << RECORD_SHIFT) bytes = (bytes + records[at]) | 0;
    return bytes;
  }
  for (let k = 0; k < count; k++) bytes = (bytes + records[(order[k] << RECORD_SHIFT) + AT_BYTES]) | 0;
  return bytes;
}

function kindOf(word0: number, word1: number, sender: ForwardingPort): number {
  if ((word0 & 1) === 0) return UNICAST;
  if (word0 === -1 && (word1 & 0xffff) === 0xffff) return BROADCAST;
  // Those are flooded only from ports that say so.
  return isLinkLocal(word0, word1) && sender.keepsLinkLocal ? UNICAST : MULTICAST;
}

function fittingFrames(batch: Batch, order: Int32Array, count: number, frames: Meter, nowUs: number): number {
  const level = frames.fill(nowUs, framesOf(batch, order, count));
  if (!batch.asks) return frames.fitting(level, 1, count);
  let tokens = 0;
  let passes = 0;
  while (passes < count && frames.isAbove(level, tokens)) tokens += batch.segmentCountOf(order[passes++]);
  return passes;
}

function framesOf(batch: Batch, order: Int32Array, count: number): number {
  if (!batch.asks) return count;
  let frames = 0;
  for (let k = 0; k < count; k++) frames += batch.segmentCountOf(order[k]);
  return frames;
}

/** Of a whole batch the first frames pass, the others are dropped. Answers whether any are left. */
function keepFirst(batch: Batch, sender: ForwardingPort, passes: number, reason: number): boolean {
  if (passes !== batch.count) {
    sender.counts[reason] += batch.count - passes;
    if ((sender.stages & STAGE_CAPTURE) !== 0)
      for (let frame = passes; frame < batch.count; frame++) noteDropped(sender, batch, frame, reason);
    batch.count = passes;
  }
  return passes > 0;
}
