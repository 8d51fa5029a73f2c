/** The virtio-net header that a receiver gets with a frame that is not completed for it, and the header's words. */
import { describe, expect, it } from 'vitest';
import {
  NET_HDR_F,
  NET_HDR_GSO,
  NET_HEADER_BYTES,
  type NetHeader,
  netHeaderOf,
  netHeaderWords,
} from '../../protocol/virtio/net.ts';
import { requestWord0, requestWord1, requestWord2 } from '../../src/offload/net-header.ts';
import { Batch } from '../../src/queue/batch.ts';
import {
  OFFLOAD_CHECKSUM,
  OFFLOAD_ECN,
  OFFLOAD_TSO4,
  OFFLOAD_TSO6,
  OFFLOAD_USO4,
  OFFLOAD_USO6,
} from '../../src/queue/requests.ts';

const ALL_ONES: NetHeader = {
  flags: 0xff,
  gsoType: 0xff,
  hdrLen: 0xffff,
  gsoSize: 0xffff,
  csumStart: 0xffff,
  csumOffset: 0xffff,
};

const EMPTY = { flags: 0, gsoType: 0, hdrLen: 0, gsoSize: 0, csumStart: 0, csumOffset: 0, bufferCount: 5 };

describe('the words of a header', () => {
  it('lie as the fields do (VIRTIO 1.3, section 5.1.6)', () => {
    const fields = { flags: 1, gsoType: 0x84, hdrLen: 0x1234, gsoSize: 1448, csumStart: 54, csumOffset: 16 };
    const bytes = new Uint8Array(new Int32Array(netHeaderWords(fields, 3)).buffer);
    const data = new DataView(bytes.buffer);
    expect(bytes.length).toBe(NET_HEADER_BYTES);
    expect([data.getUint8(0), data.getUint8(1)]).toEqual([1, 0x84]);
    expect([2, 4, 6, 8, 10].map((at) => data.getUint16(at, true))).toEqual([0x1234, 1448, 54, 16, 3]);
  });

  it('give the fields back, whatever they are', () => {
    for (const header of [ALL_ONES, { ...ALL_ONES, flags: 0, csumStart: 0 }, { ...ALL_ONES, hdrLen: 1 }]) {
      for (const bufferCount of [0, 1, 0xffff])
        expect(netHeaderOf(...netHeaderWords(header, bufferCount))).toEqual(header);
    }
  });
});

describe('the header of a request', () => {
  function headerOf(batch: Batch, pushedBytes: number): NetHeader & { bufferCount: number } {
    const word2 = requestWord2(batch, 0, 5);
    const header = netHeaderOf(
      requestWord0(batch, 0, pushedBytes),
      requestWord1(batch, 0, pushedBytes),
      word2,
    );
    return { ...header, bufferCount: word2 >>> 16 };
  }

  it('says that a checksum is right where the receiver is told', () => {
    const batch = new Batch();
    batch.beginAsking();
    batch.requests.noteValid(0);
    expect(headerOf(batch, 4)).toMatchObject({ flags: 0 });
    batch.tellsValid = true;
    expect(headerOf(batch, 4)).toEqual({ ...EMPTY, flags: NET_HDR_F.DATA_VALID });
    batch.requests.askChecksum(0, 34, 16);
    expect(headerOf(batch, 4)).toMatchObject({ flags: NET_HDR_F.NEEDS_CSUM, csumStart: 38 });
  });

  it('is empty for a frame that asks for nothing, whatever frames before it asked for', () => {
    const batch = new Batch();
    batch.beginAsking();
    batch.requests.askChecksum(0, 34, 16);
    batch.clear();
    const nothing = {
      flags: 0,
      gsoType: 0,
      hdrLen: 0,
      gsoSize: 0,
      csumStart: 0,
      csumOffset: 0,
      bufferCount: 5,
    };
    expect(headerOf(batch, 0)).toEqual(nothing);
    expect(headerOf(batch, 4)).toEqual(nothing);
    batch.beginAsking();
    expect(headerOf(batch, 4)).toEqual(nothing);
  });

  it('counts a tag that is pushed', () => {
    const batch = new Batch();
    batch.beginAsking();
    batch.requests.askChecksum(0, 34, 16);
    const checksum = {
      flags: NET_HDR_F.NEEDS_CSUM,
      gsoType: 0,
      hdrLen: 0,
      gsoSize: 0,
      csumOffset: 16,
      bufferCount: 5,
    };
    expect(headerOf(batch, 0)).toEqual({ ...checksum, csumStart: 34 });
    expect(headerOf(batch, 4)).toEqual({ ...checksum, csumStart: 38 });
    batch.requests.askSegments(0, OFFLOAD_CHECKSUM | OFFLOAD_TSO4, 14, 34, 16, 66, 1448);
    const segments = { ...checksum, gsoType: NET_HDR_GSO.TCPV4, gsoSize: 1448 };
    expect(headerOf(batch, 0)).toEqual({ ...segments, csumStart: 34, hdrLen: 66 });
    expect(headerOf(batch, 4)).toEqual({ ...segments, csumStart: 38, hdrLen: 70 });
  });

  it('names the kind of segments', () => {
    const { TCPV4, TCPV6, UDP_L4, ECN } = NET_HDR_GSO;
    const batch = new Batch();
    batch.beginAsking();
    for (const [needs, gsoType] of [
      [OFFLOAD_TSO4, TCPV4],
      [OFFLOAD_TSO4 | OFFLOAD_ECN, TCPV4 | ECN],
      [OFFLOAD_TSO6, TCPV6],
      [OFFLOAD_TSO6 | OFFLOAD_ECN, TCPV6 | ECN],
      [OFFLOAD_USO4, UDP_L4],
      [OFFLOAD_USO6, UDP_L4],
    ]) {
      batch.requests.askSegments(0, OFFLOAD_CHECKSUM | needs, 14, 34, 16, 66, 1448);
      expect(headerOf(batch, 0).gsoType).toBe(gsoType);
    }
  });
});
