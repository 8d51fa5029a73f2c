/**
 * Capture files the slow and plain way: a reader that sees the whole file, with BigInt times and a DataView, as
 * the twin of protocol/pcap.ts; and a builder of files in every form. Knows nothing of the code under test.
 */
import type { Random } from '../vring/random.ts';

export type NaivePacket = {
  readonly data: Uint8Array;
  readonly originalBytes: number;
  /** `data` without its check sequence and without what lies behind the frame's end. */
  readonly frame: Uint8Array;
  readonly interfaceIndex: number;
  /** Since 1970; null where the format has none. */
  readonly timeNs: bigint | null;
  /** How far the time may be off: resolutions that do not divide a second into whole nanoseconds. */
  readonly toleranceNs: bigint;
};

/** `end`: read to its end; `cut`: it ends within a record; otherwise the name of what is wrong. */
export type NaiveCapture = { readonly packets: NaivePacket[]; readonly end: string };

type Interface = { linkType: number; snap: number; units: bigint; offset: bigint; fcs: number };

function frameOf(data: Uint8Array, originalBytes: number, fcs: number): Uint8Array {
  const whole = originalBytes > fcs ? originalBytes - fcs : 0;
  return data.length > whole ? data.slice(0, whole) : data;
}

export function naiveRead(bytes: Uint8Array): NaiveCapture {
  // A Buffer's slices would be Buffers.
  const file = new Uint8Array(bytes);
  const packets: NaivePacket[] = [];
  const end = (why: string): NaiveCapture => ({ packets, end: why });
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  if (file.length === 0) return end('end');
  if (file.length < 4) return end('cut');
  if (view.getUint32(0) === 0x0a0d0d0a) return readBlocks(file, view, packets);
  const magics = [0xa1b2c3d4, 0xa1b23c4d];
  const little = magics.includes(view.getUint32(0, true));
  const magic = view.getUint32(0, little);
  if (!magics.includes(magic)) return end('notACapture');
  if (file.length < 24) return end('cut');
  if (view.getUint16(4, little) !== 2) return end('version');
  if ((view.getUint32(20, little) & 0xffff) !== 1) return end('linkType');
  const link = view.getUint32(20, little);
  const fcs = link & (1 << 26) ? (link >>> 28) * 2 : 0;
  let at = 24;
  while (at < file.length) {
    if (file.length - at < 16) return end('cut');
    const captured = view.getUint32(at + 8, little);
    if (captured > 262_144) return end('packetLength');
    if (file.length - at - 16 < captured) return end('cut');
    const fraction = BigInt(view.getUint32(at + 4, little)) * (magic === 0xa1b23c4d ? 1n : 1000n);
    const data = file.slice(at + 16, at + 16 + captured);
    const originalBytes = view.getUint32(at + 12, little);
    packets.push({
      data,
      originalBytes,
      frame: frameOf(data, originalBytes, fcs),
      interfaceIndex: 0,
      timeNs: BigInt(view.getUint32(at, little)) * 1_000_000_000n + fraction,
      toleranceNs: 0n,
    });
    at += 16 + captured;
  }
  return end('end');
}

function readBlocks(file: Uint8Array, view: DataView, packets: NaivePacket[]): NaiveCapture {
  const end = (why: string): NaiveCapture => ({ packets, end: why });
  let little: boolean = true;
  let interfaces: Interface[] = [];
  let at = 0;
  while (at < file.length) {
    const left = file.length - at;
    if (left < 12) return end('cut');
    const isSection = view.getUint32(at) === 0x0a0d0d0a;
    let order: boolean = little;
    if (isSection) {
      if (view.getUint32(at + 8, true) === 0x1a2b3c4d) order = true;
      else if (view.getUint32(at + 8, false) === 0x1a2b3c4d) order = false;
      else return end('byteOrder');
    }
    const u32 = (offset: number): number => view.getUint32(at + offset, order);
    const type = u32(0);
    const total = u32(4);
    const least = isSection ? 28 : ({ 1: 20, 2: 32, 3: 16, 6: 32 }[type] ?? 12);
    if (total < least || total % 4 !== 0) return end('blockLength');
    const isRead = isSection || [1, 2, 3, 6].includes(type);
    if (isRead) {
      if (total > 2 ** 19) return end('blockLength');
      if (left < total) return end('cut');
      if (u32(total - 4) !== total) return end('blockTrailer');
    } else if (left < total) return end('cut');
    if (isSection) {
      if (view.getUint16(at + 12, order) !== 1) return end('version');
      little = order;
      interfaces = [];
    } else if (type === 1) {
      const options = readOptions(file.slice(at + 16, at + total - 4), order);
      const resolution = options.get('9:1')?.[0] ?? 6;
      const base = resolution & 0x80 ? 2n : 10n;
      const offset = options.get('14:8');
      interfaces.push({
        linkType: view.getUint16(at + 8, order),
        snap: u32(12),
        units: base ** BigInt(resolution & 0x7f),
        fcs: bitsOrBytes(options.get('13:1')?.[0] ?? 0),
        offset: offset ? new DataView(offset.buffer).getBigInt64(0, order) : 0n,
      });
    } else if (type === 6 || type === 3 || type === 2) {
      const index = type === 6 ? u32(8) : type === 2 ? view.getUint16(at + 8, order) : 0;
      const face = interfaces[index];
      if (face === undefined) return end('noInterface');
      if (face.linkType !== 1) return end('linkType');
      const original = type === 3 ? u32(8) : u32(24);
      const captured = type !== 3 ? u32(20) : Math.min(original, face.snap || original);
      if (captured > total - least || captured > 262_144) return end('packetLength');
      const start = at + (type === 3 ? 12 : 28);
      const ticks = (BigInt(u32(12)) << 32n) | BigInt(type === 3 ? 0 : u32(16));
      const data = file.slice(start, start + captured);
      const rest = type === 3 ? [] : file.slice(start + Math.ceil(captured / 4) * 4, at + total - 4);
      const flags = readOptions(Uint8Array.from(rest), order).get('2:4');
      const flagBits = flags === undefined ? 0 : new DataView(flags.buffer).getUint32(0, order);
      packets.push({
        data,
        frame: frameOf(data, original, (flagBits >>> 5) % 16 || face.fcs),
        originalBytes: original,
        interfaceIndex: index,
        timeNs: type === 3 ? null : (ticks * 1_000_000_000n) / face.units + face.offset * 1_000_000_000n,
        toleranceNs: 1_000_000_000n % face.units === 0n ? 0n : 2n,
      });
    }
    at += total;
  }
  return end('end');
}

function bitsOrBytes(length: number): number {
  return length < 16 ? length : Math.floor(length / 8);
}

/** The first value of each code and length, as `code:length`. */
function readOptions(list: Uint8Array, little: boolean): Map<string, Uint8Array> {
  const view = new DataView(list.buffer);
  const options = new Map<string, Uint8Array>();
  for (let at = 0; at + 4 <= list.length; ) {
    const code = view.getUint16(at, little);
    const length = view.getUint16(at + 2, little);
    if (code === 0 || at + 4 + length > list.length) break;
    const key = `${code}:${length}`;
    if (!options.has(key)) options.set(key, list.slice(at + 4, at + 4 + length));
    at += 4 + Math.ceil(length / 4) * 4;
  }
  return options;
}

/** Numbers of one byte order, put one after the other. */
export class Bytes {
  readonly #little: boolean;
  readonly #parts: Uint8Array[] = [];

  constructor(little: boolean) {
    this.#little = little;
  }

  u16(...values: number[]): this {
    for (const value of values) this.#number(2, (view) => view.setUint16(0, value, this.#little));
    return this;
  }

  u32(...values: number[]): this {
    for (const value of values) this.#number(4, (view) => view.setUint32(0, value, this.#little));
    return this;
  }

  i64(value: bigint): this {
    return this.#number(8, (view) => view.setBigInt64(0, value, this.#little));
  }

  /** With zeros up to a multiple of four, if wanted. */
  raw(bytes: Uint8Array, isPadded = false): this {
    this.#parts.push(bytes);
    if (isPadded) this.#parts.push(new Uint8Array((4 - (bytes.length % 4)) % 4));
    return this;
  }

  block(type: number, body: (bytes: Bytes) => Bytes): this {
    const inner = body(new Bytes(this.#little)).done();
    return this.u32(type, inner.length + 12)
      .raw(inner)
      .u32(inner.length + 12);
  }

  done(): Uint8Array {
    return new Uint8Array(Buffer.concat(this.#parts));
  }

  #number(sizeBytes: number, set: (view: DataView) => void): this {
    const bytes = new Uint8Array(sizeBytes);
    set(new DataView(bytes.buffer));
    return this.raw(bytes);
  }
}

export function pcapFile(
  little: boolean,
  magic: number,
  packets: readonly { seconds: number; fraction: number; data: Uint8Array; original?: number }[],
  linkType = 1,
): Uint8Array {
  const file = new Bytes(little).u32(magic).u16(2, 4).u32(0, 0, 65_535, linkType);
  for (const { seconds, fraction, data, original } of packets) {
    file.u32(seconds, fraction, data.length, original ?? data.length).raw(data);
  }
  return file.done();
}

/** A file of any form with a few packets; mostly right. */
export function randomCapture(random: Random): Uint8Array {
  const little = random.chance(50);
  const data = (): Uint8Array => random.bytes(random.between(0, 90));
  if (random.chance(40)) {
    const packets = Array.from({ length: random.between(0, 6) }, () => ({
      seconds: random.next(),
      fraction: random.next() % 1_500_000_000,
      data: data(),
      original: random.between(0, 2000),
    }));
    return pcapFile(
      little,
      random.pick([0xa1b2c3d4, 0xa1b23c4d]),
      packets,
      random.pick([1, 1, 1, 1, 113, 0x0400_0001, 0x2400_0001, 0xf400_0001, 0x2000_0001]),
    );
  }
  const sections = Array.from({ length: random.between(1, 3) }, () => randomSection(random, data));
  return new Uint8Array(Buffer.concat(sections));
}

function randomSection(random: Random, data: () => Uint8Array): Uint8Array {
  const file = new Bytes(random.chance(50));
  file.block(0x0a0d0d0a, (body) => body.u32(0x1a2b3c4d).u16(1, 0).i64(-1n));
  let interfaces = 0;
  for (let count = random.between(1, 8); count > 0; count--) {
    const what = random.between(0, 9);
    const packet = data();
    if (interfaces === 0 || what < 2) {
      interfaces++;
      file.block(1, (body) => randomInterface(random, body));
    } else if (what < 7) {
      file.block(6, (body) => {
        body.u32(random.between(0, interfaces - 1), random.next(), random.next());
        body.u32(packet.length, random.between(0, 2000)).raw(packet, true);
        return random.chance(50)
          ? body
              .u16(2, 4)
              .u32(random.pick([1, 2, 0x81, 0x42, 0x1e1]))
              .u32(0)
          : body;
      });
    } else if (what < 8 && random.chance(50)) {
      file.block(2, (body) => {
        body
          .u16(random.between(0, interfaces - 1), random.between(0, 65_535))
          .u32(random.next(), random.next());
        body.u32(packet.length, random.between(0, 2000)).raw(packet, true);
        return random.chance(50)
          ? body
              .u16(2, 4)
              .u32(random.pick([1, 0x82]))
              .u32(0)
          : body;
      });
    } else if (what < 8) {
      file.block(3, (body) => body.u32(packet.length).raw(packet, true));
    } else {
      file.block(random.pick([4, 5, 10, 0xbad]), (body) => body.raw(packet, true));
    }
  }
  return file.done();
}

function randomInterface(random: Random, body: Bytes): Bytes {
  body.u16(random.chance(3) ? 228 : 1, 0).u32(random.pick([0, 0, 64, 262_144]));
  if (random.chance(50)) body.u16(2, 5).raw(Uint8Array.of(118, 109, 48, 46, 49), true);
  if (random.chance(70)) {
    const resolution = random.pick([0, 3, 6, 9, 9, 10, 12, 15, 127, 0x80, 0x80 | 10, 0x80 | 30, 0x80 | 63]);
    body.u16(9, 1).raw(Uint8Array.of(resolution), true);
  }
  if (random.chance(30)) body.u16(14, 8).i64(BigInt(random.between(0, 7200)) - 3600n);
  if (random.chance(30)) body.u16(13, 1).raw(Uint8Array.of(random.pick([0, 2, 4, 32])), true);
  return random.chance(50) ? body.u32(0) : body;
}
