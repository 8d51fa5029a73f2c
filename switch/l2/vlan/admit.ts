/**
 * Stage: takes VLAN tags out of the frames of a batch, drops those that their sender may not send, and says which VLAN
 * the others are in (src/queue/frame-tags.ts). After the heads were read, before addresses are learned or looked up: both
 * are by VLAN. Hot path of one worker.
 */
import { ETHERNET_HEADER_BYTES } from '../../../protocol/ethernet.ts';
import type { ArenaView } from '../../../src/memory/arena-view.ts';
import type { Batch } from '../../../src/queue/batch.ts';
import * as BATCH from '../../../src/queue/batch.ts';
import * as TAGS from '../../../src/queue/frame-tags.ts';
import { isTag } from '../../../src/queue/frame-tags.ts';
import { readWord3 } from '../../../src/queue/heads.ts';
import { noteDropped } from '../capture.ts';
import { DROP } from '../drop-reasons.ts';
import { type ForwardingPort, STAGE_CAPTURE } from '../forwarding-port.ts';

// V8 folds a module's own constants into a loop, and loads imported ones again at each use: some 3 ns a frame.
const { AT_BYTES, AT_INDEX, AT_WORD3, HEAD_BYTES, RECORD_SHIFT } = BATCH;
const { TAG_BYTES } = TAGS;

/** A tag, and the EtherType behind it. */
const TAGGED_BYTES_MIN = ETHERNET_HEADER_BYTES + TAG_BYTES;
/** So long that cutting a tag out leaves a plain frame. */
const PLAIN_TAGGED_BYTES_MIN = HEAD_BYTES + TAG_BYTES;

export class Admit {
  declare private readonly arena: ArenaView;
  /** Tags that are looked at, 1 or 2; those behind are payload. */
  declare private readonly tagsMax: number;

  constructor(arena: ArenaView, tagsMax: number) {
    this.arena = arena;
    this.tagsMax = tagsMax;
  }

  /** Answers whether frames are left. */
  all(batch: Batch, sender: ForwardingPort): boolean {
    const { vlan } = sender;
    const { tags, records, alikeBehind } = batch;
    const first = records[AT_WORD3];
    if (alikeBehind ? !isTag(first) : !hasTag(batch)) {
      return vlan.isPlain || this.settleAlike(batch, sender, 0, 0);
    }
    if (alikeBehind && batch.alike && !batch.asks && bytesMin(batch) >= PLAIN_TAGGED_BYTES_MIN) {
      // All have the same tag, and lie in one window; all but the first one at multiples of 4, or they were not alike.
      const hasSecond = this.cutAlike(batch);
      if (!hasSecond || this.tagsMax === 1 || vlan.isTunnel) return this.settleAlike(batch, sender, first, 0);
      tags.outers.fill(first, 0, batch.count);
      batch.spread();
      return this.settleEach(batch, sender);
    }
    batch.spread();
    this.cutEach(batch, sender);
    return this.settleEach(batch, sender);
  }

  /** Cuts the same tag out of all frames. Answers whether another one follows in any. */
  private cutAlike(batch: Batch): boolean {
    const { count, records, allIn } = batch;
    const { windows } = this.arena;
    const { i32 } = windows[allIn];
    batch.cut(0, TAG_BYTES);
    const first = readWord3(batch, 0, windows);
    records[AT_WORD3] = first;
    let difference = 0;
    let hasSecond = isTag(first);
    for (let frame = 1; frame < count; frame++) {
      const at = frame << RECORD_SHIFT;
      const index = records[at + AT_INDEX] + TAG_BYTES;
      const word = i32[(index >> 2) + 3];
      records[at + AT_INDEX] = index;
      records[at + AT_BYTES] -= TAG_BYTES;
      records[at + AT_WORD3] = word;
      difference |= word ^ first;
      if (isTag(word)) hasSecond = true;
    }
    batch.bytesMax -= TAG_BYTES;
    batch.alikeBehind = difference === 0;
    return hasSecond;
  }

  /** Cuts the tag of each frame out, if it has one, and notes it; leaves out frames that end within it. */
  private cutEach(batch: Batch, sender: ForwardingPort): void {
    const { count, records, tags } = batch;
    const { windows } = this.arena;
    let kept = 0;
    for (let frame = 0; frame < count; frame++) {
      const at = frame << RECORD_SHIFT;
      const word = records[at + AT_WORD3];
      let tag = 0;
      if (isTag(word)) {
        if (records[at + AT_BYTES] < TAGGED_BYTES_MIN) {
          drop(batch, sender, frame, DROP.truncatedTag);
          continue;
        }
        tag = word;
        batch.cut(frame, TAG_BYTES);
        records[at + AT_WORD3] = readWord3(batch, frame, windows);
        if (!batch.dropRequestFront(frame, TAG_BYTES)) {
          drop(batch, sender, frame, DROP.badChecksumRequest);
          continue;
        }
      }
      tags.outers[frame] = tag;
      if (frame !== kept) batch.move(frame, kept);
      kept++;
    }
    batch.count = kept;
  }

  /** All frames came with the same tags. */
  private settleAlike(batch: Batch, sender: ForwardingPort, tag: number, second: number): boolean {
    const { vlan } = sender;
    const refusal = vlan.refusalOf(tag);
    if (refusal >= 0) {
      for (let frame = 0; frame < batch.count; frame++) drop(batch, sender, frame, refusal);
      batch.count = 0;
      return false;
    }
    batch.tags.outer = vlan.outerOf(tag);
    batch.tags.inner = vlan.innerOf(tag, second);
    return true;
  }

  /** Each frame has the tag that it came with in `outers`. */
  private settleEach(batch: Batch, sender: ForwardingPort): boolean {
    const { count, records, tags } = batch;
    const { outers, inners } = tags;
    const { vlan } = sender;
    const { windows } = this.arena;
    const looksForSecond = this.tagsMax > 1 && !vlan.isTunnel;
    let kept = 0;
    let difference = 0;
    for (let frame = 0; frame < count; frame++) {
      const at = frame << RECORD_SHIFT;
      const tag = outers[frame];
      const refusal = vlan.refusalOf(tag);
      if (refusal >= 0) {
        drop(batch, sender, frame, refusal);
        continue;
      }
      let second = 0;
      const word = records[at + AT_WORD3];
      if (looksForSecond && tag !== 0 && isTag(word) && records[at + AT_BYTES] >= TAGGED_BYTES_MIN) {
        second = word;
        batch.cut(frame, TAG_BYTES);
        records[at + AT_WORD3] = readWord3(batch, frame, windows);
        if (!batch.dropRequestFront(frame, TAG_BYTES)) {
          drop(batch, sender, frame, DROP.badChecksumRequest);
          continue;
        }
      }
      outers[frame] = vlan.outerOf(tag);
      inners[frame] = vlan.innerOf(tag, second);
      if (frame !== kept) batch.move(frame, kept);
      difference |= (outers[kept] ^ outers[0]) | (inners[kept] ^ inners[0]);
      kept++;
    }
    batch.count = kept;
    tags.isUniform = difference === 0;
    tags.outer = outers[0];
    tags.inner = inners[0];
    return kept > 0;
  }
}

function drop(batch: Batch, sender: ForwardingPort, frame: number, reason: number): void {
  sender.counts[reason] += 1;
  if ((sender.stages & STAGE_CAPTURE) !== 0) noteDropped(sender, batch, frame, reason);
}

/** Of frames whose fourth words differ. */
function hasTag({ count, records }: Batch): boolean {
  for (let frame = 0; frame < count; frame++) {
    if (isTag(records[(frame << RECORD_SHIFT) + AT_WORD3])) return true;
  }
  return false;
}

function bytesMin({ count, records }: Batch): number {
  let min = records[AT_BYTES];
  for (let frame = 1; frame < count; frame++) {
    const bytes = records[(frame << RECORD_SHIFT) + AT_BYTES];
    if (bytes < min) min = bytes;
  }
  return min;
}
