/**
 * Reads capture files: pcap (either byte order, micro- or nanoseconds) and pcapng (sections of either byte order,
 * several interfaces). Bytes in memory only: who reads the file is src/port/pcap/ingress.ts, what writes one is
 * pcapng-blocks.ts. What must be remembered between records (byte order, interfaces) is in the one object that
 * reads a file; nothing is allocated for a packet. Any thread.
 *
 * draft-ietf-opsawg-pcap (pcap), draft-ietf-opsawg-pcapng (pcapng). Abbreviations are theirs: SHB, IDB, EPB, SPB and
 * PB are the section header, interface description, enhanced packet, simple packet and (obsolete) packet blocks; FCS is
 * the check sequence at the end of a frame on the wire, which some captures hold.
 */
import {
  BLOCK_BYTES_MIN,
  BLOCK_ENHANCED,
  BLOCK_INTERFACE,
  BLOCK_PACKET,
  BLOCK_SECTION,
  BLOCK_SIMPLE,
  BLOCKS_WITHOUT_PACKET,
  LINK_TYPE_ETHERNET,
  NS_PER_SECOND,
  OPTION_CHECK_SEQUENCE,
  OPTION_END,
  OPTION_FLAGS,
  OPTION_RESOLUTION,
  OPTION_TIME_OFFSET,
  SECTION_ORDER,
  SECTION_VERSION_MAJOR,
} from './pcapng-blocks.ts';

/** Longest packet that a capture may hold, as other readers have it. */
export const CAPTURED_BYTES_MAX = 262_144;
/** A block that must be seen whole is at most so long; the caller's memory must hold that much. */
export const CAPTURE_BLOCK_BYTES_MAX = 2 ** 19;

const PCAP_MICROSECONDS = 0xa1b2c3d4;
const PCAP_NANOSECONDS = 0xa1b23c4d;
const PCAP_HEADER_BYTES = 24;
const PCAP_RECORD_BYTES = 16;
const PCAP_VERSION_MAJOR = 2;
const SECTION_BYTES_MIN = 28;
const INTERFACE_BYTES_MIN = 20;
const SIMPLE_BYTES_MIN = 16;
const ENHANCED_BYTES_MIN = 32;
const RESOLUTION_MICROSECONDS = 6;
const INTERFACES_MAX = 65_536;
/** In a pcap header's link type: whether its upper four bits tell of an FCS, in units of two bytes. */
const LINK_HAS_FCS = 0x0400_0000;
/** Longer than any FCS in bytes: early writers gave its length in bits. */
const FCS_BYTES_BELOW = 16;

/** Answers of `CaptureReader.next`. */
export const CAPTURE_PACKET = 0;
/** A header or a block without a packet; go on at `nextIndex`. */
export const CAPTURE_NO_PACKET = 1;
/** The bytes end too early: `neededBytes` from the same place are needed. */
export const CAPTURE_INCOMPLETE = 2;
/** See `fault`; asked again at the same place it answers the same. */
export const CAPTURE_BROKEN = 3;

/** Why a capture cannot be read on; the argument is `faultValue`. */
const FAULT_TEXTS = [
  ['notACapture', () => 'this is no pcap or pcapng file (a compressed one must be unpacked first)'],
  ['version', (value: number) => `the format's version ${value} is not known`],
  ['linkType', (value: number) => `packets of link type ${value} cannot be read (only Ethernet, 1)`],
  ['packetLength', (value: number) => `a packet is said to have ${value} bytes`],
  ['blockLength', (value: number) => `a block is said to have ${value} bytes`],
  ['blockTrailer', (value: number) => `a block's second length is ${value}, unlike its first`],
  ['byteOrder', () => 'the section has no byte order mark'],
  ['noInterface', (value: number) => `a packet belongs to interface ${value}, which was not described`],
  ['interfaces', (value: number) => `a section describes more than ${value} interfaces`],
] as const;

export type CaptureFault = (typeof FAULT_TEXTS)[number][0];

/** Number of each fault, from 1 on. */
export const CAPTURE_FAULT = Object.fromEntries(
  FAULT_TEXTS.map(([name], index) => [name, index + 1]),
) as Record<CaptureFault, number>;

/** What a fault means, for the user. */
export function captureFaultText(fault: number, faultValue: number): string {
  const entry = FAULT_TEXTS[fault - 1];
  return entry === undefined ? `fault ${fault}` : entry[1](faultValue);
}

export class CaptureReader {
  /** Of the last packet: index of its first byte, how much of it was captured, how long it was, both with its FCS. */
  dataIndex = 0;
  capturedBytes = 0;
  originalBytes = 0;
  /** How long its FCS was; 0: it was not captured, or nothing is said about it. */
  fcsBytes = 0;
  /** What there is of the frame: without its FCS, and without what is said to lie behind its end. */
  frameBytes = 0;
  /** Blocks passed over whose kind is not known, so that they may have held packets. */
  unknownBlocks = 0;
  /** Number of its interface within the section. */
  interfaceIndex = 0;
  /** Since 1970; `hasTime` is false where the format stores none (SPB). */
  seconds = 0;
  nanoseconds = 0;
  hasTime = false;
  /** Where the next record or block begins; may lie behind the bytes that there are. */
  nextIndex = 0;
  neededBytes = 0;
  fault = 0;
  faultValue = 0;
  #format: 'unknown' | 'pcap' | 'pcapng' = 'unknown';
  #isLittle = true;
  #pcapFractionNs = 1000;
  #pcapFcsBytes = 0;
  #optionsIndex = 0;
  #optionsEndIndex = 0;
  /** Of the interfaces of this section. */
  readonly #linkTypes: number[] = [];
  readonly #snapBytes: number[] = [];
  readonly #unitsPerSecond: number[] = [];
  readonly #offsetSeconds: number[] = [];
  readonly #fcsBytes: number[] = [];

  /**
   * Looks at what begins at index `at`, where bytes are known up to `end`. The first call must be for the first
   * byte of the file, each other for `nextIndex` of the call before.
   */
  next(bytes: Uint8Array, at: number, end: number): number {
    if (this.#format === 'pcap') return this.#nextRecord(bytes, at, end);
    if (end - at < 4) return this.#needs(4);
    if (this.#format === 'pcapng') return this.#nextBlock(bytes, at, end);
    if (readU32(bytes, at, true) === BLOCK_SECTION) {
      const result = this.#nextBlock(bytes, at, end);
      if (result === CAPTURE_NO_PACKET) this.#format = 'pcapng';
      return result;
    }
    return this.#pcapHeader(bytes, at, end);
  }

  /** Whether a part of the last packet was not captured, other than its FCS. */
  get isCut(): boolean {
    return this.capturedBytes < this.originalBytes - this.fcsBytes;
  }

  /** Whether more of the last packet is said to have been captured than there was of it. */
  get isOverlong(): boolean {
    return this.capturedBytes > this.originalBytes;
  }

  /** The flags word of the last packet (direction in its lowest two bits), 0 when it has none. */
  packetFlags(bytes: Uint8Array): number {
    const at = findOption(bytes, this.#optionsIndex, this.#optionsEndIndex, OPTION_FLAGS, 4, this.#isLittle);
    return at < 0 ? 0 : readU32(bytes, at, this.#isLittle);
  }

  #pcapHeader(bytes: Uint8Array, at: number, end: number): number {
    const big = readU32(bytes, at, false);
    const little = readU32(bytes, at, true);
    const isLittle = little === PCAP_MICROSECONDS || little === PCAP_NANOSECONDS;
    const magic = isLittle ? little : big;
    if (magic !== PCAP_MICROSECONDS && magic !== PCAP_NANOSECONDS) return this.#broken('notACapture', magic);
    if (end - at < PCAP_HEADER_BYTES) return this.#needs(PCAP_HEADER_BYTES);
    const major = readU16(bytes, at + 4, isLittle);
    if (major !== PCAP_VERSION_MAJOR) return this.#broken('version', major);
    const linkWord = readU32(bytes, at + 20, isLittle);
    const linkType = linkWord & 0xffff;
    if (linkType !== LINK_TYPE_ETHERNET) return this.#broken('linkType', linkType);
    this.#isLittle = isLittle;
    this.#pcapFcsBytes = (linkWord & LINK_HAS_FCS) === 0 ? 0 : 2 * (linkWord >>> 28);
    this.#pcapFractionNs = magic === PCAP_NANOSECONDS ? 1 : 1000;
    this.#format = 'pcap';
    this.nextIndex = at + PCAP_HEADER_BYTES;
    return CAPTURE_NO_PACKET;
  }

  #nextRecord(bytes: Uint8Array, at: number, end: number): number {
    if (end - at < PCAP_RECORD_BYTES) return this.#needs(PCAP_RECORD_BYTES);
    const isLittle = this.#isLittle;
    const captured = readU32(bytes, at + 8, isLittle);
    if (captured > CAPTURED_BYTES_MAX) return this.#broken('packetLength', captured);
    if (end - at < PCAP_RECORD_BYTES + captured) return this.#needs(PCAP_RECORD_BYTES + captured);
    const fractionNs = readU32(bytes, at + 4, isLittle) * this.#pcapFractionNs;
    this.seconds = readU32(bytes, at, isLittle) + Math.floor(fractionNs / NS_PER_SECOND);
    this.nanoseconds = fractionNs % NS_PER_SECOND;
    this.hasTime = true;
    this.interfaceIndex = 0;
    this.#optionsIndex = this.#optionsEndIndex = 0;
    this.#packet(at + PCAP_RECORD_BYTES, captured, readU32(bytes, at + 12, isLittle), this.#pcapFcsBytes);
    this.nextIndex = this.dataIndex + captured;
    return CAPTURE_PACKET;
  }

  #nextBlock(bytes: Uint8Array, at: number, end: number): number {
    if (end - at < BLOCK_BYTES_MIN) return this.#needs(BLOCK_BYTES_MIN);
    const type = readU32(bytes, at, this.#isLittle);
    let isLittle = this.#isLittle;
    if (type === BLOCK_SECTION) {
      // Its own byte order holds for its length already.
      isLittle = readU32(bytes, at + 8, true) === SECTION_ORDER;
      if (!isLittle && readU32(bytes, at + 8, false) !== SECTION_ORDER) return this.#broken('byteOrder', 0);
    }
    const blockBytes = readU32(bytes, at + 4, isLittle);
    if (blockBytes < blockBytesMin(type) || blockBytes % 4 !== 0) {
      return this.#broken('blockLength', blockBytes);
    }
    if (!isReadBlock(type)) {
      if (!BLOCKS_WITHOUT_PACKET.includes(type)) this.unknownBlocks++;
      this.nextIndex = at + blockBytes;
      return CAPTURE_NO_PACKET;
    }
    if (blockBytes > CAPTURE_BLOCK_BYTES_MAX) return this.#broken('blockLength', blockBytes);
    if (end - at < blockBytes) return this.#needs(blockBytes);
    const trailer = readU32(bytes, at + blockBytes - 4, isLittle);
    if (trailer !== blockBytes) return this.#broken('blockTrailer', trailer);
    this.nextIndex = at + blockBytes;
    if (type === BLOCK_SECTION) return this.#section(bytes, at, isLittle);
    if (type === BLOCK_INTERFACE) return this.#interface(bytes, at, blockBytes);
    if (type === BLOCK_SIMPLE) return this.#simple(bytes, at, blockBytes);
    // A PB has 16 bits for its interface, and then how many packets were lost before it.
    const interfaceIndex =
      type === BLOCK_PACKET ? readU16(bytes, at + 8, isLittle) : readU32(bytes, at + 8, isLittle);
    return this.#enhanced(bytes, at, blockBytes, interfaceIndex);
  }

  #section(bytes: Uint8Array, at: number, isLittle: boolean): number {
    const major = readU16(bytes, at + 12, isLittle);
    if (major !== SECTION_VERSION_MAJOR) return this.#broken('version', major);
    this.#isLittle = isLittle;
    this.#forgetInterfaces();
    return CAPTURE_NO_PACKET;
  }

  #forgetInterfaces(): void {
    for (const list of [
      this.#linkTypes,
      this.#snapBytes,
      this.#unitsPerSecond,
      this.#offsetSeconds,
      this.#fcsBytes,
    ]) {
      list.length = 0;
    }
  }

  #interface(bytes: Uint8Array, at: number, blockBytes: number): number {
    if (this.#linkTypes.length === INTERFACES_MAX) return this.#broken('interfaces', INTERFACES_MAX);
    const isLittle = this.#isLittle;
    const options = at + 16;
    const end = at + blockBytes - 4;
    const resolutionAt = findOption(bytes, options, end, OPTION_RESOLUTION, 1, isLittle);
    const resolution = resolutionAt < 0 ? RESOLUTION_MICROSECONDS : bytes[resolutionAt];
    const offsetAt = findOption(bytes, options, end, OPTION_TIME_OFFSET, 8, isLittle);
    const fcsAt = findOption(bytes, options, end, OPTION_CHECK_SEQUENCE, 1, isLittle);
    const fcsLength = fcsAt < 0 ? 0 : bytes[fcsAt];
    this.#fcsBytes.push(fcsLength < FCS_BYTES_BELOW ? fcsLength : fcsLength >> 3);
    this.#linkTypes.push(readU16(bytes, at + 8, isLittle));
    this.#snapBytes.push(readU32(bytes, at + 12, isLittle));
    this.#unitsPerSecond.push((resolution & 0x80) !== 0 ? 2 ** (resolution & 0x7f) : 10 ** resolution);
    this.#offsetSeconds.push(offsetAt < 0 ? 0 : readI64(bytes, offsetAt, isLittle));
    return CAPTURE_NO_PACKET;
  }

  #enhanced(bytes: Uint8Array, at: number, blockBytes: number, interfaceIndex: number): number {
    const isLittle = this.#isLittle;
    if (!this.#mayRead(interfaceIndex)) return CAPTURE_BROKEN;
    const captured = readU32(bytes, at + 20, isLittle);
    if (captured > blockBytes - ENHANCED_BYTES_MIN || captured > CAPTURED_BYTES_MAX) {
      return this.#broken('packetLength', captured);
    }
    const units = this.#unitsPerSecond[interfaceIndex];
    this.#setTime(readU32(bytes, at + 12, isLittle), readU32(bytes, at + 16, isLittle), units);
    this.seconds += this.#offsetSeconds[interfaceIndex];
    this.hasTime = true;
    this.interfaceIndex = interfaceIndex;
    this.#optionsIndex = at + 28 + ((captured + 3) & ~3);
    this.#optionsEndIndex = at + blockBytes - 4;
    // Said of this packet, it counts for more than what is said of its interface.
    const fcsBytes = (this.packetFlags(bytes) >>> 5) & 0xf || this.#fcsBytes[interfaceIndex];
    this.#packet(at + 28, captured, readU32(bytes, at + 24, isLittle), fcsBytes);
    return CAPTURE_PACKET;
  }

  #simple(bytes: Uint8Array, at: number, blockBytes: number): number {
    if (!this.#mayRead(0)) return CAPTURE_BROKEN;
    const original = readU32(bytes, at + 8, this.#isLittle);
    const snapBytes = this.#snapBytes[0];
    const captured = Math.min(original, snapBytes === 0 ? original : snapBytes);
    if (captured > blockBytes - SIMPLE_BYTES_MIN || captured > CAPTURED_BYTES_MAX) {
      return this.#broken('packetLength', captured);
    }
    this.seconds = this.nanoseconds = 0;
    this.hasTime = false;
    this.interfaceIndex = 0;
    this.#optionsIndex = this.#optionsEndIndex = 0;
    this.#packet(at + 12, captured, original, this.#fcsBytes[0]);
    return CAPTURE_PACKET;
  }

  /** Whether packets of this interface can be read. */
  #mayRead(interfaceIndex: number): boolean {
    if (interfaceIndex >= this.#linkTypes.length) {
      this.#broken('noInterface', interfaceIndex);
      return false;
    }
    const linkType = this.#linkTypes[interfaceIndex];
    if (linkType !== LINK_TYPE_ETHERNET) this.#broken('linkType', linkType);
    return linkType === LINK_TYPE_ETHERNET;
  }

  #packet(dataIndex: number, captured: number, original: number, fcsBytes: number): void {
    this.dataIndex = dataIndex;
    this.capturedBytes = captured;
    this.originalBytes = original;
    this.fcsBytes = fcsBytes;
    this.frameBytes = Math.min(captured, Math.max(original - fcsBytes, 0));
  }

  /** Divides a number of 64 bits by the units of a second, byte by byte so that no product exceeds 2^53. */
  #setTime(high: number, low: number, unitsPerSecond: number): void {
    if (unitsPerSecond > 2 ** 45) {
      // A resolution far below the nanosecond: a double is exact enough.
      const time = (high * 2 ** 32 + low) / unitsPerSecond;
      this.seconds = Math.floor(time);
      this.nanoseconds = Math.floor((time - this.seconds) * NS_PER_SECOND);
      return;
    }
    let quotient = 0;
    let rest = 0;
    for (let shift = 24; shift >= -32; shift -= 8) {
      const byte = shift >= 0 ? (high >>> shift) & 0xff : (low >>> (shift + 32)) & 0xff;
      rest = rest * 256 + byte;
      const digit = Math.floor(rest / unitsPerSecond);
      rest -= digit * unitsPerSecond;
      quotient = quotient * 256 + digit;
    }
    this.seconds = quotient;
    this.nanoseconds =
      unitsPerSecond <= NS_PER_SECOND && NS_PER_SECOND % unitsPerSecond === 0
        ? rest * (NS_PER_SECOND / unitsPerSecond)
        : Math.floor((rest * NS_PER_SECOND) / unitsPerSecond);
  }

  #needs(neededBytes: number): number {
    this.neededBytes = neededBytes;
    return CAPTURE_INCOMPLETE;
  }

  #broken(fault: CaptureFault, value: number): number {
    this.fault = CAPTURE_FAULT[fault];
    this.faultValue = value;
    return CAPTURE_BROKEN;
  }
}

/** Blocks that must be seen whole; others are passed over, however long. */
function isReadBlock(type: number): boolean {
  return (
    type === BLOCK_SECTION ||
    type === BLOCK_INTERFACE ||
    type === BLOCK_ENHANCED ||
    type === BLOCK_SIMPLE ||
    type === BLOCK_PACKET
  );
}

function blockBytesMin(type: number): number {
  if (type === BLOCK_SECTION) return SECTION_BYTES_MIN;
  if (type === BLOCK_INTERFACE) return INTERFACE_BYTES_MIN;
  if (type === BLOCK_ENHANCED || type === BLOCK_PACKET) return ENHANCED_BYTES_MIN;
  return type === BLOCK_SIMPLE ? SIMPLE_BYTES_MIN : BLOCK_BYTES_MIN;
}

/** Index of the value of an option of exactly this length, -1 when the list that ends at `end` has none. */
function findOption(
  bytes: Uint8Array,
  start: number,
  end: number,
  wanted: number,
  valueBytes: number,
  isLittle: boolean,
): number {
  let at = start;
  while (at + 4 <= end) {
    const code = readU16(bytes, at, isLittle);
    const lengthBytes = readU16(bytes, at + 2, isLittle);
    if (code === OPTION_END || at + 4 + lengthBytes > end) return -1;
    if (code === wanted && lengthBytes === valueBytes) return at + 4;
    at += 4 + ((lengthBytes + 3) & ~3);
  }
  return -1;
}

function readU16(bytes: Uint8Array, at: number, isLittle: boolean): number {
  return isLittle ? bytes[at] | (bytes[at + 1] << 8) : (bytes[at] << 8) | bytes[at + 1];
}

function readU32(bytes: Uint8Array, at: number, isLittle: boolean): number {
  const first = readU16(bytes, at, isLittle);
  const second = readU16(bytes, at + 2, isLittle);
  return isLittle ? second * 65_536 + first : first * 65_536 + second;
}

function readI64(bytes: Uint8Array, at: number, isLittle: boolean): number {
  const first = readU32(bytes, at, isLittle);
  const second = readU32(bytes, at + 4, isLittle);
  return isLittle ? (second | 0) * 2 ** 32 + first : (first | 0) * 2 ** 32 + second;
}
