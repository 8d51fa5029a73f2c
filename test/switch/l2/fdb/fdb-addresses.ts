/**
 * Repeatable addresses for the forwarding table's tests and benchmark: a seeded generator, and a rule that
 * ties each address to one port, so that a reader can tell a wrong answer from a late one. Any thread.
 */

export interface Address {
  readonly macLo: number;
  readonly macHi: number;
  readonly vlan: number;
}

/** A generator of integers from 0 to below `limit` (at most 2^32): the same seed, the same sequence. */
export function seededRandom(seed: number): (limit: number) => number {
  let state = seed | 0;
  return (limit) => {
    state = (state + 0x6d2b79f5) | 0;
    let word = Math.imul(state ^ (state >>> 15), state | 1);
    word ^= word + Math.imul(word ^ (word >>> 7), word | 61);
    return Math.floor((((word ^ (word >>> 14)) >>> 0) / 2 ** 32) * limit);
  };
}

/** `count` different unicast addresses, spread over VLANs 0 to vlanCount − 1. */
export function randomAddresses(count: number, seed: number, vlanCount = 1): Address[] {
  const random = seededRandom(seed);
  const byMac = new Map<number, Address>();
  while (byMac.size < count) {
    const macLo = (random(2 ** 32) & ~1) | 2;
    const macHi = random(65_536);
    byMac.set(macHi * 2 ** 32 + (macLo >>> 0), { macLo, macHi, vlan: random(vlanCount) });
  }
  return [...byMac.values()];
}

/** The only port on which the concurrency tests ever learn this address. */
export function portOfAddress(address: Address, portCount: number): number {
  return ((Math.imul(address.macLo, 31) + address.macHi + address.vlan) >>> 8) % portCount;
}
