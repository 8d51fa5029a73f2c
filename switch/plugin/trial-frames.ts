/**
 * Bursts that a plugin is tried with: none, one, 64 of one flow, of many, and frames of the kinds that code stumbles over.
 * The same each time.
 */
import type { Batch } from '../../src/queue/batch.ts';
import { BATCH_FRAMES_MAX } from '../../src/queue/batch.ts';

/** Before each frame, as tags have room before those of guests. */
const ROOM_BYTES = 12;

const MACS = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
const tcp = (from: number, to: number): number[] => [
  from >> 8,
  from & 255,
  to >> 8,
  to & 255,
  0,
  0,
  0,
  1,
  0,
  0,
  0,
  0,
  0x50,
  2,
];
const udp = (from: number, to: number, payload: readonly number[]): number[] => [
  from >> 8,
  from & 255,
  to >> 8,
  to & 255,
  (8 + payload.length) >> 8,
  (8 + payload.length) & 255,
  0,
  0,
  ...payload,
];

function ipv4(
  protocol: number,
  source: number,
  payload: readonly number[],
  fragment = 0,
  words = 5,
): number[] {
  const sizeBytes = 4 * words + payload.length;
  const options = new Array<number>(4 * (words - 5)).fill(1);
  return [
    8,
    0,
    0x40 + words,
    0,
    sizeBytes >> 8,
    sizeBytes & 255,
    0,
    1,
    fragment >> 8,
    fragment & 255,
    64,
    protocol,
    0,
    0,
    10,
    0,
    0,
    source,
    10,
    0,
    1,
    1,
    ...options,
    ...payload,
  ];
}

const ipv6 = (next: number, payload: readonly number[]): number[] => [
  0x86,
  0xdd,
  0x60,
  0,
  0,
  0,
  0,
  payload.length,
  next,
  64,
  0xfd,
  0,
  0,
  0,
  0,
  0,
  0,
  0,
  0,
  0,
  0,
  0,
  0,
  0,
  0,
  1,
  0xfd,
  0,
  0,
  0,
  0,
  0,
  0,
  0,
  0,
  0,
  0,
  0,
  0,
  0,
  0,
  2,
  ...payload,
];

/** A DHCP reply, whose options end within the frame or do not. */
const dhcp = (...options: readonly number[]): number[] => {
  const payload = [
    2,
    1,
    6,
    0,
    ...new Array<number>(12).fill(0),
    10,
    0,
    0,
    9,
    ...new Array<number>(8).fill(0),
    2,
    0,
    0,
    0,
    0,
    1,
  ];
  return [...payload, ...new Array<number>(236 - payload.length).fill(0), 0x63, 0x82, 0x53, 0x63, ...options];
};

const arp = [8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2];

/** What follows the addresses. */
const ODD: readonly (readonly number[])[] = [
  [8, 0],
  [0x86, 0xdd],
  [0xff, 0xff],
  [8, 0, 0x45],
  [8, 0, 0x40, ...new Array<number>(30).fill(0)],
  [8, 0, 0x4f, ...new Array<number>(30).fill(255)],
  arp,
  ipv4(6, 1, tcp(1000, 80)),
  ipv4(17, 2, udp(67, 68, dhcp(53, 1, 5, 255))),
  ipv4(17, 2, udp(67, 68, dhcp(53, 250, 5))),
  ipv4(17, 2, udp(67, 68, dhcp(0, 0, 0, 53))),
  ipv4(6, 3, [], 0x2001),
  ipv4(6, 3, tcp(1, 2), 0x2000),
  ipv4(17, 3, [1], 0, 15),
  ipv4(1, 4, [8, 0, 0, 0]),
  ipv6(6, tcp(1, 65535)),
  ipv6(0, [60, 0, 0, 0, 0, 0, 0, 0, 43, 255, 0, 0, 0, 0, 0, 0]),
  ipv6(44, [17, 0, 0, 9, 0, 0, 0, 1, 1, 2, 3, 4]),
  ipv6(59, []),
  ipv4(17, 5, udp(53, 53, new Array<number>(1470).fill(7))),
];

/** What puts a burst into a batch, and whether it is one of as many frames as there can be. */
export type TrialBatch = { readonly fill: (batch: Batch) => void; readonly isWhole: boolean };

/** All bursts; frames are laid into `u8` from `start` on. */
export function trialBatches(u8: Uint8Array, start: number): TrialBatch[] {
  const flow = (source: number): readonly number[] => ipv4(6, source, tcp(1024 + source, 443));
  const many = (frameOf: (i: number) => readonly number[]) =>
    Array.from({ length: BATCH_FRAMES_MAX }, (_, i) => frameOf(i));
  const bursts = [
    [],
    [flow(1)],
    many(() => flow(1)),
    many(flow),
    many((i) => ODD[i % ODD.length]),
    ...ODD.map((odd) => [odd]),
  ];
  const fillWith = (frames: readonly (readonly number[])[]) => (batch: Batch) => {
    let at = start;
    for (const behind of frames) {
      at += ROOM_BYTES;
      u8.set(MACS, at);
      u8.set(behind, at + MACS.length);
      const sizeBytes = MACS.length + behind.length;
      batch.add(0, at, sizeBytes);
      at = (at + sizeBytes + 7) & ~7;
    }
  };
  return bursts.map((frames) => ({ fill: fillWith(frames), isWhole: frames.length === BATCH_FRAMES_MAX }));
}
