/**
 * Stage: plugins decide about a batch, one after the other, the last of the stages of checks.ts; carries out what they say. A
 * plugin that throws or is too slow again and again is taken out at once, and the frames of its burst are what its `onFault` says. Hot path
 * of one worker; allocates nothing but when a plugin fails.
 */
import type { ArenaView } from '../../src/memory/arena-view.ts';
import type { Batch } from '../../src/queue/batch.ts';
import * as BATCH from '../../src/queue/batch.ts';
import { PRIORITY_BITS, TAG_BYTES, TPID_8021Q, tagOf } from '../../src/queue/frame-tags.ts';
import { noteAllDropped } from '../l2/capture.ts';
import { leaveOut } from '../l2/checks.ts';
import { DROP } from '../l2/drop-reasons.ts';
import type { ForwardingPort } from '../l2/forwarding-port.ts';
import type { HeadCopies } from '../l2/head-copies.ts';
import type { Outlets } from '../l2/outlets.ts';
import * as PORT_COUNTS_TABLE from '../l2/port-counts.ts';
import * as BUNDLE from './bundle.ts';
import * as FRAMES from './frames.ts';
import { BatchFrames } from './frames.ts';
import { checkAnswer, type NamedPort, type PluginInstance, reasonOf } from './instance.ts';
import { allowTurns, CALL_TURNS_MAX } from './turn-budget.ts';

// V8 folds a module's own constants into a loop, and loads imported ones again at each use: some 3 ns a frame.
const { AS_THEY_CAME, AT_TARGET, BATCH_FRAMES_MAX, RECORD_SHIFT } = BATCH;
const { COUNT_COPIES, COUNT_FORWARDED } = PORT_COUNTS_TABLE;
const { COUNT_MIRRORED, COUNT_NOWHERE, COUNT_REDIRECTED, COUNT_SEEN, COUNTS_FIRST } = BUNDLE;
const { NOBODY, NOWHERE, SAID_DROP, SAID_MIRROR, SAID_REDIRECT, SAID_VLAN, VLAN_KEPT } = FRAMES;
const TPID_BITS = 0xffff;
/** In `drops`: for no reason of the plugin's. */
const DROPPED_NOWHERE = -1;

/** Of so many calls one is measured: a look at the clock makes garbage. */
export const MEASURED_EVERY = 256;
/** So many that were measured one after the other took too long, and it is the plugin, not the thread that had to wait. */
export const SLOW_IN_A_ROW_MAX = 16;

/** The plugin was taken out. */
export type PluginFaultListener = (instance: PluginInstance, reason: string) => void;

export class PluginStage {
  /** While a plugin is called: its number; for the main thread, which looks whether it comes back (../worker/orders.ts). */
  declare private readonly callWords: Int32Array;
  declare private readonly headCopies: HeadCopies;
  declare private readonly outlets: Outlets;
  declare readonly frames: BatchFrames;
  declare private readonly verdicts: Int32Array;
  declare private readonly order: Int32Array;
  /** While `hasRedirects`: the port that each frame goes to whatever was learned, or NOBODY. */
  declare private readonly targets: Int32Array;
  /** By port id: those that its frames pass. */
  readonly #runs: (readonly PluginInstance[])[] = [];
  readonly #names: (NamedPort | undefined)[] = [];
  readonly #portOf: (id: number) => ForwardingPort | undefined;
  readonly #onFault: PluginFaultListener;
  readonly #nowUs: () => number;
  /** Some frames of the batch are to go where a plugin said. */
  hasRedirects = false;

  /** `callWords`: two words, the number of the plugin that is being called and how many calls there were. */
  constructor(of: {
    readonly arena: ArenaView;
    readonly headCopies: HeadCopies;
    readonly outlets: Outlets;
    readonly verdicts: Int32Array;
    readonly portOf: (id: number) => ForwardingPort | undefined;
    readonly callWords: Int32Array;
    readonly onFault: PluginFaultListener;
    readonly nowUs?: () => number;
  }) {
    this.headCopies = of.headCopies;
    this.outlets = of.outlets;
    this.verdicts = of.verdicts;
    this.callWords = of.callWords;
    this.frames = new BatchFrames(of.arena, of.headCopies);
    this.order = new Int32Array(BATCH_FRAMES_MAX);
    this.targets = new Int32Array(BATCH_FRAMES_MAX);
    this.#portOf = of.portOf;
    this.#onFault = of.onFault;
    this.#nowUs = of.nowUs ?? (() => performance.now() * 1000);
  }

  /** Frames from the port pass these plugins from now on. Never during a burst. */
  setRun(port: ForwardingPort, name: NamedPort, run: readonly PluginInstance[]): void {
    while (this.#runs.length <= port.id) {
      this.#runs.push([]);
      this.#names.push(undefined);
    }
    this.#runs[port.id] = run;
    this.#names[port.id] = name;
    port.setPlugins(run.length > 0);
  }

  /** Of a port that has plugins. Answers whether frames are left. */
  all(batch: Batch, sender: ForwardingPort, nowTick: number): boolean {
    const { frames } = this;
    const run = this.#runs[sender.id];
    frames.forget();
    this.hasRedirects = false;
    frames.begin(batch, this.#names[sender.id] as NamedPort, nowTick);
    for (let i = 0; i < run.length; i++) {
      const instance = run[i];
      if (!instance.isFailed && this.ask(instance, batch)) {
        if (frames.said !== 0 && !this.carryOut(instance, batch, sender)) return false;
        continue;
      }
      if (instance.onFault === 'pass') continue;
      sender.counts[DROP.pluginFailed] += batch.count;
      noteAllDropped(sender, batch, AS_THEY_CAME, batch.count, DROP.pluginFailed);
      batch.count = 0;
      return false;
    }
    return true;
  }

  /** After the look-up: has frames go where plugins said. All targets stand in the records. */
  redirect({ count, records }: Batch): void {
    const { targets } = this;
    for (let frame = 0; frame < count; frame++) {
      if (targets[frame] !== NOBODY) records[(frame << RECORD_SHIFT) + AT_TARGET] = targets[frame];
    }
  }

  /** False: it failed, and said nothing. */
  protected ask(instance: PluginInstance, batch: Batch): boolean {
    const { frames, callWords } = this;
    if (instance.readsHeaders) this.headCopies.copy(batch);
    frames.mayReadHeaders = instance.readsHeaders;
    frames.reasonCount = instance.reasonCount;
    instance.counts[COUNT_SEEN] += batch.count;
    callWords[0] = instance.number;
    callWords[1] = (callWords[1] + 1) | 0;
    allowTurns(CALL_TURNS_MAX);
    try {
      instance.untilMeasured--;
      if (instance.untilMeasured > 0) decide(instance, frames);
      else this.measure(instance);
    } catch (error) {
      this.fail(instance, reasonOf(error));
    }
    callWords[0] = 0;
    return !instance.isFailed;
  }

  /** Calls a hook of the plugin, which the main thread sees. @throws whatever it does */
  callHook({ number }: PluginInstance, hook: () => void): void {
    const { callWords } = this;
    callWords[0] = number;
    callWords[1] = (callWords[1] + 1) | 0;
    allowTurns(CALL_TURNS_MAX);
    try {
      hook();
    } finally {
      callWords[0] = 0;
    }
  }

  private measure(instance: PluginInstance): void {
    const startUs = this.#nowUs();
    decide(instance, this.frames);
    const tookUs = this.#nowUs() - startUs;
    if (tookUs <= instance.budgetUs) {
      instance.slowInARow = 0;
      instance.untilMeasured = MEASURED_EVERY;
      return;
    }
    // The next ones are measured too.
    instance.untilMeasured = 1;
    if (++instance.slowInARow < SLOW_IN_A_ROW_MAX) return;
    this.fail(
      instance,
      `it took ${Math.round(tookUs)} µs for a burst of ${this.frames.count}, as for the ${SLOW_IN_A_ROW_MAX - 1} before it (allowed: ${instance.budgetUs} µs)`,
    );
  }

  private fail(instance: PluginInstance, reason: string): void {
    instance.isFailed = true;
    this.frames.forget();
    this.#onFault(instance, reason);
  }

  /** What the plugin said. Answers whether frames are left. */
  private carryOut(instance: PluginInstance, batch: Batch, sender: ForwardingPort): boolean {
    const { frames } = this;
    const { said } = frames;
    frames.said = 0;
    if ((said & SAID_MIRROR) !== 0) this.mirror(instance, batch, sender);
    if ((said & SAID_VLAN) !== 0) changeVlans(batch, frames.vlanActions);
    let drops = (said & SAID_DROP) !== 0;
    if ((said & SAID_REDIRECT) !== 0 && this.redirectAll(instance, batch)) drops = true;
    if (drops && !this.leaveOutDropped(instance, batch, sender)) return false;
    frames.changed();
    return true;
  }

  /** Notes where frames go. Answers whether some are to be dropped, whose ports are not there. */
  private redirectAll(instance: PluginInstance, batch: Batch): boolean {
    const { targets } = this;
    // Frames with one address may have several targets now.
    batch.spread();
    const { count } = batch;
    const { redirects, drops } = this.frames;
    if (!this.hasRedirects) targets.fill(NOBODY);
    this.hasRedirects = true;
    let isAnyNowhere = false;
    for (let frame = 0; frame < count; frame++) {
      const id = redirects[frame];
      redirects[frame] = NOBODY;
      if (id === NOBODY || drops[frame] !== 0) continue;
      targets[frame] = id;
      // One that gets nothing but copies is none to send to.
      if (id !== NOWHERE && this.#portOf(id)?.isSwitched === true) {
        instance.counts[COUNT_REDIRECTED] += 1;
        continue;
      }
      instance.counts[COUNT_NOWHERE] += 1;
      drops[frame] = DROPPED_NOWHERE;
      isAnyNowhere = true;
    }
    return isAnyNowhere;
  }

  private leaveOutDropped(instance: PluginInstance, batch: Batch, sender: ForwardingPort): boolean {
    const { verdicts, targets } = this;
    const { drops, marks } = this.frames;
    const { count } = batch;
    let kept = 0;
    for (let frame = 0; frame < count; frame++) {
      const drop = drops[frame];
      drops[frame] = 0;
      if (drop === 0) {
        targets[kept] = targets[frame];
        marks[kept] = marks[frame];
        kept++;
        continue;
      }
      if (drop > 0) instance.counts[COUNTS_FIRST + drop - 1] += 1;
      verdicts[frame] = DROP.plugin + 1;
    }
    return leaveOut(batch, verdicts, sender);
  }

  private mirror(instance: PluginInstance, batch: Batch, sender: ForwardingPort): void {
    const { order } = this;
    const { mirrors } = this.frames;
    for (let frame = 0; frame < batch.count; frame++) {
      const id = mirrors[frame];
      if (id === NOBODY) continue;
      const tagBytes = tagBytesOf(batch, frame);
      let frames = 0;
      // In order for each port: one with more or fewer tags ends the stretch.
      for (let next = frame; next < batch.count; next++) {
        if (mirrors[next] !== id) continue;
        if (tagBytesOf(batch, next) !== tagBytes) break;
        order[frames++] = next;
        mirrors[next] = NOBODY;
      }
      const port = this.#portOf(id);
      if (port === undefined || port === sender) continue;
      const copies = this.deliverTagged(port, sender, batch, frames, tagBytes);
      sender.counts[COUNT_COPIES] += copies;
      sender.counts[COUNT_FORWARDED] += copies;
      instance.counts[COUNT_MIRRORED] += frames;
    }
  }

  /** The first `count` of `order`, with the tags that they have inside the switch. Answers how many copies were made. */
  private deliverTagged(
    port: ForwardingPort,
    sender: ForwardingPort,
    batch: Batch,
    count: number,
    tagBytes: number,
  ): number {
    const { order, outlets } = this;
    const { tags } = batch;
    for (let k = 0; k < count; k++) {
      tags.pushes0[order[k]] = tags.outerOf(order[k]);
      tags.pushes1[order[k]] = tags.innerOf(order[k]);
      batch.makeRoom(order[k], tagBytes);
    }
    tags.isPushUniform = false;
    tags.pushBytes = tagBytes;
    batch.bytesMax += tagBytes;
    const copies = outlets.deliverCopies(port, batch, order, count, sender.id, true);
    batch.bytesMax -= tagBytes;
    tags.pushBytes = 0;
    tags.isPushUniform = true;
    for (let k = 0; k < count; k++) batch.makeRoom(order[k], -tagBytes);
    return copies;
  }
}

function tagBytesOf({ tags }: Batch, frame: number): number {
  if (tags.outerOf(frame) === 0) return 0;
  return tags.innerOf(frame) === 0 ? TAG_BYTES : 2 * TAG_BYTES;
}

/** `actions`, which are set back: the VLAN of each frame, 0 for none, or VLAN_KEPT. */
function changeVlans(batch: Batch, actions: Int32Array): void {
  const { count, tags } = batch;
  const { outers, inners } = tags;
  if (tags.isUniform) {
    outers.fill(tags.outer, 0, count);
    inners.fill(tags.inner, 0, count);
  }
  let difference = 0;
  for (let frame = 0; frame < count; frame++) {
    const vlan = actions[frame];
    actions[frame] = VLAN_KEPT;
    const outer = outers[frame];
    if (vlan > 0) {
      const tpid = outer === 0 ? TPID_8021Q : outer & TPID_BITS;
      outers[frame] = tagOf(tpid, outer & PRIORITY_BITS, vlan);
    } else if (vlan === 0) {
      outers[frame] = inners[frame];
      inners[frame] = 0;
    }
    difference |= (outers[frame] ^ outers[0]) | (inners[frame] ^ inners[0]);
  }
  tags.isUniform = difference === 0;
  tags.outer = outers[0];
  tags.inner = inners[0];
  // What is done once for all frames is done for one VLAN.
  if (!tags.isUniform) batch.spread();
}

function decide({ plugin }: PluginInstance, frames: BatchFrames): void {
  const answer: unknown = plugin.decide(frames);
  if (answer !== undefined) checkAnswer('decide', answer);
}
