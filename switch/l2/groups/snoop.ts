/**
 * Stage: which ports frames to groups of IP go to (RFC 4541). Messages of hosts go to router ports only; queries and what
 * routers say to all; data to who joined its group, and to router ports. Copies of messages go to the main thread, which
 * keeps the table (../../snooping/). Off, nothing of this is called.
 *
 * What is read behind the head is the copy of the frame's beginning (../head-copies.ts), which is what is forwarded and what
 * the main thread judges. So a guest cannot have others get one message and the switch another: a report that keeps other
 * members from reporting, or a query that those do not get whom the switch then forgets. Reports are looked for in all
 * frames of IP to whatever group address, broadcast too: hosts take them from any. Hot path of one worker.
 */
import type { ArenaView } from '../../../src/memory/arena-view.ts';
import type { Batch } from '../../../src/queue/batch.ts';
import * as BATCH from '../../../src/queue/batch.ts';
import { vlanOf } from '../../../src/queue/frame-tags.ts';
import { gatherHead } from '../../../src/queue/heads.ts';
import type { ForwardingPort } from '../forwarding-port.ts';
import type { HeadCopies } from '../head-copies.ts';
import { MESSAGE_BYTES_MAX, type MessageRing } from './message-ring.ts';
import type { GroupTable } from './table.ts';

// V8 folds a module's own constants into a loop, and loads imported ones again at each use: some 3 ns a frame.
const { AT_TARGET, AT_WORD0, AT_WORD1, AT_WORD3, BATCH_FRAMES_MAX, RECORD_SHIFT } = BATCH;

/** The frame goes where look-up says, a group's to all. */
const AS_EVER = 0;
/** For a target, beside those of look-up: to who joined the frame's group. */
export const GROUP_DATA = -3;
/** For a target: a host's message, to routers. */
export const GROUP_REPORT = -4;

/** EtherTypes as a record has them. */
const WORD_IPV4 = 0x0008;
const WORD_IPV6 = 0xdd86;
const PROTOCOL_IGMP = 2;
const PROTOCOL_PIM = 103;
const PROTOCOL_HOP_BY_HOP = 0;
const PROTOCOL_ICMPV6 = 58;
const PROTOCOL_ROUTING = 43;
const PROTOCOL_FRAGMENT = 44;
const PROTOCOL_DESTINATION_OPTIONS = 60;
const EXTENSIONS_MAX = 8;
const IGMP_QUERY = 0x11;
const IGMP_REPORTS = [0x12, 0x16, 0x17, 0x22];
const MLD_QUERY = 130;
const MLD_REPORTS = [131, 132, 143];
/** Behind the Ethernet header. */
const AT_IP = 14;
/** Of one port in a second that the main thread is handed: more than any host has to say. */
const MESSAGES_A_TICK = 64;

export class Snoop {
  declare private readonly arena: ArenaView;
  declare private readonly table: GroupTable;
  declare private readonly ring: MessageRing;
  declare private readonly tell: () => void;
  /** After `reads`, until `setTargets`: of each frame. */
  declare private readonly kinds: Int32Array;

  /** `tell`: that messages wait for the main thread. */
  constructor(arena: ArenaView, table: GroupTable, ring: MessageRing, tell: () => void) {
    this.arena = arena;
    this.table = table;
    this.ring = ring;
    this.tell = tell;
    this.kinds = new Int32Array(BATCH_FRAMES_MAX);
  }

  /** Whether any of the frames is one that goes elsewhere than look-up says; all have been spread then. */
  reads(batch: Batch, sender: ForwardingPort, nowTick: number, heads: HeadCopies): boolean {
    const { records } = batch;
    if (batch.alike && batch.alikeBehind && !isIpToGroup(records[AT_WORD0], records[AT_WORD3])) return false;
    batch.spread();
    const { count, tags } = batch;
    const { kinds, table } = this;
    let isAny = false;
    for (let frame = 0; frame < count; frame++) {
      const at = frame << RECORD_SHIFT;
      kinds[frame] = AS_EVER;
      if (!isIpToGroup(records[at + AT_WORD0], records[at + AT_WORD3])) continue;
      const vlan = vlanOf(tags.outerOf(frame));
      if (!table.looksAt(vlan)) continue;
      heads.copy(batch);
      kinds[frame] = this.kindOf(batch, frame, sender, vlan, nowTick, heads);
      if (kinds[frame] !== AS_EVER) isAny = true;
    }
    return isAny;
  }

  /** After look-up: what `reads` found, as targets, which stay with their frames. */
  setTargets({ records, count }: Batch): void {
    const { kinds } = this;
    for (let frame = 0; frame < count; frame++)
      if (kinds[frame] !== AS_EVER) records[(frame << RECORD_SHIFT) + AT_TARGET] = kinds[frame];
  }

  /** Whether the second of two frames of the batch, of one target and one VLAN, goes where the first one goes. */
  isLike({ records }: Batch, first: number, second: number): boolean {
    if (records[(first << RECORD_SHIFT) + AT_TARGET] !== GROUP_DATA) return true;
    const a = first << RECORD_SHIFT;
    const b = second << RECORD_SHIFT;
    return (
      records[a + AT_WORD0] === records[b + AT_WORD0] &&
      ((records[a + AT_WORD1] ^ records[b + AT_WORD1]) & 0xffff) === 0
    );
  }

  /**
   * The ports that a frame goes to, as a set (table.ts); null: as look-up says. It holds until the next call.
   */
  receiversOf(batch: Batch, frame: number): Int32Array | null {
    const target = batch.records[(frame << RECORD_SHIFT) + AT_TARGET];
    if (target !== GROUP_DATA && target !== GROUP_REPORT) return null;
    const { table } = this;
    const vlan = vlanOf(batch.tags.outerOf(frame));
    if (target === GROUP_DATA) {
      const at = frame << RECORD_SHIFT;
      if (table.find(batch.records[at + AT_WORD0], batch.records[at + AT_WORD1] & 0xffff, vlan))
        return table.found;
      if (table.floodsUnregistered) return null;
    }
    if (!table.find(0, 0, vlan)) table.findEverywhere();
    return table.found;
  }

  private kindOf(
    batch: Batch,
    frame: number,
    sender: ForwardingPort,
    vlan: number,
    nowTick: number,
    heads: HeadCopies,
  ): number {
    const bytes = heads.window.u8;
    const start = heads.indexOf(batch, frame);
    const end = start + heads.bytesOf(batch, frame);
    const ip = start + AT_IP;
    const at = frame << RECORD_SHIFT;
    const word0 = batch.records[at + AT_WORD0];
    const isIpv4 = (batch.records[at + AT_WORD3] & 0xffff) === WORD_IPV4;
    if (isIpv4 && ip + 20 <= end) {
      const protocol = bytes[ip + 9];
      const payload = ip + ((bytes[ip] & 15) << 2);
      if (protocol === PROTOCOL_PIM) this.hand(batch, frame, sender, vlan, nowTick);
      if (protocol === PROTOCOL_IGMP && payload < end) {
        const type = bytes[payload];
        this.hand(batch, frame, sender, vlan, nowTick);
        if (IGMP_REPORTS.includes(type)) return GROUP_REPORT;
        if (type === IGMP_QUERY) return AS_EVER;
      }
    } else if (!isIpv4) {
      const type = icmpv6TypeOf(bytes, ip, end);
      const isReport = MLD_REPORTS.includes(type);
      if (isReport || type === MLD_QUERY) this.hand(batch, frame, sender, vlan, nowTick);
      if (isReport) return GROUP_REPORT;
      if (type === MLD_QUERY) return AS_EVER;
    }
    if (!isGroupOfIp(word0, isIpv4)) return AS_EVER;
    return isAlwaysFlooded(word0, batch.records[at + AT_WORD1]) ? AS_EVER : GROUP_DATA;
  }

  /** Copies the frame for the main thread. */
  private hand(batch: Batch, frame: number, sender: ForwardingPort, vlan: number, nowTick: number): void {
    if (sender.snoopedTick !== nowTick) {
      sender.snoopedTick = nowTick;
      sender.snoopedLeft = MESSAGES_A_TICK;
    }
    if (sender.snoopedLeft === 0) return;
    sender.snoopedLeft--;
    const place = this.ring.place();
    if (place === null) return;
    const sizeBytes = Math.min(batch.bytesOf(frame), MESSAGE_BYTES_MAX);
    gatherHead(batch, frame, this.arena.windows, place, sizeBytes);
    if (this.ring.put(sender.id, vlan, sizeBytes)) this.tell();
  }
}

/**
 * The type of an ICMPv6 message, behind extension headers too: which of those belong before it the main thread asks, hosts do
 * not always. -1: it is none, or hidden behind more than is looked at.
 */
function icmpv6TypeOf(bytes: Uint8Array, ip: number, end: number): number {
  if (ip + 40 > end) return -1;
  let protocol = bytes[ip + 6];
  let next = ip + 40;
  for (let extension = 0; extension < EXTENSIONS_MAX && next + 8 <= end; extension++) {
    if (protocol === PROTOCOL_FRAGMENT) {
      // Of a later fragment.
      if (bytes[next + 2] !== 0 || (bytes[next + 3] & 0xf8) !== 0) return -1;
      protocol = bytes[next];
      next += 8;
    } else if (
      protocol === PROTOCOL_HOP_BY_HOP ||
      protocol === PROTOCOL_ROUTING ||
      protocol === PROTOCOL_DESTINATION_OPTIONS
    ) {
      protocol = bytes[next];
      next += (bytes[next + 1] + 1) << 3;
    } else break;
  }
  return protocol === PROTOCOL_ICMPV6 && next < end ? bytes[next] : -1;
}

/** Whether a frame with these words is one of IP to whatever group address. */
function isIpToGroup(word0: number, word3: number): boolean {
  const type = word3 & 0xffff;
  return (word0 & 1) !== 0 && (type === WORD_IPV4 || type === WORD_IPV6);
}

/** Whether it goes to a group of IPv4 (01:00:5e) or IPv6 (33:33), which it is of. */
function isGroupOfIp(word0: number, isIpv4: boolean): boolean {
  return isIpv4 ? (word0 & 0xffffff) === 0x5e0001 : (word0 & 0xffff) === 0x3333;
}

/**
 * Groups that nobody joins, or that all need to find one another: 224.0.0.0/24, ff02::1 and the other ones of a single last
 * byte, and those by which neighbours are found (ff02::1:ff00:0/104). By their Ethernet address, which few others share.
 */
export function isAlwaysFlooded(word0: number, word1: number): boolean {
  if ((word0 & 0xffffff) === 0x5e0001) return word0 >>> 24 === 0 && (word1 & 0xff) === 0;
  return ((word0 >>> 16) & 0xff) === 0xff || (word0 >>> 16 === 0 && (word1 & 0xff) === 0);
}
