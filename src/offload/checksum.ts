/**
 * The Internet checksum (RFC 1071): the ones'-complement sum of 16-bit words. Sums are taken of the words as they lie in
 * memory, little-endian, since the sum does not care as long as everybody does the same (section 2 B there); `swapped16`
 * brings a number in network order among them. Hot path: allocates nothing, any alignment, pieces of odd lengths.
 */
import type { Window } from '../memory/window.ts';

/** A number below 2^16 with its bytes exchanged. */
export function swapped16(value: number): number {
  return ((value & 0xff) << 8) | (value >>> 8);
}

/** A sum of less than 2^32, as unsigned, brought to 16 bits; 0 only of 0. */
export function folded(sum: number): number {
  const once = (sum & 0xffff) + (sum >>> 16);
  return (once & 0xffff) + (once >>> 16);
}

/** What stands in the packet for a sum of less than 2^32. */
export function checksumOf(sum: number): number {
  return ~folded(sum) & 0xffff;
}

/**
 * Sum of `sizeBytes` (2^17 at most) from an index of a window on, folded. The first byte is the first of a word, at any
 * index; of a piece that begins in the middle of one, take `swapped16` of it.
 */
export function sumBytes(window: Window, index: number, sizeBytes: number): number {
  if (sizeBytes <= 0) return 0;
  let sum = 0;
  let at = index;
  let leftBytes = sizeBytes;
  // From an odd index on, all words are those of memory with their bytes exchanged, and so is their sum.
  const isOdd = (index & 1) !== 0;
  if (isOdd) {
    sum = window.u8[at] << 8;
    at++;
    leftBytes--;
  }
  if ((at & 2) !== 0 && leftBytes >= 2) {
    sum += window.u16[at >> 1];
    at += 2;
    leftBytes -= 2;
  }
  sum += sumWords(window.i32, at >> 2, leftBytes >> 2);
  at += leftBytes & ~3;
  if ((leftBytes & 2) !== 0) {
    sum += window.u16[at >> 1];
    at += 2;
  }
  if ((leftBytes & 1) !== 0) sum += window.u8[at];
  sum = folded(sum);
  return isOdd ? swapped16(sum) : sum;
}

/**
 * Sum of `count` words, folded. What counts here is how many instructions a word takes, since nothing is vectorised:
 * half of the words are added as floating-point numbers, which hold the carries, and the other half as 32-bit numbers
 * whose high halves are added once more beside them, from which the carries are found in the end. Both keep different
 * units of the processor busy; for 1,460 bytes either way alone takes 190 to 230 ns, both together 173, both halves of
 * each word by themselves 275, and BigInt words 580 (bench/micro/offload.bench.ts has the first one).
 */
function sumWords(i32: Int32Array, first: number, count: number): number {
  let float0 = 0;
  let float1 = 0;
  let total = 0;
  let high = 0;
  let i = first;
  const end8 = first + (count & ~7);
  for (; i < end8; i += 8) {
    float0 += i32[i] >>> 0;
    float1 += i32[i + 1] >>> 0;
    let word = i32[i + 2];
    total = (total + word) | 0;
    high = (high + (word >>> 16)) | 0;
    float0 += i32[i + 3] >>> 0;
    word = i32[i + 4];
    total = (total + word) | 0;
    high = (high + (word >>> 16)) | 0;
    float1 += i32[i + 5] >>> 0;
    float0 += i32[i + 6] >>> 0;
    word = i32[i + 7];
    total = (total + word) | 0;
    high = (high + (word >>> 16)) | 0;
  }
  const end = first + count;
  for (; i < end; i++) float0 += i32[i] >>> 0;
  const float = float0 + float1;
  const floatLow = float >>> 0;
  const floatHigh = Math.floor(float / 2 ** 32) | 0;
  const low = total - (high << 16);
  return folded(
    (low & 0xffff) + (low >>> 16) + folded(high) + (floatLow & 0xffff) + (floatLow >>> 16) + floatHigh,
  );
}
