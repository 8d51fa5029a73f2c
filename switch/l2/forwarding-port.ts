/** A port as one worker's forwarder sees it: its queues, its policy as the stages need it, its counters. */
import { ETHERNET_HEADER_BYTES, MTU_MAX } from '../../protocol/ethernet.ts';
import type { EgressQueue } from '../../src/queue/contract.ts';
import { TPID_8021Q, tagOf } from '../../src/queue/frame-tags.ts';
import {
  DEFAULT_VLAN,
  type LimitsPolicy,
  type LoopGuardPolicy,
  type PortPolicy,
} from '../../src/queue/policy.ts';
import type { Tap } from './capture.ts';
import { DROP } from './drop-reasons.ts';
import { PortGuard } from './guard/port-guard.ts';
import { NO_METERS, PORT_METERS_BYTES, PortMeters } from './port-meters.ts';
import { PortVlan, tableOf } from './vlan/port-vlan.ts';

/** Which stages run for frames from a port (`stages`), as a bit mask. */
export const STAGE_LEARN = 1;
export const STAGE_MIRROR = 2;
/** Runs instead of all others. */
export const STAGE_RECEIVE_OFF = 4;
export const STAGE_LINK_LOCAL = 8;
/** Its frames are copied for those who capture them (capture.ts). */
export const STAGE_CAPTURE = 2 ** 16;
/** Stages of checks.ts, in their order: limits and storms, guards, snooping, plugins. */
export const STAGE_LIMIT = 16;
export const STAGE_GUARD = 32;
export const STAGE_SNOOP = 64;
export const STAGE_PLUGIN = 128;
/** Frames to addresses that nobody is known to have are counted. */
export const STAGE_STORM_UNKNOWN = 256;
/** Of the receiver: how much is sent to it is limited. */
export const STAGE_LIMIT_OUT = 512;
/** Of sender and receiver both: no frames go from one to the other. */
export const STAGE_PROTECTED = 1024;
/** Of checks.ts: looks for probes of loops that come in again. On all ports, or on none. */
export const STAGE_LOOP_PROBES = 2048;
/** Of the receiver: it is shut. */
export const STAGE_SHUT = 4096;
/** What is done about frames that are sent to it; where there is none of these they are placed. */
export const STAGES_OF_RECEIVER =
  STAGE_SHUT | STAGE_PROTECTED | STAGE_LIMIT_OUT | STAGE_MIRROR | STAGE_CAPTURE;
/** Any of those in checks.ts. */
export const STAGE_CHECKS = STAGE_LOOP_PROBES | STAGE_LIMIT | STAGE_GUARD | STAGE_SNOOP | STAGE_PLUGIN;

export class ForwardingPort {
  declare readonly id: number;
  /** The queues that this worker fills; `queueCount` of them. */
  queues: readonly EgressQueue[] = [];
  queueCount = 0;
  /** Longest frame for it, without VLAN tags. */
  frameBytesMax = ETHERNET_HEADER_BYTES + MTU_MAX;
  /** OFFLOAD_* bits: what need not be done for it. */
  takes = 0;
  stages = STAGE_LEARN | STAGE_LINK_LOCAL;
  /** Frames are switched to it; otherwise it gets nothing but copies. */
  isSwitched = true;
  /** Broadcast, multicast and unknown frames go to it. */
  isFlooded = true;
  readonly vlan = new PortVlan();
  /** Messages about groups are looked for in its frames; of those, how many more are read in this second. */
  isSnooped = false;
  snoopedTick = -1;
  snoopedLeft = 0;
  readonly guard = new PortGuard();
  /** The VLAN policy that it follows, as text to compare. */
  #vlan = JSON.stringify(DEFAULT_VLAN);
  /** Ports that get copies of the frames from this one, and to it. */
  mirrorsIn: readonly ForwardingPort[] = [];
  mirrorsOut: readonly ForwardingPort[] = [];
  /** Where it gets copies: which ones. `copyVlans`: null: of all VLANs; `copyTag`: 0: it gets them without a tag of its own. */
  copiesIn = true;
  copiesOut = true;
  copyVlans: Uint8Array | null = null;
  copyTag = 0;
  /** Captures of its frames. */
  taps: readonly Tap[] = [];
  /** Plugins that its frames pass, by name; null: all. Which of them there are now is said by `setPlugins`. */
  plugins: readonly string[] | null = null;
  /** This worker's counters (port-counts.ts). */
  declare readonly counts: Float64Array;

  /** NO_METERS until a limit is set. */
  meters = NO_METERS;
  readonly #metersMemory: SharedArrayBuffer;
  /** Why all that comes from it is dropped, with STAGE_RECEIVE_OFF. */
  refusal = DROP.receiveOff;
  loopGuard: LoopGuardPolicy = 'off';
  /** Bursts with frames of several lengths that are not looked at before the next one that is (frame-classes.ts). */
  burstsToSkip = 0;
  private probesTick = 0;
  private probesTold = 0;

  /** `meters`: of PORT_METERS_BYTES, the same for all workers. */
  constructor(id: number, counts: Float64Array, meters = new SharedArrayBuffer(PORT_METERS_BYTES)) {
    this.id = id;
    this.counts = counts;
    this.#metersMemory = meters;
  }

  /**
   * What the policy says about this port alone; mirrors, which concern two ports, are the forwarder's business. Answers
   * whether frames that were decided upon before might not be sent to it now, or not so. `nowUs`: of the workers' clock
   * (clock.ts), for buckets that begin.
   */
  follow(policy: PortPolicy, nowUs = 0): boolean {
    const { frameBytesMax, takes } = this;
    const vlan = JSON.stringify(policy.vlan);
    const isOtherVlan = vlan !== this.#vlan;
    this.#vlan = vlan;
    this.frameBytesMax = ETHERNET_HEADER_BYTES + Math.min(policy.linkMtu, policy.mtu);
    this.takes = policy.takes;
    this.isSwitched = policy.copiesOf === null;
    this.isFlooded = this.isSwitched && policy.floods && !policy.isShut;
    const { copies } = policy;
    this.copiesIn = copies.in;
    this.copiesOut = copies.out;
    this.copyVlans = tableOf(copies.vlans);
    this.copyTag = copies.outputVlan === null ? 0 : tagOf(TPID_8021Q, 0, copies.outputVlan);
    this.setStage(STAGE_LEARN, this.isSwitched);
    this.setStage(STAGE_RECEIVE_OFF, !policy.receives || policy.isShut);
    this.refusal = policy.receives ? DROP.loopShut : DROP.receiveOff;
    this.setStage(STAGE_SHUT, policy.isShut);
    this.loopGuard = policy.loopGuard;
    this.setStage(STAGE_LINK_LOCAL, !policy.forwardsLinkLocal);
    this.setStage(STAGE_SNOOP, this.isSwitched && this.isSnooped);
    this.setStage(STAGE_GUARD, policy.guard !== null);
    this.vlan.follow(policy.vlan);
    this.guard.follow(policy.guard);
    this.plugins = policy.plugins;
    this.followLimits(policy.limits, nowUs);
    const isNewlyProtected = policy.isProtected && (this.stages & STAGE_PROTECTED) === 0;
    this.setStage(STAGE_PROTECTED, policy.isProtected);
    const isKeptFromMore = policy.isShut || isOtherVlan || isNewlyProtected;
    return isKeptFromMore || this.frameBytesMax < frameBytesMax || (takes & ~this.takes) !== 0;
  }

  private followLimits(limits: LimitsPolicy, nowUs: number): void {
    if (this.meters === NO_METERS) {
      if (Object.values(limits).every((limit) => limit === null)) return;
      this.meters = new PortMeters(this.#metersMemory);
    }
    const { meters } = this;
    meters.follow(limits, nowUs);
    this.setStage(STAGE_LIMIT, meters.limitsWhatComesIn);
    this.setStage(STAGE_STORM_UNKNOWN, meters.unknown.isOn);
    this.setStage(STAGE_LIMIT_OUT, meters.limitsWhatGoesOut);
  }

  /** Frames from it to addresses that bridges do not pass on are dropped. */
  get keepsLinkLocal(): boolean {
    return (this.stages & STAGE_LINK_LOCAL) !== 0;
  }

  /** From now on. */
  snoop(): void {
    this.isSnooped = true;
    this.setStage(STAGE_SNOOP, this.isSwitched);
  }

  /** Those that get copies of its frames. */
  setMirrors(mirrors: readonly ForwardingPort[]): void {
    this.mirrorsIn = mirrors.filter(({ copiesIn }) => copiesIn);
    this.mirrorsOut = mirrors.filter(({ copiesOut }) => copiesOut);
    this.setStage(STAGE_MIRROR, this.mirrorsIn.length + this.mirrorsOut.length > 0);
  }

  setTaps(taps: readonly Tap[]): void {
    this.taps = taps;
    this.setStage(STAGE_CAPTURE, taps.length > 0);
  }

  setPlugins(isAny: boolean): void {
    this.setStage(STAGE_PLUGIN, isAny);
  }

  setQueues(queues: readonly EgressQueue[]): void {
    this.queues = queues;
    this.queueCount = queues.length;
  }

  /** Whether frames from it are looked at for probes of loops. */
  setLooksForProbes(isOn: boolean): void {
    this.setStage(STAGE_LOOP_PROBES, isOn);
  }

  /** Whether the main thread may be told of one more this second. */
  mayTellOfProbe(nowTick: number, most: number): boolean {
    if (nowTick !== this.probesTick) this.probesTold = 0;
    this.probesTick = nowTick;
    if (this.probesTold === most) return false;
    this.probesTold++;
    return true;
  }

  private setStage(stage: number, isOn: boolean): void {
    this.stages = isOn ? this.stages | stage : this.stages & ~stage;
  }
}
