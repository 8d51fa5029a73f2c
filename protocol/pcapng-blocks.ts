/**
 * The blocks of a pcapng file, by number, and the writing of them: one section in this machine's byte order
 * (little-endian), times in nanoseconds. Reading is pcap.ts. No state; any thread.
 *
 * draft-ietf-opsawg-pcapng; its abbreviations: SHB, IDB, EPB and SPB are the section header, interface
 * description, enhanced packet and simple packet blocks.
 */

export const BLOCK_SECTION = 0x0a0d0d0a;
export const BLOCK_INTERFACE = 1;
/** Obsolete, and still written: an EPB with another beginning. */
export const BLOCK_PACKET = 2;
export const BLOCK_SIMPLE = 3;
export const BLOCK_STATISTICS = 5;
export const BLOCK_ENHANCED = 6;
/** Names, statistics, journal entries, secrets, custom blocks: kinds that are known to hold no packet. */
export const BLOCKS_WITHOUT_PACKET: readonly number[] = [4, 5, 9, 10, 0xbad, 0x40000bad];
/** Type and length before a block's body, length again after it. */
export const BLOCK_BYTES_MIN = 12;
export const SECTION_ORDER = 0x1a2b3c4d;
export const SECTION_VERSION_MAJOR = 1;
export const OPTION_END = 0;
export const OPTION_COMMENT = 1;
export const OPTION_INTERFACE_NAME = 2;
export const OPTION_DESCRIPTION = 3;
export const OPTION_RESOLUTION = 9;
export const OPTION_CHECK_SEQUENCE = 13;
export const OPTION_TIME_OFFSET = 14;
export const OPTION_FLAGS = 2;
export const OPTION_APPLICATION = 4;
/** Of an ISB: packets that came by, that were lost for want of room, and that were given to the user. */
export const OPTION_RECEIVED = 4;
export const OPTION_DROPPED = 5;
export const OPTION_DELIVERED = 8;
export const LINK_TYPE_ETHERNET = 1;
export const NS_PER_SECOND = 1_000_000_000;
const RESOLUTION_NANOSECONDS = 9;

/** Direction of a packet, as the interface sees it: into the switch, or out of it. */
export const PACKET_INBOUND = 1;
export const PACKET_OUTBOUND = 2;
/** Bytes of an EPB before its packet, and after it without padding. */
export const PACKET_HEAD_BYTES = 28;
export const PACKET_TAIL_BYTES = 16;

/** An SHB of a section whose length is not given. */
export function encodeSection(application: string): Uint8Array {
  const body = new Uint8Array(16);
  const view = new DataView(body.buffer);
  view.setUint32(0, SECTION_ORDER, true);
  view.setUint16(4, SECTION_VERSION_MAJOR, true);
  view.setBigInt64(8, -1n, true);
  return encodeBlock(BLOCK_SECTION, body, [[OPTION_APPLICATION, new TextEncoder().encode(application)]]);
}

/** An IDB of an Ethernet interface with times in nanoseconds; `snapBytes` 0: packets are not cut. */
export function encodeInterface(name: string, snapBytes: number, description = ''): Uint8Array {
  const body = new Uint8Array(8);
  const view = new DataView(body.buffer);
  view.setUint16(0, LINK_TYPE_ETHERNET, true);
  view.setUint32(4, snapBytes, true);
  return encodeBlock(BLOCK_INTERFACE, body, [
    [OPTION_INTERFACE_NAME, new TextEncoder().encode(name)],
    ...(description === '' ? [] : [[OPTION_DESCRIPTION, new TextEncoder().encode(description)] as const]),
    [OPTION_RESOLUTION, Uint8Array.of(RESOLUTION_NANOSECONDS)],
  ]);
}

export type InterfaceStatistics = {
  readonly received: number;
  readonly lost: number;
  readonly delivered: number;
};

/** An ISB; `comment` '': without one. */
export function encodeStatistics(
  interfaceIndex: number,
  timeWords: Int32Array,
  { received, lost, delivered }: InterfaceStatistics,
  comment: string,
): Uint8Array {
  const body = new Uint8Array(12);
  const view = new DataView(body.buffer);
  view.setUint32(0, interfaceIndex, true);
  view.setInt32(4, timeWords[0], true);
  view.setInt32(8, timeWords[1], true);
  const options: (readonly [number, Uint8Array])[] = [
    [OPTION_RECEIVED, bytesOfCount(received)],
    [OPTION_DROPPED, bytesOfCount(lost)],
    [OPTION_DELIVERED, bytesOfCount(delivered)],
  ];
  if (comment !== '') options.unshift([OPTION_COMMENT, new TextEncoder().encode(comment)]);
  return encodeBlock(BLOCK_STATISTICS, body, options);
}

function bytesOfCount(count: number): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(count), true);
  return bytes;
}

/** An option as it stands in a block, padded. */
export function encodeOption(code: number, text: string): Uint8Array {
  const value = new TextEncoder().encode(text);
  const option = new Uint8Array(4 + ((value.length + 3) & ~3));
  const view = new DataView(option.buffer);
  view.setUint16(0, code, true);
  view.setUint16(2, value.length, true);
  option.set(value, 4);
  return option;
}

function encodeBlock(
  type: number,
  body: Uint8Array,
  options: readonly (readonly [code: number, value: Uint8Array])[],
): Uint8Array {
  const optionsBytes = options.reduce((sum, [, value]) => sum + 4 + ((value.length + 3) & ~3), 4);
  const block = new Uint8Array(BLOCK_BYTES_MIN + body.length + optionsBytes);
  const view = new DataView(block.buffer);
  view.setUint32(0, type, true);
  view.setUint32(4, block.length, true);
  block.set(body, 8);
  let at = 8 + body.length;
  for (const [code, value] of options) {
    view.setUint16(at, code, true);
    view.setUint16(at + 2, value.length, true);
    block.set(value, at + 4);
    at += 4 + ((value.length + 3) & ~3);
  }
  view.setUint32(block.length - 4, block.length, true);
  return block;
}

/** Bytes of an EPB with this much of a packet. */
export function packetBlockBytes(capturedBytes: number): number {
  return PACKET_HEAD_BYTES + ((capturedBytes + 3) & ~3) + PACKET_TAIL_BYTES;
}

/**
 * Writes an EPB around the place of its packet, which begins PACKET_HEAD_BYTES after word `at` and must be
 * copied there afterwards. `timeWords` is of `nanosecondWords`.
 */
export function putPacketBlock(
  words: Int32Array,
  at: number,
  interfaceIndex: number,
  timeWords: Int32Array,
  capturedBytes: number,
  originalBytes: number,
  flags: number,
): void {
  const blockBytes = packetBlockBytes(capturedBytes);
  words[at] = BLOCK_ENHANCED;
  words[at + 1] = blockBytes;
  words[at + 2] = interfaceIndex;
  words[at + 3] = timeWords[0];
  words[at + 4] = timeWords[1];
  words[at + 5] = capturedBytes;
  words[at + 6] = originalBytes;
  const after = at + ((PACKET_HEAD_BYTES + capturedBytes + 3) >> 2);
  // Zeros for the padding, if there is some; the packet comes over it.
  words[after - 1] = capturedBytes === 0 ? originalBytes : 0;
  words[after] = OPTION_FLAGS | (4 << 16);
  words[after + 1] = flags;
  words[after + 2] = OPTION_END;
  words[after + 3] = blockBytes;
}

/** Nanoseconds since 1970 as the two halves that an EPB holds, upper first. */
export function nanosecondWords(seconds: number, nanoseconds: number, words: Int32Array): void {
  const upper = Math.floor(seconds / 65_536) * NS_PER_SECOND;
  const lower = (seconds % 65_536) * NS_PER_SECOND + nanoseconds + (upper % 65_536) * 65_536;
  words[0] = Math.floor(upper / 65_536) + Math.floor(lower / 2 ** 32);
  words[1] = (lower % 2 ** 32) | 0;
}
