/**
 * What is decided about a port as a whole and followed by the workers: plain data, posted whole whenever a part
 * of it changes. A new property of a port is a field here and in the stage that acts on it.
 */
import { FRAME_BYTES_MAX } from '../../protocol/ethernet.ts';

/** A port whose frames are copied. */
export type MirrorSource = { readonly portId: number; readonly name: string };

export type PortPolicy = {
  /** Longest frame, with its Ethernet header and up to two VLAN tags, that may be delivered to the port. */
  readonly frameBytesMax: number;
  /**
   * Null: frames are switched to the port. Otherwise it gets copies of all frames to and from these ports and
   * nothing else, and the addresses behind it are not learned, because nothing could be sent to them.
   */
  readonly copiesOf: readonly MirrorSource[] | null;
  /** Whether broadcast, multicast and unknown unicast frames are flooded to the port. */
  readonly floods: boolean;
  /** Whether what comes in from the port is forwarded; otherwise all of it is dropped. It can be sent to either way. */
  readonly receives: boolean;
  /** OFFLOAD_* bits (requests.ts): what a frame may ask for that is handed to the port as it is. */
  readonly takes: number;
  /** Whether frames from the port to 01:80:C2:00:00:00 to 0F, which bridges keep to their link, are flooded as others. */
  readonly forwardsLinkLocal: boolean;
};

export const DEFAULT_POLICY: PortPolicy = {
  frameBytesMax: FRAME_BYTES_MAX,
  copiesOf: null,
  floods: true,
  receives: true,
  forwardsLinkLocal: false,
  takes: 0,
};
