/** Seeded random numbers for fuzz tests: the same seed gives the same run (xorshift, 32 bits). */
export class Random {
  #state: number;

  constructor(seed: number) {
    // Zero would stay zero; neighbouring seeds should not give neighbouring runs.
    this.#state = Math.imul(seed + 1, 0x9e3779b1) | 1;
    for (let i = 0; i < 8; i++) this.next();
  }

  /** A uint32. */
  next(): number {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x;
    return x >>> 0;
  }

  /** From `min` to `max`, both possible. */
  between(min: number, max: number): number {
    return min + (this.next() % (max - min + 1));
  }

  chance(percent: number): boolean {
    return this.between(0, 99) < percent;
  }

  pick<T>(items: readonly T[]): T {
    return items[this.between(0, items.length - 1)];
  }

  bytes(count: number): Uint8Array {
    const bytes = new Uint8Array(count);
    for (let i = 0; i < count; i++) bytes[i] = this.next() >>> 11;
    return bytes;
  }
}

/** So many seeds, from 0 on; RINGWAY_SEARCH=N makes them N times as many, for a search that takes hours. */
export function seeds(count: number): number[] {
  const times = Number(process.env.RINGWAY_SEARCH ?? 1);
  return Array.from({ length: Math.round(count * times) }, (_, seed) => seed);
}
