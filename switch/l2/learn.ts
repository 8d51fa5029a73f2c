/** Stage: notes behind which port the sources of a batch live, in their VLAN. Hot path of one worker. */
import type { Batch } from '../../src/queue/batch.ts';
import * as BATCH from '../../src/queue/batch.ts';
import { vlanOf } from '../../src/queue/frame-tags.ts';
import type { Fdb } from './fdb/fdb.ts';

// V8 folds a module's own constants into a loop, and loads imported ones again at each use: some 3 ns a frame.
const { AT_WORD1, AT_WORD2, BATCH_FRAMES_MAX, RECORD_SHIFT } = BATCH;

export class Learn {
  declare private readonly fdb: Fdb;
  declare private readonly homes: Int32Array;
  /** Keeps what `touch` answered, where nobody looks. */
  touched = 0;

  constructor(fdb: Fdb) {
    this.fdb = fdb;
    this.homes = new Int32Array(BATCH_FRAMES_MAX);
  }

  /** All frames have the source of the first one, in the same VLAN. */
  one({ records, tags }: Batch, portId: number, nowTick: number): void {
    const upper = records[AT_WORD1] >>> 16;
    const lower = records[AT_WORD2];
    this.fdb.learn(upper | (lower << 16), lower >>> 16, vlanOf(tags.outerOf(0)), portId, nowTick);
  }

  /** In short loops, so that the processor asks memory for many slots at once. */
  all(batch: Batch, portId: number, nowTick: number): void {
    const { fdb, homes } = this;
    const { count, records, tags } = batch;
    this.one(batch, portId, nowTick);
    if (!tags.isUniform) {
      for (let frame = 1; frame < count; frame++) this.each(batch, frame, portId, nowTick);
      return;
    }
    const vlan = vlanOf(tags.outer);
    let upper = records[AT_WORD1] >>> 16;
    let lower = records[AT_WORD2];
    let others = 0;
    for (let frame = 1; frame < count; frame++) {
      const at = frame << RECORD_SHIFT;
      if (records[at + AT_WORD2] === lower && records[at + AT_WORD1] >>> 16 === upper) continue;
      upper = records[at + AT_WORD1] >>> 16;
      lower = records[at + AT_WORD2];
      homes[others++] = fdb.homeOf(upper | (lower << 16), (lower >>> 16) | (vlan << 16));
    }
    if (others === 0) return;
    this.touched = fdb.touch(homes, others);
    upper = records[AT_WORD1] >>> 16;
    lower = records[AT_WORD2];
    for (let frame = 1; frame < count; frame++) {
      const at = frame << RECORD_SHIFT;
      if (records[at + AT_WORD2] === lower && records[at + AT_WORD1] >>> 16 === upper) continue;
      upper = records[at + AT_WORD1] >>> 16;
      lower = records[at + AT_WORD2];
      fdb.learn(upper | (lower << 16), lower >>> 16, vlan, portId, nowTick);
    }
  }

  private each({ records, tags }: Batch, frame: number, portId: number, nowTick: number): void {
    const at = frame << RECORD_SHIFT;
    const lower = records[at + AT_WORD2];
    const macLo = (records[at + AT_WORD1] >>> 16) | (lower << 16);
    this.fdb.learn(macLo, lower >>> 16, vlanOf(tags.outers[frame]), portId, nowTick);
  }
}
