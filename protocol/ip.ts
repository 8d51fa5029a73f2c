/** Numbers of IP, TCP and UDP headers: RFC 791, 8200, 9293 and 768; protocols as IANA has them. */

export const PROTOCOL_HOP_BY_HOP = 0;
export const PROTOCOL_ICMP = 1;
export const PROTOCOL_TCP = 6;
export const PROTOCOL_UDP = 17;
export const PROTOCOL_ROUTING = 43;
export const PROTOCOL_FRAGMENT = 44;
export const PROTOCOL_AH = 51;
export const PROTOCOL_ICMPV6 = 58;
export const PROTOCOL_DESTINATION_OPTIONS = 60;
export const PROTOCOL_SCTP = 132;
export const PROTOCOL_MOBILITY = 135;
export const PROTOCOL_HIP = 139;
export const PROTOCOL_SHIM6 = 140;

export const IPV4_HEADER_BYTES_MIN = 20;
/** More fragments, and the offset. */
export const IPV4_FRAGMENT_MASK = 0x3fff;
/** Without extension headers. */
export const IPV6_HEADER_BYTES = 40;

export const TCP_HEADER_BYTES_MIN = 20;
export const TCP_HEADER_BYTES_MAX = 60;
export const UDP_HEADER_BYTES = 8;
/** Of the checksum, from the header's first byte on. */
export const TCP_CHECKSUM_OFFSET = 16;
export const UDP_CHECKSUM_OFFSET = 6;
