/**
 * The naive twin of VLANs: Open vSwitch's rules (ovs-vswitchd.conf.db(5), "VLAN Configuration") on lists of tags, each
 * frame cut apart and put together anew. Slow; independent of switch/l2/vlan.
 */
import type { VlanPolicy } from '../../../src/queue/policy.ts';
import type { DropReason } from '../../../switch/l2/drop-reasons.ts';

export type Tag = {
  readonly tpid: number;
  readonly priority: number;
  /** Drop eligible: kept where the tag is kept. */
  readonly isEligible: boolean;
  readonly vlan: number;
};

/** A frame inside the switch. */
export type Inside = {
  /** As it came in. */
  readonly frame: Uint8Array;
  readonly addresses: Uint8Array;
  readonly outer: Tag | null;
  readonly inner: Tag | null;
  /** Of the tag that it came in with. */
  readonly priority: number;
  /** From the EtherType on. */
  readonly rest: Uint8Array;
};

const TPIDS: readonly number[] = [0x8100, 0x88a8];
const NONE: Tag = { tpid: 0, priority: 0, isEligible: false, vlan: 0 };

const be16 = (bytes: Uint8Array, at: number): number => bytes[at] * 256 + bytes[at + 1];

function tagAt(bytes: Uint8Array, at: number): Tag | null {
  if (bytes.length < at + 6 || !TPIDS.includes(be16(bytes, at))) return null;
  const tci = be16(bytes, at + 2);
  return {
    tpid: be16(bytes, at),
    priority: tci >> 13,
    isEligible: (tci & 0x1000) !== 0,
    vlan: tci % 4096,
  };
}

function bytesOf({ tpid, priority, isEligible, vlan }: Tag): number[] {
  const tci = priority * 8192 + (isEligible ? 4096 : 0) + vlan;
  return [tpid >> 8, tpid & 255, tci >> 8, tci & 255];
}

const isIn = (list: readonly number[] | null, vlan: number): boolean => list === null || list.includes(vlan);

/** What an MTU is about: the frame without the tags that it begins with, of two at most. */
export function bytesBesideTags(frame: Uint8Array): number {
  if (tagAt(frame, 12) === null) return frame.length;
  return frame.length - (tagAt(frame, 16) === null ? 4 : 8);
}

/** What becomes of a frame that a port sends. */
export function admitted(frame: Uint8Array, port: VlanPolicy, vlanLimit: number): Inside | DropReason {
  const first = tagAt(frame, 12);
  if (first === null && TPIDS.includes(be16(frame, 12))) return 'truncatedTag';
  const vlan = first?.vlan ?? 0;
  const isNative = port.mode.startsWith('native');
  if (port.mode === 'access' && vlan !== 0) return 'taggedOnAccess';
  if (port.mode === 'dot1q-tunnel' && !isIn(port.cvlans, vlan)) return 'cvlanNotAllowed';
  if (port.mode === 'trunk' && !isIn(port.trunks, vlan)) return 'vlanNotAllowed';
  if (isNative && vlan !== 0 && vlan !== port.tag && !isIn(port.trunks, vlan)) return 'vlanNotAllowed';
  const looksForSecond = vlanLimit > 1 && first !== null && port.mode !== 'dot1q-tunnel';
  const second = looksForSecond ? tagAt(frame, 16) : null;
  const common = {
    frame,
    addresses: frame.subarray(0, 12),
    priority: first?.priority ?? 0,
    rest: frame.subarray(12 + (first === null ? 0 : 4) + (second === null ? 0 : 4)),
  };
  if (port.mode === 'dot1q-tunnel') {
    const tpid = port.serviceTag === '802.1q' ? 0x8100 : 0x88a8;
    return { ...common, outer: { ...NONE, tpid, vlan: port.tag }, inner: first };
  }
  if (port.mode === 'access' || (isNative && vlan === 0)) {
    const outer = { ...NONE, tpid: first?.tpid ?? 0x8100, priority: common.priority, vlan: port.tag };
    return { ...common, outer, inner: port.mode === 'access' ? null : second };
  }
  return { ...common, outer: first, inner: second };
}

/** Whether the port carries the frame: `floods` as one of many, otherwise because its receiver is behind it. */
export function carries(port: VlanPolicy, { outer, inner }: Inside, floods: boolean): boolean {
  const vlan = outer?.vlan ?? 0;
  switch (port.mode) {
    case 'access':
      return vlan === port.tag && (!floods || (inner?.vlan ?? 0) === 0);
    case 'trunk':
      return isIn(port.trunks, vlan);
    case 'dot1q-tunnel':
      return vlan === port.tag && isIn(port.cvlans, inner?.vlan ?? 0);
    default:
      return vlan === port.tag || (vlan !== 0 && isIn(port.trunks, vlan));
  }
}

/** The frame as it goes out; the one that came in, where it is the same. */
export function leaving(port: VlanPolicy, frame: Inside): Uint8Array {
  let tags: (Tag | null)[] = [frame.outer, frame.inner];
  if (port.mode === 'access') tags = [null, null];
  const isNativeHere = port.mode === 'native-untagged' && (frame.outer?.vlan ?? 0) === port.tag;
  if (port.mode === 'dot1q-tunnel' || isNativeHere) tags = [frame.inner, null];
  if (port.priorityTags !== 'never') tags[0] = { ...(tags[0] ?? NONE), priority: frame.priority };
  const written: number[] = [];
  for (const tag of tags) {
    const saysNothing = tag === null || (tag.priority === 0 && tag.vlan === 0);
    if (saysNothing && !(port.priorityTags === 'always' && tag !== null && tag.tpid !== 0)) break;
    if (tag !== null) written.push(...bytesOf({ ...tag, tpid: tag.tpid === 0 ? 0x8100 : tag.tpid }));
  }
  const bytes = Uint8Array.from([...frame.addresses, ...written, ...frame.rest]);
  return Buffer.compare(bytes, frame.frame) === 0 ? frame.frame : bytes;
}
