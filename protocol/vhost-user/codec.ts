/**
 * Bytes of vhost-user messages to values and back. Checks form (sizes, counts), never meaning, and does no
 * I/O. Both ends use it: the back-end's session and the embedded front-end. Integers on the wire are in the
 * machine's order, which Ringway takes to be little endian. Control plane only: it allocates.
 */
import {
  type Body,
  CONFIG_BYTES_MAX,
  FLAG_VERSION,
  HEADER_BYTES,
  MEM_TABLE_REGIONS_MAX,
  VRING_FD_INDEX_MASK,
  VRING_FD_NONE,
} from './messages.ts';

/** A message whose bytes do not have the form that the specification gives it. */
export class FormError extends Error {
  override name = 'FormError';
}

export type Header = { readonly request: number; readonly flags: number; readonly sizeBytes: number };
/** `num` is a ring size, a base or 0/1, as the request says. */
export type VringState = { readonly index: number; readonly num: number };
export type VringAddr = {
  readonly index: number;
  readonly flags: number;
  readonly descUva: bigint;
  readonly usedUva: bigint;
  readonly availUva: bigint;
  readonly logGpa: bigint;
};
export type MemRegion = {
  readonly gpa: bigint;
  readonly sizeBytes: bigint;
  readonly uva: bigint;
  readonly mmapOffset: bigint;
};
export type LogDescription = { readonly sizeBytes: bigint; readonly offset: bigint };
export type ConfigSpace = { readonly offset: number; readonly flags: number; readonly bytes: Uint8Array };
/** `paddingBytes`: 4 where the sender's struct ends with padding (QEMU), otherwise 0; a reply has as many. */
export type InflightDescription = {
  readonly sizeBytes: bigint;
  readonly offset: bigint;
  readonly queueCount: number;
  readonly queueSize: number;
  readonly paddingBytes: number;
};
/** `polled`: no descriptor comes, the ring is to be polled (kick) or never signalled (call, err). */
export type VringFd = { readonly index: number; readonly polled: boolean };

/** `access` and `type`: IOTLB_ACCESS and IOTLB_TYPE of messages.ts, as they came. */
export type IotlbMessage = {
  readonly iova: bigint;
  readonly sizeBytes: bigint;
  readonly uva: bigint;
  readonly access: number;
  readonly type: number;
};

export type BodyValues = {
  none: null;
  u64: bigint;
  vringState: VringState;
  vringAddr: VringAddr;
  memTable: readonly MemRegion[];
  memRegion: MemRegion;
  log: LogDescription;
  config: ConfigSpace;
  inflight: InflightDescription;
  vringFd: VringFd;
  iotlb: IotlbMessage;
};

const REGION_BYTES = 32;
const MEM_TABLE_PREFIX_BYTES = 8;
const SINGLE_REGION_PREFIX_BYTES = 8;
const CONFIG_PREFIX_BYTES = 12;
const INFLIGHT_BYTES = 20;
const INFLIGHT_PADDING_BYTES = 4;
/** QEMU's and Linux' struct ends with six bytes of padding; the specification's table does not have them. */
const IOTLB_BYTES = 26;
const IOTLB_PADDED_BYTES = 32;

export function decodeHeader(bytes: Uint8Array): Header {
  const view = viewOf(bytes);
  return {
    request: view.getUint32(0, true),
    flags: view.getUint32(4, true),
    sizeBytes: view.getUint32(8, true),
  };
}

/** A whole message: header with version 1 and `flags`, then the payload. */
export function encodeMessage(request: number, flags: number, payload: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES + payload.length);
  const view = viewOf(bytes);
  view.setUint32(0, request, true);
  view.setUint32(4, FLAG_VERSION | flags, true);
  view.setUint32(8, payload.length, true);
  bytes.set(payload, HEADER_BYTES);
  return bytes;
}

/** The value of a payload of the given form. @throws FormError */
export function decodeBody<B extends Body>(body: B, payload: Uint8Array): BodyValues[B] {
  return DECODERS[body](payload);
}

export function encodeBody<B extends Body>(body: B, value: BodyValues[B]): Uint8Array {
  return ENCODERS[body](value);
}

const DECODERS: { [B in Body]: (payload: Uint8Array) => BodyValues[B] } = {
  none: (payload) => {
    expectBytes(payload, 0);
    return null;
  },
  u64: (payload) => {
    expectBytes(payload, 8);
    return viewOf(payload).getBigUint64(0, true);
  },
  vringState: (payload) => {
    expectBytes(payload, 8);
    const view = viewOf(payload);
    return { index: view.getUint32(0, true), num: view.getUint32(4, true) };
  },
  vringAddr: (payload) => {
    expectBytes(payload, 40);
    const view = viewOf(payload);
    return {
      index: view.getUint32(0, true),
      flags: view.getUint32(4, true),
      descUva: view.getBigUint64(8, true),
      usedUva: view.getBigUint64(16, true),
      availUva: view.getBigUint64(24, true),
      logGpa: view.getBigUint64(32, true),
    };
  },
  memTable: (payload) => {
    if (payload.length < MEM_TABLE_PREFIX_BYTES) throw shortPayload(payload.length, MEM_TABLE_PREFIX_BYTES);
    const view = viewOf(payload);
    const count = view.getUint32(0, true);
    if (count > MEM_TABLE_REGIONS_MAX) {
      throw new FormError(`memory table of ${count} regions; at most ${MEM_TABLE_REGIONS_MAX} fit`);
    }
    // Some front-ends send room for more regions than they count; the rest is padding.
    const neededBytes = MEM_TABLE_PREFIX_BYTES + count * REGION_BYTES;
    if (payload.length < neededBytes) throw shortPayload(payload.length, neededBytes);
    if (payload.length > MEM_TABLE_PREFIX_BYTES + MEM_TABLE_REGIONS_MAX * REGION_BYTES) {
      throw new FormError(`payload of ${payload.length} bytes is longer than a memory table can be`);
    }
    return Array.from({ length: count }, (_, i) =>
      decodeRegion(view, MEM_TABLE_PREFIX_BYTES + i * REGION_BYTES),
    );
  },
  memRegion: (payload) => {
    expectBytes(payload, SINGLE_REGION_PREFIX_BYTES + REGION_BYTES);
    return decodeRegion(viewOf(payload), SINGLE_REGION_PREFIX_BYTES);
  },
  log: (payload) => {
    expectBytes(payload, 16);
    const view = viewOf(payload);
    return { sizeBytes: view.getBigUint64(0, true), offset: view.getBigUint64(8, true) };
  },
  config: (payload) => {
    if (payload.length < CONFIG_PREFIX_BYTES) throw shortPayload(payload.length, CONFIG_PREFIX_BYTES);
    const view = viewOf(payload);
    const sizeBytes = view.getUint32(4, true);
    if (sizeBytes > CONFIG_BYTES_MAX) {
      throw new FormError(`configuration of ${sizeBytes} bytes; at most ${CONFIG_BYTES_MAX} are allowed`);
    }
    expectBytes(payload, CONFIG_PREFIX_BYTES + sizeBytes);
    return {
      offset: view.getUint32(0, true),
      flags: view.getUint32(8, true),
      bytes: payload.slice(CONFIG_PREFIX_BYTES),
    };
  },
  inflight: (payload) => {
    const paddingBytes = payload.length === INFLIGHT_BYTES ? 0 : INFLIGHT_PADDING_BYTES;
    expectBytes(payload, INFLIGHT_BYTES + paddingBytes);
    const view = viewOf(payload);
    return {
      sizeBytes: view.getBigUint64(0, true),
      offset: view.getBigUint64(8, true),
      queueCount: view.getUint16(16, true),
      queueSize: view.getUint16(18, true),
      paddingBytes,
    };
  },
  vringFd: (payload) => {
    expectBytes(payload, 8);
    const value = viewOf(payload).getBigUint64(0, true);
    return { index: Number(value & VRING_FD_INDEX_MASK), polled: (value & VRING_FD_NONE) !== 0n };
  },
  iotlb: (payload) => {
    expectBytes(payload, payload.length === IOTLB_BYTES ? IOTLB_BYTES : IOTLB_PADDED_BYTES);
    const view = viewOf(payload);
    return {
      iova: view.getBigUint64(0, true),
      sizeBytes: view.getBigUint64(8, true),
      uva: view.getBigUint64(16, true),
      access: view.getUint8(24),
      type: view.getUint8(25),
    };
  },
};

const ENCODERS: { [B in Body]: (value: BodyValues[B]) => Uint8Array } = {
  none: () => new Uint8Array(0),
  u64: (value) => filled(8, (view) => view.setBigUint64(0, value, true)),
  vringState: (state) =>
    filled(8, (view) => {
      view.setUint32(0, state.index, true);
      view.setUint32(4, state.num, true);
    }),
  vringAddr: (addr) =>
    filled(40, (view) => {
      view.setUint32(0, addr.index, true);
      view.setUint32(4, addr.flags, true);
      view.setBigUint64(8, addr.descUva, true);
      view.setBigUint64(16, addr.usedUva, true);
      view.setBigUint64(24, addr.availUva, true);
      view.setBigUint64(32, addr.logGpa, true);
    }),
  memTable: (regions) =>
    filled(MEM_TABLE_PREFIX_BYTES + regions.length * REGION_BYTES, (view) => {
      view.setUint32(0, regions.length, true);
      for (const [i, region] of regions.entries()) {
        encodeRegion(view, MEM_TABLE_PREFIX_BYTES + i * REGION_BYTES, region);
      }
    }),
  memRegion: (region) =>
    filled(SINGLE_REGION_PREFIX_BYTES + REGION_BYTES, (view) =>
      encodeRegion(view, SINGLE_REGION_PREFIX_BYTES, region),
    ),
  log: (log) =>
    filled(16, (view) => {
      view.setBigUint64(0, log.sizeBytes, true);
      view.setBigUint64(8, log.offset, true);
    }),
  config: (config) =>
    filled(CONFIG_PREFIX_BYTES + config.bytes.length, (view, bytes) => {
      view.setUint32(0, config.offset, true);
      view.setUint32(4, config.bytes.length, true);
      view.setUint32(8, config.flags, true);
      bytes.set(config.bytes, CONFIG_PREFIX_BYTES);
    }),
  inflight: (inflight) =>
    filled(INFLIGHT_BYTES + inflight.paddingBytes, (view) => {
      view.setBigUint64(0, inflight.sizeBytes, true);
      view.setBigUint64(8, inflight.offset, true);
      view.setUint16(16, inflight.queueCount, true);
      view.setUint16(18, inflight.queueSize, true);
    }),
  vringFd: (vring) =>
    filled(8, (view) =>
      view.setBigUint64(0, BigInt(vring.index) | (vring.polled ? VRING_FD_NONE : 0n), true),
    ),
  iotlb: (message) =>
    filled(IOTLB_PADDED_BYTES, (view) => {
      view.setBigUint64(0, message.iova, true);
      view.setBigUint64(8, message.sizeBytes, true);
      view.setBigUint64(16, message.uva, true);
      view.setUint8(24, message.access);
      view.setUint8(25, message.type);
    }),
};

function decodeRegion(view: DataView, offset: number): MemRegion {
  return {
    gpa: view.getBigUint64(offset, true),
    sizeBytes: view.getBigUint64(offset + 8, true),
    uva: view.getBigUint64(offset + 16, true),
    mmapOffset: view.getBigUint64(offset + 24, true),
  };
}

function encodeRegion(view: DataView, offset: number, region: MemRegion): void {
  view.setBigUint64(offset, region.gpa, true);
  view.setBigUint64(offset + 8, region.sizeBytes, true);
  view.setBigUint64(offset + 16, region.uva, true);
  view.setBigUint64(offset + 24, region.mmapOffset, true);
}

function filled(sizeBytes: number, fill: (view: DataView, bytes: Uint8Array) => void): Uint8Array {
  const bytes = new Uint8Array(sizeBytes);
  fill(viewOf(bytes), bytes);
  return bytes;
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function expectBytes(payload: Uint8Array, expected: number): void {
  if (payload.length !== expected) {
    throw new FormError(`payload of ${payload.length} bytes; ${expected} expected`);
  }
}

function shortPayload(actual: number, needed: number): FormError {
  return new FormError(`payload of ${actual} bytes; at least ${needed} expected`);
}
