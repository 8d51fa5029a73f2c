/**
 * What is decided about a port as a whole and followed by the workers: plain data, posted whole whenever a part
 * of it changes. A new property of a port is a field here and in the stage that acts on it.
 */
import { MTU_MAX } from '../../protocol/ethernet.ts';

/** A port whose frames are copied. */
export type MirrorSource = { readonly portId: number; readonly name: string };

export const VLANS = 4096;

export type VlanMode = 'access' | 'trunk' | 'native-tagged' | 'native-untagged' | 'dot1q-tunnel';

/** Which VLANs a port is in, and how its frames show it (switch/l2/vlan/port-vlan.ts); by the names of Open vSwitch. */
export type VlanPolicy = {
  readonly mode: VlanMode;
  /** Access, dot1q-tunnel: the port's VLAN; native-…: that of frames without a tag. 0 of a trunk. */
  readonly tag: number;
  /** Trunk, native-…: VLANs that the port carries; null: all. */
  readonly trunks: readonly number[] | null;
  /** dot1q-tunnel: customers' VLANs that it carries; null: all. */
  readonly cvlans: readonly number[] | null;
  /** Whether frames to the port that have no VLAN to show keep a tag for their priority. */
  readonly priorityTags: 'never' | 'if-nonzero' | 'always';
  /** dot1q-tunnel: the kind of tag that its frames get. */
  readonly serviceTag: '802.1ad' | '802.1q';
};

export const DEFAULT_VLAN: VlanPolicy = {
  mode: 'trunk',
  tag: 0,
  trunks: null,
  cvlans: null,
  priorityTags: 'never',
  serviceTag: '802.1ad',
};

/** Which copies a port gets that gets copies. */
export type CopiesPolicy = {
  /** Of frames from those ports; of frames to them. */
  readonly in: boolean;
  readonly out: boolean;
  /** Only of these VLANs; null: of all. */
  readonly vlans: readonly number[] | null;
  /** Each copy gets a tag of this VLAN in front of its own ones; null: none. */
  readonly outputVlan: number | null;
};

export const DEFAULT_COPIES: CopiesPolicy = { in: true, out: true, vlans: null, outputVlan: null };

/** What a port's guest may send (switch/l2/guard/). */
export type GuardPolicy = {
  /** Sources, of six bytes each; null: any. */
  readonly macs: readonly (readonly number[])[] | null;
  /** Most addresses that are learned of the port, and from no other it may send; null: any number. */
  readonly macsMax: number | null;
  /** Of those the first ones stay. */
  readonly sticky: boolean;
  /** IPv4 (four bytes) and IPv6 (sixteen) networks that its addresses are of; null: any. */
  readonly addresses: readonly { readonly bytes: readonly number[]; readonly prefixBits: number }[] | null;
  /** No messages of DHCP servers, and no router's advertisements and redirects. */
  readonly dhcp: boolean;
  readonly ra: boolean;
};

export const NO_GUARD: GuardPolicy = {
  macs: null,
  macsMax: null,
  sticky: false,
  addresses: null,
  dhcp: false,
  ra: false,
};

/** So many a second, and of those that were saved up so many at once. */
export type RatePolicy = { readonly perSecond: number; readonly burst: number };

/** What a port may send and be sent (switch/l2/limits.ts), and its frames to be flooded, by kind; null: as much as it likes. */
export type LimitsPolicy = {
  readonly bitsIn: RatePolicy | null;
  readonly framesIn: RatePolicy | null;
  readonly bitsOut: RatePolicy | null;
  readonly framesOut: RatePolicy | null;
  /** Frames. */
  readonly broadcast: RatePolicy | null;
  readonly multicast: RatePolicy | null;
  readonly unknown: RatePolicy | null;
};

export const NO_LIMITS: LimitsPolicy = {
  bitsIn: null,
  framesIn: null,
  bitsOut: null,
  framesOut: null,
  broadcast: null,
  multicast: null,
  unknown: null,
};

/** Which signs of a loop have the port shut (switch/loop-guard.ts): none, probes that come back, or addresses that move too. */
export type LoopGuardPolicy = 'off' | 'probe' | 'on';

export type PortPolicy = {
  /**
   * Largest packet of a frame that may be delivered to the port, without Ethernet header and VLAN tags: as its other side
   * has it (NET_SET_MTU, an interface's MTU), and as its settings say. The smaller one holds.
   */
  readonly linkMtu: number;
  readonly mtu: number;
  /**
   * Null: frames are switched to the port. Otherwise it gets copies of all frames to and from these ports and
   * nothing else, and the addresses behind it are not learned, because nothing could be sent to them.
   */
  readonly copiesOf: readonly MirrorSource[] | null;
  readonly copies: CopiesPolicy;
  /** Whether broadcast, multicast and unknown unicast frames are flooded to the port. */
  readonly floods: boolean;
  /** Whether what comes in from the port is forwarded; otherwise all of it is dropped. It can be sent to either way. */
  readonly receives: boolean;
  /** OFFLOAD_* bits (requests.ts): what a frame may ask for that is handed to the port as it is. */
  readonly takes: number;
  /** Whether frames from the port to 01:80:C2:00:00:00 to 0F, which bridges keep to their link, are flooded as others. */
  readonly forwardsLinkLocal: boolean;
  readonly vlan: VlanPolicy;
  /** Null: its guest may send anything. */
  readonly guard: GuardPolicy | null;
  /** Plugins that frames from the port pass, by name; null: all that there are. */
  readonly plugins: readonly string[] | null;
  readonly limits: LimitsPolicy;
  /** It exchanges no frames with others that are protected. */
  readonly isProtected: boolean;
  readonly loopGuard: LoopGuardPolicy;
  /** Nothing is taken from it or goes to it, because of a loop: not a setting, but what the switch has decided. */
  readonly isShut: boolean;
};

export const DEFAULT_POLICY: PortPolicy = {
  linkMtu: MTU_MAX,
  mtu: MTU_MAX,
  copiesOf: null,
  copies: DEFAULT_COPIES,
  floods: true,
  receives: true,
  forwardsLinkLocal: false,
  takes: 0,
  vlan: DEFAULT_VLAN,
  guard: null,
  plugins: null,
  limits: NO_LIMITS,
  isProtected: false,
  loopGuard: 'off',
  isShut: false,
};
