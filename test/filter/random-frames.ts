/** Frames as filters tell them apart: of the protocols that expressions name, whole and cut short, and bytes at random. */
import type { Random } from '../vring/random.ts';

const be16 = (value: number): number[] => [(value >> 8) & 255, value & 255];
const ADDRESSES_4 = [
  [10, 0, 0, 1],
  [10, 0, 0, 2],
  [192, 168, 1, 7],
  [224, 0, 0, 251],
  [255, 255, 255, 255],
];
const PREFIXES_6 = [0xfe80, 0x2001, 0xff02];
const PORTS = [22, 53, 67, 68, 80, 443, 4789, 5353, 6081, 50_000];
const MACS = [
  [2, 0, 0, 0, 0, 1],
  [2, 0, 0, 0, 0, 2],
  [0x52, 0x54, 0, 0x12, 0x34, 0x56],
  [255, 255, 255, 255, 255, 255],
  [1, 0, 0x5e, 0, 0, 251],
  [1, 0x80, 0xc2, 0, 0, 0],
];

export function randomFrame(random: Random): Uint8Array {
  if (random.chance(10)) return random.bytes(random.between(1, 100));
  const tags: number[] = [];
  for (let left = random.pick([0, 0, 0, 1, 1, 2, 3]); left > 0; left--)
    tags.push(
      ...be16(random.pick([0x8100, 0x8100, 0x88a8, 0x9100])),
      ...be16(random.pick([0, 1, 5, 6, 0x2005, 0xe005, 4095])),
    );
  const bytes = [...random.pick(MACS), ...random.pick(MACS), ...tags, ...packet(random)];
  // Something of the right form, with one byte of it wrong.
  if (random.chance(20)) bytes[random.between(0, bytes.length - 1)] = random.between(0, 255);
  const frame = Uint8Array.from(bytes);
  return random.chance(15) ? frame.slice(0, random.between(1, frame.length)) : frame;
}

function packet(random: Random): number[] {
  switch (random.between(0, 9)) {
    case 0:
      return [...be16(0x0806), 0, 1, 8, 0, 6, 4, 0, random.between(1, 2), ...random.bytes(20)];
    case 1:
      return [
        ...be16(random.pick([0x8863, 0x8864])),
        0x11,
        0,
        0,
        1,
        0,
        20,
        0,
        random.pick([0x21, 0x57]),
        ...ip4(random),
      ];
    case 2:
      return [...be16(0x8847), 0, 0, random.pick([0x10, 0x20]), 64, ...ip4(random)];
    case 3:
      return [...be16(random.pick([0x88cc, 0x8809, 0x888e, 0x22f0])), ...random.bytes(40)];
    // 802.2: a length, and what it says.
    case 4:
      return [
        ...be16(random.between(3, 60)),
        random.pick([0x42, 0xaa, 0xfe, 0xe0]),
        random.pick([0x42, 0xaa, 0xfe]),
        3,
        ...random.bytes(40),
      ];
    case 5:
    case 6:
      return [...be16(0x86dd), ...ip6(random)];
    default:
      return [...be16(0x0800), ...ip4(random)];
  }
}

function ip4(random: Random): number[] {
  const words = random.pick([5, 5, 5, 6, 15, 2]);
  const protocol = random.pick([1, 2, 6, 6, 17, 17, 47, 50, 89, 132, 4]);
  const fragment = random.pick([0, 0, 0x4000, 0x2000, 0x00b9]);
  const options = [...random.bytes(Math.max(0, words - 5) * 4)];
  const body = transport(random, protocol);
  return [
    ...[(4 << 4) | words, random.pick([0, 0xb8]), ...be16(20 + body.length), ...be16(7), ...be16(fragment)],
    ...[
      random.pick([1, 64]),
      protocol,
      ...random.bytes(2),
      ...random.pick(ADDRESSES_4),
      ...random.pick(ADDRESSES_4),
    ],
    ...options,
    ...body,
  ];
}

function ip6(random: Random): number[] {
  const protocol = random.pick([0, 6, 17, 43, 44, 58, 132]);
  const body = transport(random, protocol);
  const address = (): number[] => [
    ...be16(random.pick(PREFIXES_6)),
    ...new Array(13).fill(0),
    random.between(1, 3),
  ];
  return [
    0x60,
    0,
    0,
    0,
    ...be16(body.length),
    protocol,
    random.pick([1, 255]),
    ...address(),
    ...address(),
    ...body,
  ];
}

function transport(random: Random, protocol: number): number[] {
  const ports = [...be16(random.pick(PORTS)), ...be16(random.pick(PORTS))];
  if (protocol === 6) {
    const flags = random.pick([0x02, 0x12, 0x10, 0x18, 0x01, 0x04]);
    return [
      ...ports,
      ...random.bytes(8),
      0x50,
      flags,
      ...random.bytes(6),
      ...random.bytes(random.between(0, 30)),
    ];
  }
  if (protocol === 1 || protocol === 58)
    return [random.pick([0, 3, 8, 128, 133, 134, 135]), ...random.bytes(12)];
  if (protocol === 0) return [random.pick([6, 17, 58]), 0, 5, 2, 0, 0, 1, 0, 143, ...random.bytes(10)];
  return [...ports, ...random.bytes(random.between(4, 40))];
}
