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

export type SwitchableFeature = keyof typeof SWITCHABLE_FEATURES;
export const SWITCHABLE_FEATURE_NAMES = Object.keys(SWITCHABLE_FEATURES) as SwitchableFeature[];

export type DeviceOptions = {
  /** Most queue pairs that the front-end may use, 1 to 127. */
  readonly queuePairsMax: number;
  /** Offer the configuration space by message (protocol feature CONFIG). */
  readonly configSpace: boolean;
  /** Six bytes, told in the configuration space; null: none. */
  readonly mac: Uint8Array | null;
  /** Told in the configuration space; null: none. */
  readonly mtu: number | null;
  /** False: not offered. What is not named is offered. */
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
  features |= offloadFeatures(options.offloads ?? {});
  return (features & ~switchedOff(options)) | (options.stillOffered ?? 0n);
}

/** What is offered where no setting leaves anything out. */
export function allFeatures(options: DeviceOptions): bigint {
  return offeredFeatures({ ...options, features: {}, offloads: {} });
}

export function offeredProtocolFeatures(options: DeviceOptions): bigint {
  const { MQ, LOG_SHMFD, RARP, REPLY_ACK, MTU, BACKEND_REQ, CONFIG, INFLIGHT_SHMFD, CONFIGURE_MEM_SLOTS } =
    PROTOCOL_FEATURE;
  const always = maskOf(
    MQ,
    LOG_SHMFD,
    RARP,
    REPLY_ACK,
    MTU,
    BACKEND_REQ,
    INFLIGHT_SHMFD,
    CONFIGURE_MEM_SLOTS,
  );
  return always | (options.configSpace ? maskOf(CONFIG) : 0n);
}

function switchedOff({ features = {} }: DeviceOptions): bigint {
  const names = Object.keys(SWITCHABLE_FEATURES) as SwitchableFeature[];
  return maskOf(
    ...names.filter((name) => features[name] === false).flatMap((name) => SWITCHABLE_FEATURES[name]),
  );
}
