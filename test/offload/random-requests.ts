/**
 * Random frames that ask for a checksum or for segments, as a guest's kernel would: IPv4 with options, IPv6 with extension
 * headers, TCP with options and any flags, UDP, up to two VLAN tags. The checksum's field holds the sum of the pseudo
 * header, the rest of the frame is random. Used by the fuzzers and against the kernel.
 */
import { NET_HDR_F, NET_HDR_GSO, type NetHeader } from '../../protocol/virtio/net.ts';
import type { Random } from '../vring/random.ts';
import { parse, pseudoSum } from './naive-offload.ts';

export type Request = { readonly frame: Uint8Array; readonly header: NetHeader };

export const ASKS_NOTHING: NetHeader = {
  flags: 0,
  gsoType: NET_HDR_GSO.NONE,
  hdrLen: 0,
  gsoSize: 0,
  csumStart: 0,
  csumOffset: 0,
};

/** The longest frame: 65,535 bytes of IP packet behind Ethernet header and tags. */
const PACKET_BYTES_MAX = 65_535;
const TCP = 6;
const UDP = 17;

export type Shape = {
  readonly version: 4 | 6;
  readonly protocol: 6 | 17;
  readonly tags: number;
  /** Bytes of IPv4 options or IPv6 extension headers. */
  readonly optionBytes: number;
  readonly tcpOptionBytes: number;
  readonly payloadBytes: number;
};

/** TCP in IPv4 with nothing besides; its payload is the caller's. */
export const PLAIN_TCP = { version: 4, protocol: TCP, tags: 0, optionBytes: 0, tcpOptionBytes: 0 } as const;

export function randomShape(random: Random, payloadBytes: number): Shape {
  const version = random.pick([4, 6] as const);
  return {
    version,
    protocol: random.pick([TCP, TCP, UDP] as const),
    tags: random.pick([0, 0, 0, 1, 2]),
    optionBytes: random.chance(40)
      ? version === 4
        ? 4 * random.between(1, 10)
        : 8 * random.between(1, 12)
      : 0,
    tcpOptionBytes: random.chance(60) ? 4 * random.between(0, 10) : 12,
    payloadBytes,
  };
}

/** A frame of that shape, and where its TCP or UDP header begins and ends. */
export function makeFrame(
  random: Random,
  shape: Shape,
): { frame: Uint8Array; csumStart: number; end: number } {
  const { version, protocol, tags, optionBytes, tcpOptionBytes } = shape;
  const network = 14 + 4 * tags;
  const csumStart = network + (version === 4 ? 20 : 40) + optionBytes;
  const end = csumStart + (protocol === TCP ? 20 + tcpOptionBytes : 8);
  const payloadBytes = Math.min(shape.payloadBytes, PACKET_BYTES_MAX - (end - network));
  const frame = random.bytes(end + payloadBytes);
  const data = new DataView(frame.buffer);
  // Neither multicast nor one that anybody has.
  for (const at of [0, 6]) frame[at] = (frame[at] & 0xfc) | 0x02;
  for (let tag = 0; tag < tags; tag++)
    data.setUint16(12 + 4 * tag, tag === 0 ? random.pick([0x8100, 0x88a8]) : 0x8100);
  data.setUint16(network - 2, version === 4 ? 0x0800 : 0x86dd);
  if (version === 4) {
    frame[network] = 0x40 | ((20 + optionBytes) / 4);
    data.setUint16(network + 2, frame.length - network);
    data.setUint16(network + 6, random.pick([0, 0x4000]));
    frame[network + 9] = protocol;
  } else {
    data.setUint32(network, 0x60000000 | (random.next() >>> 4));
    data.setUint16(network + 4, frame.length - network - 40);
    frame[network + 6] = putExtensions(random, frame, network + 40, csumStart, protocol);
  }
  if (protocol === TCP) frame[csumStart + 12] = (((20 + tcpOptionBytes) / 4) << 4) | random.between(0, 1);
  else data.setUint16(csumStart + 4, frame.length - csumStart);
  const fieldAt = csumStart + (protocol === TCP ? 16 : 6);
  data.setUint16(fieldAt, pseudoSum(parse(frame)!, frame.length - csumStart));
  return { frame, csumStart, end };
}

/** Fills the room with extension headers; answers the number of the first one, or the protocol. */
function putExtensions(
  random: Random,
  frame: Uint8Array,
  from: number,
  end: number,
  protocol: number,
): number {
  const kinds: number[] = [];
  const starts: number[] = [];
  for (let at = from; at < end; ) {
    const sizeBytes = 8 * random.between(1, (end - at) / 8);
    kinds.push(kinds.length === 0 ? random.pick([0, 43, 60]) : random.pick([43, 60]));
    starts.push(at);
    frame[at + 1] = sizeBytes / 8 - 1;
    // A routing header (type 0) holds whole addresses; others have none left to visit.
    frame[at + 2] = 0;
    frame[at + 3] = (sizeBytes - 8) % 16 === 0 ? random.between(0, (sizeBytes - 8) / 16) : 0;
    at += sizeBytes;
  }
  for (const [i, at] of starts.entries()) frame[at] = kinds[i + 1] ?? protocol;
  return kinds[0] ?? protocol;
}

/** To be segmented: 2 to `segmentsMax` segments. */
export function segmentRequest(random: Random, segmentsMax: number): Request {
  const gsoSize = random.pick([
    random.between(1, 64),
    random.between(500, 1500),
    1448,
    1460,
    random.between(1, 9000),
    random.between(9000, 40_000),
  ]);
  const mostBytes = Math.min(gsoSize * segmentsMax, PACKET_BYTES_MAX);
  const wantedBytes = random.pick([
    mostBytes,
    random.between(gsoSize + 1, Math.max(gsoSize + 1, mostBytes)),
    gsoSize + 1,
  ]);
  const shape = randomShape(random, Math.min(wantedBytes, mostBytes));
  const { frame, csumStart, end } = makeFrame(random, shape);
  const type =
    shape.protocol === UDP ? NET_HDR_GSO.UDP_L4 : shape.version === 4 ? NET_HDR_GSO.TCPV4 : NET_HDR_GSO.TCPV6;
  const hasEcn = shape.protocol === TCP && random.chance(30);
  // CWR without the bit is as common: Linux sets both or neither, others do not care.
  const header: NetHeader = {
    flags: NET_HDR_F.NEEDS_CSUM,
    gsoType: hasEcn ? type | NET_HDR_GSO.ECN : type,
    hdrLen: random.pick([0, end]),
    gsoSize: Math.min(gsoSize, frame.length - end - 1),
    csumStart,
    csumOffset: shape.protocol === TCP ? 16 : 6,
  };
  return { frame, header };
}

/** A checksum only, in a frame of a kind that one knows, or in any bytes anywhere. */
export function checksumRequest(random: Random): Request {
  if (random.chance(60)) {
    const shape = randomShape(
      random,
      random.pick([0, 1, random.between(0, 100), random.between(0, 1500), 20_000]),
    );
    const { frame, csumStart } = makeFrame(random, shape);
    const csumOffset = shape.protocol === TCP ? 16 : 6;
    return { frame, header: { ...ASKS_NOTHING, flags: NET_HDR_F.NEEDS_CSUM, csumStart, csumOffset } };
  }
  const frame = random.bytes(random.pick([random.between(60, 90), random.between(60, 1500), 30_000]));
  for (const at of [0, 6]) frame[at] = (frame[at] & 0xfc) | 0x02;
  // For local experiments: no kernel takes it for anything else.
  frame[12] = 0x88;
  frame[13] = 0xb5;
  const csumStart = random.between(34, frame.length - 2);
  const csumOffset = random.between(0, frame.length - csumStart - 2);
  return { frame, header: { ...ASKS_NOTHING, flags: NET_HDR_F.NEEDS_CSUM, csumStart, csumOffset } };
}

/** A good request with one thing wrong or odd about it, in the header or in the frame; often enough it stays good. */
export function oddRequest(random: Random, segmentsMax: number): Request {
  const { frame: good, header } = random.chance(70)
    ? segmentRequest(random, segmentsMax)
    : checksumRequest(random);
  const frame = good.slice();
  const { csumStart, csumOffset } = header;
  const network = parse(frame)?.network ?? 14;
  const restBytes = frame.length - csumStart;
  const change = (fields: Partial<NetHeader>): Request => ({ frame, header: { ...header, ...fields } });
  const flipBit = (first: number, last: number): Request => {
    frame[Math.min(random.between(first, last), frame.length - 1)] ^= 1 << random.between(0, 7);
    return { frame, header };
  };
  switch (random.between(0, 10)) {
    case 0:
      return change({
        gsoSize:
          random.pick([0, 1, 65_535, random.between(0, 65_535), restBytes - 20, restBytes - 32]) & 0xffff,
      });
    case 1:
      return change({
        gsoType: random.pick([0, 1, 3, 4, 5, 0x80, 0x81, 0x84, 0x85, random.between(0, 255)]),
      });
    case 2: {
      const starts = [
        0,
        13,
        14,
        18,
        34,
        csumStart - 2,
        csumStart + 2,
        frame.length - 2,
        frame.length,
        65_535,
      ];
      return change({ csumStart: random.pick([...starts, random.between(0, frame.length)]) });
    }
    case 3:
      return change({
        csumOffset: random.pick([0, 6, 16, random.between(0, 65_535), restBytes - 2, restBytes - 1]) & 0xffff,
      });
    case 4:
      return change({ flags: random.pick([0, 2, 3, 4, 5, 7, 0xfe, 0xff]) });
    case 5:
      return flipBit(network, network + 10);
    case 6:
      return flipBit(csumStart, csumStart + 19);
    case 7:
      return flipBit(12, network - 1);
    case 8: {
      // The sum of the pseudo header, whatever it is, is taken as it stands.
      const value = random.pick([0, 0xffff, random.between(0, 0xffff)]);
      new DataView(frame.buffer).setUint16(csumStart + csumOffset, value);
      return { frame, header };
    }
    case 9:
      if (header.gsoType !== NET_HDR_GSO.NONE) {
        new DataView(frame.buffer).setUint16(network + (parse(frame)!.version === 4 ? 2 : 4), 0);
      }
      return { frame, header };
    default:
      return { frame: frame.slice(0, random.between(60, frame.length)), header };
  }
}
