/**
 * Stage: finds for each frame of a batch the port that owns its destination in its VLAN, or FLOOD: for a group address,
 * and for one that nobody is known to have; or LINK_LOCAL. Hot path of one worker.
 */
import type { Batch } from '../../src/queue/batch.ts';
import * as BATCH from '../../src/queue/batch.ts';
import { vlanOf } from '../../src/queue/frame-tags.ts';
import type { Fdb } from './fdb/fdb.ts';
import { isLinkLocal } from './link-local.ts';

// V8 folds a module's own constants into a loop, and loads imported ones again at each use: some 3 ns a frame.
const { AT_TARGET, AT_WORD0, AT_WORD1, BATCH_FRAMES_MAX, RECORD_SHIFT } = BATCH;

/** For a target: to all other ports. */
export const FLOOD = -1;
/** For a target: to an address that is kept to the sender's link, see link-local.ts. */
export const LINK_LOCAL = -2;

export class LookUp {
  declare private readonly fdb: Fdb;
  declare private readonly homes: Int32Array;
  /** Keeps what `touch` answered, where nobody looks. */
  touched = 0;
  /** Frames to groups since somebody set this to 0, and of those the broadcast ones. */
  groups = 0;
  broadcasts = 0;

  constructor(fdb: Fdb) {
    this.fdb = fdb;
    this.homes = new Int32Array(BATCH_FRAMES_MAX);
  }

  /** The target of the first frame, which is that of all. */
  one({ records, tags, count }: Batch): number {
    const word0 = records[AT_WORD0];
    // Bit 0 of the first byte: a group address.
    if ((word0 & 1) !== 0) return this.groupTarget(word0, records[AT_WORD1], count);
    return this.fdb.lookup(word0, records[AT_WORD1] & 0xffff, vlanOf(tags.outer));
  }

  /**
   * Writes all targets. In three short loops: hashes, the table's slots, the owners; so the processor asks memory for
   * many slots at once, while met one by one each would be waited for.
   */
  all(batch: Batch): void {
    const { count, records, tags } = batch;
    if (!tags.isUniform) {
      this.each(batch);
      return;
    }
    const { fdb, homes } = this;
    const vlanBits = vlanOf(tags.outer) << 16;
    for (let frame = 0; frame < count; frame++) {
      const at = frame << RECORD_SHIFT;
      homes[frame] = fdb.homeOf(records[at + AT_WORD0], (records[at + AT_WORD1] & 0xffff) | vlanBits);
    }
    this.touched = fdb.touch(homes, count);
    for (let frame = 0; frame < count; frame++) {
      const at = frame << RECORD_SHIFT;
      const word0 = records[at + AT_WORD0];
      records[at + AT_TARGET] =
        (word0 & 1) !== 0
          ? this.groupTarget(word0, records[at + AT_WORD1], 1)
          : fdb.lookupFrom(homes[frame], word0, (records[at + AT_WORD1] & 0xffff) | vlanBits);
    }
  }

  /** The same for frames of several VLANs. */
  private each({ count, records, tags }: Batch): void {
    for (let frame = 0; frame < count; frame++) {
      const at = frame << RECORD_SHIFT;
      const word0 = records[at + AT_WORD0];
      const word1 = records[at + AT_WORD1];
      records[at + AT_TARGET] =
        (word0 & 1) !== 0
          ? this.groupTarget(word0, word1, 1)
          : this.fdb.lookup(word0, word1 & 0xffff, vlanOf(tags.outers[frame]));
    }
  }

  /** Of so many frames to that address. */
  private groupTarget(word0: number, word1: number, frames: number): number {
    this.groups += frames;
    if (word0 === -1 && (word1 & 0xffff) === 0xffff) this.broadcasts += frames;
    return isLinkLocal(word0, word1) ? LINK_LOCAL : FLOOD;
  }
}
