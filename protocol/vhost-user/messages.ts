/**
 * The one table of vhost-user requests that a front-end sends to a back-end (QEMU
 * docs/interop/vhost-user.rst, "Front-end message types"). Form only: what a message carries and when it
 * may come. Handlers (src/vhost-user/handlers.ts) are typed by this table's keys, so a message added here
 * without a handler does not compile.
 */
import type { VirtioFeature } from '../virtio/features.ts';
import type { ProtocolFeature } from './features.ts';

/** Shapes of message bodies; codec.ts says how each is laid out. */
export type Body =
  | 'none'
  | 'u64'
  | 'vringState'
  | 'vringAddr'
  | 'memTable'
  | 'memRegion'
  | 'log'
  | 'config'
  | 'inflight'
  | 'vringFd'
  | 'iotlb';

/** How many file descriptors may come: none, exactly one, one unless bit 8 is set, or one a region. */
export type FdRule = 'none' | 'one' | 'unlessPolled' | 'perRegion' | 'optionalOne';

export type MessageSpec = {
  readonly id: number;
  readonly body: Body;
  readonly fds: FdRule;
  /** The protocol feature that must have been negotiated. */
  readonly gate: ProtocolFeature | null;
  /** The feature of the device that must have been negotiated; left out: none. */
  readonly deviceGate?: VirtioFeature;
  /** The body of the message's own reply; null where only REPLY_ACK asks for one. */
  readonly reply: Body | null;
  /** It is acknowledged as with REPLY_ACK whether or not that is asked for. */
  readonly isAlwaysAcked?: true;
};

export const MESSAGES = {
  GET_FEATURES: { id: 1, body: 'none', fds: 'none', gate: null, reply: 'u64' },
  SET_FEATURES: { id: 2, body: 'u64', fds: 'none', gate: null, reply: null },
  SET_OWNER: { id: 3, body: 'none', fds: 'none', gate: null, reply: null },
  RESET_OWNER: { id: 4, body: 'none', fds: 'none', gate: null, reply: null },
  SET_MEM_TABLE: { id: 5, body: 'memTable', fds: 'perRegion', gate: null, reply: null },
  SET_LOG_BASE: { id: 6, body: 'log', fds: 'one', gate: 'LOG_SHMFD', reply: 'log' },
  SET_LOG_FD: { id: 7, body: 'none', fds: 'one', gate: null, reply: null },
  SET_VRING_NUM: { id: 8, body: 'vringState', fds: 'none', gate: null, reply: null },
  SET_VRING_ADDR: { id: 9, body: 'vringAddr', fds: 'none', gate: null, reply: null },
  SET_VRING_BASE: { id: 10, body: 'vringState', fds: 'none', gate: null, reply: null },
  GET_VRING_BASE: { id: 11, body: 'vringState', fds: 'none', gate: null, reply: 'vringState' },
  SET_VRING_KICK: { id: 12, body: 'vringFd', fds: 'unlessPolled', gate: null, reply: null },
  SET_VRING_CALL: { id: 13, body: 'vringFd', fds: 'unlessPolled', gate: null, reply: null },
  SET_VRING_ERR: { id: 14, body: 'vringFd', fds: 'unlessPolled', gate: null, reply: null },
  GET_PROTOCOL_FEATURES: { id: 15, body: 'none', fds: 'none', gate: null, reply: 'u64' },
  SET_PROTOCOL_FEATURES: { id: 16, body: 'u64', fds: 'none', gate: null, reply: null },
  GET_QUEUE_NUM: { id: 17, body: 'none', fds: 'none', gate: 'MQ', reply: 'u64' },
  // No gate: front-ends send it when bit 30 was offered, and some do not acknowledge the bit in SET_FEATURES.
  SET_VRING_ENABLE: { id: 18, body: 'vringState', fds: 'none', gate: null, reply: null },
  SEND_RARP: { id: 19, body: 'u64', fds: 'none', gate: 'RARP', reply: null },
  NET_SET_MTU: { id: 20, body: 'u64', fds: 'none', gate: 'MTU', reply: null },
  SET_BACKEND_REQ_FD: { id: 21, body: 'none', fds: 'one', gate: 'BACKEND_REQ', reply: null },
  IOTLB_MSG: {
    id: 22,
    body: 'iotlb',
    fds: 'none',
    gate: null,
    deviceGate: 'ACCESS_PLATFORM',
    reply: null,
    isAlwaysAcked: true,
  },
  // No gate: crosvm asks although CONFIG was not negotiated, and ends its machine when the connection ends.
  GET_CONFIG: { id: 24, body: 'config', fds: 'none', gate: null, reply: 'config' },
  SET_CONFIG: { id: 25, body: 'config', fds: 'none', gate: 'CONFIG', reply: null },
  GET_INFLIGHT_FD: { id: 31, body: 'inflight', fds: 'none', gate: 'INFLIGHT_SHMFD', reply: 'inflight' },
  SET_INFLIGHT_FD: { id: 32, body: 'inflight', fds: 'one', gate: 'INFLIGHT_SHMFD', reply: null },
  RESET_DEVICE: { id: 34, body: 'none', fds: 'none', gate: 'RESET_DEVICE', reply: null },
  VRING_KICK: { id: 35, body: 'vringState', fds: 'none', gate: 'INBAND_NOTIFICATIONS', reply: null },
  GET_MAX_MEM_SLOTS: { id: 36, body: 'none', fds: 'none', gate: 'CONFIGURE_MEM_SLOTS', reply: 'u64' },
  ADD_MEM_REG: { id: 37, body: 'memRegion', fds: 'one', gate: 'CONFIGURE_MEM_SLOTS', reply: null },
  REM_MEM_REG: { id: 38, body: 'memRegion', fds: 'optionalOne', gate: 'CONFIGURE_MEM_SLOTS', reply: null },
  SET_STATUS: { id: 39, body: 'u64', fds: 'none', gate: 'STATUS', reply: null },
  GET_STATUS: { id: 40, body: 'none', fds: 'none', gate: 'STATUS', reply: 'u64' },
  GET_VRING_BASE_SKIP_DRAIN: {
    id: 45,
    body: 'vringState',
    fds: 'none',
    gate: 'SKIP_DRAIN',
    reply: 'vringState',
  },
} as const satisfies Record<string, MessageSpec>;

export type MessageName = keyof typeof MESSAGES;
export type BodyOf<Name extends MessageName> = (typeof MESSAGES)[Name]['body'];
export type ReplyOf<Name extends MessageName> = (typeof MESSAGES)[Name]['reply'];

const NAME_BY_ID = new Map<number, MessageName>(
  (Object.keys(MESSAGES) as MessageName[]).map((name) => [MESSAGES[name].id, name]),
);

/** The name of request `id`, or null for one that Ringway does not know. */
export function messageName(id: number): MessageName | null {
  return NAME_BY_ID.get(id) ?? null;
}

/**
 * Requests that Ringway sends to a front-end, over the channel that SET_BACKEND_REQ_FD brings ("Back-end message types").
 * None carries descriptors.
 */
export const BACK_END_MESSAGES = {
  IOTLB_MSG: { id: 1, body: 'iotlb', reply: null },
  VRING_CALL: { id: 4, body: 'vringState', reply: null },
  VRING_ERR: { id: 5, body: 'vringState', reply: null },
} as const satisfies Record<string, Pick<MessageSpec, 'id' | 'body' | 'reply'>>;

/** Header flags: bits 0 and 1 are the version (1), bit 2 marks a reply, bit 3 asks for one. */
export const FLAG_VERSION = 1;
export const FLAG_VERSION_MASK = 3;
export const FLAG_REPLY = 4;
export const FLAG_NEED_REPLY = 8;

/** le32 request, le32 flags, le32 size of the payload. */
export const HEADER_BYTES = 12;
/** The specification has SET_MEM_TABLE carry at most 8 regions; more need ADD_MEM_REG. */
export const MEM_TABLE_REGIONS_SENT_MAX = 8;
/** What is taken: front-ends on rust-vmm's crate send up to so many. */
export const MEM_TABLE_REGIONS_MAX = 32;
/** No message's payload is larger; a header that announces more is refused before anything is read. */
export const PAYLOAD_BYTES_MAX = 4096;
/** Longest configuration space that GET_CONFIG and SET_CONFIG may name. */
export const CONFIG_BYTES_MAX = 256;
/** Most descriptors that one message may carry; the kernel's own limit (SCM_MAX_FD) is 253. */
export const FDS_MAX = MEM_TABLE_REGIONS_MAX;

/** SET_VRING_KICK, CALL and ERR: bits 0 to 7 are the ring index, bit 8 says that no descriptor comes. */
export const VRING_FD_INDEX_MASK = 0xffn;
export const VRING_FD_NONE = 0x100n;

/** SET_VRING_ADDR's flags: what is written to the ring is logged, by the address that comes with it. */
export const VRING_FLAG_LOG = 1;

/** What an IOTLB message is about ("An IOTLB message"). The first and the last go to the front-end. */
export const IOTLB_TYPE = { MISS: 1, UPDATE: 2, INVALIDATE: 3, ACCESS_FAIL: 4 } as const;
/** Its permissions, bit by bit. */
export const IOTLB_ACCESS = { READ: 1, WRITE: 2, BOTH: 3 } as const;
