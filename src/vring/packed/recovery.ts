/**
 * Where a packed ring stands whose user came to a sudden end, and what is left to do of the burst that it was at. Made from
 * the ring's record (../ring-record.ts) and the flags in the ring; changes nothing by itself. What a process stores before
 * it is killed is there, in the order of its stores, so each state between two stores is one that is met here.
 *
 * A burst from the guest is marked used when its frames are in their receivers' rings and visible there. So one that was
 * being marked is brought to its end: otherwise its frames would be sent twice, and of the descriptors that were marked
 * already nobody would know that they are available. A burst to the guest is marked as it is written, its first
 * descriptor, which hides the others, excepted. What was written whole becomes visible; its senders did not get those
 * frames back yet, and send them once more. Main thread.
 */
import {
  DESC_F_AVAIL,
  DESC_F_USED,
  POSITION_MASK,
  WRAP_COUNTER,
} from '../../../protocol/virtio/packed-ring.ts';
import { DESC_F_WRITE } from '../../../protocol/virtio/split-ring.ts';
import type { ArenaView } from '../../memory/arena-view.ts';
import { publishWord32, writeWord32 } from '../guest-writes.ts';
import {
  chainsOf,
  FIRST_BYTES,
  FIRST_WORD,
  firstChainOf,
  OPEN,
  OPEN_BIT,
  PLAIN_BIT,
  POSITION_BITS,
  RECORD_CHAINS_MAX,
  STAND,
  type StandingWords,
  standWord,
} from '../ring-record.ts';
import { usedBits } from './owner-bits.ts';

/** A descriptor to be marked used. */
export type Mark = {
  readonly at: number;
  /** Null: the length stays as it is. */
  readonly bytes: number | null;
  /** Id, and flags in the upper half. */
  readonly word: number;
};

export type Recovery = {
  /** Where the ring stands once all of this was done; a position with its wrap counter in bit 15. */
  readonly position: number;
  /** As far as the driver could see before that. */
  readonly seen: number;
  /** A buffer that was to be used and is not; null: there is none. */
  readonly restored: { readonly at: number; readonly bytes: number } | null;
  /** In any order, and before `first`. */
  readonly marks: readonly Mark[];
  /** What makes them visible; null: nothing is left to do. */
  readonly first: Mark | null;
};

/** Of a ring as its record has it. */
export type Interrupted = {
  readonly size: number;
  readonly isFromGuest: boolean;
  readonly inOrder: boolean;
  readonly standing: StandingWords;
};

/** What the ring has. */
export type DescriptorsAt = {
  /** Of the descriptor there. */
  readonly flags: (at: number) => number;
  readonly id: (at: number) => number;
  readonly bytes: (at: number) => number;
};

type FlagsAt = DescriptorsAt['flags'];

/** Null: what the record says cannot be so in this ring. */
export function recover(ring: Interrupted, at: DescriptorsAt): Recovery | null {
  const { words } = ring.standing;
  const stand = words[STAND];
  const open = words[OPEN];
  const chainCount = chainsOf(stand);
  const isSane =
    stand >= 0 &&
    isIn(ring, stand & POSITION_BITS) &&
    isIn(ring, open & POSITION_BITS) &&
    firstChainOf(stand) + chainCount <= RECORD_CHAINS_MAX;
  if (!isSane) return null;
  return ring.isFromGuest ? recoverFromGuest(ring, at.flags) : recoverToGuest(ring, at);
}

/** Does what is left to do, and notes it: may come to a sudden end in between, and then be done again. */
export function finish(arena: ArenaView, descOffset: number, ring: Interrupted, recovery: Recovery): void {
  const desc = new Int32Array(arena.buffer, descOffset, ring.size * 4);
  const { words } = ring.standing;
  for (const { at, bytes, word } of recovery.marks) {
    if (bytes !== null) writeWord32(desc, at * 4 + 2, bytes);
    writeWord32(desc, at * 4 + 3, word);
  }
  const { first, position, restored } = recovery;
  if (restored !== null) writeWord32(desc, restored.at * 4 + 2, restored.bytes);
  if (first !== null) {
    if (!ring.isFromGuest) {
      words[FIRST_WORD] = first.word;
      words[FIRST_BYTES] = first.bytes ?? 0;
      words[OPEN] = recovery.seen | OPEN_BIT;
      words[STAND] = standWord(position, 0, 0);
    }
    if (first.bytes !== null) writeWord32(desc, first.at * 4 + 2, first.bytes);
    publishWord32(desc, first.at * 4 + 3, first.word);
  }
  words[STAND] = standWord(position, 0, 0);
  words[OPEN] = 0;
}

function recoverFromGuest(ring: Interrupted, flagsAt: FlagsAt): Recovery | null {
  const { words, ids } = ring.standing;
  const begin = words[STAND] & POSITION_BITS;
  const count = chainsOf(words[STAND]);
  if (count === 0) return settled(begin);
  const chains = chainsFrom(ring, begin, 0);
  if (chains === null) return null;
  if (isUsed(begin, flagsAt)) return settled(chains.end);
  if (!isAvailable(begin, flagsAt)) return null;
  const [first, ...others] = chains.marks;
  if (!ring.inOrder) return { ...NOTHING_LEFT, position: chains.end, seen: begin, marks: others, first };
  // One descriptor stands for all.
  const word = (ids[count - 1] & 0xffff) | (first.word & ~0xffff);
  return { ...NOTHING_LEFT, position: chains.end, seen: begin, first: { ...first, word } };
}

function recoverToGuest(ring: Interrupted, descriptors: DescriptorsAt): Recovery | null {
  const { flags: flagsAt } = descriptors;
  const { words } = ring.standing;
  const stand = words[STAND] & POSITION_BITS;
  const count = chainsOf(words[STAND]);
  const chains = count === 0 ? { end: stand, marks: [] } : chainsFrom(ring, stand, DESC_F_WRITE);
  if (chains === null) return null;
  const isOpen = (words[OPEN] & OPEN_BIT) !== 0;
  const begin = isOpen ? words[OPEN] & POSITION_BITS : stand;
  if (!isOpen && count === 0) return settled(stand);
  if (isOpen && isUsed(begin, flagsAt)) return settled(stand);
  if (!isAvailable(begin, flagsAt)) return null;
  if (begin === stand && count > 0) {
    const [first, ...others] = chains.marks;
    return { ...NOTHING_LEFT, position: chains.end, seen: begin, marks: others, first };
  }
  const at = begin & POSITION_MASK;
  const isPlain = (words[OPEN] & PLAIN_BIT) !== 0;
  const plainWord = (): number => descriptors.id(at) | usedBits(begin >> 15) | (DESC_F_WRITE << 16);
  const first = isPlain
    ? { at, bytes: descriptors.bytes(at), word: plainWord() }
    : { at, bytes: words[FIRST_BYTES], word: words[FIRST_WORD] };
  if (count > 0) {
    return { ...NOTHING_LEFT, position: chains.end, seen: begin, marks: chains.marks, first };
  }
  // Since then there were only frames of one descriptor each, and those that are marked are whole.
  let end = begin === stand ? next(ring, stand, 1) : stand;
  for (let left = ring.size; left > 0 && end !== turned(begin) && isMarked(end, flagsAt); left--)
    end = next(ring, end, 1);
  // Nothing is marked behind it, so it cannot be told whether it was used itself: then it was not.
  if (isPlain && begin === stand && end === next(ring, begin, 1)) {
    return { ...settled(begin), restored: { at, bytes: words[FIRST_BYTES] } };
  }
  return { ...NOTHING_LEFT, position: end, seen: begin, first };
}

const NOTHING_LEFT = { restored: null, marks: [], first: null } as const;

function settled(position: number): Recovery {
  return { ...NOTHING_LEFT, position, seen: position };
}

/** The chains that the record has, marked used from `begin` on, and where they end; null: there are no such. */
function chainsFrom(
  ring: Interrupted,
  begin: number,
  written: number,
): { end: number; marks: Mark[] } | null {
  const { words, ids, slots, bytes } = ring.standing;
  const from = firstChainOf(words[STAND]);
  const marks: Mark[] = [];
  let position = begin;
  let slotsLeft = ring.size;
  for (let chain = from; chain < from + chainsOf(words[STAND]); chain++) {
    if (slots[chain] < 1 || slots[chain] > slotsLeft) return null;
    slotsLeft -= slots[chain];
    marks.push({
      at: position & POSITION_MASK,
      bytes: ring.isFromGuest ? null : bytes[chain],
      word: (ids[chain] & 0xffff) | usedBits(position >> 15) | (written << 16),
    });
    position = next(ring, position, slots[chain]);
  }
  return { end: position, marks };
}

const isIn = ({ size }: Interrupted, position: number): boolean => (position & POSITION_MASK) < size;

function next({ size }: Interrupted, position: number, slots: number): number {
  const at = (position & POSITION_MASK) + slots;
  return at < size ? at | (position & WRAP_COUNTER) : (at - size) | (~position & WRAP_COUNTER);
}

/** The same descriptor in the next round. */
const turned = (position: number): number => position ^ WRAP_COUNTER;

/**
 * Whether the descriptor was marked used in that round. The driver may have made it available for the next one since,
 * and then only the flag USED is still as it was.
 */
function isUsed(position: number, flagsAt: FlagsAt): boolean {
  const isSet = (flagsAt(position & POSITION_MASK) & DESC_F_USED) !== 0;
  return isSet === ((position & WRAP_COUNTER) !== 0);
}

/** Of what the driver cannot see yet: whether the descriptor was marked used in that round. */
function isMarked(position: number, flagsAt: FlagsAt): boolean {
  const used = DESC_F_AVAIL | DESC_F_USED;
  return (flagsAt(position & POSITION_MASK) & used) === ((position & WRAP_COUNTER) !== 0 ? used : 0);
}

function isAvailable(position: number, flagsAt: FlagsAt): boolean {
  const flags = flagsAt(position & POSITION_MASK);
  const isWrapOne = (position & WRAP_COUNTER) !== 0;
  return ((flags & DESC_F_AVAIL) !== 0) === isWrapOne && ((flags & DESC_F_USED) !== 0) !== isWrapOne;
}
