/**
 * The VLAN settings of a port as the stages need them, and the rules of Open vSwitch that they stand for
 * (ovs-vswitchd.conf.db(5), "VLAN Configuration"): which frames the port may send, which VLAN they are then in, which
 * frames it gets, and with which tags. Tags are words as src/queue/frame-tags.ts has them. Hot path of one worker.
 */

import {
  PRIORITY_BITS,
  TAG_BYTES,
  TPID_8021AD,
  TPID_8021Q,
  tagOf,
  vlanOf,
} from '../../../src/queue/frame-tags.ts';
import { VLANS, type VlanMode, type VlanPolicy } from '../../../src/queue/policy.ts';
import { DROP } from '../drop-reasons.ts';

const ACCESS = 0;
const TRUNK = 1;
const NATIVE_TAGGED = 2;
const NATIVE_UNTAGGED = 3;
const TUNNEL = 4;
const MODES: Readonly<Record<VlanMode, number>> = {
  access: ACCESS,
  trunk: TRUNK,
  'native-tagged': NATIVE_TAGGED,
  'native-untagged': NATIVE_UNTAGGED,
  'dot1q-tunnel': TUNNEL,
};

const NEVER = 0;
const IF_NONZERO = 1;
const ALWAYS = 2;
const PRIORITIES: Readonly<Record<VlanPolicy['priorityTags'], number>> = {
  never: NEVER,
  'if-nonzero': IF_NONZERO,
  always: ALWAYS,
};

/** Of a tag: priority and VLAN, in the word. */
const TCI_BITS = 0xffef << 16;
const TPID_BITS = 0xffff;

export class PortVlan {
  private mode = TRUNK;
  /** Access and tunnel: the port's VLAN; native: that of frames without a tag. */
  private vlan = 0;
  /** Trunk and native: which VLANs; null: all. */
  private trunks: Uint8Array | null = null;
  /** Tunnel: which customers' VLANs; null: all. */
  private cvlans: Uint8Array | null = null;
  private priority = NEVER;
  /** Tunnel: the TPID of the tag that its frames get. */
  private tpid = TPID_8021AD;
  /** A trunk of all VLANs that gets frames as they came, as a port without settings is. */
  isPlain = true;
  /** After `choose`: the tags that a frame gets. */
  pushBytes = 0;
  push0 = 0;
  push1 = 0;

  follow(policy: VlanPolicy): void {
    this.mode = MODES[policy.mode];
    this.vlan = policy.tag;
    this.trunks = tableOf(policy.trunks);
    this.cvlans = tableOf(policy.cvlans);
    if (this.mode === NATIVE_TAGGED || this.mode === NATIVE_UNTAGGED) {
      // What has no tag at the other end is in the native VLAN, which is always carried, and so in no other.
      this.trunks ??= new Uint8Array(VLANS).fill(1);
      this.trunks[0] = 0;
      this.trunks[policy.tag] = 1;
    }
    this.priority = PRIORITIES[policy.priorityTags];
    this.tpid = policy.serviceTag === '802.1q' ? TPID_8021Q : TPID_8021AD;
    this.isPlain = this.mode === TRUNK && this.trunks === null && this.priority === NEVER;
  }

  /** Frames from the port keep all tags that they have, behind the one that they get. */
  get isTunnel(): boolean {
    return this.mode === TUNNEL;
  }

  /** Why the port may not send frames with this tag (0: none); -1: it may. */
  refusalOf(tag: number): number {
    const vlan = vlanOf(tag);
    switch (this.mode) {
      case ACCESS:
        return vlan === 0 ? -1 : DROP.taggedOnAccess;
      case TUNNEL:
        return this.cvlans === null || this.cvlans[vlan] === 1 ? -1 : DROP.cvlanNotAllowed;
      case TRUNK:
        return this.trunks === null || this.trunks[vlan] === 1 ? -1 : DROP.vlanNotAllowed;
      default:
        return vlan === 0 || this.trunks === null || this.trunks[vlan] === 1 ? -1 : DROP.vlanNotAllowed;
    }
  }

  /** The tag that a frame which came in from the port with this one has inside the switch. */
  outerOf(tag: number): number {
    if (this.mode === TUNNEL) return tagOf(this.tpid, 0, this.vlan);
    if (this.mode === TRUNK || (this.mode !== ACCESS && vlanOf(tag) !== 0)) return tag;
    return tagOf(tag === 0 ? TPID_8021Q : tag & TPID_BITS, tag & PRIORITY_BITS, this.vlan);
  }

  /** The second tag, where the frame came in with these two. */
  innerOf(tag: number, second: number): number {
    if (this.mode === TUNNEL) return tag;
    return this.mode === ACCESS ? 0 : second;
  }

  /** Whether a frame with these tags inside the switch may go to the port. */
  takes(outer: number, inner: number): boolean {
    const vlan = vlanOf(outer);
    if (this.mode === ACCESS) return vlan === this.vlan;
    if (this.mode !== TUNNEL) return this.trunks === null || this.trunks[vlan] === 1;
    return vlan === this.vlan && (this.cvlans === null || this.cvlans[vlanOf(inner)] === 1);
  }

  /** The same of one that is flooded: none whose customer's VLAN would be lost. */
  takesFlood(outer: number, inner: number): boolean {
    return this.takes(outer, inner) && (this.mode !== ACCESS || vlanOf(inner) === 0);
  }

  /**
   * Fills in `pushBytes` and so on: the tags that a frame gets where it goes to the port. `priorityBits` are those of
   * the tag that it came in with.
   */
  choose(outer: number, inner: number, priorityBits: number): void {
    let first = outer;
    let second = inner;
    if (this.mode === ACCESS) {
      first = 0;
      second = 0;
    } else if (this.mode === TUNNEL || (this.mode === NATIVE_UNTAGGED && vlanOf(outer) === this.vlan)) {
      first = inner;
      second = 0;
    }
    if (this.priority !== NEVER) first = (first & ~PRIORITY_BITS) | priorityBits;
    this.push0 = withTpid(first);
    this.push1 = withTpid(second);
    this.pushBytes = !this.isWritten(first) ? 0 : this.isWritten(second) ? 2 * TAG_BYTES : TAG_BYTES;
  }

  /** One of VLAN 0 says nothing but a priority, and is left out when there is none. */
  private isWritten(tag: number): boolean {
    return (tag & TCI_BITS) !== 0 || (this.priority === ALWAYS && (tag & TPID_BITS) !== 0);
  }
}

function withTpid(tag: number): number {
  return (tag & TPID_BITS) === 0 ? tag | TPID_8021Q : tag;
}

/** By VLAN, 1: it is one of these; null: all are. */
export function tableOf(vlans: readonly number[] | null): Uint8Array | null {
  if (vlans === null) return null;
  const table = new Uint8Array(VLANS);
  for (const vlan of vlans) table[vlan] = 1;
  return table;
}
