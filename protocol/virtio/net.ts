/**
 * The virtio network device's own structures (VIRTIO 1.3, section 5.1): the header before each frame,
 * the configuration space and the control virtqueue's commands.
 */

/**
 * struct virtio_net_hdr { u8 flags; u8 gso_type; le16 hdr_len; le16 gso_size; le16 csum_start;
 * le16 csum_offset; le16 num_buffers; }. Legacy devices without MRG_RXBUF leave out `num_buffers`.
 */
export const NET_HEADER_BYTES = 12;
export const NET_HEADER_BYTES_LEGACY = 10;
export const NET_HEADER_NUM_BUFFERS_OFFSET = 10;

/** `flags`: NEEDS_CSUM asks for a checksum; DATA_VALID and RSC_INFO are said by devices only. */
export const NET_HDR_F = { NEEDS_CSUM: 1, DATA_VALID: 2, RSC_INFO: 4 } as const;
/** `gso_type`; ECN is a bit beside the others: the first segment has CWR, and the others must not. */
export const NET_HDR_GSO = { NONE: 0, TCPV4: 1, UDP: 3, TCPV6: 4, UDP_L4: 5, ECN: 0x80 } as const;

/** A header's fields, without `num_buffers`. */
export type NetHeader = {
  readonly flags: number;
  readonly gsoType: number;
  readonly hdrLen: number;
  readonly gsoSize: number;
  readonly csumStart: number;
  readonly csumOffset: number;
};

/**
 * The twelve bytes as the three little-endian words that the hot path reads and writes:
 * `flags | gso_type << 8 | hdr_len << 16`, `gso_size | csum_start << 16`, `csum_offset | num_buffers << 16`.
 */
export function netHeaderWords(header: NetHeader, bufferCount: number): [number, number, number] {
  return [
    header.flags | (header.gsoType << 8) | (header.hdrLen << 16),
    header.gsoSize | (header.csumStart << 16),
    header.csumOffset | (bufferCount << 16),
  ];
}

export function netHeaderOf(word0: number, word1: number, word2: number): NetHeader {
  return {
    flags: word0 & 0xff,
    gsoType: (word0 >>> 8) & 0xff,
    hdrLen: word0 >>> 16,
    gsoSize: word1 & 0xffff,
    csumStart: word1 >>> 16,
    csumOffset: word2 & 0xffff,
  };
}

/** Bytes of the header in front of each frame: 12 with VERSION_1 or MRG_RXBUF, otherwise 10. */
export function netHeaderBytes(version1: boolean, mergeable: boolean): number {
  return version1 || mergeable ? NET_HEADER_BYTES : NET_HEADER_BYTES_LEGACY;
}

/** struct virtio_net_config: byte offsets of the fields that Ringway serves. */
export const NET_CONFIG = {
  MAC_OFFSET: 0,
  STATUS_OFFSET: 6,
  MAX_QUEUE_PAIRS_OFFSET: 8,
  MTU_OFFSET: 10,
  SPEED_OFFSET: 12,
  DUPLEX_OFFSET: 16,
  /** Up to and with `duplex`, then the RSS and hash fields that Ringway leaves zero. */
  BYTES: 24,
} as const;
export const NET_STATUS_LINK_UP = 1;

/** Control commands: struct virtio_net_ctrl { u8 class; u8 command; u8 data[]; u8 ack; }. */
export const CTRL_ACK_OK = 0;
export const CTRL_ACK_ERROR = 1;
export const CTRL_CLASS = { RX: 0, MAC: 1, VLAN: 2, ANNOUNCE: 3, MQ: 4, GUEST_OFFLOADS: 5 } as const;
export const CTRL_RX = { PROMISC: 0, ALLMULTI: 1, ALLUNI: 2, NOMULTI: 3, NOUNI: 4, NOBCAST: 5 } as const;
export const CTRL_MAC = { TABLE_SET: 0, ADDR_SET: 1 } as const;
export const CTRL_VLAN = { ADD: 0, DEL: 1 } as const;
export const CTRL_ANNOUNCE = { ACK: 0 } as const;
export const CTRL_MQ = { VQ_PAIRS_SET: 0 } as const;
export const CTRL_GUEST_OFFLOADS = { SET: 0 } as const;
