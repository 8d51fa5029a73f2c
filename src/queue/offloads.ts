/** Checksum and segmentation offloads as a port's settings name them, whatever its kind. */
import {
  OFFLOAD_CHECKSUM,
  OFFLOAD_ECN,
  OFFLOAD_TSO4,
  OFFLOAD_TSO6,
  OFFLOAD_UNCOMMON,
  OFFLOAD_USO4,
  OFFLOAD_USO6,
} from './requests.ts';

/** OFFLOAD_* bits by name. */
const BITS = {
  csum: OFFLOAD_CHECKSUM,
  tso: OFFLOAD_TSO4 | OFFLOAD_TSO6 | OFFLOAD_UNCOMMON,
  ecn: OFFLOAD_ECN,
  uso: OFFLOAD_USO4 | OFFLOAD_USO6 | OFFLOAD_UNCOMMON,
} as const;

export type Offload = keyof typeof BITS;
export const OFFLOAD_NAMES = Object.keys(BITS) as Offload[];
/** False: switched off. What is not named is on. */
export type OffloadSettings = Partial<Readonly<Record<Offload, boolean>>>;

/** Those that are on: none without checksums, and ECN only beside TSO. */
export function offloadsOn(settings: OffloadSettings): readonly Offload[] {
  const isOn = (name: Offload): boolean => settings[name] !== false;
  if (!isOn('csum')) return [];
  return OFFLOAD_NAMES.filter((name) => isOn(name) && (name !== 'ecn' || isOn('tso')));
}

/** OFFLOAD_* bits of those that are on, where a kernel does what they ask for. */
export function offloadBits(settings: OffloadSettings): number {
  return offloadsOn(settings).reduce((bits, name) => bits | BITS[name], 0);
}
