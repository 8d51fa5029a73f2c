/**
 * The codec against the layouts of vhost-user.rst, written down a second time here as byte offsets and read
 * one byte at a time: round trips of seeded random values, and every wrong size.
 */
import { describe, expect, it } from 'vitest';
import {
  type BodyValues,
  decodeBody,
  decodeHeader,
  encodeBody,
  encodeMessage,
  FormError,
  type MemRegion,
} from '../../protocol/vhost-user/codec.ts';
import type { Body } from '../../protocol/vhost-user/messages.ts';
import { Random } from '../vring/random.ts';

/** A little-endian integer, byte by byte. */
function naiveInt(bytes: Uint8Array, offset: number, byteCount: number): bigint {
  let value = 0n;
  for (let i = byteCount - 1; i >= 0; i--) value = value * 256n + BigInt(bytes[offset + i]);
  return value;
}

const u32 = (bytes: Uint8Array, offset: number): number => Number(naiveInt(bytes, offset, 4));
const u64 = (bytes: Uint8Array, offset: number): bigint => naiveInt(bytes, offset, 8);

function naiveRegion(bytes: Uint8Array, offset: number): MemRegion {
  return {
    gpa: u64(bytes, offset),
    sizeBytes: u64(bytes, offset + 8),
    uva: u64(bytes, offset + 16),
    mmapOffset: u64(bytes, offset + 24),
  };
}

/** What the specification's layouts say that a payload of the right size means. */
const NAIVE: { [B in Body]: (bytes: Uint8Array) => BodyValues[B] } = {
  none: () => null,
  u64: (bytes) => u64(bytes, 0),
  vringState: (bytes) => ({ index: u32(bytes, 0), num: u32(bytes, 4) }),
  vringAddr: (bytes) => ({
    index: u32(bytes, 0),
    flags: u32(bytes, 4),
    descUva: u64(bytes, 8),
    usedUva: u64(bytes, 16),
    availUva: u64(bytes, 24),
    logGpa: u64(bytes, 32),
  }),
  memTable: (bytes) => Array.from({ length: u32(bytes, 0) }, (_, i) => naiveRegion(bytes, 8 + 32 * i)),
  memRegion: (bytes) => naiveRegion(bytes, 8),
  log: (bytes) => ({ sizeBytes: u64(bytes, 0), offset: u64(bytes, 8) }),
  config: (bytes) => ({ offset: u32(bytes, 0), flags: u32(bytes, 8), bytes: bytes.slice(12) }),
  inflight: (bytes) => ({
    sizeBytes: u64(bytes, 0),
    offset: u64(bytes, 8),
    queueCount: u32(bytes, 16) & 0xffff,
    queueSize: u32(bytes, 16) >>> 16,
    paddingBytes: bytes.length - 20,
  }),
  vringFd: (bytes) => ({ index: bytes[0], polled: (bytes[1] & 1) === 1 }),
  iotlb: (bytes) => ({
    iova: u64(bytes, 0),
    sizeBytes: u64(bytes, 8),
    uva: u64(bytes, 16),
    access: bytes[24],
    type: bytes[25],
  }),
};

const FIXED_BYTES: Partial<Record<Body, number>> = {
  none: 0,
  u64: 8,
  vringState: 8,
  vringAddr: 40,
  memRegion: 40,
  log: 16,
  vringFd: 8,
};
const BODIES = Object.keys(NAIVE) as Body[];

/** A random payload of a right size, whose counts fit. */
function randomPayload(body: Body, random: Random): Uint8Array {
  const fixed = FIXED_BYTES[body];
  if (fixed !== undefined) return random.bytes(fixed);
  if (body === 'iotlb') return random.bytes(random.pick([26, 32]));
  if (body === 'inflight') return random.bytes(random.pick([20, 24]));
  const count = body === 'memTable' ? random.between(0, 8) : random.between(0, 256);
  const bytes = random.bytes(body === 'memTable' ? 8 + 32 * count : 12 + count);
  new DataView(bytes.buffer).setUint32(body === 'memTable' ? 0 : 4, count, true);
  return bytes;
}

/** `bytes` somewhere inside a larger buffer, at an odd offset as a received payload may lie. */
function displaced(bytes: Uint8Array): Uint8Array {
  const larger = new Uint8Array(bytes.length + 7);
  larger.set(bytes, 3);
  return larger.subarray(3, 3 + bytes.length);
}

describe('message bodies', () => {
  it.each(BODIES)('reads random bytes of %s as the naive decoder does', (body) => {
    const random = new Random(1);
    for (let round = 0; round < 500; round++) {
      const payload = randomPayload(body, random);
      expect(decodeBody(body, displaced(payload))).toEqual(NAIVE[body](payload));
    }
  });

  it.each(BODIES)('writes %s so that it is read back the same', (body) => {
    const random = new Random(2);
    for (let round = 0; round < 500; round++) {
      const value = NAIVE[body](randomPayload(body, random));
      const bytes = encodeBody(body, value as never);
      expect(NAIVE[body](bytes)).toEqual(value);
      expect(decodeBody(body, bytes)).toEqual(value);
    }
  });

  it.each(Object.entries(FIXED_BYTES) as [Body, number][])('takes %s of %i bytes only', (body, sizeBytes) => {
    for (let length = 0; length <= 300; length++) {
      const decode = () => decodeBody(body, new Uint8Array(length));
      if (length === sizeBytes) expect(decode).not.toThrow();
      else expect(decode).toThrow(FormError);
    }
  });

  it('takes a memory table of the counted regions or with room for more, but never less or over eight', () => {
    for (let count = 0; count <= 10; count++) {
      for (let length = 0; length <= 400; length++) {
        const payload = new Uint8Array(length);
        if (length >= 4) new DataView(payload.buffer).setUint32(0, count, true);
        const isGood = count <= 32 && length >= 8 + 32 * count && length <= 8 + 32 * 32;
        const decode = () => decodeBody('memTable', payload);
        // Too short for a count at all: it can only be refused.
        if (isGood && length >= 8) expect(decode()).toHaveLength(count);
        else expect(decode).toThrow(FormError);
      }
    }
  });

  it.each([33, 0x1_0000, 0xffff_ffff])('refuses a memory table that counts %i regions', (count) => {
    const payload = new Uint8Array(8 + 32 * 32);
    new DataView(payload.buffer).setUint32(0, count, true);
    expect(() => decodeBody('memTable', payload)).toThrow(/at most 32/);
  });

  it('takes a configuration only when its size field counts the bytes that follow', () => {
    for (let length = 0; length <= 300; length++) {
      for (const counted of [0, 1, length - 12, length - 11, 256, 257, 0xffff_ffff]) {
        const payload = new Uint8Array(length);
        if (length >= 12) new DataView(payload.buffer).setUint32(4, counted >>> 0, true);
        const decode = () => decodeBody('config', payload);
        if (length >= 12 && counted === length - 12 && counted <= 256) expect(decode).not.toThrow();
        else expect(decode).toThrow(FormError);
      }
    }
  });

  it('copies configuration bytes, so that a reused buffer does not change them', () => {
    const payload = encodeBody('config', { offset: 0, flags: 0, bytes: Uint8Array.of(1, 2, 3) });
    const { bytes } = decodeBody('config', payload);
    payload.fill(0xff);
    expect([...bytes]).toEqual([1, 2, 3]);
  });
});

describe('message header', () => {
  it('is request, flags and payload size, 4 bytes each', () => {
    const random = new Random(3);
    for (let round = 0; round < 500; round++) {
      const bytes = displaced(random.bytes(12));
      expect(decodeHeader(bytes)).toEqual({
        request: u32(bytes, 0),
        flags: u32(bytes, 4),
        sizeBytes: u32(bytes, 8),
      });
    }
  });

  it('is written with version 1 and the flags that are asked for', () => {
    const payload = Uint8Array.of(9, 8, 7);
    const message = encodeMessage(0x0102_0304, 4, payload);
    expect([...message]).toEqual([4, 3, 2, 1, 5, 0, 0, 0, 3, 0, 0, 0, 9, 8, 7]);
    expect([...encodeMessage(1, 8, new Uint8Array(0))]).toEqual([1, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]);
  });
});
