/**
 * The naive twin of guest memory: a list of regions, searched, and random regions and ranges to try it with.
 * Oracle of translation.test.ts.
 */
import type { MemRegion } from '../../protocol/vhost-user/codec.ts';
import type { Random } from '../vring/random.ts';
import { type GuestFile, UVA_BASE } from './guest-file.ts';

const GIB = 2 ** 30;
const MIB = 2 ** 20;
const PAGE = 4096;

/** A region with the file that it is of. */
export type Placed = MemRegion & { readonly file: GuestFile };

/** The naive twin: a list, searched. */
export class NaiveMemory {
  readonly placed: Placed[] = [];

  accepts(region: Placed): boolean {
    if (region.mmapOffset + region.sizeBytes > BigInt(region.file.sizeBytes)) return false;
    const meets = (a: bigint, b: bigint, bytes: bigint): boolean => a < b + bytes && b < a + region.sizeBytes;
    return this.placed.every(
      (other) =>
        !meets(region.gpa, other.gpa, other.sizeBytes) && !meets(region.uva, other.uva, other.sizeBytes),
    );
  }

  /** The region that holds an address and the place in its file. */
  find(address: number, space: 'gpa' | 'uva'): { region: Placed; fileOffset: number } | null {
    const at = BigInt(address);
    const region = this.placed.find((each) => each[space] <= at && at < each[space] + each.sizeBytes);
    if (region === undefined) return null;
    return { region, fileOffset: Number(region.mmapOffset + at - region[space]) };
  }

  /** Whether a range lies in one region, in several (with every byte in one of them), or not wholly in any. */
  coverage(address: number, sizeBytes: number, space: 'gpa' | 'uva'): 'one' | 'several' | 'none' {
    let at = address;
    for (let parts = 1; ; parts++) {
      const found = this.find(at, space);
      if (found === null) return 'none';
      const end = Number(found.region[space] + found.region.sizeBytes);
      if (end >= address + sizeBytes) return parts === 1 ? 'one' : 'several';
      at = end;
    }
  }
}

/** A random region; small numbers meet often. Some continue the last one, page aligned or not. */
export function randomRegion(
  random: Random,
  choices: readonly GuestFile[],
  last: Placed | undefined,
): Placed {
  const chosen = random.pick(choices);
  const unit = random.pick([1, 8, PAGE, PAGE, 2 * MIB]);
  const large = chosen.sizeBytes > GIB;
  const sizeBytes = BigInt(
    large && random.chance(50) ? random.between(1, 5) * GIB : random.between(1, 40) * unit,
  );
  const mmapOffset = BigInt(random.between(0, 30) * unit);
  if (last !== undefined && random.chance(50)) {
    const continued = random.chance(50) ? last.mmapOffset + last.sizeBytes : mmapOffset;
    return {
      file: random.chance(50) ? last.file : chosen,
      gpa: last.gpa + last.sizeBytes,
      uva: last.uva + last.sizeBytes,
      sizeBytes,
      mmapOffset: continued,
    };
  }
  return {
    file: chosen,
    gpa: BigInt(random.between(0, 60)) * BigInt(random.pick([PAGE, 16 * MIB, GIB])),
    uva: UVA_BASE + BigInt(random.between(0, 60)) * BigInt(random.pick([PAGE, 16 * MIB, GIB])),
    sizeBytes,
    mmapOffset,
  };
}

/** A range that begins or ends near a border of some region. */
export function randomRange(random: Random, twin: NaiveMemory, space: 'gpa' | 'uva'): [number, number] {
  if (twin.placed.length === 0) return [random.between(0, 10 * PAGE), random.between(1, 100)];
  const region = random.pick(twin.placed);
  const border = Number(region[space] + (random.chance(50) ? region.sizeBytes : 0n));
  const within = Number(region[space]) + random.between(0, Number(region.sizeBytes) - 1);
  const sizeBytes = random.pick([1, 1, 2, 4, 64, 1500, 9000, 65_535, random.between(1, MIB)]);
  const start = random.chance(60) ? border + random.between(-sizeBytes - 2, 2) : within;
  return [Math.max(0, start), sizeBytes];
}
