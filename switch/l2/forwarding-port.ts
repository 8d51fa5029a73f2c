/** A port as one worker's forwarder sees it: its queues, its policy as the stages need it, its counters. */
import { ETHERNET_HEADER_BYTES, MTU_MAX } from '../../protocol/ethernet.ts';
import type { EgressQueue } from '../../src/queue/contract.ts';
import { TPID_8021Q, tagOf } from '../../src/queue/frame-tags.ts';
import { DEFAULT_VLAN, type PortPolicy } from '../../src/queue/policy.ts';
import type { Tap } from './capture.ts';
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
/** Any of those. */
export const STAGE_CHECKS = STAGE_LIMIT | STAGE_GUARD | STAGE_SNOOP | STAGE_PLUGIN;

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
  /** This worker's counters (port-counts.ts). */
  declare readonly counts: Float64Array;

  constructor(id: number, counts: Float64Array) {
    this.id = id;
    this.counts = counts;
  }

  /**
   * What the policy says about this port alone; mirrors, which concern two ports, are the forwarder's business. Answers
   * whether frames that were decided upon before might not be sent to it now, or not so.
   */
  follow(policy: PortPolicy): boolean {
    const { frameBytesMax, takes } = this;
    const vlan = JSON.stringify(policy.vlan);
    const isOtherVlan = vlan !== this.#vlan;
    this.#vlan = vlan;
    this.frameBytesMax = ETHERNET_HEADER_BYTES + Math.min(policy.linkMtu, policy.mtu);
    this.takes = policy.takes;
    this.isSwitched = policy.copiesOf === null;
    this.isFlooded = this.isSwitched && policy.floods;
    const { copies } = policy;
    this.copiesIn = copies.in;
    this.copiesOut = copies.out;
    this.copyVlans = tableOf(copies.vlans);
    this.copyTag = copies.outputVlan === null ? 0 : tagOf(TPID_8021Q, 0, copies.outputVlan);
    this.setStage(STAGE_LEARN, this.isSwitched);
    this.setStage(STAGE_RECEIVE_OFF, !policy.receives);
    this.setStage(STAGE_LINK_LOCAL, !policy.forwardsLinkLocal);
    this.vlan.follow(policy.vlan);
    return isOtherVlan || this.frameBytesMax < frameBytesMax || (takes & ~this.takes) !== 0;
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

  setQueues(queues: readonly EgressQueue[]): void {
    this.queues = queues;
    this.queueCount = queues.length;
  }

  private setStage(stage: number, isOn: boolean): void {
    this.stages = isOn ? this.stages | stage : this.stages & ~stage;
  }
}
