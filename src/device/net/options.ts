/** What a network device is told to be, and the features that it offers because of it. Main thread. */
import { maskOf } from '../../../protocol/bits.ts';
import { PROTOCOL_FEATURE } from '../../../protocol/vhost-user/features.ts';
import { VIRTIO_FEATURE } from '../../../protocol/virtio/features.ts';
import type { OffloadSettings } from '../../queue/offloads.ts';
import { offloadFeatures } from './offloads.ts';

/**
 * Features that a port may leave out, by the names that its configuration has for them. What is offered must not
 * shrink while a guest lives: after a reconnect the front-end insists on what its driver has.
 */
export const SWITCHABLE_FEATURES = {
  packed: [VIRTIO_FEATURE.RING_PACKED],
  inOrder: [VIRTIO_FEATURE.IN_ORDER],
  mergeable: [VIRTIO_FEATURE.NET_MRG_RXBUF],
  indirect: [VIRTIO_FEATURE.INDIRECT_DESC],
  eventIdx: [VIRTIO_FEATURE.EVENT_IDX],
} as const satisfies Record<string, readonly number[]>;

/**
 * Features that a port offers only where its configuration says so, because some front-ends would come to harm:
 * docs/protocol-support.md.
 */
export const OPTIONAL_FEATURES = {
  ringReset: VIRTIO_FEATURE.RING_RESET,
  iommu: VIRTIO_FEATURE.ACCESS_PLATFORM,
} as const;
export const OPTIONAL_PROTOCOL_FEATURES = {
  inBand: PROTOCOL_FEATURE.INBAND_NOTIFICATIONS,
  skipDrain: PROTOCOL_FEATURE.SKIP_DRAIN,
} as const;

export type SwitchableFeature =
  | keyof typeof SWITCHABLE_FEATURES
  | keyof typeof OPTIONAL_FEATURES
  | keyof typeof OPTIONAL_PROTOCOL_FEATURES;
export const SWITCHABLE_FEATURE_NAMES = [
  SWITCHABLE_FEATURES,
  OPTIONAL_FEATURES,
  OPTIONAL_PROTOCOL_FEATURES,
].flatMap((names) => Object.keys(names)) as SwitchableFeature[];

export type DeviceOptions = {
  /** Most queue pairs that the front-end may use, 1 to 127. */
  readonly queuePairsMax: number;
  /** Offer the configuration space by message (protocol feature CONFIG). */
  readonly configSpace: boolean;
  /** Six bytes, told in the configuration space; null: none. */
  readonly mac: Uint8Array | null;
  /** Told in the configuration space; null: none. */
  readonly mtu: number | null;
  /** False: not offered. What is not named is offered, but for OPTIONAL_FEATURES and OPTIONAL_PROTOCOL_FEATURES. */
  readonly features?: Partial<Readonly<Record<SwitchableFeature, boolean>>>;
  readonly offloads?: OffloadSettings;
  /** Features that are offered besides, because this guest was offered them before. */
  readonly stillOffered?: bigint;
};

/** Two a pair, and the control virtqueue. */
export const ringCountMax = (queuePairsMax: number): number => 2 * queuePairsMax + 1;

export function offeredFeatures(options: DeviceOptions): bigint {
  const F = VIRTIO_FEATURE;
  let features = maskOf(F.PROTOCOL_FEATURES, F.VERSION_1, F.ANY_LAYOUT, F.INDIRECT_DESC, F.EVENT_IDX);
  features |= maskOf(F.RING_PACKED, F.IN_ORDER, F.NET_MTU, F.NET_MRG_RXBUF, F.NET_GUEST_ANNOUNCE, F.LOG_ALL);
  features |= maskOf(F.NET_CTRL_VQ, F.NET_CTRL_RX, F.NET_CTRL_RX_EXTRA, F.NET_CTRL_VLAN, F.NET_CTRL_MAC_ADDR);
  if (options.queuePairsMax > 1) features |= maskOf(F.NET_MQ);
  if (options.configSpace) features |= maskOf(F.NET_STATUS);
  if (options.configSpace && options.mac !== null) features |= maskOf(F.NET_MAC);
  features |= offloadFeatures(options.offloads ?? {}) | switchedOn(OPTIONAL_FEATURES, options);
  return (features & ~switchedOff(options)) | (options.stillOffered ?? 0n);
}

/** What is offered where no setting leaves anything out. */
export function allFeatures(options: DeviceOptions): bigint {
  const on = Object.entries(options.features ?? {}).filter(([, isOn]) => isOn);
  return offeredFeatures({ ...options, features: Object.fromEntries(on), offloads: {} });
}

export function offeredProtocolFeatures(options: DeviceOptions): bigint {
  const P = PROTOCOL_FEATURE;
  const always =
    maskOf(P.MQ, P.LOG_SHMFD, P.RARP, P.REPLY_ACK, P.MTU, P.BACKEND_REQ, P.INFLIGHT_SHMFD) |
    maskOf(P.RESET_DEVICE, P.CONFIGURE_MEM_SLOTS, P.STATUS);
  const optional = switchedOn(OPTIONAL_PROTOCOL_FEATURES, options);
  return always | optional | (options.configSpace ? maskOf(P.CONFIG) : 0n);
}

function switchedOn(
  bits: Partial<Readonly<Record<SwitchableFeature, number>>>,
  { features = {} }: DeviceOptions,
): bigint {
  const names = Object.keys(bits) as SwitchableFeature[];
  return maskOf(...names.flatMap((name) => (features[name] === true ? [bits[name] ?? 0] : [])));
}

function switchedOff({ features = {} }: DeviceOptions): bigint {
  const names = Object.keys(SWITCHABLE_FEATURES) as (keyof typeof SWITCHABLE_FEATURES)[];
  return maskOf(
    ...names.filter((name) => features[name] === false).flatMap((name) => SWITCHABLE_FEATURES[name]),
  );
}
