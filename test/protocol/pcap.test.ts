/**
 * Capture files: what is written is read again, files of other writers in every form, and a seeded fuzz of broken
 * ones against a naive reader.
 */
import { describe, expect, it } from 'vitest';
import {
  CAPTURE_BROKEN,
  CAPTURE_FAULT,
  CAPTURE_INCOMPLETE,
  CAPTURE_PACKET,
  type CaptureFault,
  CaptureReader,
  captureFaultText,
} from '../../protocol/pcap.ts';
import {
  encodeInterface,
  encodeSection,
  nanosecondWords,
  PACKET_HEAD_BYTES,
  PACKET_INBOUND,
  PACKET_OUTBOUND,
  packetBlockBytes,
  putPacketBlock,
} from '../../protocol/pcapng-blocks.ts';
import { Random } from '../vring/random.ts';
import { Bytes, type NaivePacket, naiveRead, pcapFile, randomCapture } from './naive-capture.ts';

type Packet = {
  data: Uint8Array;
  /** What of it is the frame. */
  frame: Uint8Array;
  originalBytes: number;
  interfaceIndex: number;
  timeNs: bigint | null;
  flags: number;
};

/** Reads a file that becomes known bit by bit, no more than the reader asks for. */
function readAll(file: Uint8Array): { packets: Packet[]; end: string } {
  const reader = new CaptureReader();
  const packets: Packet[] = [];
  let at = 0;
  let end = 0;
  for (;;) {
    if (at > file.length) return { packets, end: 'cut' };
    end = Math.max(end, at);
    const result = reader.next(file, at, end);
    if (result === CAPTURE_BROKEN) {
      expect(reader.next(file, at, end)).toBe(CAPTURE_BROKEN);
      const name = Object.entries(CAPTURE_FAULT).find(([, number]) => number === reader.fault)![0];
      expect(captureFaultText(reader.fault, reader.faultValue)).not.toMatch(/undefined|^fault/);
      return { packets, end: name };
    }
    if (result === CAPTURE_INCOMPLETE) {
      if (at === file.length) return { packets, end: 'end' };
      if (reader.neededBytes <= end - at) throw new Error('asks for bytes that it has');
      if (at + reader.neededBytes > file.length) return { packets, end: 'cut' };
      end = at + reader.neededBytes;
      continue;
    }
    if (result === CAPTURE_PACKET) packets.push(packetOf(reader, file));
    if (reader.nextIndex <= at) throw new Error('stands still');
    at = reader.nextIndex;
  }
}

function packetOf(reader: CaptureReader, file: Uint8Array): Packet {
  const time = BigInt(reader.seconds) * 1_000_000_000n + BigInt(reader.nanoseconds);
  return {
    data: file.slice(reader.dataIndex, reader.dataIndex + reader.capturedBytes),
    frame: file.slice(reader.dataIndex, reader.dataIndex + reader.frameBytes),
    originalBytes: reader.originalBytes,
    interfaceIndex: reader.interfaceIndex,
    timeNs: reader.hasTime ? time : null,
    flags: reader.packetFlags(file),
  };
}

describe('what is written', () => {
  it('is read again with all that it was written with', () => {
    const random = new Random(1);
    const time = new Int32Array(2);
    const parts = [encodeSection('Ringway'), encodeInterface('vm0', 0), encodeInterface('b', 64)];
    const expected: Packet[] = [];
    for (let i = 0; i < 200; i++) {
      const data = random.bytes(random.between(1, 200));
      const originalBytes = data.length + random.between(0, 3);
      const interfaceIndex = random.between(0, 1);
      const flags = random.pick([PACKET_INBOUND, PACKET_OUTBOUND]);
      const seconds = random.next();
      const nanoseconds = random.next() % 1_000_000_000;
      // Memory that was used before.
      const words = new Int32Array(packetBlockBytes(data.length) / 4 + 8).fill(-1);
      nanosecondWords(seconds, nanoseconds, time);
      putPacketBlock(words, 4, interfaceIndex, time, data.length, originalBytes, flags);
      const block = new Uint8Array(words.buffer).subarray(16, 16 + packetBlockBytes(data.length));
      block.set(data, PACKET_HEAD_BYTES);
      parts.push(block);
      expect([...words.subarray(0, 4), ...words.subarray(words.length - 4)]).toEqual(Array(8).fill(-1));
      const padding = block.subarray(PACKET_HEAD_BYTES + data.length, block.length - 16);
      expect([...padding]).toEqual(Array(padding.length).fill(0));
      const timeNs = BigInt(seconds) * 1_000_000_000n + BigInt(nanoseconds);
      expected.push({ data, frame: data, originalBytes, interfaceIndex, timeNs, flags });
    }
    const file = new Uint8Array(Buffer.concat(parts));
    expect(readAll(file)).toEqual({ packets: expected, end: 'end' });
    expect(naiveRead(file).packets.map(({ timeNs }) => timeNs)).toEqual(expected.map(({ timeNs }) => timeNs));
  });

  it('names the interface, and says that its times are nanoseconds', () => {
    const block = Buffer.from(encodeInterface('vm0', 96));
    expect(block.readUInt32LE(0)).toBe(1);
    expect(block.readUInt32LE(12)).toBe(96);
    expect(block.subarray(16, 24)).toEqual(Buffer.from([2, 0, 3, 0, 118, 109, 48, 0]));
    expect(block.subarray(24, 32)).toEqual(Buffer.from([9, 0, 1, 0, 9, 0, 0, 0]));
  });

  it('has times beyond 2^53 nanoseconds to the last one', () => {
    const words = new Int32Array(2);
    const random = new Random(2);
    for (let i = 0; i < 1000; i++) {
      const seconds = random.next() * random.pick([1, 2]);
      const nanoseconds = random.next() % 1_000_000_000;
      nanosecondWords(seconds, nanoseconds, words);
      const expected = BigInt(seconds) * 1_000_000_000n + BigInt(nanoseconds);
      expect((BigInt(words[0] >>> 0) << 32n) | BigInt(words[1] >>> 0)).toBe(expected);
    }
  });
});

describe('what others wrote', () => {
  const data = Uint8Array.from({ length: 15 }, (_, i) => i);

  it.each([
    ['little-endian microseconds', true, 0xa1b2c3d4, 7_000_005_000n],
    ['big-endian microseconds', false, 0xa1b2c3d4, 7_000_005_000n],
    ['little-endian nanoseconds', true, 0xa1b23c4d, 7_000_000_005n],
    ['big-endian nanoseconds', false, 0xa1b23c4d, 7_000_000_005n],
  ])('is read as pcap in %s', (_, little, magic, timeNs) => {
    const file = pcapFile(little, magic, [{ seconds: 7, fraction: 5, data, original: 1500 }]);
    const packet = { data, frame: data, originalBytes: 1500, interfaceIndex: 0, timeNs, flags: 0 };
    expect(readAll(file)).toEqual({ packets: [packet], end: 'end' });
  });

  it('is read as pcapng with sections of either byte order, unknown blocks, and resolutions of their own', () => {
    const section = (little: boolean, resolution: number, high: number, low: number): Uint8Array =>
      new Bytes(little)
        .block(0x0a0d0d0a, (body) => body.u32(0x1a2b3c4d).u16(1, 0).i64(-1n))
        .block(0xabc, (body) => body.raw(new Uint8Array(40)))
        .block(1, (body) => body.u16(113, 0).u32(0))
        .block(1, (body) => body.u16(1, 0).u32(8).u16(9, 1).raw(Uint8Array.of(resolution), true).u32(0))
        .block(6, (body) => body.u32(1, high, low, data.length, 99).raw(data, true).u16(2, 4).u32(2, 0))
        .done();
    const file = Buffer.concat([
      section(true, 6, 1, 0),
      section(false, 9, 1, 0),
      section(false, 0x8a, 0, 1536),
    ]);
    const { packets, end } = readAll(new Uint8Array(file));
    expect(end).toBe('end');
    expect(packets.map(({ timeNs }) => timeNs)).toEqual([4_294_967_296_000n, 4_294_967_296n, 1_500_000_000n]);
    for (const packet of packets) {
      expect(packet).toMatchObject({ data, originalBytes: 99, interfaceIndex: 1, flags: 2 });
    }
  });

  it('is read from simple packet blocks, cut at the length of their interface', () => {
    const file = new Bytes(false)
      .block(0x0a0d0d0a, (body) => body.u32(0x1a2b3c4d).u16(1, 0).i64(-1n))
      .block(1, (body) => body.u16(1, 0).u32(8))
      .block(3, (body) => body.u32(99).raw(data.subarray(0, 8)))
      .done();
    const packet = { originalBytes: 99, interfaceIndex: 0, timeNs: null, flags: 0 };
    const beginning = data.slice(0, 8);
    expect(readAll(file)).toEqual({
      packets: [{ ...packet, data: beginning, frame: beginning }],
      end: 'end',
    });
  });

  /** A frame of 60 bytes and its check sequence. */
  const checked = Uint8Array.from({ length: 64 }, (_, i) => i);
  const START = new Bytes(true).block(0x0a0d0d0a, (body) => body.u32(0x1a2b3c4d).u16(1, 0).i64(-1n)).done();
  /** pcapng of one interface with `options` and one packet that ends with an option of flags. */
  const blocks = (fcs: number | null, flags: number | null, original = 64, packet = checked): Uint8Array =>
    new Bytes(true)
      .raw(START)
      .block(1, (body) => {
        body.u16(1, 0).u32(0);
        return fcs === null ? body : body.u16(13, 1).raw(Uint8Array.of(fcs), true).u32(0);
      })
      .block(6, (body) => {
        body.u32(0, 0, 0, packet.length, original).raw(packet, true);
        return flags === null ? body : body.u16(2, 4).u32(flags).u32(0);
      })
      .done();
  const pcap = (linkType: number, original = 64, packet = checked): Uint8Array =>
    pcapFile(true, 0xa1b2c3d4, [{ seconds: 0, fraction: 0, data: packet, original }], linkType);

  it.each<[string, number, Uint8Array]>([
    ['that nothing is said of', 64, pcap(1)],
    ['that a pcap header speaks of without saying that it is there', 64, pcap(1 + 0x2000_0000)],
    ['of a pcap header', 60, pcap(1 + 0x2400_0000)],
    ['of a pcap header, of which a part was captured', 60, pcap(1 + 0x2400_0000, 64, checked.slice(0, 62))],
    ['of a pcap header, of a frame that was cut', 40, pcap(1 + 0x2400_0000, 64, checked.slice(0, 40))],
    ['of an interface', 60, blocks(4, null)],
    ['of an interface, in bits', 60, blocks(32, null)],
    ['of an interface without any', 64, blocks(0, null)],
    ['of a packet', 60, blocks(null, 4 << 5)],
    ['of a packet, unlike that of its interface', 62, blocks(4, 2 << 5)],
    ['of a packet that says nothing, as its interface does', 60, blocks(4, 1)],
    ['longer than the frame', 0, blocks(14, null, 10, checked.slice(0, 10))],
  ])('is read without the check sequence %s', (_, frameBytes, file) => {
    const { packets, end } = readAll(file);
    expect(end).toBe('end');
    expect(packets.map(({ frame }) => frame)).toEqual([checked.slice(0, frameBytes)]);
  });

  it('is read without what is said to lie behind the end of a frame', () => {
    for (const file of [pcap(1, 50), blocks(null, null, 50)]) {
      expect(readAll(file).packets.map(({ frame }) => frame)).toEqual([checked.slice(0, 50)]);
    }
  });

  it('says which frames were cut and which are too long, with or without a check sequence', () => {
    const facts = (file: Uint8Array): [boolean, boolean] => {
      const reader = new CaptureReader();
      for (let at = 0; reader.next(file, at, file.length) !== CAPTURE_PACKET; at = reader.nextIndex);
      return [reader.isCut, reader.isOverlong];
    };
    expect(facts(pcap(1))).toEqual([false, false]);
    expect(facts(pcap(1, 65))).toEqual([true, false]);
    expect(facts(pcap(1, 63))).toEqual([false, true]);
    expect(facts(pcap(1 + 0x2400_0000, 64, checked.slice(0, 60)))).toEqual([false, false]);
    expect(facts(pcap(1 + 0x2400_0000, 64, checked.slice(0, 59)))).toEqual([true, false]);
  });

  it('is read from obsolete packet blocks, in either byte order', () => {
    for (const little of [true, false]) {
      const file = new Bytes(little)
        .block(0x0a0d0d0a, (body) => body.u32(0x1a2b3c4d).u16(1, 0).i64(-1n))
        .block(1, (body) => body.u16(113, 0).u32(0))
        .block(1, (body) => body.u16(1, 0).u32(0))
        .block(2, (body) => body.u16(1, 7).u32(1, 0, 15, 19).raw(data, true).u16(2, 4).u32(0x82).u32(0))
        .done();
      const packet = { data, frame: data, originalBytes: 19, interfaceIndex: 1, timeNs: 4_294_967_296_000n };
      expect(readAll(file)).toEqual({ packets: [{ ...packet, flags: 0x82 }], end: 'end' });
    }
  });

  it('counts blocks of unknown kinds, which may have held packets, and no others', () => {
    const file = new Bytes(true).raw(START);
    for (const kind of [4, 5, 9, 10, 0xbad, 0x40000bad, 0xabc, 0x80000001]) {
      file.block(kind, (body) => body.u32(0));
    }
    const bytes = file.done();
    const reader = new CaptureReader();
    for (let at = 0; at < bytes.length; at = reader.nextIndex) reader.next(bytes, at, bytes.length);
    expect(reader.unknownBlocks).toBe(2);
  });

  it.each<[CaptureFault, Uint8Array]>([
    ['linkType', pcapFile(true, 0xa1b2c3d4, [], 113)],
    ['notACapture', Uint8Array.of(0x1f, 0x8b, 8, 0)],
    [
      'packetLength',
      new Bytes(true)
        .raw(pcapFile(true, 0xa1b2c3d4, []))
        .u32(0, 0, 262_145, 0)
        .done(),
    ],
    ['byteOrder', new Bytes(true).block(0x0a0d0d0a, (body) => body.u32(1).u16(1, 0).i64(-1n)).done()],
    ['version', new Bytes(true).block(0x0a0d0d0a, (body) => body.u32(0x1a2b3c4d).u16(2, 0).i64(-1n)).done()],
  ])('is refused by name: %s', (name, file) => {
    expect(readAll(file)).toEqual({ packets: [], end: name });
  });
});

describe('broken files', () => {
  it('give the same packets and the same reason as the naive reader', () => {
    const ends = new Map<string, number>();
    let packetCount = 0;
    for (let seed = 0; seed < 6000; seed++) {
      const random = new Random(seed);
      let file = randomCapture(random);
      for (let flips = random.pick([0, 0, 1, 3]); flips > 0; flips--) {
        file[random.between(0, file.length - 1)] = random.pick([0, 1, 255, random.between(0, 255)]);
      }
      if (random.chance(40)) file = file.slice(0, random.between(0, file.length));
      const read = readAll(file);
      const naive = naiveRead(file);
      const summary = ({
        packets,
        end,
      }: {
        packets: readonly Packet[] | readonly NaivePacket[];
        end: string;
      }) =>
        [
          end,
          ...packets.map((packet) => [
            packet.interfaceIndex,
            packet.originalBytes,
            hex(packet.data),
            hex(packet.frame),
          ]),
        ].join();
      if (summary(read) !== summary(naive)) expect([seed, read]).toEqual([seed, naive]);
      for (const [i, packet] of read.packets.entries()) {
        const { timeNs, toleranceNs } = naive.packets[i];
        expectTime(packet.timeNs, timeNs, toleranceNs, seed);
      }
      packetCount += read.packets.length;
      ends.set(read.end, (ends.get(read.end) ?? 0) + 1);
    }
    expect(packetCount).toBeGreaterThan(10_000);
    // Every fault but the one that needs 65,536 interfaces.
    expect([...ends.keys()].sort()).toEqual(
      ['end', 'cut', ...Object.keys(CAPTURE_FAULT)].filter((name) => name !== 'interfaces').sort(),
    );
  });

  it('cannot have interfaces without end', () => {
    const section = new Bytes(true)
      .block(0x0a0d0d0a, (body) => body.u32(0x1a2b3c4d).u16(1, 0).i64(-1n))
      .done();
    const block = Buffer.from(encodeInterface('a', 0));
    const file = Buffer.concat([section, ...Array<Buffer>(65_537).fill(block)]);
    const reader = new CaptureReader();
    let at = 0;
    let result = 0;
    while (result !== CAPTURE_BROKEN && at < file.length) {
      result = reader.next(file, at, file.length);
      at = reader.nextIndex;
    }
    expect([result, reader.fault]).toEqual([CAPTURE_BROKEN, CAPTURE_FAULT.interfaces]);
  });
});

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}

/** Times so far off that seconds are no whole numbers any more are not compared. */
function expectTime(time: bigint | null, naive: bigint | null, toleranceNs: bigint, seed: number): void {
  if (time === null || naive === null) {
    if (time !== naive) throw new Error(`seed ${seed}: ${time} instead of ${naive}`);
    return;
  }
  if (naive > 2n ** 80n || naive < -(2n ** 80n)) return;
  const difference = time > naive ? time - naive : naive - time;
  if (difference > toleranceNs) throw new Error(`seed ${seed}: ${time} instead of ${naive}`);
}
