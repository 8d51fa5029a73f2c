/**
 * Settings that every port has, whatever its kind, and what they decide: a new one is a field here, a field of
 * `PortPolicy` (src/queue/policy.ts), and the stage that acts on it. They can be changed while the port runs. Main thread.
 */
import { z } from 'zod';
import { MTU_MAX, parseMac } from '../../protocol/ethernet.ts';
import type { PortTuning } from '../../src/port/contract.ts';
import { type Offload, type OffloadSettings, offloadsOn } from '../../src/queue/offloads.ts';
import type {
  CopiesPolicy,
  GuardPolicy,
  LimitsPolicy,
  LoopGuardPolicy,
  PortPolicy,
  RatePolicy,
  VlanMode,
  VlanPolicy,
} from '../../src/queue/policy.ts';
import type { PortSnooping } from '../snooping/settings.ts';
import type { CopiedPorts } from './kinds/contract.ts';
import {
  addressCount,
  guardList,
  ipList,
  macList,
  mtu,
  onOff,
  parseIpNetwork,
  quantity,
  staticMacList,
  vlan,
  vlanList,
  wholeNumber,
} from './kinds/values.ts';
import { pluginNames } from './plugins.ts';
import type { SettingFault } from './settings.ts';
import type { Worded } from './spelling.ts';

const VLAN_MODES = ['access', 'trunk', 'native-tagged', 'native-untagged', 'dot1q-tunnel'] as const;
const PRIORITY_TAGS = ['never', 'if-nonzero', 'always'] as const;
const MROUTER_WORDS = ['auto', 'on', 'off'] as const;
const LOOP_GUARDS = ['off', 'probe', 'on'] as const;
const SERVICE_TAGS = ['802.1ad', '802.1q'] as const;

const MIRROR_DIRECTIONS = ['in', 'out', 'both'] as const;
const MIRROR_ALLOWED = 'all, or names of ports: a list, in an option joined by +, for example vm0+vm1';

const mirrored = z
  .preprocess(
    (value) => (typeof value === 'string' ? value.split(/[+, ]+/) : value),
    z.array(z.string(MIRROR_ALLOWED).min(1, MIRROR_ALLOWED), MIRROR_ALLOWED).min(1, MIRROR_ALLOWED),
  )
  .transform((names): CopiedPorts => (names.length === 1 && names[0] === 'all' ? 'all' : names));

const BITS = quantity(1_000, 10 ** 12, 'bits a second');
const BURST_BITS = quantity(1, 10 ** 12, 'bits');
const FRAMES = quantity(1, 10 ** 9, 'frames a second');
const BURST_FRAMES = quantity(1, 10 ** 9, 'frames');

/** How long a port is shut because of a loop, where nobody says otherwise. */
export const LOOP_SHUT_SECONDS = 60;

const oneOf = <const Texts extends readonly string[]>(texts: Texts) =>
  z.enum(texts, `${texts.slice(0, -1).join(', ')} or ${texts.at(-1)}`);

/** Fields of the schema of every kind (kinds/port-object.ts merges them). */
export const COMMON_PORT_FIELDS = {
  /** Whether broadcast, multicast and unknown unicast frames are flooded to the port. */
  flood: onOff.default(true),
  /** Whether frames from the port are forwarded; otherwise the switch drops them all. */
  receive: onOff.default(true),
  /** Whether frames from the port to the addresses that bridges do not pass on (PAUSE, STP, LACP, …) are forwarded. */
  forwardBpdu: onOff.default(false),
  /** Largest packet in a frame to the port; left out: what its other side has. */
  mtu: mtu.optional(),
  /** VLANs, by the names of Open vSwitch; left out: access with a tag, otherwise trunk. */
  vlanMode: oneOf(VLAN_MODES).optional(),
  tag: vlan.optional(),
  trunks: vlanList.optional(),
  cvlans: vlanList.optional(),
  priorityTags: oneOf(PRIORITY_TAGS).optional(),
  qinqEthtype: oneOf(SERVICE_TAGS).optional(),
  /** Of which ports it gets copies, and nothing else; left out: frames are switched to it. */
  mirror: mirrored.optional(),
  /** Of a mirror: copies of frames from those ports, to them, or both. */
  mirrorDirection: oneOf(MIRROR_DIRECTIONS).optional(),
  /** Of a mirror: only of these VLANs. */
  mirrorVlans: vlanList.optional(),
  /** Of a mirror: the tag that each copy gets in front of its own ones. */
  outputVlan: vlan.optional(),
  /** Sources that the port may send from; left out: any. */
  macs: macList.optional(),
  /** Most addresses that are learned of it; frames from others are dropped. Left out: any number. */
  macsMax: addressCount.optional(),
  /** The first ones stay, also over restarts. */
  macsSticky: onOff.optional(),
  /** Addresses that are behind it for good. */
  staticMacs: staticMacList.optional(),
  /** IP addresses and networks that it may send from, and of; left out: any. */
  ips: ipList.optional(),
  /** What is kept from being sent besides: DHCP servers' messages, routers' advertisements. */
  guard: guardList.optional(),
  /** Plugins that frames from the port pass; left out: all that there are. */
  plugins: pluginNames.optional(),
  /** What the port may send and be sent; left out: as much as it likes. */
  rateIn: BITS.optional(),
  rateInBurst: BURST_BITS.optional(),
  framesIn: FRAMES.optional(),
  framesInBurst: BURST_FRAMES.optional(),
  rateOut: BITS.optional(),
  rateOutBurst: BURST_BITS.optional(),
  framesOut: FRAMES.optional(),
  framesOutBurst: BURST_FRAMES.optional(),
  /** How many of its frames are flooded, by kind. */
  stormBroadcast: FRAMES.optional(),
  stormMulticast: FRAMES.optional(),
  stormUnknown: FRAMES.optional(),
  /** Whether it exchanges no frames with others of which the same is said. */
  protected: onOff.optional(),
  /** Whether it is shut when it is part of a loop: when frames of our own come back, or when addresses move too. */
  loopGuard: oneOf(LOOP_GUARDS).optional(),
  loopShutSeconds: wholeNumber(1, 86_400).optional(),
  /** Whether a router for groups is behind the port: as it shows (auto, if left out), always, or never. */
  mrouter: oneOf(MROUTER_WORDS).optional(),
  /** Whether what leaves a group is forgotten at once, as where one host is behind the port; left out: off. */
  fastLeave: onOff.optional(),
};

/** Those that are lists. */
export const COMMON_LIST_KEYS = [
  'trunks',
  'cvlans',
  'mirror',
  'mirrorVlans',
  'macs',
  'staticMacs',
  'ips',
  'guard',
  'plugins',
] as const satisfies (keyof typeof COMMON_PORT_FIELDS)[];

export type CommonPortSettings = z.output<z.ZodObject<typeof COMMON_PORT_FIELDS>>;

/** The part of a port's policy that its settings decide; the rest is the port's own, or the switch's. */
export function policyOf(settings: CommonPortSettings): Partial<PortPolicy> {
  return {
    floods: settings.flood,
    receives: settings.receive,
    forwardsLinkLocal: settings.forwardBpdu,
    mtu: settings.mtu ?? MTU_MAX,
    vlan: vlanOf(settings),
    copies: copiesPolicyOf(settings),
    guard: guardOf(settings),
    plugins: settings.plugins ?? null,
    limits: limitsOf(settings),
    isProtected: settings.protected ?? false,
    loopGuard: settings.loopGuard ?? 'off',
  };
}

/** What snooping heeds of the port (switch/snooping/). */
export function snoopingOf(settings: CommonPortSettings): PortSnooping {
  return { mrouter: settings.mrouter ?? 'auto', fastLeave: settings.fastLeave ?? false };
}

function copiesPolicyOf({
  mirrorDirection: direction = 'both',
  mirrorVlans,
  outputVlan,
}: CommonPortSettings): CopiesPolicy {
  const vlans = mirrorVlans ?? null;
  return { in: direction !== 'out', out: direction !== 'in', vlans, outputVlan: outputVlan ?? null };
}

function guardOf(settings: CommonPortSettings): GuardPolicy | null {
  const { macs, macsMax, macsSticky, ips, guard = [] } = settings;
  if (macs === undefined && macsMax === undefined && ips === undefined && guard.length === 0) return null;
  return {
    macs: macs?.map((mac) => [...(parseMac(mac) ?? [])]) ?? null,
    macsMax: macsMax ?? null,
    sticky: macsSticky === true,
    addresses: ips?.map(parseIpNetwork).filter((network) => network !== null) ?? null,
    dhcp: guard.includes('dhcp'),
    ra: guard.includes('ra'),
  };
}

/** An address that stays behind a port, in a VLAN. */
export type StaticMac = { readonly mac: string; readonly vlan: number };

/** Those of the settings; one without a VLAN is in that of frames without a tag. */
export function staticMacsOf(settings: CommonPortSettings): StaticMac[] {
  return (settings.staticMacs ?? []).map((text) => {
    const [mac = '', vlanText] = text.split('@');
    return { mac, vlan: vlanText === undefined ? untaggedVlanOf(settings) : Number(vlanText) };
  });
}

/** Of each port whose addresses that are to stay behind it are also of one before it: the first of them. */
export function staticMacsClashes(
  ports: readonly (CommonPortSettings & { readonly name: string })[],
): SettingFault[] {
  const ownerOf = new Map<string, string>();
  return ports.flatMap((port) => {
    const path = ['ports', port.name, 'staticMacs'];
    const taken = staticMacsOf(port).flatMap(({ mac, vlan }): SettingFault[] => {
      const key = `${mac} ${vlan}`;
      const owner = ownerOf.get(key) ?? port.name;
      ownerOf.set(key, owner);
      if (owner === port.name) return [];
      return [{ path, text: `${mac} is not allowed (in VLAN ${vlan} it is one of port ${owner})` }];
    });
    return taken.slice(0, 1);
  });
}

/** The VLAN of a port's frames without a tag. */
export function untaggedVlanOf(settings: CommonPortSettings): number {
  return settings.tag ?? 0;
}

/** The part of a port's settings that it takes on itself while it runs. */
export function tuningOf(
  settings: CommonPortSettings & { readonly offloads?: OffloadSettings | undefined },
): PortTuning {
  return { mtu: settings.mtu ?? null, offloads: settings.offloads ?? {} };
}

/** What holds for the VLANs of a port, with what was left out. */
export function vlanOf(settings: CommonPortSettings): VlanPolicy {
  return {
    mode: modeOf(settings),
    tag: settings.tag ?? 0,
    trunks: settings.trunks ?? null,
    cvlans: settings.cvlans ?? null,
    priorityTags: settings.priorityTags ?? 'never',
    serviceTag: settings.qinqEthtype ?? '802.1ad',
  };
}

/** Of a rate, when nobody says how many may be saved up: this part of a second, and so many at least. */
const BURST_SECONDS = 1 / 20;
export const BURST_FRAMES_MIN = 16;
/** Two frames of 1,514 bytes. */
export const BURST_BITS_MIN = 2 * 1514 * 8;

function rateOf(
  perSecond: number | undefined,
  burst: number | undefined,
  burstMin: number,
): RatePolicy | null {
  if (perSecond === undefined) return null;
  return { perSecond, burst: burst ?? burstByDefault(perSecond, burstMin) };
}

/** What holds for what the port sends and is sent, with what was left out. */
export function limitsOf(settings: CommonPortSettings): LimitsPolicy {
  const bits = (rate?: number, burst?: number) => rateOf(rate, burst, BURST_BITS_MIN);
  const frames = (rate?: number, burst?: number) => rateOf(rate, burst, BURST_FRAMES_MIN);
  return {
    bitsIn: bits(settings.rateIn, settings.rateInBurst),
    framesIn: frames(settings.framesIn, settings.framesInBurst),
    bitsOut: bits(settings.rateOut, settings.rateOutBurst),
    framesOut: frames(settings.framesOut, settings.framesOutBurst),
    broadcast: frames(settings.stormBroadcast),
    multicast: frames(settings.stormMulticast),
    unknown: frames(settings.stormUnknown),
  };
}

/** All of these settings, with what was left out; null: it says nothing in this mode, or there is no limit. */
export type EffectiveSettings = {
  readonly flood: boolean;
  readonly receive: boolean;
  readonly forwardBpdu: boolean;
  readonly mtu: number | null;
  readonly mrouter: PortSnooping['mrouter'];
  readonly fastLeave: boolean;
  readonly vlanMode: VlanMode;
  readonly tag: number | null;
  /** null: all. */
  readonly trunks: readonly number[] | null;
  readonly cvlans: readonly number[] | null;
  readonly priorityTags: VlanPolicy['priorityTags'];
  readonly qinqEthtype: VlanPolicy['serviceTag'];
  /** null: frames are switched to it, and the settings behind it say nothing. */
  readonly mirror: CopiedPorts | null;
  readonly mirrorDirection: (typeof MIRROR_DIRECTIONS)[number] | null;
  /** null: all. */
  readonly mirrorVlans: readonly number[] | null;
  /** null: copies get no tag. */
  readonly outputVlan: number | null;
  /** null: any, as in the two below. */
  readonly macs: readonly string[] | null;
  readonly macsMax: number | null;
  readonly ips: readonly string[] | null;
  readonly macsSticky: boolean;
  readonly staticMacs: readonly string[];
  readonly guard: readonly string[];
  /** null: all that there are. */
  readonly plugins: readonly string[] | null;
  /** Bits or frames a second, and what may come at once. */
  readonly rateIn: number | null;
  readonly rateInBurst: number | null;
  readonly framesIn: number | null;
  readonly framesInBurst: number | null;
  readonly rateOut: number | null;
  readonly rateOutBurst: number | null;
  readonly framesOut: number | null;
  readonly framesOutBurst: number | null;
  readonly stormBroadcast: number | null;
  readonly stormMulticast: number | null;
  readonly stormUnknown: number | null;
  readonly protected: boolean;
  readonly loopGuard: LoopGuardPolicy;
  readonly loopShutSeconds: number;
  /** What a new guest is offered, and what goes to an interface or device; null: the kind has none. */
  readonly offloads: Readonly<Partial<Record<Offload, boolean>>> | null;
};

/** `offloadNames`: those that ports of this kind have. */
export function effectiveSettings(
  settings: CommonPortSettings & { readonly offloads?: OffloadSettings | undefined },
  offloadNames: readonly string[],
): EffectiveSettings {
  const { flood, receive, forwardBpdu, mtu = null, tag = null, plugins = null } = settings;
  const { mode, trunks, cvlans, priorityTags, serviceTag } = vlanOf(settings);
  const { mirror = null, mirrorVlans = null, outputVlan = null } = settings;
  const mirrorDirection = mirror === null ? null : (settings.mirrorDirection ?? 'both');
  const copies = { mirror, mirrorDirection, mirrorVlans, outputVlan };
  const common = { flood, receive, forwardBpdu, mtu, ...snoopingOf(settings) };
  const on: readonly string[] = offloadsOn(settings.offloads ?? {});
  const offloads =
    offloadNames.length === 0
      ? null
      : Object.fromEntries(offloadNames.map((name) => [name, on.includes(name)]));
  const vlans = { vlanMode: mode, tag, trunks, cvlans, priorityTags, qinqEthtype: serviceTag };
  return {
    ...common,
    ...vlans,
    ...copies,
    ...effectiveLimits(settings),
    ...effectiveGuards(settings),
    ...otherRules(settings),
    plugins,
    offloads,
  };
}

function effectiveGuards(settings: CommonPortSettings) {
  const {
    macs = null,
    macsMax = null,
    macsSticky = false,
    staticMacs = [],
    ips = null,
    guard = [],
  } = settings;
  return { macs, macsMax, macsSticky, staticMacs, ips, guard };
}

function otherRules(settings: CommonPortSettings) {
  return { protected: settings.protected ?? false, ...loopRulesOf(settings) };
}

export function loopRulesOf({ loopGuard = 'off', loopShutSeconds = LOOP_SHUT_SECONDS }: CommonPortSettings) {
  return { loopGuard, loopShutSeconds };
}

function effectiveLimits(settings: CommonPortSettings) {
  const { bitsIn, framesIn, bitsOut, framesOut, broadcast, multicast, unknown } = limitsOf(settings);
  return {
    rateIn: bitsIn?.perSecond ?? null,
    rateInBurst: bitsIn?.burst ?? null,
    framesIn: framesIn?.perSecond ?? null,
    framesInBurst: framesIn?.burst ?? null,
    rateOut: bitsOut?.perSecond ?? null,
    rateOutBurst: bitsOut?.burst ?? null,
    framesOut: framesOut?.perSecond ?? null,
    framesOutBurst: framesOut?.burst ?? null,
    stormBroadcast: broadcast?.perSecond ?? null,
    stormMulticast: multicast?.perSecond ?? null,
    stormUnknown: unknown?.perSecond ?? null,
  };
}

function modeOf(settings: { readonly vlanMode?: VlanMode | undefined; readonly tag?: unknown }): VlanMode {
  return settings.vlanMode ?? (settings.tag === undefined ? 'trunk' : 'access');
}

/** Which of these settings go with which mode; `tag` is needed where it is named. */
const SETTINGS_OF_MODE: Readonly<Record<VlanMode, readonly string[]>> = {
  access: ['tag'],
  trunk: ['trunks'],
  'native-tagged': ['tag', 'trunks'],
  'native-untagged': ['tag', 'trunks'],
  'dot1q-tunnel': ['tag', 'cvlans', 'qinqEthtype'],
};
const VLAN_KEYS = ['tag', 'trunks', 'cvlans', 'qinqEthtype'] as const;

const RATE_KEYS = ['rateIn', 'framesIn', 'rateOut', 'framesOut'] as const;

/** Settings of a port, as they were written, that do not go together: all of them. */
export function commonClashes(settings: unknown): { readonly key: string; readonly allowed: Worded }[] {
  return [vlanClashes, burstClashes, stickyClashes, mirrorClashes].flatMap((clashesOf) =>
    clashesOf(settings),
  );
}

/** Only what is limited sticks. */
function stickyClashes(settings: unknown): { readonly key: string; readonly allowed: Worded }[] {
  if (typeof settings !== 'object' || settings === null) return [];
  const { macsSticky, macsMax } = settings as Readonly<Record<string, unknown>>;
  if (!['on', 'true'].includes(String(macsSticky)) || macsMax !== undefined) return [];
  const needed: Worded = ({ keyName }) => `on only with ${keyName('macsMax')}, which says how many stay`;
  return [{ key: 'macsSticky', allowed: needed }];
}

/** The burst of a rate where none is set. */
export function burstByDefault(perSecond: number, burstMin: number): number {
  return Math.max(Math.ceil(perSecond * BURST_SECONDS), burstMin);
}

/** A burst is of a rate. */
function burstClashes(settings: unknown): { readonly key: string; readonly allowed: Worded }[] {
  if (typeof settings !== 'object' || settings === null) return [];
  const written = settings as Readonly<Record<string, unknown>>;
  const lost = RATE_KEYS.filter((key) => written[key] === undefined && written[`${key}Burst`] !== undefined);
  return lost.map((key) => ({ key: `${key}Burst`, allowed: ({ keyName }) => `only with ${keyName(key)}` }));
}

/** Those of VLANs. */
function vlanClashes(settings: unknown): { readonly key: string; readonly allowed: Worded }[] {
  if (typeof settings !== 'object' || settings === null) return [];
  const written = settings as Readonly<Record<string, unknown>>;
  const named = VLAN_MODES.find((mode) => mode === written.vlanMode);
  // What a wrong mode would go with nobody knows.
  if (named === undefined && written.vlanMode !== undefined) return [];
  const mode = modeOf({ vlanMode: named, tag: written.tag });
  const allowed = SETTINGS_OF_MODE[mode];
  const modesWith = (key: string): string =>
    VLAN_MODES.filter((each) => SETTINGS_OF_MODE[each].includes(key)).join(', ');
  const unfit = VLAN_KEYS.filter((key) => written[key] !== undefined && !allowed.includes(key));
  const clashes = unfit.map((key: string): { key: string; allowed: Worded } => ({
    key,
    allowed: ({ keyName }) => `only with ${keyName('vlanMode')} ${modesWith(key)}, and it is ${mode}`,
  }));
  if (written.tag === undefined && allowed.includes('tag')) {
    const needed: Worded = ({ keyName }) => `a VLAN, 0 to 4095, with ${keyName('vlanMode')} ${mode}`;
    clashes.push({ key: 'tag', allowed: needed });
  }
  return clashes;
}

const MIRROR_KEYS = ['mirrorDirection', 'mirrorVlans', 'outputVlan'] as const;

/** Settings of a mirror on a port, as they were written, that is none: all of them. */
function mirrorClashes(settings: unknown): { readonly key: string; readonly allowed: Worded }[] {
  if (typeof settings !== 'object' || settings === null) return [];
  const written = settings as Readonly<Record<string, unknown>>;
  if (written.mirror !== undefined) return [];
  const unfit = MIRROR_KEYS.filter((key) => written[key] !== undefined);
  return unfit.map((key) => ({ key, allowed: () => 'only with mirror' }));
}
