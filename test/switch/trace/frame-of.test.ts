/** Frames that were told of in words, made and read again; addresses of IP as text. */
import { describe, expect, it } from 'vitest';
import { formatIp, parseIp } from '../../../protocol/ip-text.ts';
import { type FrameWords, frameOf } from '../../../switch/trace/frame-of.ts';
import { frameTexts, tagsOf } from '../../../switch/trace/frame-text.ts';

const ip = (text: string): Uint8Array => parseIp(text) as Uint8Array;

const WORDS: FrameWords = {
  src: Uint8Array.from([2, 0, 0, 0, 0, 1]),
  dst: Uint8Array.from([2, 0, 0, 0, 0, 2]),
  vlans: [],
  priority: 0,
  type: null,
  arp: null,
  ip: null,
  sizeBytes: 60,
};

const packet = (src: string, dst: string, protocol: 'tcp' | 'udp' | 'icmp' | number): FrameWords => ({
  ...WORDS,
  ip: { src: ip(src), dst: ip(dst), protocol, srcPort: 1, dstPort: 2 },
});

/** The sum of 16-bit words, which is 0xffff where a checksum among them is right (RFC 1071). */
function sumOf(bytes: Iterable<number>): number {
  let sum = 0;
  for (const [i, byte] of [...bytes].entries()) sum += i % 2 === 0 ? byte << 8 : byte;
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return sum;
}

describe('a frame in words', () => {
  it.each<[string, FrameWords, string[]]>([
    ['an experiment', WORDS, ['type 0x88b5']],
    [
      'with two tags',
      { ...WORDS, vlans: [100, 10], priority: 3, type: 0x88cc },
      ['802.1ad tag of VLAN 100, priority 3', '802.1Q tag of VLAN 10, priority 3', 'type 0x88cc, LLDP'],
    ],
    [
      'ARP',
      { ...WORDS, arp: { sender: ip('10.0.0.1'), target: ip('10.0.0.2') } },
      ['ARP: who has 10.0.0.2, tell 10.0.0.1'],
    ],
    ['TCP', packet('10.0.0.1', '10.0.0.2', 'tcp'), ['IPv4 10.0.0.1 > 10.0.0.2, TTL 64, TCP 1 > 2']],
    [
      'UDP over IPv6',
      packet('fe80::1', 'ff02::2', 'udp'),
      ['IPv6 fe80::1 > ff02::2, hop limit 64, UDP 1 > 2'],
    ],
    ['ICMP', packet('10.0.0.1', '10.0.0.2', 'icmp'), ['IPv4 10.0.0.1 > 10.0.0.2, TTL 64, ICMP']],
    [
      'another protocol',
      packet('10.0.0.1', '10.0.0.2', 89),
      ['IPv4 10.0.0.1 > 10.0.0.2, TTL 64, protocol 89'],
    ],
  ])('is made as it was told: %s', (_, words, texts) => {
    const frame = frameOf(words);
    expect(frame.length).toBe(words.ip?.src.length === 16 ? 62 : 60);
    const head = `02:00:00:00:00:01 > 02:00:00:00:00:02, ${frame.length} bytes`;
    expect(frameTexts(frame, frame.length)).toEqual([head, ...texts]);
    expect(tagsOf(frame).map(({ vlan }) => vlan)).toEqual(words.vlans);
  });

  it.each(['tcp', 'udp', 'icmp'] as const)('has good checksums and lengths: %s', (protocol) => {
    for (const sizeBytes of [60, 61, 1514]) {
      const four = frameOf({ ...packet('10.0.0.1', '10.0.0.2', protocol), sizeBytes });
      expect(sumOf(four.subarray(14, 34))).toBe(0xffff);
      expect((four[16] << 8) | four[17]).toBe(sizeBytes - 14);
      const number = { tcp: 6, udp: 17, icmp: 1 }[protocol];
      const pseudo =
        protocol === 'icmp'
          ? []
          : [...four.subarray(26, 34), 0, number, (sizeBytes - 34) >> 8, (sizeBytes - 34) & 255];
      expect(sumOf([...pseudo, ...four.subarray(34)])).toBe(0xffff);
      const six = frameOf({ ...packet('fe80::1', 'fe80::2', protocol), sizeBytes: sizeBytes + 40 });
      const transport = six.subarray(54);
      const length = [transport.length >> 8, transport.length & 255];
      expect([...six.subarray(18, 20)]).toEqual(length);
      expect(sumOf([...six.subarray(22, 54), 0, 0, ...length, 0, 0, 0, six[20], ...transport])).toBe(0xffff);
    }
  });

  it('may be anything: what is cut off is not read', () => {
    const frame = frameOf({ ...packet('fe80::1', 'ff02::2', 'udp'), vlans: [1, 2] });
    for (let sizeBytes = 0; sizeBytes <= frame.length; sizeBytes++)
      expect(frameTexts(frame.subarray(0, sizeBytes), sizeBytes).length).toBeGreaterThan(0);
  });
});

describe('addresses', () => {
  it.each([
    ['10.0.0.255', [10, 0, 0, 255]],
    ['::', new Array(16).fill(0)],
    ['::1', [...new Array(15).fill(0), 1]],
    ['fe80::', [0xfe, 0x80, ...new Array(14).fill(0)]],
    ['1:2:3:4:5:6:7:8', [0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0, 7, 0, 8]],
    ['2001:db8::1:0:0:1', [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1]],
  ])('%s', (text, bytes) => {
    expect([...ip(text)]).toEqual(bytes);
    expect(formatIp(ip(text))).toBe(text);
  });

  it.each([
    '',
    '10.0.0',
    '10.0.0.256',
    '10.0.0.1.2',
    'fe80',
    '1::2::3',
    '1:2:3:4:5:6:7:8:9',
    '::12345',
    'g::',
  ])('not %j', (text) => expect(parseIp(text)).toBeNull());
});
