/** The virtio-net header that a guest would put before a frame which is to be cut into segments. Pure. */
import { ETHERNET_HEADER_BYTES, ETHERTYPE_IPV4, VLAN_TAG_BYTES } from '../../protocol/ethernet.ts';
import {
  IPV6_HEADER_BYTES,
  PROTOCOL_TCP,
  TCP_CHECKSUM_OFFSET,
  UDP_CHECKSUM_OFFSET,
} from '../../protocol/ip.ts';
import { NET_HDR_F, NET_HDR_GSO, netHeaderWords } from '../../protocol/virtio/net.ts';
import { tagsOf } from './frame-text.ts';
import type { TraceRequest } from './queues.ts';

/** Whether that frame may be is not asked here: that is the forwarder's business. */
export function requestOf(frame: Uint8Array, segmentBytes: number): TraceRequest {
  const networkStart = ETHERNET_HEADER_BYTES + tagsOf(frame).length * VLAN_TAG_BYTES;
  const isIpv4 = ((frame[networkStart - 2] << 8) | frame[networkStart - 1]) === ETHERTYPE_IPV4;
  const protocol = isIpv4 ? frame[networkStart + 9] : frame[networkStart + 6];
  const isTcp = protocol === PROTOCOL_TCP;
  const gsoType = !isTcp ? NET_HDR_GSO.UDP_L4 : isIpv4 ? NET_HDR_GSO.TCPV4 : NET_HDR_GSO.TCPV6;
  const networkBytes = isIpv4 ? (frame[networkStart] & 15) << 2 : IPV6_HEADER_BYTES;
  const header = {
    flags: NET_HDR_F.NEEDS_CSUM,
    gsoType,
    hdrLen: 0,
    gsoSize: segmentBytes,
    csumStart: networkStart + networkBytes,
    csumOffset: isTcp ? TCP_CHECKSUM_OFFSET : UDP_CHECKSUM_OFFSET,
  };
  return netHeaderWords(header, 0);
}
