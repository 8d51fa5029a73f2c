/**
 * Which ports get the frames of a group: one table in shared memory, written whole by the main thread, read by workers
 * without a lock. A group is an Ethernet address in a VLAN, as groups of IP are seen by a switch: several addresses of IP
 * may share one. The set of a group has its members and the router ports of its VLAN; that of address 0 has the router
 * ports alone.
 *
 * There are two copies. The writer fills the one that is not in use, having said so (`BEGUN`), and then makes it the one in
 * use (`CURRENT`). A reader notes which is in use, copies the set that it looks for, and asks afterwards whether the writer
 * has begun to fill that copy again meanwhile, which is two generations later; then it looks again, and after a few times
 * takes it that the group is not known. Loads stay in order (src/memory/ordered.ts); the writer's two words are stored by
 * Atomics, and with them all that it stored before.
 */
import { loadOrdered32 } from '../../../src/memory/ordered.ts';
import { VLANS } from '../../../src/queue/policy.ts';

const WORD_BITS = 32;
const BEGUN = 0;
const CURRENT = 1;
const CAPACITY = 2;
const SET_WORDS = 3;
/** 1: frames to groups that nobody joined go to all ports. */
const FLOODS_UNREGISTERED = 4;
const HEADER_WORDS = 16;
/** A bit a VLAN: whether its groups are looked at. */
const VLAN_WORDS = VLANS / WORD_BITS;
/** Before a set: both words of the key, and whether there is one. */
const KEY_WORDS = 3;
const TRIES = 4;

export type GroupTableOptions = {
  /** Sets at most: groups, and VLANs with router ports. */
  readonly capacity: number;
  readonly portsMax: number;
  readonly floodsUnregistered: boolean;
  /** VLANs whose groups are looked at; null: all. */
  readonly vlans: readonly number[] | null;
};

/** The set of one group, or of the routers of a VLAN (address 0). */
export type GroupSet = {
  readonly macLo: number;
  readonly macHi: number;
  readonly vlan: number;
  readonly portIds: Iterable<number>;
};

function slotCountOf(capacity: number): number {
  return 2 ** (32 - Math.clz32(2 * capacity - 1));
}

function copyWordsOf(capacity: number, setWords: number): number {
  return setWords + slotCountOf(capacity) * (KEY_WORDS + setWords);
}

export function createGroupMemory(options: GroupTableOptions): SharedArrayBuffer {
  const { capacity, portsMax, floodsUnregistered, vlans } = options;
  const setWords = Math.ceil(portsMax / WORD_BITS);
  const words = HEADER_WORDS + VLAN_WORDS + 2 * copyWordsOf(capacity, setWords);
  const memory = new SharedArrayBuffer(4 * words);
  const header = new Int32Array(memory);
  header[CAPACITY] = capacity;
  header[SET_WORDS] = setWords;
  header[FLOODS_UNREGISTERED] = floodsUnregistered ? 1 : 0;
  for (let vlan = 0; vlan < VLANS; vlan++)
    if (vlans === null || vlans.includes(vlan)) header[HEADER_WORDS + (vlan >> 5)] |= 1 << (vlan & 31);
  return memory;
}

export class GroupTable {
  declare readonly floodsUnregistered: boolean;
  /** After `find` answered true: a bit a port. */
  declare readonly found: Int32Array;
  declare private readonly words: Int32Array<SharedArrayBuffer>;
  declare private readonly setWords: number;
  declare private readonly slotMask: number;
  declare private readonly copyWords: number;

  constructor(memory: SharedArrayBuffer) {
    this.words = new Int32Array(memory);
    this.setWords = this.words[SET_WORDS];
    const capacity = this.words[CAPACITY];
    this.slotMask = slotCountOf(capacity) - 1;
    this.copyWords = copyWordsOf(capacity, this.setWords);
    this.floodsUnregistered = this.words[FLOODS_UNREGISTERED] === 1;
    this.found = new Int32Array(this.setWords);
  }

  /** Whether groups of that VLAN are looked at. */
  looksAt(vlan: number): boolean {
    return (this.words[HEADER_WORDS + (vlan >> 5)] & (1 << (vlan & 31))) !== 0;
  }

  /** Copies the set of a group into `found`. False: there is none. Any thread, in the hot path of multicast. */
  find(macLo: number, macHi: number, vlan: number): boolean {
    for (let tries = 0; tries < TRIES; tries++) {
      const generation = loadOrdered32(this.words, CURRENT);
      const at = this.setAt(generation, macLo, macHi | (vlan << 16));
      if (at >= 0) this.copy(at);
      if (loadOrdered32(this.words, BEGUN) - generation <= 1) return at >= 0;
    }
    return false;
  }

  /** The ports that get all groups of all VLANs, as routers do that are known by settings. */
  findEverywhere(): void {
    const generation = loadOrdered32(this.words, CURRENT);
    this.copy(this.startOf(generation));
  }

  private copy(from: number): void {
    const { found, words, setWords } = this;
    for (let i = 0; i < setWords; i++) found[i] = loadOrdered32(words, from + i);
  }

  private startOf(generation: number): number {
    return HEADER_WORDS + VLAN_WORDS + (generation & 1) * this.copyWords;
  }

  private setAt(generation: number, macLo: number, keyHi: number): number {
    const { words, slotMask, setWords } = this;
    const start = this.startOf(generation) + setWords;
    const stride = KEY_WORDS + setWords;
    const home = homeOf(macLo, keyHi);
    for (let probe = 0; probe <= slotMask; probe++) {
      const at = start + ((home + probe) & slotMask) * stride;
      if (loadOrdered32(words, at + 2) === 0) return -1;
      if (loadOrdered32(words, at) === macLo && loadOrdered32(words, at + 1) === keyHi) return at + KEY_WORDS;
    }
    return -1;
  }

  /** Has these be the sets, at most as many as there is room for. Main thread. */
  publish(sets: readonly GroupSet[], everywhere: Iterable<number>): void {
    const { words, slotMask, setWords, copyWords } = this;
    const generation = words[CURRENT] + 1;
    Atomics.store(words, BEGUN, generation);
    const start = this.startOf(generation);
    words.fill(0, start, start + copyWords);
    for (const id of everywhere) words[start + (id >> 5)] |= 1 << (id & 31);
    const stride = KEY_WORDS + setWords;
    for (const { macLo, macHi, vlan, portIds } of sets) {
      const keyHi = macHi | (vlan << 16);
      let slot = homeOf(macLo, keyHi) & slotMask;
      while (words[start + setWords + slot * stride + 2] !== 0) slot = (slot + 1) & slotMask;
      const at = start + setWords + slot * stride;
      words[at] = macLo;
      words[at + 1] = keyHi;
      words[at + 2] = 1;
      for (const id of portIds) words[at + KEY_WORDS + (id >> 5)] |= 1 << (id & 31);
    }
    Atomics.store(words, CURRENT, generation);
  }
}

export function hasPort(set: Int32Array, portId: number): boolean {
  return (set[portId >> 5] & (1 << (portId & 31))) !== 0;
}

/** Groups are few, and bounded for each port: a guest that makes them collide costs a few probes. */
function homeOf(macLo: number, keyHi: number): number {
  const mixed = Math.imul(macLo ^ Math.imul(keyHi, 0x9e3779b1), 0x85ebca6b);
  return (mixed ^ (mixed >>> 15)) & 0x7fffffff;
}
