/** Numbers of the specifications, written down a second time: vhost-user.rst and VIRTIO 1.3. */
import { describe, expect, it } from 'vitest';
import { bitNames, hasBit, maskOf } from '../../protocol/bits.ts';
import { formatMac, macHiOf, macLoOf, parseMac } from '../../protocol/ethernet.ts';
import { PROTOCOL_FEATURE } from '../../protocol/vhost-user/features.ts';
import {
  BACK_END_MESSAGES,
  FLAG_NEED_REPLY,
  FLAG_REPLY,
  FLAG_VERSION,
  HEADER_BYTES,
  MESSAGES,
  type MessageName,
  messageName,
} from '../../protocol/vhost-user/messages.ts';
import { VIRTIO_FEATURE } from '../../protocol/virtio/features.ts';
import { CTRL_CLASS, NET_CONFIG, netHeaderBytes } from '../../protocol/virtio/net.ts';
import {
  DESC_F_AVAIL,
  DESC_F_USED,
  EVENT_DESC,
  EVENT_DISABLE,
  EVENT_ENABLE,
  FIRST_POSITION,
  isPackedRingSize,
  packedBase,
} from '../../protocol/virtio/packed-ring.ts';
import {
  availRingBytes,
  descTableBytes,
  isSplitRingSize,
  usedRingBytes,
} from '../../protocol/virtio/split-ring.ts';
import { Random } from '../vring/random.ts';

/** vhost-user.rst, "Front-end message types": number, payload, who may send descriptors, its own reply. */
const SPECIFIED: Record<MessageName, readonly [number, string, string, string | null]> = {
  GET_FEATURES: [1, 'none', 'none', 'u64'],
  SET_FEATURES: [2, 'u64', 'none', null],
  SET_OWNER: [3, 'none', 'none', null],
  RESET_OWNER: [4, 'none', 'none', null],
  SET_MEM_TABLE: [5, 'memTable', 'perRegion', null],
  SET_LOG_BASE: [6, 'log', 'one', 'log'],
  SET_LOG_FD: [7, 'none', 'one', null],
  SET_VRING_NUM: [8, 'vringState', 'none', null],
  SET_VRING_ADDR: [9, 'vringAddr', 'none', null],
  SET_VRING_BASE: [10, 'vringState', 'none', null],
  GET_VRING_BASE: [11, 'vringState', 'none', 'vringState'],
  SET_VRING_KICK: [12, 'vringFd', 'unlessPolled', null],
  SET_VRING_CALL: [13, 'vringFd', 'unlessPolled', null],
  SET_VRING_ERR: [14, 'vringFd', 'unlessPolled', null],
  GET_PROTOCOL_FEATURES: [15, 'none', 'none', 'u64'],
  SET_PROTOCOL_FEATURES: [16, 'u64', 'none', null],
  GET_QUEUE_NUM: [17, 'none', 'none', 'u64'],
  SET_VRING_ENABLE: [18, 'vringState', 'none', null],
  SEND_RARP: [19, 'u64', 'none', null],
  NET_SET_MTU: [20, 'u64', 'none', null],
  SET_BACKEND_REQ_FD: [21, 'none', 'one', null],
  IOTLB_MSG: [22, 'iotlb', 'none', null],
  GET_CONFIG: [24, 'config', 'none', 'config'],
  SET_CONFIG: [25, 'config', 'none', null],
  GET_INFLIGHT_FD: [31, 'inflight', 'none', 'inflight'],
  SET_INFLIGHT_FD: [32, 'inflight', 'one', null],
  RESET_DEVICE: [34, 'none', 'none', null],
  VRING_KICK: [35, 'vringState', 'none', null],
  GET_MAX_MEM_SLOTS: [36, 'none', 'none', 'u64'],
  ADD_MEM_REG: [37, 'memRegion', 'one', null],
  REM_MEM_REG: [38, 'memRegion', 'optionalOne', null],
  SET_STATUS: [39, 'u64', 'none', null],
  GET_STATUS: [40, 'none', 'none', 'u64'],
  GET_VRING_BASE_SKIP_DRAIN: [45, 'vringState', 'none', 'vringState'],
};

describe('table of messages', () => {
  it('has the numbers, payloads, descriptors and replies of the specification', () => {
    const actual = Object.entries(MESSAGES).map(([name, spec]) => [
      name,
      [spec.id, spec.body, spec.fds, spec.reply],
    ]);
    expect(Object.fromEntries(actual)).toEqual(SPECIFIED);
  });

  it('has no number twice and finds each name by it', () => {
    const ids = Object.values(MESSAGES).map(({ id }) => id);
    expect(new Set(ids).size).toBe(ids.length);
    for (const name of Object.keys(MESSAGES) as MessageName[]) {
      expect(messageName(MESSAGES[name].id)).toBe(name);
    }
  });

  it('knows no other number', () => {
    const known = new Set<number>(Object.values(MESSAGES).map(({ id }) => id));
    for (let id = 0; id < 300; id++) expect(messageName(id) !== null).toBe(known.has(id));
    expect(messageName(0xffff_ffff)).toBeNull();
  });

  it('gates the messages that a protocol feature brings', () => {
    const gates = Object.entries(MESSAGES).flatMap(([name, { gate }]) =>
      gate === null ? [] : [[name, gate]],
    );
    expect(Object.fromEntries(gates)).toEqual({
      GET_INFLIGHT_FD: 'INFLIGHT_SHMFD',
      SET_INFLIGHT_FD: 'INFLIGHT_SHMFD',
      SET_LOG_BASE: 'LOG_SHMFD',
      GET_QUEUE_NUM: 'MQ',
      SEND_RARP: 'RARP',
      NET_SET_MTU: 'MTU',
      SET_BACKEND_REQ_FD: 'BACKEND_REQ',
      SET_CONFIG: 'CONFIG',
      GET_MAX_MEM_SLOTS: 'CONFIGURE_MEM_SLOTS',
      ADD_MEM_REG: 'CONFIGURE_MEM_SLOTS',
      REM_MEM_REG: 'CONFIGURE_MEM_SLOTS',
      RESET_DEVICE: 'RESET_DEVICE',
      VRING_KICK: 'INBAND_NOTIFICATIONS',
      SET_STATUS: 'STATUS',
      GET_STATUS: 'STATUS',
      GET_VRING_BASE_SKIP_DRAIN: 'SKIP_DRAIN',
    });
  });

  it('of what a back-end asks has the numbers of the specification', () => {
    const actual = Object.entries(BACK_END_MESSAGES).map(([name, { id, body }]) => [name, id, body]);
    expect(actual).toEqual([
      ['IOTLB_MSG', 1, 'iotlb'],
      ['VRING_CALL', 4, 'vringState'],
      ['VRING_ERR', 5, 'vringState'],
    ]);
  });

  it('has the header flags of the specification', () => {
    expect([HEADER_BYTES, FLAG_VERSION, FLAG_REPLY, FLAG_NEED_REPLY]).toEqual([12, 1, 4, 8]);
  });
});

describe('feature bits', () => {
  it('have the numbers that Ringway negotiates by', () => {
    expect(PROTOCOL_FEATURE).toMatchObject({
      MQ: 0,
      LOG_SHMFD: 1,
      RARP: 2,
      REPLY_ACK: 3,
      MTU: 4,
      BACKEND_REQ: 5,
      CONFIG: 9,
      RESET_DEVICE: 13,
      INBAND_NOTIFICATIONS: 14,
      CONFIGURE_MEM_SLOTS: 15,
      STATUS: 16,
      SKIP_DRAIN: 23,
    });
    expect(VIRTIO_FEATURE).toMatchObject({
      NET_MTU: 3,
      NET_MAC: 5,
      NET_MRG_RXBUF: 15,
      NET_STATUS: 16,
      NET_CTRL_VQ: 17,
      NET_MQ: 22,
      NET_CTRL_MAC_ADDR: 23,
      LOG_ALL: 26,
      INDIRECT_DESC: 28,
      EVENT_IDX: 29,
      PROTOCOL_FEATURES: 30,
      VERSION_1: 32,
      RING_PACKED: 34,
      RING_RESET: 40,
    });
  });

  it('make masks up to bit 63', () => {
    expect(maskOf()).toBe(0n);
    expect(maskOf(0, 30, 63)).toBe(0x8000_0000_4000_0001n);
    for (let bit = 0; bit < 64; bit++) {
      expect(hasBit(maskOf(bit), bit)).toBe(true);
      expect(hasBit(~maskOf(bit) & (2n ** 64n - 1n), bit)).toBe(false);
    }
  });

  it('are named, known or not', () => {
    expect(bitNames(maskOf(0, 15, 40), PROTOCOL_FEATURE)).toEqual(['MQ', 'CONFIGURE_MEM_SLOTS', 'bit40']);
  });
});

describe('virtio structures', () => {
  it('have the sizes of the specification', () => {
    expect([descTableBytes(256), availRingBytes(256), usedRingBytes(256)]).toEqual([4096, 518, 2054]);
    expect(netHeaderBytes(false, false)).toBe(10);
    expect([netHeaderBytes(true, false), netHeaderBytes(false, true), netHeaderBytes(true, true)]).toEqual([
      12, 12, 12,
    ]);
    expect(NET_CONFIG).toMatchObject({
      MAC_OFFSET: 0,
      STATUS_OFFSET: 6,
      MAX_QUEUE_PAIRS_OFFSET: 8,
      MTU_OFFSET: 10,
    });
    expect(CTRL_CLASS).toEqual({ RX: 0, MAC: 1, VLAN: 2, ANNOUNCE: 3, MQ: 4, GUEST_OFFLOADS: 5 });
  });

  it('take powers of two from 2 to 32,768 as ring sizes', () => {
    const good = new Set(Array.from({ length: 15 }, (_, i) => 2 ** (i + 1)));
    for (let size = 0; size <= 70_000; size++) {
      if (isSplitRingSize(size) !== good.has(size)) expect.fail(`ring size ${size}`);
    }
    expect([0xffff_ffff, 0x8000_0000, 2 ** 32 + 2].some(isSplitRingSize)).toBe(false);
  });
});

describe('packed rings (VIRTIO 1.3, section 2.8)', () => {
  it('have the flags of the specification', () => {
    expect([DESC_F_AVAIL, DESC_F_USED]).toEqual([0x80, 0x8000]);
    expect([EVENT_ENABLE, EVENT_DISABLE, EVENT_DESC]).toEqual([0, 1, 2]);
  });

  it('take every size from 1 to 32,768', () => {
    expect([1, 2, 3, 255, 32_767, 32_768].every(isPackedRingSize)).toBe(true);
    expect([0, -1, 1.5, 32_769, 65_536, 2 ** 32 + 2, Number.NaN].some(isPackedRingSize)).toBe(false);
  });

  it('start at a base that says position 0 and wrap counter 1 twice', () => {
    expect(packedBase(FIRST_POSITION, FIRST_POSITION)).toBe(0x8000_8000);
    expect(packedBase(0x8005, 0x7ffe)).toBe(0x7ffe_8005);
  });
});

describe('Ethernet addresses', () => {
  it('go from text to halves and back', () => {
    const random = new Random(4);
    for (let round = 0; round < 500; round++) {
      const bytes = random.bytes(6);
      const text = [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join(':');
      expect(parseMac(text)).toEqual(bytes);
      expect(formatMac(macLoOf(bytes), macHiOf(bytes))).toBe(text);
      expect(macLoOf(bytes)).toBe(macLoOf(bytes) | 0);
      expect(macHiOf(bytes)).toBe(bytes[4] + 256 * bytes[5]);
    }
  });

  it.each([
    '',
    '52:54:00:12:34',
    '52:54:00:12:34:5g',
    '52:54:00:12:34:56:78',
    '525400123456',
    ' 52:54:00:12:34:56',
  ])('refuse the text "%s"', (text) => expect(parseMac(text)).toBeNull());
});
