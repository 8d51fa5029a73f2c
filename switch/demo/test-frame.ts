/**
 * The frames that the demo's guests send: every byte follows from sender, sequence number and length, so that
 * the receiver can check them all. Seen as little-endian 32-bit words from the frame's start:
 *
 *     0 to 2  destination and source address
 *     3       Ethernet type 0x88b5 (for local experiments), sender, kind
 *     4, 5    sequence number, length in bytes
 *     6 …     a pattern that starts at a value made of sender and sequence number
 *
 * Hot: allocates nothing. Frames start at multiples of four bytes.
 */
export const TEST_FRAME_BYTES_MIN = 60;
/** The largest jumbo frame that is usual: an MTU of 9,000. */
export const TEST_FRAME_BYTES_MAX = 9014;

export const KIND_DATA = 1;
/** Sent to everyone before the start, so that the switch learns where the sender is. */
export const KIND_HELLO = 2;
/** A hello of one who has heard the peer's. */
export const KIND_HEARD = 3;
/** What `checkFrame` answers for a frame that is none of ours. */
export const KIND_OTHER = 0;
/** What it answers for one of ours with a wrong byte or length. */
export const KIND_CORRUPTED = -1;

/** 0x88b5 in network byte order, as a little-endian word sees it. */
const ETHERTYPE_WORD = 0xb588;
const PATTERN_WORD = 6;
const PATTERN_STEP = 0x01000193;

/** The two addresses as the first three words. */
export function addressWords(destination: Uint8Array, source: Uint8Array): Int32Array {
  const bytes = new Uint8Array(12);
  bytes.set(destination, 0);
  bytes.set(source, 6);
  return new Int32Array(bytes.buffer);
}

function tagOf(sender: number, kind: number): number {
  return ETHERTYPE_WORD | (sender << 16) | (kind << 24);
}

/** Where the pattern of a frame starts. */
function patternStart(sender: number, sequence: number): number {
  return Math.imul(sequence ^ (sender << 24), 0x9e3779b1) | 0;
}

/** Writes a frame of `frameBytes` at byte `offset` of the memory that both arrays see. */
export function writeFrame(
  i32: Int32Array,
  u8: Uint8Array,
  offset: number,
  frameBytes: number,
  addresses: Int32Array,
  sender: number,
  kind: number,
  sequence: number,
): void {
  const at = offset >> 2;
  i32[at] = addresses[0];
  i32[at + 1] = addresses[1];
  i32[at + 2] = addresses[2];
  i32[at + 3] = tagOf(sender, kind);
  i32[at + 4] = sequence;
  i32[at + 5] = frameBytes;
  const end = at + (frameBytes >> 2);
  let word = patternStart(sender, sequence);
  for (let i = at + PATTERN_WORD; i < end; i++) {
    i32[i] = word;
    word = (word + PATTERN_STEP) | 0;
  }
  for (let i = end << 2; i < offset + frameBytes; i++) {
    u8[i] = word;
    word >>>= 8;
  }
}

/** Kind of the frame at byte `offset` after a look at every byte of it; its sequence number is in word 4. */
export function checkFrame(
  i32: Int32Array,
  u8: Uint8Array,
  offset: number,
  frameBytes: number,
  expectedBytes: number,
  addresses: Int32Array,
  sender: number,
): number {
  const at = offset >> 2;
  if (frameBytes < TEST_FRAME_BYTES_MIN || (i32[at + 3] & 0xffff) !== ETHERTYPE_WORD) return KIND_OTHER;
  const kind = i32[at + 3] >>> 24;
  if (i32[at + 3] !== tagOf(sender, kind)) return KIND_CORRUPTED;
  if (kind === KIND_HELLO || kind === KIND_HEARD) return kind;
  if (kind !== KIND_DATA || frameBytes !== expectedBytes || i32[at + 5] !== frameBytes) return KIND_CORRUPTED;
  let difference = (i32[at] ^ addresses[0]) | (i32[at + 1] ^ addresses[1]) | (i32[at + 2] ^ addresses[2]);
  const end = at + (frameBytes >> 2);
  let word = patternStart(sender, i32[at + 4]);
  for (let i = at + PATTERN_WORD; i < end; i++) {
    difference |= i32[i] ^ word;
    word = (word + PATTERN_STEP) | 0;
  }
  for (let i = end << 2; i < offset + frameBytes; i++) {
    difference |= u8[i] ^ (word & 0xff);
    word >>>= 8;
  }
  return difference === 0 ? KIND_DATA : KIND_CORRUPTED;
}
