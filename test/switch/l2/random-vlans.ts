/** VLAN settings and tags by chance, few enough VLANs that they meet, for the comparisons of forwarding. */
import type { VlanPolicy } from '../../../src/queue/policy.ts';
import type { Random } from '../../vring/random.ts';

const VLANS = [0, 1, 10, 256, 4095] as const;
const MODES = [
  'access',
  'access',
  'trunk',
  'trunk',
  'native-tagged',
  'native-untagged',
  'dot1q-tunnel',
] as const;

/** Null: all; otherwise one at least, for none would be all with Open vSwitch. */
function some(random: Random): number[] | null {
  const picked = VLANS.filter(() => random.chance(60));
  return random.chance(60) || picked.length === 0 ? null : picked;
}

export function randomVlan(random: Random): VlanPolicy {
  const mode = random.pick(MODES);
  const isNative = mode.startsWith('native');
  const trunks = mode === 'trunk' || isNative ? some(random) : null;
  return {
    mode,
    // A list of trunks takes VLAN 0 away from a native port of Open vSwitch also where that is the native one.
    tag: mode === 'trunk' ? 0 : random.pick(isNative && trunks !== null ? VLANS.slice(1) : VLANS),
    trunks,
    cvlans: mode === 'dot1q-tunnel' ? some(random) : null,
    priorityTags: random.pick(['never', 'never', 'if-nonzero', 'always']),
    serviceTag: random.pick(['802.1ad', '802.1q']),
  };
}

/** Bytes of none, one, two or, of 100 frames `oddPercent`, more tags, or of an EtherType beside those of tags. */
export function randomTagged(random: Random, oddPercent: number): number[] {
  if (random.chance(oddPercent)) return random.pick([[0x91, 0, 0, 10], [0x81, 0x01, 0, 10], tags(random, 3)]);
  return tags(random, random.pick([0, 0, 1, 1, 1, 2]));
}

function tags(random: Random, count: number): number[] {
  return Array.from({ length: count }, () => {
    const vlan = random.pick(VLANS);
    const tci = (random.pick([0, 0, 3, 7]) << 13) | (random.chance(10) ? 0x1000 : 0) | vlan;
    return [
      ...random.pick([
        [0x81, 0],
        [0x81, 0],
        [0x88, 0xa8],
      ]),
      tci >> 8,
      tci & 255,
    ];
  }).flat();
}
