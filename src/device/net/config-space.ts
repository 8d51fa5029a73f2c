/** The configuration space of a virtio network device (VIRTIO 1.3, section 5.1.4), for GET_CONFIG. Main thread. */
import type { ConfigSpace } from '../../../protocol/vhost-user/codec.ts';
import { NET_CONFIG, NET_STATUS_LINK_UP } from '../../../protocol/virtio/net.ts';
import type { DeviceOptions } from './options.ts';

const MTU_DEFAULT = 1500;
/** "Unknown" for speed and duplex. */
const SPEED_UNKNOWN = 0xffffffff;
const DUPLEX_UNKNOWN = 0xff;

/** The part of the space that `request` names; an empty answer is how the specification says no. */
export function readConfigSpace(options: DeviceOptions, { offset, bytes }: ConfigSpace): ConfigSpace {
  const space = configSpaceBytes(options);
  const end = offset + bytes.length;
  return { offset, flags: 0, bytes: end > space.length ? new Uint8Array(0) : space.slice(offset, end) };
}

function configSpaceBytes(options: DeviceOptions): Uint8Array {
  const bytes = new Uint8Array(NET_CONFIG.BYTES);
  const view = new DataView(bytes.buffer);
  if (options.mac !== null) bytes.set(options.mac, NET_CONFIG.MAC_OFFSET);
  view.setUint16(NET_CONFIG.STATUS_OFFSET, NET_STATUS_LINK_UP, true);
  view.setUint16(NET_CONFIG.MAX_QUEUE_PAIRS_OFFSET, options.queuePairsMax, true);
  view.setUint16(NET_CONFIG.MTU_OFFSET, options.mtu ?? MTU_DEFAULT, true);
  view.setUint32(NET_CONFIG.SPEED_OFFSET, SPEED_UNKNOWN, true);
  view.setUint8(NET_CONFIG.DUPLEX_OFFSET, DUPLEX_UNKNOWN);
  return bytes;
}
