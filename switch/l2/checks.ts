/**
 * Stages that may leave frames out of a batch for what they are or how many, after the VLANs were admitted and before
 * anything is learned: their order, and how frames are left out. Hot path of one worker; nothing of this is called for a
 * port that has none of these stages.
 */
import type { ArenaView } from '../../src/memory/arena-view.ts';
import type { Batch } from '../../src/queue/batch.ts';
import * as BATCH from '../../src/queue/batch.ts';
import type { PluginStage } from '../plugin/stage.ts';
import { noteDropped } from './capture.ts';
import type { Fdb } from './fdb/fdb.ts';
import {
  type ForwardingPort,
  STAGE_CAPTURE,
  STAGE_GUARD,
  STAGE_LIMIT,
  STAGE_LOOP_PROBES,
  STAGE_PLUGIN,
} from './forwarding-port.ts';
import { Guard } from './guard/guard.ts';
import { HeadCopies } from './head-copies.ts';
import type { Limits } from './limits.ts';
import type { LoopProbes } from './loop-probes.ts';

// V8 folds a module's own constants into a loop, and loads imported ones again at each use: some 3 ns a frame.
const { BATCH_FRAMES_MAX } = BATCH;

/** In `verdicts`: the frame goes on. Otherwise one more than the index of its drop reason. */
export const KEPT = 0;

export class Checks {
  /** One a frame of the batch; each stage begins with all of them KEPT. */
  declare readonly verdicts: Int32Array;
  /** What stages look at that decide on more than addresses and EtherType. */
  declare readonly heads: HeadCopies;
  declare private readonly guard: Guard;

  /** Null: there are none, and no port has their bit. */
  plugins: PluginStage | null = null;

  declare private readonly limits: Limits;
  declare private readonly loopProbes: LoopProbes;

  /** `scratchOffset`: of HEAD_COPIES_SCRATCH_BYTES in the arena, within one window. */
  constructor(arena: ArenaView, fdb: Fdb, limits: Limits, loopProbes: LoopProbes, scratchOffset: number) {
    this.loopProbes = loopProbes;
    this.limits = limits;
    this.verdicts = new Int32Array(BATCH_FRAMES_MAX);
    this.heads = new HeadCopies(arena, scratchOffset);
    this.guard = new Guard(fdb, this.heads);
  }

  /** Runs the port's stages over the batch. Answers whether frames are left. */
  all(batch: Batch, sender: ForwardingPort, nowTick: number): boolean {
    const { verdicts, plugins } = this;
    const { stages } = sender;
    if ((stages & STAGE_LOOP_PROBES) !== 0 && !this.loopProbes.all(batch, sender, verdicts, nowTick))
      return false;
    if ((stages & STAGE_LIMIT) !== 0 && !this.limits.sent(batch, sender, verdicts)) return false;
    if ((stages & STAGE_GUARD) !== 0 && this.guard.all(batch, sender, verdicts, nowTick)) {
      if (!leaveOut(batch, verdicts, sender)) return false;
    }
    if ((stages & STAGE_PLUGIN) !== 0 && plugins !== null) return plugins.all(batch, sender, nowTick);
    return batch.count > 0;
  }
}

/**
 * Leaves out the frames that have a verdict, in the books of their sender, and sets the verdicts back. What was known of
 * all frames still holds of the others. Answers whether any are left.
 */
export function leaveOut(batch: Batch, verdicts: Int32Array, sender: ForwardingPort): boolean {
  const { counts } = sender;
  const { count, alike, alikeBehind } = batch;
  batch.spread();
  let kept = 0;
  for (let frame = 0; frame < count; frame++) {
    const verdict = verdicts[frame];
    if (verdict !== KEPT) {
      counts[verdict - 1] += 1;
      if ((sender.stages & STAGE_CAPTURE) !== 0) noteDropped(sender, batch, frame, verdict - 1);
      verdicts[frame] = KEPT;
      continue;
    }
    if (frame !== kept) batch.move(frame, kept);
    kept++;
  }
  batch.count = kept;
  batch.alike = alike;
  batch.alikeBehind = alikeBehind;
  return kept > 0;
}
