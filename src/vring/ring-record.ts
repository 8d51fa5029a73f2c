/**
 * Where a ring stands, kept where it outlives this process: one record a ring, in a file that is mapped into the arena
 * (src/device/ring-records.ts). This file is the whole of its format. What identifies the ring is written by the main
 * thread when the ring is put to use; where it stands, by whoever uses the ring, some words a burst.
 *
 * Only packed rings need it: of a split ring the used index in the guest's memory says it all. A packed ring is used in
 * place, and all of a burst but its first descriptor is marked before the driver can see any of it; so besides the
 * position there is what has to be known to bring a burst to its end that a sudden end interrupted (packed/recovery.ts).
 * The words are stored in the order in which they are needed: a process that is killed leaves all stores of each thread up
 * to some point and none behind it, so no word needs another one to be stored with it.
 */
import { crc32 } from 'node:zlib';
import type { ArenaView } from '../memory/arena-view.ts';
import type { RingLayoutKind } from './attachment.ts';

/** Of the whole format: a file of another one is not read. */
export const RECORD_FORMAT = 1;
export const RECORD_BYTES = 1536;
const RECORD_WORDS = RECORD_BYTES / 4;

/** Chains that one frame may have, and more than one burst has. */
export const RECORD_CHAINS_MAX = 96;

/** Words of a record. The first says whether the rest means anything. */
const VALID = 0;
const CHECK = 1;
const IDENTITY = 2;
const QUEUE_INDEX = 2;
const LAYOUT = 3;
const SIZE = 4;
const FLAGS = 5;
const BASE = 6;
/** Two words each: device, inode and offset of the byte that the descriptors begin at. */
const PLACE = 8;
const NAME_BYTES = 14;
const NAME = 15;
const NAME_BYTES_MAX = 64;
const IDENTITY_END = NAME + NAME_BYTES_MAX / 4;
/** Counts up with each ring that is put to use: the smallest is the oldest. */
const AGE = IDENTITY_END;
/** A line of the cache of its own. */
const STANDING = 32;
const IDS = 64;
const SLOTS = IDS + RECORD_CHAINS_MAX;
const BYTES = SLOTS + RECORD_CHAINS_MAX;

const FLAG_FROM_GUEST = 1;
const FLAG_IN_ORDER = 2;
const FLAG_BASE = 4;

/**
 * Words of `standing`. A position is one of a packed ring with its wrap counter in bit 15.
 *
 * STAND: all before this position was used; in bits 16 to 22 how many chains are being used from there on, in bits 23 to
 * 29 the first of them in the three lists.
 */
export const STAND = 0;
/**
 * To the guest: where the burst begins that the driver cannot see yet, with OPEN_BIT; 0: there is none. With PLAIN_BIT it
 * begins with a plain descriptor, if with any: then it says itself what it will be marked with, except for its length
 * before it was used.
 */
export const OPEN = 1;
/** Of that first descriptor: its last word and its length when it is used; with PLAIN_BIT its length before that. */
export const FIRST_WORD = 2;
export const FIRST_BYTES = 3;
const STANDING_WORDS = 4;

export const OPEN_BIT = 1 << 16;
export const PLAIN_BIT = 1 << 17;
export const POSITION_BITS = 0xffff;

export function standWord(position: number, chains: number, from: number): number {
  return position | (chains << 16) | (from << 23);
}
export const chainsOf = (stand: number): number => (stand >> 16) & 0x7f;
export const firstChainOf = (stand: number): number => (stand >> 23) & 0x7f;

/** What a ring is known by: one of another identity is another ring. */
export type RingIdentity = {
  readonly portName: string;
  readonly queueIndex: number;
  readonly layout: RingLayoutKind;
  readonly size: number;
  /** Which byte of which file its descriptors begin at (GuestMemory.fileByteAt). */
  readonly place: string;
  /** As the front-end sent it, or null. */
  readonly base: number | null;
  readonly isFromGuest: boolean;
  readonly inOrder: boolean;
};

/** The parts of a record that are written while its ring is used. */
export class StandingWords {
  declare readonly words: Int32Array;
  /** Of chains that are being used: their ids, descriptors in the ring, and bytes written. */
  declare readonly ids: Int32Array;
  declare readonly slots: Int32Array;
  declare readonly bytes: Int32Array;

  /** `recordOffset` in the arena; undefined: nobody reads them. */
  constructor(arena: Pick<ArenaView, 'buffer'>, recordOffset: number | undefined) {
    const buffer = recordOffset === undefined ? new ArrayBuffer(RECORD_BYTES) : arena.buffer;
    const at = recordOffset ?? 0;
    this.words = new Int32Array(buffer, at + STANDING * 4, STANDING_WORDS);
    this.ids = new Int32Array(buffer, at + IDS * 4, RECORD_CHAINS_MAX);
    this.slots = new Int32Array(buffer, at + SLOTS * 4, RECORD_CHAINS_MAX);
    this.bytes = new Int32Array(buffer, at + BYTES * 4, RECORD_CHAINS_MAX);
  }
}

/** A record as the main thread has it. */
export class RingRecord {
  readonly offset: number;
  readonly standing: StandingWords;
  readonly #words: Int32Array;
  #identity: RingIdentity | null;

  constructor(arena: Pick<ArenaView, 'buffer'>, offset: number) {
    this.offset = offset;
    this.#words = new Int32Array(arena.buffer, offset, RECORD_WORDS);
    this.standing = new StandingWords(arena, offset);
    const isWhole = this.#words[VALID] === 1 && this.#words[CHECK] === this.#checksum();
    this.#identity = isWhole ? this.#readIdentity() : null;
  }

  get age(): number {
    return this.#words[AGE];
  }

  /** Null: the record is free, or was being written when its process ended. */
  get identity(): RingIdentity | null {
    return this.#identity;
  }

  /**
   * The ring of that identity stands at `position`, with nothing in hand. Where it is the ring that the record was of,
   * there is no moment at which the record means nothing.
   */
  begin(identity: RingIdentity, position: number, age: number): void {
    const words = this.#words;
    words[AGE] = age;
    const identityWords = wordsOf(identity);
    const isSame = this.identity !== null && identityWords.every((word, i) => words[IDENTITY + i] === word);
    if (!isSame) {
      words[VALID] = 0;
      words.set(identityWords, IDENTITY);
      words[CHECK] = this.#checksum();
    }
    const { words: standing } = this.standing;
    // A burst that was open has come to its end by now, and where it ended is what counts first.
    standing[STAND] = standWord(position, 0, 0);
    standing[OPEN] = 0;
    words[VALID] = 1;
    this.#identity = identity;
  }

  /** Nothing is known of the ring any more: its front-end was told where it stands. */
  forget(): void {
    this.#words[VALID] = 0;
    this.#identity = null;
  }

  #checksum(): number {
    return checksumOf(this.#words.slice(IDENTITY, IDENTITY_END));
  }

  #readIdentity(): RingIdentity | null {
    const words = this.#words;
    const long = (at: number): bigint => (BigInt(words[at + 1] >>> 0) << 32n) | BigInt(words[at] >>> 0);
    const nameBytes = words[NAME_BYTES];
    if (nameBytes < 0 || nameBytes > NAME_BYTES_MAX) return null;
    const name = new Uint8Array(words.slice(NAME, IDENTITY_END).buffer).subarray(0, nameBytes);
    const flags = words[FLAGS];
    return {
      portName: Buffer.from(name).toString(),
      queueIndex: words[QUEUE_INDEX],
      layout: words[LAYOUT] === 1 ? 'packed' : 'split',
      size: words[SIZE],
      place: `${long(PLACE)}:${long(PLACE + 2)}:${long(PLACE + 4)}`,
      base: (flags & FLAG_BASE) === 0 ? null : words[BASE] >>> 0,
      isFromGuest: (flags & FLAG_FROM_GUEST) !== 0,
      inOrder: (flags & FLAG_IN_ORDER) !== 0,
    };
  }
}

function wordsOf(identity: RingIdentity): Int32Array {
  const words = new Int32Array(IDENTITY_END - IDENTITY);
  const put = (at: number, value: number): void => {
    words[at - IDENTITY] = value;
  };
  const { portName, base, isFromGuest, inOrder } = identity;
  put(QUEUE_INDEX, identity.queueIndex);
  put(LAYOUT, identity.layout === 'packed' ? 1 : 0);
  put(SIZE, identity.size);
  put(
    FLAGS,
    (isFromGuest ? FLAG_FROM_GUEST : 0) | (inOrder ? FLAG_IN_ORDER : 0) | (base === null ? 0 : FLAG_BASE),
  );
  put(BASE, base ?? 0);
  for (const [i, part] of identity.place.split(':').entries()) {
    put(PLACE + 2 * i, Number(BigInt(part) & 0xffff_ffffn) | 0);
    put(PLACE + 2 * i + 1, Number(BigInt(part) >> 32n) | 0);
  }
  const name = Buffer.from(portName).subarray(0, NAME_BYTES_MAX);
  put(NAME_BYTES, name.length);
  new Uint8Array(words.buffer, (NAME - IDENTITY) * 4, NAME_BYTES_MAX).set(name);
  return words;
}

function checksumOf(words: Int32Array): number {
  return crc32(new Uint8Array(words.buffer)) | 0;
}
