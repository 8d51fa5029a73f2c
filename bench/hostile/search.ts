/** Makes up hostile rings by a seed: kinds that are known to cost much, and everything between. */
import { Random } from '../../test/vring/random.ts';
import type { RingPlan, Scatter } from './world.ts';

const DESCRIPTORS = [1, 2, 19, 64, 95, 96, 97, 128, 256, 1024, 4096, 32_768, 65_535];
const SIZES = [16, 256, 1024, 32_768];
const SCATTERS: readonly Scatter[] = ['together', 'pages', 'regions', 'borders'];
/** Also what makes a chain's bytes just so many that a frame of all sizes is met: see `makeSender`. */
const SMALL_BYTES = [0, 0, 1, 2, 3, 16, 64, 256];
const FRAME_BYTES = [14, 60, 300, 1514, 9014, 65_557];
/** No multiples of five, see the world's map. */
const REGIONS = [1, 8, 508];

function makeRing(random: Random): RingPlan {
  const isIndirect = random.chance(50);
  const size = random.pick(SIZES);
  const wanted = random.pick(DESCRIPTORS);
  return {
    layout: random.pick(['split', 'packed']),
    size,
    mergeable: random.chance(50),
    isIndirect,
    descriptors: isIndirect ? wanted : Math.min(wanted, size),
    firstBytes: random.pick([12, 12, 0, 1, 13, 26, 2048]),
    lastBytes: random.pick([0, 1, 2048, 70_000, 70_000]),
    otherBytes: random.pick(SMALL_BYTES),
    scatter: random.pick(SCATTERS),
    regions: random.pick(REGIONS),
    regionBytesMax: random.pick([2 ** 25, 2 ** 25, 4096, 97, 16]),
    stride: random.pick([1, 1, 5, 4097]),
    tableShift: random.pick([0, 0, 0, 1, 4, 62]),
  };
}

/** Nearly always a frame comes of it: the last buffer brings the chain to the length of one. */
function makeSender(random: Random): RingPlan {
  const plan = makeRing(random);
  const frameBytes = random.pick(FRAME_BYTES);
  const firstBytes = random.pick([12, 12, 1, 26]);
  const between = Math.max(0, plan.descriptors - 2) * plan.otherBytes;
  const lastBytes = Math.max(0, 12 + frameBytes - firstBytes - between);
  if (plan.descriptors === 1) return { ...plan, firstBytes: 12 + frameBytes };
  return random.chance(95) ? { ...plan, firstBytes, lastBytes } : plan;
}

export type HostilePair = { readonly from: RingPlan; readonly to: RingPlan };

/** The seed's two rings. */
export function makePair(seed: number): HostilePair {
  const random = new Random(seed);
  return { from: makeSender(random), to: makeRing(random) };
}

/** One line that says what is hostile about it. */
export function describePlan(plan: RingPlan): string {
  const { layout, size, mergeable, isIndirect, descriptors, firstBytes, otherBytes, lastBytes } = plan;
  const kind = `${layout} ${size}${mergeable ? ' mergeable' : ''}${isIndirect ? ' indirect' : ''}`;
  return `${kind}, ${descriptors} x ${firstBytes}/${otherBytes}/${lastBytes} bytes, ${plan.scatter} in ${plan.regions} regions, stride ${plan.stride}, shift ${plan.tableShift}`;
}
