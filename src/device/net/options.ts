/** What a device is told to be, and the features that it offers because of it. */
import { maskOf } from '../../../protocol/bits.ts';
import { PROTOCOL_FEATURE } from '../../../protocol/vhost-user/features.ts';
import { VIRTIO_FEATURE } from '../../../protocol/virtio/features.ts';

/** Features of the rings that a device offers unless it is told not to. */
export const RING_FEATURES = ['packed', 'inOrder', 'mergeable', 'indirect', 'eventIdx'] as const;
export type RingFeature = (typeof RING_FEATURES)[number];

export type DeviceOptions = {
  /** Most queue pairs that the front-end may use, 1 to 127. */
  readonly queuePairsMax: number;
  /** Offer the configuration space by message (protocol feature CONFIG). */
  readonly configSpace: boolean;
  /** Six bytes, told in the configuration space; null: none. */
  readonly mac: Uint8Array | null;
  /** Told in the configuration space; null: none. */
  readonly mtu: number | null;
  /** Which of them are offered; what is left out is. */
  readonly features?: Readonly<Partial<Record<RingFeature, boolean>>>;
};

export function offeredFeatures(options: DeviceOptions): bigint {
  const {
    NET_MTU,
    NET_MAC,
    NET_MRG_RXBUF,
    NET_STATUS,
    NET_CTRL_VQ,
    NET_CTRL_RX,
    NET_CTRL_VLAN,
    NET_CTRL_RX_EXTRA,
    NET_GUEST_ANNOUNCE,
    NET_MQ,
    NET_CTRL_MAC_ADDR,
    ANY_LAYOUT,
    INDIRECT_DESC,
    EVENT_IDX,
    PROTOCOL_FEATURES,
    VERSION_1,
  } = VIRTIO_FEATURE;
  let features = maskOf(NET_MTU, NET_MRG_RXBUF, ANY_LAYOUT, INDIRECT_DESC, EVENT_IDX);
  features |= maskOf(PROTOCOL_FEATURES, VERSION_1, NET_GUEST_ANNOUNCE);
  features |= maskOf(NET_CTRL_VQ, NET_CTRL_RX, NET_CTRL_RX_EXTRA, NET_CTRL_VLAN, NET_CTRL_MAC_ADDR);
  if (options.queuePairsMax > 1) features |= maskOf(NET_MQ);
  if (options.configSpace) features |= maskOf(NET_STATUS);
  if (options.configSpace && options.mac !== null) features |= maskOf(NET_MAC);
  return features;
}

export function offeredProtocolFeatures(options: DeviceOptions): bigint {
  const { MQ, REPLY_ACK, MTU, CONFIG, CONFIGURE_MEM_SLOTS } = PROTOCOL_FEATURE;
  return maskOf(MQ, REPLY_ACK, MTU, CONFIGURE_MEM_SLOTS) | (options.configSpace ? maskOf(CONFIG) : 0n);
}
