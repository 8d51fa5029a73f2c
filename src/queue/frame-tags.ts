/**
 * The VLAN tags of the frames of a batch: those that the switch acts on leave a frame when it comes in and are numbers
 * beside it from then on, and others are written behind its addresses where it is placed (switch/l2/vlan/). Part of a
 * Batch, hot path.
 *
 * A tag is the 32-bit word that stands in the frame, as a little-endian machine reads it: the TPID's two bytes below, the
 * TCI's two above; 0: there is none. What all frames have in common, as nearly always, is told once and not read
 * from the arrays.
 */
import { ETHERTYPE_QINQ, ETHERTYPE_VLAN } from '../../protocol/ethernet.ts';

export const TAG_BYTES = 4;
/** Of all tags that a frame gets. */
export const PUSH_BYTES_MAX = 2 * TAG_BYTES;
/** EtherTypes of the two kinds of tag, as they are read from a frame. */
export const TPID_8021Q = swapped(ETHERTYPE_VLAN);
export const TPID_8021AD = swapped(ETHERTYPE_QINQ);
/** The priority of a tag, where it stands in the word. */
export const PRIORITY_BITS = 0xe0 << 16;

export class FrameTags {
  /** All frames have the tags `outer` and `inner`; otherwise each has its own in `outers` and `inners`. */
  isUniform = true;
  /** The tag whose VLAN the frame is in; 0: in VLAN 0, without a tag. */
  outer = 0;
  /** A second tag, if that was taken from the frame too. */
  inner = 0;
  declare readonly outers: Int32Array;
  declare readonly inners: Int32Array;
  /**
   * For the frames that are placed next: bytes of the tags that are written behind their addresses, 0, 4 or 8; their
   * records have the room (Batch.makeRoom).
   */
  pushBytes = 0;
  /** All of those get `push0` and, of 8 bytes, `push1` behind it; otherwise each its own of `pushes0` and `pushes1`. */
  isPushUniform = true;
  push0 = 0;
  push1 = 0;
  declare readonly pushes0: Int32Array;
  declare readonly pushes1: Int32Array;
  /** For a loop that places frames: where it put the one at each place of its order. */
  declare readonly placedAt: Int32Array;

  constructor(framesMax: number) {
    this.outers = new Int32Array(framesMax);
    this.inners = new Int32Array(framesMax);
    this.pushes0 = new Int32Array(framesMax);
    this.pushes1 = new Int32Array(framesMax);
    this.placedAt = new Int32Array(framesMax);
  }

  /** No frame has a tag, and none gets one. */
  clear(): void {
    this.isUniform = true;
    this.outer = 0;
    this.inner = 0;
    this.pushBytes = 0;
    this.isPushUniform = true;
  }

  outerOf(frame: number): number {
    return this.isUniform ? this.outer : this.outers[frame];
  }

  innerOf(frame: number): number {
    return this.isUniform ? this.inner : this.inners[frame];
  }

  push0Of(frame: number): number {
    return this.isPushUniform ? this.push0 : this.pushes0[frame];
  }

  push1Of(frame: number): number {
    return this.isPushUniform ? this.push1 : this.pushes1[frame];
  }
}

/** Whether a tag begins with the two lower bytes of this word. */
export function isTag(word: number): boolean {
  const type = word & 0xffff;
  return type === TPID_8021Q || type === TPID_8021AD;
}

/** The VLAN, 0 to 4,095, that a tag names. */
export function vlanOf(tag: number): number {
  return ((tag >>> 8) & 0xf00) | (tag >>> 24);
}

/** A tag of a TPID as it is read, a priority where it stands in the word, and a VLAN; not drop eligible. */
export function tagOf(tpid: number, priorityBits: number, vlan: number): number {
  return tpid | priorityBits | ((vlan >> 8) << 16) | (vlan << 24);
}

function swapped(type: number): number {
  return ((type & 0xff) << 8) | (type >> 8);
}
