/**
 * Checksums and segmentation in VIRTIO's terms (VIRTIO 1.3, sections 5.1.3 and 5.1.6.5.6) and in the switch's (OFFLOAD_*
 * bits, src/queue/requests.ts): what a guest may ask for in what it sends, and what it takes. Main thread.
 */
import { hasBit, maskOf } from '../../../protocol/bits.ts';
import { VIRTIO_FEATURE } from '../../../protocol/virtio/features.ts';
import { type Offload, type OffloadSettings, offloadsOn } from '../../queue/offloads.ts';
import {
  OFFLOAD_CHECKSUM,
  OFFLOAD_ECN,
  OFFLOAD_SEGMENTS,
  OFFLOAD_TSO4,
  OFFLOAD_TSO6,
  OFFLOAD_UNCOMMON,
  OFFLOAD_USO4,
  OFFLOAD_USO6,
} from '../../queue/requests.ts';

const F = VIRTIO_FEATURE;

/** The features of each offload, of both directions. */
const FEATURES = {
  csum: [F.NET_CSUM, F.NET_GUEST_CSUM],
  tso: [F.NET_HOST_TSO4, F.NET_HOST_TSO6, F.NET_GUEST_TSO4, F.NET_GUEST_TSO6],
  ecn: [F.NET_HOST_ECN, F.NET_GUEST_ECN],
  uso: [F.NET_HOST_USO, F.NET_GUEST_USO4, F.NET_GUEST_USO6],
} as const satisfies Record<Offload, readonly number[]>;

/** The features to offer. */
export function offloadFeatures(settings: OffloadSettings): bigint {
  const names = offloadsOn(settings);
  if (names.length === 0) return 0n;
  return maskOf(F.NET_CTRL_GUEST_OFFLOADS, ...names.flatMap((name) => FEATURES[name]));
}

/** What each feature means beside its checksum feature, without which it means nothing. */
const ASKED: readonly (readonly [number, number])[] = [
  [F.NET_HOST_TSO4, OFFLOAD_TSO4],
  [F.NET_HOST_TSO6, OFFLOAD_TSO6],
  [F.NET_HOST_ECN, OFFLOAD_ECN],
  [F.NET_HOST_USO, OFFLOAD_USO4 | OFFLOAD_USO6],
];
const TAKEN: readonly (readonly [number, number])[] = [
  [F.NET_GUEST_TSO4, OFFLOAD_TSO4],
  [F.NET_GUEST_TSO6, OFFLOAD_TSO6],
  [F.NET_GUEST_ECN, OFFLOAD_ECN],
  [F.NET_GUEST_USO4, OFFLOAD_USO4],
  [F.NET_GUEST_USO6, OFFLOAD_USO6],
];

/** The bits of GUEST_* features; those that VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET may name, numbered alike. */
export const GUEST_OFFLOADS = maskOf(F.NET_GUEST_CSUM, ...TAKEN.map(([feature]) => feature));

/** What frames that come from the guest may ask for. */
export function askedOffloads(features: bigint): number {
  return hasBit(features, F.NET_CSUM) ? offloadsOf(features, ASKED) : 0;
}

/** What the guest takes as it is; `features`: the GUEST_* bits among them count. */
export function takenOffloads(features: bigint): number {
  if (!hasBit(features, F.NET_GUEST_CSUM)) return 0;
  const taken = offloadsOf(features, TAKEN);
  return (taken & OFFLOAD_SEGMENTS) === 0 ? taken : taken | OFFLOAD_UNCOMMON;
}

function offloadsOf(features: bigint, meanings: readonly (readonly [number, number])[]): number {
  return meanings.reduce(
    (offloads, [feature, bits]) => (hasBit(features, feature) ? offloads | bits : offloads),
    OFFLOAD_CHECKSUM,
  );
}
