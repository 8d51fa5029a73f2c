/**
 * Sets of feature bits. Feature words are 64 bits wide and live in the control plane only, so they are
 * BigInt; hot code gets booleans that were decided once per queue.
 */

/** The mask with the given bit numbers (0 to 63) set. */
export function maskOf(...bits: readonly number[]): bigint {
  let mask = 0n;
  for (const bit of bits) mask |= 1n << BigInt(bit);
  return mask;
}

export function hasBit(mask: bigint, bit: number): boolean {
  return ((mask >> BigInt(bit)) & 1n) === 1n;
}

/** Names of the bits set in `mask`, in bit order; a bit without a name is shown as `bitN`. */
export function bitNames(mask: bigint, names: Readonly<Record<string, number>>): string[] {
  // Of every port without a peer, in every report.
  if (mask === 0n) return [];
  const nameOfBit = new Map(Object.entries(names).map(([name, bit]) => [bit, name]));
  const found: string[] = [];
  for (let bit = 0; bit < 64; bit++) {
    if (hasBit(mask, bit)) found.push(nameOfBit.get(bit) ?? `bit${bit}`);
  }
  return found;
}
