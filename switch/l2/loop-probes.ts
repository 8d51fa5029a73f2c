/**
 * Stage: frames that this switch sent out itself to find loops (protocol/loop-probe.ts) and that come in again. They go
 * nowhere, and the main thread is told of them (switch/loop-guard.ts), which knows whether their numbers are real: a guest
 * that gets such frames may send what looks like one. So of a port no more than a few a second are told. Runs on all
 * ports while any of them is guarded. One worker's object; what it makes for each that it tells is bounded by that.
 */
import {
  ETHERTYPE_LOOP_PROBE,
  LOOP_PROBE_NUMBER_AT,
  LOOP_PROBE_NUMBER_BYTES,
} from '../../protocol/loop-probe.ts';
import type { ArenaView } from '../../src/memory/arena-view.ts';
import type { Batch } from '../../src/queue/batch.ts';
import * as BATCH from '../../src/queue/batch.ts';
import { FrameHead } from '../../src/queue/frame-head.ts';
import { vlanOf } from '../../src/queue/frame-tags.ts';
import { leaveOut } from './checks.ts';
import { DROP } from './drop-reasons.ts';
import type { ForwardingPort } from './forwarding-port.ts';

// V8 folds a module's own constants into a loop, and loads imported ones again at each use: some 3 ns a frame.
const { AT_WORD3, RECORD_SHIFT } = BATCH;

/** As it is read from a frame. */
const TYPE = ((ETHERTYPE_LOOP_PROBE & 0xff) << 8) | (ETHERTYPE_LOOP_PROBE >> 8);
const TOLD_A_SECOND = 8;

/** One that came in. */
export type ProbeSeen = { readonly portId: number; readonly vlan: number; readonly number: string };

export class LoopProbes {
  /** What the main thread is still to be told of. */
  readonly seen: ProbeSeen[] = [];
  declare private readonly arena: ArenaView;
  /** The address that probes have as their source, as a batch has it: two bytes above, four bytes. */
  declare private readonly upper: number;
  declare private readonly lower: number;
  declare private readonly head: FrameHead;

  /** `mac`: six bytes. */
  constructor(arena: ArenaView, mac: Uint8Array) {
    this.arena = arena;
    this.upper = mac[0] | (mac[1] << 8);
    this.lower = mac[2] | (mac[3] << 8) | (mac[4] << 16) | (mac[5] << 24);
    this.head = new FrameHead();
  }

  /** Answers whether frames are left. */
  all(batch: Batch, sender: ForwardingPort, verdicts: Int32Array, nowTick: number): boolean {
    const { count, records } = batch;
    if (batch.alikeBehind && (records[AT_WORD3] & 0xffff) !== TYPE) return true;
    let hasAny = false;
    for (let frame = 0; frame < count; frame++) {
      const word3 = batch.alikeBehind ? records[AT_WORD3] : records[(frame << RECORD_SHIFT) + AT_WORD3];
      if ((word3 & 0xffff) !== TYPE || !this.isOurs(batch, frame)) continue;
      verdicts[frame] = DROP.loopProbe + 1;
      hasAny = true;
      if (sender.mayTellOfProbe(nowTick, TOLD_A_SECOND)) this.note(batch, frame, sender.id);
    }
    return !hasAny || leaveOut(batch, verdicts, sender);
  }

  private isOurs(batch: Batch, frame: number): boolean {
    return batch.headWordOf(frame, 2) === this.lower && batch.headWordOf(frame, 1) >>> 16 === this.upper;
  }

  private note(batch: Batch, frame: number, portId: number): void {
    const { head } = this;
    head.show(batch, frame, this.arena.windows);
    const at = head.start + LOOP_PROBE_NUMBER_AT;
    if (at + LOOP_PROBE_NUMBER_BYTES > head.end) return;
    // A copy, which the guest does not change.
    const number = Buffer.from(head.bytes.slice(at, at + LOOP_PROBE_NUMBER_BYTES)).toString('hex');
    this.seen.push({ portId, vlan: vlanOf(batch.tags.outerOf(frame)), number });
  }
}
