/**
 * Who gets which frame: takes a burst from a queue into the batch, lets the stages decide about it, and hands the
 * frames to the ports that they go to, never back to their sender. Order is kept between frames of one queue that go
 * to one queue. Each stage is a file beside this one; which of them run is a bit mask of the port. Hot path of one
 * worker; allocates nothing.
 */
import assert from 'node:assert/strict';
import { rarpFrame } from '../../protocol/rarp.ts';
import type { ArenaView } from '../../src/memory/arena-view.ts';
import { WINDOW_BYTES } from '../../src/memory/window.ts';
import { COMPLETION_SCRATCH_BYTES, Completion } from '../../src/offload/completion.ts';
import {
  REQUEST_BAD_CHECKSUM,
  REQUEST_BAD_SEGMENTS,
  REQUEST_TOO_MANY_SEGMENTS,
  REQUEST_TOO_SCATTERED,
} from '../../src/offload/request.ts';
import * as BATCH from '../../src/queue/batch.ts';
import { Batch } from '../../src/queue/batch.ts';
import type { EgressQueue, IngressQueue } from '../../src/queue/contract.ts';
import { isTag, TPID_8021Q, tagOf } from '../../src/queue/frame-tags.ts';
import { readHeads } from '../../src/queue/heads.ts';
import type { HeldFrames } from '../../src/queue/held-frames.ts';
import type { PortPolicy } from '../../src/queue/policy.ts';
import { type PluginFaultListener, PluginStage } from '../plugin/stage.ts';
import * as BURSTS from './burst-counts.ts';
import { Capture, noteAllDropped, noteDropped, Tap } from './capture.ts';
import type { CaptureSetup } from './capture-ring.ts';
import { Checks } from './checks.ts';
import { Clock } from './clock.ts';
import { Delivery } from './delivery.ts';
import { DROP } from './drop-reasons.ts';
import type { Fdb } from './fdb/fdb.ts';
import { countFlooded, takesFloods, takesGroups } from './flood.ts';
import {
  type ForwardingPort,
  STAGE_CAPTURE,
  STAGE_CHECKS,
  STAGE_LEARN,
  STAGE_LINK_LOCAL,
  STAGE_MIRROR,
  STAGE_PLUGIN,
  STAGE_RECEIVE_OFF,
  STAGE_SHUT,
  STAGE_SNOOP,
  STAGE_STORM_UNKNOWN,
} from './forwarding-port.ts';
import { countSizes } from './frame-classes.ts';
import type { Snoop } from './groups/snoop.ts';
import { hasPort } from './groups/table.ts';
import { HEAD_COPIES_SCRATCH_BYTES } from './head-copies.ts';
import { Learn } from './learn.ts';
import { Limits } from './limits.ts';
import { dropLinkLocal } from './link-local.ts';
import * as LOOK_UP from './look-up.ts';
import { LookUp } from './look-up.ts';
import { LoopProbes } from './loop-probes.ts';
import { mirror } from './mirror.ts';
import { type FaultListener, OUTLETS_SCRATCH_BYTES, Outlets } from './outlets.ts';
import * as PORT_COUNTS_TABLE from './port-counts.ts';
import { dropAll } from './receive-off.ts';
import { Admit } from './vlan/admit.ts';

// V8 folds a module's own constants into a loop, and loads imported ones again at each use: some 3 ns a frame.
const { AS_THEY_CAME, AT_TARGET, AT_WORD3, BATCH_FRAMES_MAX, RECORD_SHIFT } = BATCH;
const { FLOOD, LINK_LOCAL } = LOOK_UP;
const { COUNT_BROADCAST, COUNT_COPIES, COUNT_FORWARDED, COUNT_MULTICAST } = PORT_COUNTS_TABLE;

const NOBODY = -1;
/** Of a queue that holds frames and is closed: two frames of 64 KiB, as most that a driver of today leaves there. */
const DRAINED_BURSTS = 2;
/** For a frame of our own. */
const OWN_FRAME_BYTES = 4096;
const OWN_FRAME_ROOM_BYTES = 64;
/** Of a forwarder's part of the arena, where headers are made. */
export const FORWARDER_SCRATCH_BYTES =
  OUTLETS_SCRATCH_BYTES + COMPLETION_SCRATCH_BYTES + OWN_FRAME_BYTES + HEAD_COPIES_SCRATCH_BYTES;
/** Tags of a frame that are looked at, if nobody says otherwise; as with Open vSwitch. */
export const VLAN_LIMIT_DEFAULT = 1;

const BURST_FRAMES: number = BURSTS.BURST_FRAMES;

export class Forwarder {
  /** The running seconds clock that ages addresses. */
  nowTick = 0;
  /** BURST_COUNTS (burst-counts.ts). */
  bursts: Float64Array = new Float64Array(BURSTS.BURST_COUNTS);
  declare private readonly arena: ArenaView;
  /** Of the last burst; subclasses only look at it (../trace/). */
  declare protected readonly batch: Batch;
  declare private readonly capture: Capture;
  declare private readonly admit: Admit;
  declare private readonly limits: Limits;
  declare readonly loopProbes: LoopProbes;
  declare private readonly checks: Checks;
  declare private readonly learn: Learn;
  declare private readonly lookUp: LookUp;
  declare private readonly outlets: Outlets;
  declare private readonly delivery: Delivery;
  declare private readonly onFault: FaultListener;
  /** In the arena, of OWN_FRAME_BYTES. */
  declare private readonly ownFrameOffset: number;
  /** Ports by id; `#switched` has those that frames are switched to, without gaps. */
  readonly #portOfId: (ForwardingPort | undefined)[] = [];
  #switched: readonly ForwardingPort[] = [];
  /** Ports that get copies, and of which ports. */
  readonly #copied = new Map<number, readonly number[]>();
  /** Frames of a mixed batch by target, as lists: first and last frame of each port's, by port id; the next frame. */
  declare private firstOf: Int32Array;
  declare private lastOf: Int32Array;
  declare private readonly nextOf: Int32Array;
  /** Senders whose frames lie in queues that are still open. */
  readonly #unfinished: IngressQueue[] = [];
  private unfinishedCount = 0;
  /** Ids of the ports that have such a list. */
  declare private readonly targets: Int32Array;
  /** Frames of one port, for placing. */
  declare private readonly order: Int32Array;
  /** Ports that each flooded frame of several VLANs goes to. */
  declare private readonly receiversOf: Int32Array;
  /** Null: groups of IP are flooded as others. */
  #snoop: Snoop | null = null;
  /** While frames of one group are sent: the ports that get them (groups/table.ts); null: all. */
  #members: Int32Array | null = null;

  /**
   * `scratchOffset`: of FORWARDER_SCRATCH_BYTES in the arena, within one window. `vlanLimit`: VLAN tags of a frame that are
   * looked at, 1 or 2.
   */
  constructor(
    arena: ArenaView,
    fdb: Fdb,
    onFault: FaultListener,
    scratchOffset: number,
    vlanLimit = VLAN_LIMIT_DEFAULT,
    clock = new Clock(),
    probeMac: Uint8Array = new Uint8Array(6),
  ) {
    this.arena = arena;
    this.batch = new Batch();
    this.capture = new Capture();
    this.admit = new Admit(arena, vlanLimit);
    this.limits = new Limits(clock);
    this.loopProbes = new LoopProbes(arena, probeMac);
    this.learn = new Learn(fdb);
    this.lookUp = new LookUp(fdb);
    this.outlets = new Outlets(arena, onFault, scratchOffset, this.limits);
    const completion = new Completion(arena, scratchOffset + OUTLETS_SCRATCH_BYTES);
    this.delivery = new Delivery(this.batch, this.capture, this.outlets, completion);
    this.ownFrameOffset = scratchOffset + OUTLETS_SCRATCH_BYTES + COMPLETION_SCRATCH_BYTES;
    this.checks = new Checks(arena, fdb, this.limits, this.loopProbes, this.ownFrameOffset + OWN_FRAME_BYTES);
    this.onFault = onFault;
    this.firstOf = new Int32Array(0);
    this.lastOf = new Int32Array(0);
    this.nextOf = new Int32Array(BATCH_FRAMES_MAX);
    this.targets = new Int32Array(BATCH_FRAMES_MAX);
    this.order = new Int32Array(BATCH_FRAMES_MAX);
    this.receiversOf = new Int32Array(BATCH_FRAMES_MAX);
  }

  /** Has groups of IP go to who wants them; before any port is added. */
  snoopBy(snoop: Snoop): void {
    this.#snoop = snoop;
  }

  /** Has plugins be asked, once ports have any. `callWords`, `nowUs`: as of PluginStage; `Stage`: who asks them. */
  addPlugins(
    callWords: Int32Array,
    onFault: PluginFaultListener,
    nowUs?: () => number,
    Stage = PluginStage,
  ): PluginStage {
    const { arena, outlets } = this;
    const { heads, verdicts } = this.checks;
    const portOf = (id: number): ForwardingPort | undefined => this.#portOfId[id];
    const clock = nowUs === undefined ? {} : { nowUs };
    const stage = new Stage({
      arena,
      headCopies: heads,
      outlets,
      verdicts,
      portOf,
      callWords,
      onFault,
      ...clock,
    });
    this.checks.plugins = stage;
    return stage;
  }

  addPort(port: ForwardingPort): void {
    if (this.#snoop !== null) port.snoop();
    while (this.#portOfId.length <= port.id) this.#portOfId.push(undefined);
    this.#portOfId[port.id] = port;
    this.firstOf = new Int32Array(this.#portOfId.length).fill(NOBODY);
    this.lastOf = new Int32Array(this.#portOfId.length);
    this.#refresh();
  }

  removePort(id: number): void {
    this.#portOfId[id] = undefined;
    this.#copied.delete(id);
    this.#refresh();
  }

  port(id: number): ForwardingPort | undefined {
    return this.#portOfId[id];
  }

  /** The port gets copies of all frames to and from these ports; null: of none. */
  setCopies(id: number, sourceIds: readonly number[] | null): void {
    if (sourceIds === null) this.#copied.delete(id);
    else this.#copied.set(id, sourceIds);
    this.#refresh();
  }

  /** Copies frames for a capture, by the ring of this worker, from now on; again: other ports of the same one. */
  startCapture(setup: CaptureSetup, worker: number): void {
    // What was written stands in the ring's indices.
    this.capture.publish();
    const others = this.capture.taps.filter(({ id }) => id !== setup.id);
    this.capture.setTaps([...others, new Tap(this.arena, setup, worker)]);
    this.#refresh();
  }

  endCapture(id: number): void {
    this.capture.publish();
    this.capture.setTaps(this.capture.taps.filter((tap) => tap.id !== id));
    this.#refresh();
  }

  #refresh(): void {
    const ports = this.#portOfId.filter((port) => port !== undefined);
    for (const port of ports) port.setTaps(this.capture.taps.filter((tap) => tap.wants(port.id)));
    this.#switched = ports.filter((port) => port.isSwitched);
    this.#guard();
    for (const port of ports) {
      port.setMirrors(ports.filter((other) => this.#copied.get(other.id)?.includes(port.id) === true));
      // They show what was placed.
      if (port.mirrorsOut.length > 0) this.#forgetAll(port);
    }
  }

  /**
   * Forwards a frame of our own as if it had come in from the port, so that everybody learns that the guest with this
   * address lives there: all that is decided about the port's frames is decided about it. Never during a burst.
   */
  announce(portId: number, mac: readonly number[]): void {
    const sender = this.#portOfId[portId];
    if (sender === undefined) return;
    this.#lay(rarpFrame(mac));
    // No queue brought it.
    sender.counts[COUNT_COPIES] += 1;
    if ((sender.stages & STAGE_RECEIVE_OFF) !== 0) dropAll(sender, 1);
    else this.#forward(sender);
    this.#handOver();
  }

  /**
   * Sends a frame of our own, without a tag, in a VLAN to these ports, as far as they carry it; null: to all. In the books of
   * each port it is a copy that the port made. Never during a burst.
   */
  emitInVlan(frame: Uint8Array, vlan: number, portIds: readonly number[] | null): void {
    const outer = vlan === 0 ? 0 : tagOf(TPID_8021Q, 0, vlan);
    for (const port of this.#switched) {
      if ((port.stages & STAGE_SHUT) !== 0 || (portIds !== null && !portIds.includes(port.id))) continue;
      if (port.vlan.takesFlood(outer, 0)) this.#emit(port, frame, outer);
    }
    this.#handOver();
  }

  /**
   * Sends a frame of our own, without tags, out of the port, in the VLAN that frames without a tag are in there; to none
   * where it carries no such VLAN. Never during a burst.
   */
  emit(portId: number, frame: Uint8Array): void {
    const port = this.#portOfId[portId];
    if (port === undefined || (port.stages & STAGE_SHUT) !== 0 || port.vlan.refusalOf(0) >= 0) return;
    this.#emit(port, frame, port.vlan.outerOf(0));
    this.#handOver();
  }

  #emit(port: ForwardingPort, frame: Uint8Array, outer: number): void {
    const { batch } = this;
    this.#lay(frame);
    readHeads(batch, this.arena.windows);
    batch.tags.outer = outer;
    batch.tags.inner = 0;
    // No queue brought it: in its books it is a copy.
    port.counts[COUNT_COPIES] += 1;
    this.delivery.forwardTo(port, port, batch, AS_THEY_CAME, 1);
  }

  /** A frame of our own is all of the batch, with room for tags before it. */
  #lay(frame: Uint8Array): void {
    const { arena, batch } = this;
    assert(frame.length <= OWN_FRAME_BYTES - OWN_FRAME_ROOM_BYTES, 'there is room for it');
    const offset = this.ownFrameOffset + OWN_FRAME_ROOM_BYTES;
    arena.u8.set(frame, offset);
    const window = Math.floor(offset / WINDOW_BYTES);
    batch.clear();
    batch.add(window, offset - window * WINDOW_BYTES, frame.length);
  }

  /** Forwards a burst of each of these queues. Answers how many frames it took. */
  forwardTurn(polled: readonly IngressQueue[]): number {
    let taken = this.outlets.hasBacklogs ? this.outlets.placeBacklogs(this.nowTick) : 0;
    for (let i = 0; i < polled.length; i++) taken += this.#takeBurst(polled[i]);
    if (this.unfinishedCount !== 0) this.#handOver();
    return taken;
  }

  /** Frames wait for guests to offer buffers, which nothing tells of. */
  get hasBacklogs(): boolean {
    return this.outlets.hasBacklogs;
  }

  /** The queue is closed: what waits for it is dropped. */
  forget(queue: EgressQueue): void {
    this.outlets.forget(queue);
  }

  /** Has a port follow its policy. What waits for it is dropped when it might not be sent to it now, or not so. */
  follow(port: ForwardingPort, policy: PortPolicy): void {
    const { clock } = this.limits;
    clock.turn();
    if (port.follow(policy, clock.us())) this.#forgetAll(port);
    this.#guard();
  }

  /** A probe that was sent out of one port may come in by any. */
  #guard(): void {
    const ports = this.#portOfId.filter((port) => port !== undefined);
    const looksForProbes = ports.some(({ loopGuard }) => loopGuard !== 'off');
    for (const port of ports) port.setLooksForProbes(looksForProbes);
  }

  #forgetAll(port: ForwardingPort): void {
    for (const queue of port.queues) this.outlets.forget(queue);
  }

  /** Forwards up to BATCH_FRAMES_MAX waiting frames of one queue. Answers how many it took. */
  forwardBurst(from: IngressQueue): number {
    const taken = this.#takeBurst(from);
    if (this.unfinishedCount !== 0) this.#handOver();
    return taken;
  }

  /**
   * Forwards what the queue took and holds, and drops what is too much for a turn; never during one. Whoever asks for
   * this may do so as often as he likes.
   */
  drain(from: IngressQueue): void {
    const { held } = from;
    if (held === null) return;
    for (let bursts = DRAINED_BURSTS; !held.isEmpty; bursts--) {
      this.batch.clear();
      if (bursts > 0) this.#forwardTaken(from, held.give(this.batch));
      else this.#dropHeld(from, held);
      this.#handOver();
    }
  }

  #dropHeld(from: IngressQueue, held: HeldFrames): void {
    const sender = this.#portOfId[from.portId] as ForwardingPort;
    sender.counts[DROP.heldBack] += held.drop();
    this.#unfinished[this.unfinishedCount++] = from;
  }

  #takeBurst(from: IngressQueue): number {
    this.limits.clock.turn();
    const taken = from.gather(this.batch);
    this.#forwardTaken(from, taken);
    if (from.fault !== 0) this.onFault(from);
    return taken;
  }

  /** What stands in the batch, of so many frames that were taken. */
  #forwardTaken(from: IngressQueue, taken: number): void {
    if (taken === 0) return;
    const { batch, bursts } = this;
    const sender = this.#portOfId[from.portId] as ForwardingPort;
    bursts[32 - Math.clz32(taken - 1)] += 1;
    bursts[BURST_FRAMES] += taken;
    if (batch.count !== 0) countSizes(sender, batch);
    if ((sender.stages & STAGE_RECEIVE_OFF) !== 0) {
      if ((sender.stages & STAGE_CAPTURE) !== 0 && batch.count !== 0) this.#captureReceiveOff(sender);
      dropAll(sender, taken);
    } else {
      if (batch.count !== 0) {
        if (batch.asks) this.#forwardCharging(sender, from);
        else this.#forward(sender);
      }
      if (batch.count !== taken) countUntaken(sender, batch);
    }
    this.#unfinished[this.unfinishedCount++] = from;
    if (!this.outlets.areWorthHolding) this.#handOver();
  }

  #captureReceiveOff(sender: ForwardingPort): void {
    const { batch } = this;
    readHeads(batch, this.arena.windows);
    this.capture.incoming(batch, sender);
    noteAllDropped(sender, batch, AS_THEY_CAME, batch.count, sender.refusal);
  }

  /** Of one frame may come as many segments as two bursts have frames, for each receiver. */
  #forwardCharging(sender: ForwardingPort, from: IngressQueue): void {
    const { counts } = sender;
    const forwardedBefore = counts[COUNT_FORWARDED];
    this.#forward(sender);
    const copies = counts[COUNT_FORWARDED] - forwardedBefore - this.batch.count;
    if (copies > 0) from.charge(copies);
  }

  /** What was placed becomes visible first: a frame that its sender was given back is never lost. */
  #handOver(): void {
    this.outlets.close();
    if (this.capture.hasNews) this.capture.publish();
    for (let i = 0; i < this.unfinishedCount; i++) this.#unfinished[i].finish();
    this.unfinishedCount = 0;
  }

  #forward(sender: ForwardingPort): void {
    const { batch, lookUp } = this;
    readHeads(batch, this.arena.windows);
    const { stages } = sender;
    if ((stages & (STAGE_MIRROR | STAGE_CAPTURE)) !== 0) {
      if ((stages & STAGE_CAPTURE) !== 0) this.capture.incoming(batch, sender);
      if ((stages & STAGE_MIRROR) !== 0)
        mirror(this.outlets, sender, sender, batch, AS_THEY_CAME, batch.count, true);
    }
    // One look where no frame has a tag and none gets one.
    const isPlain = sender.vlan.isPlain && batch.alikeBehind && !isTag(batch.records[AT_WORD3]);
    if (!isPlain && !this.admit.all(batch, sender)) return;
    if ((stages & STAGE_CHECKS) !== 0) {
      if (!this.checks.all(batch, sender, this.nowTick)) return;
      const snoop = (stages & STAGE_SNOOP) !== 0 ? this.#snoop : null;
      if (snoop?.reads(batch, sender, this.nowTick, this.checks.heads) === true) {
        this.#forwardGroups(sender, snoop);
        return;
      }
    }
    if (batch.alike) {
      if ((stages & STAGE_LEARN) !== 0) this.learn.one(batch, sender.id, this.nowTick);
      const target = lookUp.one(batch);
      if (lookUp.groups !== 0) countGroups(sender, lookUp);
      if ((stages & STAGE_STORM_UNKNOWN) !== 0 && this.#isFloodedTo(target)) {
        if (!this.limits.unknownAlike(batch, sender)) return;
      }
      this.#send(sender, target, AS_THEY_CAME, batch.count);
      return;
    }
    if ((stages & STAGE_LEARN) !== 0) this.learn.all(batch, sender.id, this.nowTick);
    lookUp.all(batch);
    if (lookUp.groups !== 0) countGroups(sender, lookUp);
    this.#redirect(sender);
    if ((stages & STAGE_STORM_UNKNOWN) !== 0) {
      if (!this.limits.unknown(batch, sender, this.checks.verdicts, this.#isFloodedTo)) return;
    }
    this.#sendMixed(sender);
  }

  /** After the look-up: what plugins said of targets is the last word. */
  #redirect({ stages }: ForwardingPort): void {
    const { plugins } = this.checks;
    if ((stages & STAGE_PLUGIN) !== 0 && plugins?.hasRedirects === true) plugins.redirect(this.batch);
  }

  /** Frames some of which go to a group: those that follow one another and go to the same ports in one go. */
  #forwardGroups(sender: ForwardingPort, snoop: Snoop): void {
    const { batch, order } = this;
    const { records, tags } = batch;
    if ((sender.stages & STAGE_LEARN) !== 0) this.learn.all(batch, sender.id, this.nowTick);
    this.lookUp.all(batch);
    if (this.lookUp.groups !== 0) countGroups(sender, this.lookUp);
    snoop.setTargets(batch);
    this.#redirect(sender);
    if ((sender.stages & STAGE_STORM_UNKNOWN) !== 0) {
      if (!this.limits.unknown(batch, sender, this.checks.verdicts, this.#isFloodedTo)) return;
    }
    const { count } = batch;
    for (let from = 0; from < count; ) {
      const target = records[(from << RECORD_SHIFT) + AT_TARGET];
      const first = from;
      let frames = 0;
      do order[frames++] = from++;
      while (
        from < count &&
        records[(from << RECORD_SHIFT) + AT_TARGET] === target &&
        snoop.isLike(batch, first, from) &&
        tags.outerOf(first) === tags.outerOf(from) &&
        tags.innerOf(first) === tags.innerOf(from)
      );
      this.#members = snoop.receiversOf(batch, first);
      this.#send(sender, target, order, frames);
    }
    this.#members = null;
  }

  /** Frames that all have one target. */
  #send(sender: ForwardingPort, target: number, order: Int32Array, count: number): void {
    const port = target < 0 ? undefined : this.#portOfId[target];
    if (port === undefined || !port.isSwitched) {
      if (target === LINK_LOCAL && (sender.stages & STAGE_LINK_LOCAL) !== 0) {
        dropLinkLocal(sender, count);
        noteAllDropped(sender, this.batch, order, count, DROP.linkLocal);
      } else this.#flood(sender, order, count);
    } else this.delivery.deliver(sender, port, order, count);
  }

  /** Frames of several targets: each port's in one go. */
  #sendMixed(sender: ForwardingPort): void {
    const { batch } = this;
    const { count, records } = batch;
    const first = records[AT_TARGET];
    let isOne = true;
    let hasFlood = false;
    let kept = 0;
    for (let i = 0; i < count; i++) {
      const at = (i << RECORD_SHIFT) + AT_TARGET;
      const id = records[at];
      if (id !== first) isOne = false;
      if (id < 0 || !this.#isSwitched(id)) {
        if (id === LINK_LOCAL && (sender.stages & STAGE_LINK_LOCAL) !== 0) kept++;
        else records[at] = FLOOD;
        hasFlood = true;
      }
    }
    const isUniform = batch.tags.isUniform;
    if (isOne && (!hasFlood || isUniform)) this.#send(sender, first, AS_THEY_CAME, count);
    else if (hasFlood && isUniform && batch.asks) this.#sendInStretches(sender);
    else if (hasFlood) {
      // No port's target is LINK_LOCAL, so those are passed over.
      if (kept !== 0) this.#dropLinkLocalAmong(sender, kept);
      this.#sendWithFloods(sender);
    } else this.#sendByTarget(sender);
  }

  #dropLinkLocalAmong(sender: ForwardingPort, kept: number): void {
    dropLinkLocal(sender, kept);
    if ((sender.stages & STAGE_CAPTURE) === 0) return;
    const { count, records } = this.batch;
    for (let i = 0; i < count; i++) {
      if (records[(i << RECORD_SHIFT) + AT_TARGET] === LINK_LOCAL)
        noteDropped(sender, this.batch, i, DROP.linkLocal);
    }
  }

  /** Of a target, whether frames to it are flooded. */
  readonly #isFloodedTo = (target: number): boolean => target < 0 || !this.#isSwitched(target);

  #isSwitched(id: number): boolean {
    return this.#portOfId[id]?.isSwitched === true;
  }

  #sendByTarget(sender: ForwardingPort): void {
    const { firstOf, lastOf, nextOf, targets, order } = this;
    const { count, records } = this.batch;
    let targetCount = 0;
    for (let i = 0; i < count; i++) {
      const id = records[(i << RECORD_SHIFT) + AT_TARGET];
      nextOf[i] = NOBODY;
      if (firstOf[id] === NOBODY) {
        firstOf[id] = i;
        targets[targetCount++] = id;
      } else nextOf[lastOf[id]] = i;
      lastOf[id] = i;
    }
    for (let t = 0; t < targetCount; t++) {
      const id = targets[t];
      let frames = 0;
      for (let i = firstOf[id]; i !== NOBODY; i = nextOf[i]) order[frames++] = i;
      firstOf[id] = NOBODY;
      this.delivery.deliver(sender, this.#portOfId[id] as ForwardingPort, order, frames);
    }
  }

  /** Frames that go to all are completed once for all: so frames of one target that follow one another go together. */
  #sendInStretches(sender: ForwardingPort): void {
    const { order } = this;
    const { count, records } = this.batch;
    for (let from = 0; from < count; ) {
      const target = records[(from << RECORD_SHIFT) + AT_TARGET];
      let frames = 0;
      while (from < count && records[(from << RECORD_SHIFT) + AT_TARGET] === target) order[frames++] = from++;
      this.#send(sender, target, order, frames);
    }
  }

  /** Some of the frames go to all: each port gets those and its own in the order in which they came. */
  #sendWithFloods(sender: ForwardingPort): void {
    const { batch, order, receiversOf } = this;
    const { count, records, tags } = batch;
    const { outers, inners, isUniform } = tags;
    let floods = 0;
    for (let i = 0; i < count; i++) {
      if (records[(i << RECORD_SHIFT) + AT_TARGET] === FLOOD) floods++;
      receiversOf[i] = 0;
    }
    let receivers = 0;
    for (const port of this.#switched) {
      let getsFloods = takesFloods(port, sender);
      if (isUniform) getsFloods = getsFloods && port.vlan.takesFlood(tags.outer, tags.inner);
      if (getsFloods) receivers++;
      let frames = 0;
      for (let i = 0; i < count; i++) {
        const id = records[(i << RECORD_SHIFT) + AT_TARGET];
        if (id === port.id) order[frames++] = i;
        else if (id === FLOOD && getsFloods && (isUniform || port.vlan.takesFlood(outers[i], inners[i]))) {
          order[frames++] = i;
          receiversOf[i] += 1;
        }
      }
      if (frames > 0) this.delivery.deliver(sender, port, order, frames);
    }
    if (isUniform) countFlooded(sender, floods, receivers);
    for (let i = 0; i < count; i++) {
      if (records[(i << RECORD_SHIFT) + AT_TARGET] !== FLOOD) continue;
      if (!isUniform) countFlooded(sender, 1, receiversOf[i]);
      if (receiversOf[i] === 0 && (sender.stages & STAGE_CAPTURE) !== 0)
        noteDropped(sender, batch, i, DROP.noReceiver);
    }
  }

  /** Frames of one VLAN, and while there are `#members` of one group. */
  #flood(sender: ForwardingPort, order: Int32Array, count: number): void {
    const outer = this.batch.tags.outerOf(order[0]);
    const inner = this.batch.tags.innerOf(order[0]);
    const members = this.#members;
    const ports = this.#switched;
    const { receivers } = this.delivery;
    const { asks } = this.batch;
    let receiverCount = 0;
    for (let i = 0; i < ports.length; i++) {
      if (members === null ? !takesFloods(ports[i], sender) : !isMember(members, ports[i], sender)) continue;
      if (!ports[i].vlan.takesFlood(outer, inner)) continue;
      receivers[receiverCount++] = ports[i];
      if (!asks) this.delivery.forwardTo(sender, ports[i], this.batch, order, count);
    }
    if (asks) this.delivery.complete(sender, receiverCount, order, count);
    const isToNobody = members !== null && receiverCount === 0;
    if (isToNobody) sender.counts[DROP.noMember] += count;
    else countFlooded(sender, count, receiverCount);
    if (receiverCount === 0)
      noteAllDropped(sender, this.batch, order, count, isToNobody ? DROP.noMember : DROP.noReceiver);
  }
}

function isMember(members: Int32Array, port: ForwardingPort, sender: ForwardingPort): boolean {
  return hasPort(members, port.id) && takesGroups(port, sender);
}

function countGroups({ counts }: ForwardingPort, lookUp: LookUp): void {
  const { groups, broadcasts } = lookUp;
  lookUp.groups = 0;
  lookUp.broadcasts = 0;
  counts[COUNT_MULTICAST] += groups - broadcasts;
  counts[COUNT_BROADCAST] += broadcasts;
}

function countUntaken({ counts }: ForwardingPort, batch: Batch): void {
  const { badRequests } = batch;
  counts[DROP.tooLong] += batch.tooLong;
  counts[DROP.tooShort] += batch.tooShort;
  counts[DROP.tooScattered] += batch.tooScattered + badRequests[REQUEST_TOO_SCATTERED];
  counts[DROP.badChecksumRequest] += badRequests[REQUEST_BAD_CHECKSUM];
  counts[DROP.badSegmentRequest] += badRequests[REQUEST_BAD_SEGMENTS];
  counts[DROP.tooManySegments] += badRequests[REQUEST_TOO_MANY_SEGMENTS];
}
