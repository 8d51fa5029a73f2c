/**
 * The forwarding table's hash: from an address and VLAN to the slot where probing starts.
 *
 * Senders choose their addresses, so the hash is keyed: without the two secret words nobody can prepare
 * addresses that share a slot. Both halves of the key go through a multiplication by a secret odd number, a
 * fold of the high bits onto the low ones, and a last secret multiplication whose top bits are the slot.
 * Taking top bits matters: a difference in the high bits of the key reaches only the high bits of a product.
 * This is no cryptographic hash; what it lets through, the bound on probes in fdb.ts contains.
 *
 * Stateless after construction; any thread. Hot path: no allocation, int32 throughout.
 */

export class FdbHash {
  // `declare`: a field that first holds undefined loses its representation, and V8 then checks every use.
  declare private readonly maskLo: number;
  declare private readonly maskHi: number;
  declare private readonly factorLo: number;
  declare private readonly factorHi: number;
  declare private readonly factorSlot: number;
  declare private readonly shift: number;

  /** @param slotBits log2 of the number of slots, 1 to 21 */
  constructor(seed0: number, seed1: number, slotBits: number) {
    this.maskLo = expandSeed(seed0, seed1, 1);
    this.maskHi = expandSeed(seed1, seed0, 2);
    this.factorLo = expandSeed(seed0, seed1, 3) | 1;
    this.factorHi = expandSeed(seed1, seed0, 4) | 1;
    this.factorSlot = expandSeed(seed0, seed1, 5) | 1;
    this.shift = 32 - slotBits;
  }

  /** The slot where probing for this key starts. */
  homeOf(macLo: number, keyHi: number): number {
    let hash = Math.imul(macLo ^ this.maskLo, this.factorLo);
    hash ^= hash >>> 15;
    hash = (hash + Math.imul(keyHi ^ this.maskHi, this.factorHi)) | 0;
    hash ^= hash >>> 16;
    return Math.imul(hash, this.factorSlot) >>> this.shift;
  }
}

/** One of several int32 that all depend on all 64 bits of the seed. */
function expandSeed(first: number, second: number, stream: number): number {
  let word = scramble(first ^ Math.imul(stream, 0x9e3779b1));
  word = scramble((word + second) | 0);
  return scramble(word ^ Math.imul(stream, 0x85ebca77));
}

function scramble(input: number): number {
  let word = input | 0;
  word = Math.imul(word ^ (word >>> 16), 0x7feb352d);
  word = Math.imul(word ^ (word >>> 15), 0x846ca68b | 0);
  return word ^ (word >>> 16);
}
