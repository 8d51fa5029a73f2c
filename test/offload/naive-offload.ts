/**
 * The slow twin of src/offload: judges a request, puts a checksum in and cuts a frame into segments, with plain bytes and
 * BigInt sums, straight from RFC 1071, 791, 8200, 768 and 9293, and VIRTIO 1.3, section 5.1.6.2. It makes pseudo headers
 * anew, from the addresses; the engine takes the sum that the sender put into the checksum's field.
 */
import type { NetHeader } from '../../protocol/virtio/net.ts';

export type Verdict =
  | 'nothing'
  | 'checksum'
  | 'segments'
  | 'bad checksum'
  | 'bad segments'
  | 'too many segments';

type Parsed = {
  /** Where the IP header begins. */
  readonly network: number;
  readonly version: number;
  /** Where the TCP or UDP header begins. */
  readonly transport: number;
  readonly protocol: number;
  readonly isFragment: boolean;
  /** Bytes of the IP packet by its own words; 0: it does not say. */
  readonly packetBytes: number;
  /** Of the pseudo header. */
  readonly addresses: Uint8Array;
};

const TCP = 6;
const UDP = 17;
const ROUTING = 43;

/** The frame's layers, or null when it is cut off, or no IP. */
export function parse(frame: Uint8Array): Parsed | null {
  const data = new DataView(frame.buffer, frame.byteOffset, frame.length);
  try {
    let network = 14;
    while ([0x8100, 0x88a8].includes(data.getUint16(network - 2)) && network < 22) network += 4;
    const etherType = data.getUint16(network - 2);
    const version = data.getUint8(network) >> 4;
    if (etherType === 0x0800 && version === 4) return parseIpv4(frame, data, network);
    if (etherType === 0x86dd && version === 6) return parseIpv6(frame, data, network);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
  }
  return null;
}

function parseIpv4(frame: Uint8Array, data: DataView, network: number): Parsed | null {
  const ihl = (data.getUint8(network) & 15) * 4;
  if (ihl < 20 || network + ihl > frame.length) return null;
  return {
    network,
    version: 4,
    transport: network + ihl,
    protocol: data.getUint8(network + 9),
    isFragment: (data.getUint16(network + 6) & 0x3fff) !== 0,
    packetBytes: data.getUint16(network + 2),
    addresses: frame.slice(network + 12, network + 20),
  };
}

function parseIpv6(frame: Uint8Array, data: DataView, network: number): Parsed | null {
  const payloadBytes = data.getUint16(network + 4);
  const addresses = frame.slice(network + 8, network + 40);
  let protocol = data.getUint8(network + 6);
  let at = network + 40;
  while ([0, ROUTING, 60].includes(protocol)) {
    const sizeBytes = (data.getUint8(at + 1) + 1) * 8;
    if (at + sizeBytes > frame.length) return null;
    // RFC 8200, section 8.1: the last address of a routing header that is not done with.
    if (protocol === ROUTING && data.getUint8(at + 3) > 0 && sizeBytes >= 24) {
      addresses.set(frame.slice(at + sizeBytes - 16, at + sizeBytes), 16);
    }
    protocol = data.getUint8(at);
    at += sizeBytes;
  }
  return {
    network,
    version: 6,
    transport: at,
    protocol,
    isFragment: protocol === 44,
    packetBytes: payloadBytes === 0 ? 0 : payloadBytes + 40,
    addresses,
  };
}

/** Ones'-complement sum of all bytes, in network order, below 2^16. */
export function naiveSum(...parts: readonly Uint8Array[]): number {
  let sum = 0n;
  for (const part of parts) {
    for (const [i, byte] of part.entries()) sum += BigInt(byte) << (i % 2 === 0 ? 8n : 0n);
  }
  while (sum > 0xffffn) sum = (sum & 0xffffn) + (sum >> 16n);
  return Number(sum);
}

/** Of the protocol and a length: what the checksum field of a request holds. */
export function pseudoSum({ addresses, protocol }: Parsed, sizeBytes: number): number {
  const rest = new DataView(new ArrayBuffer(8));
  rest.setUint32(0, sizeBytes);
  rest.setUint32(4, protocol);
  return naiveSum(addresses, new Uint8Array(rest.buffer));
}

export function judge(frame: Uint8Array, header: NetHeader, segmentsMax: number): Verdict {
  const { flags, gsoType, gsoSize, csumStart, csumOffset } = header;
  const asks = (flags & 1) !== 0;
  if (!asks && gsoType === 0) return 'nothing';
  const isInFrame = csumStart >= 14 && csumStart + csumOffset + 2 <= frame.length;
  if (gsoType === 0) return isInFrame ? 'checksum' : 'bad checksum';
  const kinds: Record<number, [version: number[], protocol: number]> = {
    1: [[4], TCP],
    129: [[4], TCP],
    4: [[6], TCP],
    132: [[6], TCP],
    5: [[4, 6], UDP],
  };
  const kind = kinds[gsoType];
  const parsed = parse(frame);
  if (!asks || !isInFrame || kind === undefined || gsoSize === 0 || parsed === null) return 'bad segments';
  const { network, version, transport, protocol, isFragment, packetBytes } = parsed;
  const headerEnd = transportEnd(frame, parsed);
  if (
    !kind[0].includes(version) ||
    protocol !== kind[1] ||
    isFragment ||
    transport !== csumStart ||
    csumOffset !== (protocol === TCP ? 16 : 6) ||
    ![0, frame.length - network].includes(packetBytes) ||
    headerEnd === null ||
    headerEnd > 256
  ) {
    return 'bad segments';
  }
  const payloadBytes = frame.length - headerEnd;
  if (payloadBytes <= gsoSize) return 'checksum';
  return Math.ceil(payloadBytes / gsoSize) > segmentsMax ? 'too many segments' : 'segments';
}

/** Null: no whole header. */
function transportEnd(frame: Uint8Array, { transport, protocol }: Parsed): number | null {
  if (protocol === UDP) {
    const data = new DataView(frame.buffer, frame.byteOffset);
    if (transport + 8 > frame.length) return null;
    return data.getUint16(transport + 4) === frame.length - transport ? transport + 8 : null;
  }
  if (transport + 20 > frame.length) return null;
  const headerBytes = (frame[transport + 12] >> 4) * 4;
  return headerBytes >= 20 && transport + headerBytes <= frame.length ? transport + headerBytes : null;
}

/** What the device does with a request for a checksum. */
export function completed(frame: Uint8Array, csumStart: number, csumOffset: number): Uint8Array {
  const made = frame.slice();
  const checksum = ~naiveSum(frame.subarray(csumStart)) & 0xffff;
  new DataView(made.buffer).setUint16(csumStart + csumOffset, checksum || 0xffff);
  return made;
}

/** The segments of a frame whose request `judge` found good. */
export function segmentsOf(frame: Uint8Array, segmentBytes: number): Uint8Array[] {
  const parsed = parse(frame)!;
  const headerBytes = transportEnd(frame, parsed)!;
  const payload = frame.subarray(headerBytes);
  const count = Math.ceil(payload.length / segmentBytes);
  return Array.from({ length: count }, (_, i) => {
    const part = payload.subarray(i * segmentBytes, (i + 1) * segmentBytes);
    const segment = Uint8Array.from(Buffer.concat([frame.subarray(0, headerBytes), part]));
    finishNetwork(segment, parsed, i);
    finishTransport(segment, parsed, i, count, i * segmentBytes);
    return segment;
  });
}

function finishNetwork(segment: Uint8Array, { network, version, transport }: Parsed, number: number): void {
  const data = new DataView(segment.buffer);
  if (version === 6) {
    data.setUint16(network + 4, segment.length - network - 40);
    return;
  }
  data.setUint16(network + 2, segment.length - network);
  data.setUint16(network + 4, data.getUint16(network + 4) + number);
  data.setUint16(network + 10, 0);
  data.setUint16(network + 10, ~naiveSum(segment.subarray(network, transport)));
}

function finishTransport(
  segment: Uint8Array,
  parsed: Parsed,
  number: number,
  count: number,
  payloadStart: number,
): void {
  const { transport, protocol } = parsed;
  const data = new DataView(segment.buffer);
  const sizeBytes = segment.length - transport;
  const fieldAt = transport + (protocol === TCP ? 16 : 6);
  if (protocol === TCP) {
    data.setUint32(transport + 4, data.getUint32(transport + 4) + payloadStart);
    if (number < count - 1) segment[transport + 13] &= ~0x09;
    if (number > 0) segment[transport + 13] &= ~0x80;
  } else data.setUint16(transport + 4, sizeBytes);
  data.setUint16(fieldAt, pseudoSum(parsed, sizeBytes));
  const checksum = ~naiveSum(segment.subarray(transport)) & 0xffff;
  data.setUint16(fieldAt, checksum === 0 && protocol === UDP ? 0xffff : checksum);
}
