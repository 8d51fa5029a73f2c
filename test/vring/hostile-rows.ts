/**
 * What a guest can do wrong with its rings, row by row, and the fault that it gets for it. For the tests only
 * (hostile-guest.test.ts).
 */
import { DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE } from '../../protocol/virtio/split-ring.ts';
import type { DriverRing } from '../../src/frontend/driver-ring.ts';
import type { Direction } from '../../src/queue/contract.ts';
import type { RingLayoutKind } from '../../src/vring/attachment.ts';
import { CHAIN_DESCRIPTORS_MAX } from '../../src/vring/descriptor-list.ts';
import type { RING_FAULT } from '../../src/vring/faults.ts';
import {
  type Desc,
  END_GPA,
  GIB,
  HIGH_GPA,
  HOSTILE_SIZE,
  type HostileGuest,
  LOW_BYTES,
  LOW_GPA,
} from './hostile-guest.ts';
import { type RingPlan, splitLayout } from './ring-worlds.ts';

export type HostileRow = {
  readonly what: string;
  readonly fault: keyof typeof RING_FAULT;
  readonly plan?: Partial<RingPlan>;
  /** Breaks a rule on a ring; `write` is the flag that the direction asks for. */
  readonly act: (guest: HostileGuest, ring: DriverRing, write: number) => void;
  /** Default: both directions. */
  readonly only?: Direction;
};

/** One descriptor too many, of which all but the first name empty buffers; a split ring's begin at entry `first`. */
function longChain(gpa: number, write: number, first: number): Desc[] {
  return Array.from({ length: CHAIN_DESCRIPTORS_MAX + 1 }, (_, i) => ({
    gpa,
    sizeBytes: i === 0 ? 512 : 0,
    flags: write | (i === CHAIN_DESCRIPTORS_MAX ? 0 : DESC_F_NEXT),
    next: first + i + 1,
  }));
}

/** What there is in split rings only: an index that moves, heads, and links that may lead anywhere. */
const SPLIT_ROWS: readonly HostileRow[] = [
  {
    what: 'an avail index that jumps by more than the ring has entries',
    fault: 'AVAIL_JUMP',
    act: (_g, ring) => {
      const layout = splitLayout(ring);
      layout.availNext = (layout.availNext + HOSTILE_SIZE + 1) & 0xffff;
      ring.publish();
    },
  },
  {
    what: 'an avail index that goes back',
    fault: 'AVAIL_JUMP',
    act: (_g, ring) => {
      const layout = splitLayout(ring);
      layout.availNext = (layout.availNext - 1) & 0xffff;
      ring.publish();
    },
  },
  ...[HOSTILE_SIZE, 0xffff].map(
    (head): HostileRow => ({
      what: `head ${head}`,
      fault: 'HEAD_OUT_OF_RANGE',
      act: (_g, ring) => {
        splitLayout(ring).offerHead(head);
        ring.publish();
      },
    }),
  ),
  ...[HOSTILE_SIZE, 0xffff].map(
    (next): HostileRow => ({
      what: `a next of ${next}`,
      fault: 'NEXT_OUT_OF_RANGE',
      act: (g, ring, write) =>
        g.offer(ring, [{ gpa: g.bufferGpa(ring), sizeBytes: 64, flags: write | DESC_F_NEXT, next }]),
    }),
  ),
  {
    what: 'a descriptor that is its own next',
    fault: 'CHAIN_LOOP',
    act: (g, ring, write) =>
      g.offer(ring, [{ gpa: g.bufferGpa(ring), sizeBytes: 1, flags: write | DESC_F_NEXT, next: 8 }]),
  },
  {
    what: 'two descriptors in a circle',
    fault: 'CHAIN_LOOP',
    act: (g, ring, write) =>
      g.offer(ring, [
        { gpa: g.bufferGpa(ring), sizeBytes: 1, flags: write | DESC_F_NEXT, next: 9 },
        { gpa: g.bufferGpa(ring), sizeBytes: 0, flags: write | DESC_F_NEXT, next: 8 },
      ]),
  },
  {
    what: 'an indirect descriptor inside an indirect table',
    fault: 'INDIRECT_NESTED',
    act: (g, ring) => {
      const table = g.table([{ gpa: g.bufferGpa(ring), sizeBytes: 16, flags: DESC_F_INDIRECT }]);
      g.offer(ring, [{ gpa: table, sizeBytes: 16, flags: DESC_F_INDIRECT }]);
    },
  },
  {
    what: 'a next outside the indirect table',
    fault: 'NEXT_OUT_OF_RANGE',
    act: (g, ring, write) => {
      const table = g.table([
        { gpa: g.bufferGpa(ring), sizeBytes: 64, flags: write | DESC_F_NEXT, next: 2 },
        { gpa: g.bufferGpa(ring), sizeBytes: 64, flags: write },
        { gpa: g.bufferGpa(ring), sizeBytes: 64, flags: write },
      ]);
      g.offer(ring, [{ gpa: table, sizeBytes: 32, flags: DESC_F_INDIRECT }]);
    },
  },
  {
    what: 'a circle inside an indirect table',
    fault: 'CHAIN_LOOP',
    act: (g, ring, write) => {
      const table = g.table([
        { gpa: g.bufferGpa(ring), sizeBytes: 1, flags: write | DESC_F_NEXT, next: 1 },
        { gpa: g.bufferGpa(ring), sizeBytes: 1, flags: write | DESC_F_NEXT, next: 0 },
      ]);
      g.offer(ring, [{ gpa: table, sizeBytes: 32, flags: DESC_F_INDIRECT }]);
    },
  },
];

/** What there is in packed rings only. */
const PACKED_ROWS: readonly HostileRow[] = [
  {
    what: 'NEXT in every descriptor of the ring',
    fault: 'CHAIN_LOOP',
    act: (g, ring, write) => {
      const all = Array.from({ length: HOSTILE_SIZE }, () => ({
        gpa: g.bufferGpa(ring),
        sizeBytes: 1,
        flags: write | DESC_F_NEXT,
      }));
      g.offer(ring, all);
    },
  },
  {
    what: 'an indirect descriptor at the end of a chain',
    fault: 'INDIRECT_WITH_NEXT',
    act: (g, ring, write) => {
      const table = g.table([{ gpa: g.bufferGpa(ring), sizeBytes: 512, flags: write }]);
      g.offer(ring, [
        { gpa: g.bufferGpa(ring), sizeBytes: 12, flags: write | DESC_F_NEXT },
        { gpa: table, sizeBytes: 16, flags: DESC_F_INDIRECT },
      ]);
    },
  },
];

const COMMON_ROWS: readonly HostileRow[] = [
  {
    what: 'an indirect descriptor that was not negotiated',
    fault: 'INDIRECT_NOT_NEGOTIATED',
    plan: { indirect: false },
    act: (g, ring, write) => {
      const table = g.table([{ gpa: g.bufferGpa(ring), sizeBytes: 512, flags: write }]);
      g.offer(ring, [{ gpa: table, sizeBytes: 16, flags: DESC_F_INDIRECT }]);
    },
  },
  {
    what: 'an indirect descriptor with a next one',
    fault: 'INDIRECT_WITH_NEXT',
    act: (g, ring, write) => {
      const table = g.table([{ gpa: g.bufferGpa(ring), sizeBytes: 512, flags: write }]);
      g.offer(ring, [
        { gpa: table, sizeBytes: 16, flags: DESC_F_INDIRECT | DESC_F_NEXT, next: 9 },
        { gpa: g.bufferGpa(ring), sizeBytes: 512, flags: write },
      ]);
    },
  },
  ...[0, 8, 17, 65_536 * 16, 0xffff_fff0].map(
    (sizeBytes): HostileRow => ({
      what: `an indirect table of ${sizeBytes} bytes`,
      fault: 'INDIRECT_LENGTH',
      act: (g, ring, write) => {
        const table = g.table([{ gpa: g.bufferGpa(ring), sizeBytes: 512, flags: write }]);
        g.offer(ring, [{ gpa: table, sizeBytes, flags: DESC_F_INDIRECT }]);
      },
    }),
  ),
  ...[
    ['that crosses the end of a region', END_GPA - 16, 32],
    ['at the end of a region', END_GPA, 16],
    ['in a hole', LOW_GPA + LOW_BYTES + 4096, 16],
    ['that crosses into a hole', LOW_GPA + LOW_BYTES - 8, 16],
    ['that wraps around the address space', 2 ** 64 - 2048, 4096],
    ['far outside', 2 ** 62, 16],
  ].map(
    ([what, gpa, sizeBytes]): HostileRow => ({
      what: `an indirect table ${what}`,
      fault: 'INDIRECT_ADDRESS',
      act: (g, ring) =>
        g.offer(ring, [{ gpa: Number(gpa), sizeBytes: Number(sizeBytes), flags: DESC_F_INDIRECT }]),
    }),
  ),
  ...[
    ['that starts inside a region and crosses its end', END_GPA - 40, 72],
    ['at the end of a region', END_GPA, 72],
    ['in a hole', LOW_GPA + LOW_BYTES, 72],
    ['that crosses into a hole', LOW_GPA + LOW_BYTES - 40, 72],
    ['below a region', HIGH_GPA - 72, 72],
    ['that wraps around the address space', 2 ** 64 - 2048, 4096],
    ['far outside', 2 ** 53, 72],
    ['with length 0 at a bad address', 2 ** 40, 0],
    ['with length 0 in a hole', 2 * GIB, 0],
  ].flatMap(([what, gpa, sizeBytes]): HostileRow[] => [
    {
      what: `a buffer ${what}`,
      fault: 'BUFFER_ADDRESS',
      act: (g, ring, write) =>
        g.offer(ring, [{ gpa: Number(gpa), sizeBytes: Number(sizeBytes), flags: write }]),
    },
    {
      what: `a later buffer ${what}`,
      fault: 'BUFFER_ADDRESS',
      act: (g, ring, write) =>
        g.offer(ring, [
          { gpa: g.bufferGpa(ring), sizeBytes: 12, flags: write | DESC_F_NEXT, next: 9 },
          { gpa: Number(gpa), sizeBytes: Number(sizeBytes), flags: write },
        ]),
    },
    {
      what: `a buffer ${what}, from an indirect table`,
      fault: 'BUFFER_ADDRESS',
      act: (g, ring, write) => {
        const table = g.table([
          { gpa: g.bufferGpa(ring), sizeBytes: 12, flags: write | DESC_F_NEXT, next: 1 },
          { gpa: Number(gpa), sizeBytes: Number(sizeBytes), flags: write },
        ]);
        g.offer(ring, [{ gpa: table, sizeBytes: 32, flags: DESC_F_INDIRECT }]);
      },
    },
  ]),
  {
    what: 'an indirect table of more buffers than a chain may have',
    fault: 'CHAIN_TOO_LONG',
    act: (g, ring, write) => {
      const gpa = g.table(longChain(g.bufferGpa(ring), write, 0));
      g.offer(ring, [{ gpa, sizeBytes: 16 * (CHAIN_DESCRIPTORS_MAX + 1), flags: DESC_F_INDIRECT }]);
    },
  },
  {
    what: 'more descriptors in a row than a chain may have',
    fault: 'CHAIN_TOO_LONG',
    plan: { size: 256 },
    act: (g, ring, write) => g.offer(ring, longChain(g.bufferGpa(ring), write, 8)),
  },
  ...[0, 1, 11].map(
    (sizeBytes): HostileRow => ({
      what: `a chain of ${sizeBytes} bytes, shorter than the header`,
      fault: 'CHAIN_SHORTER_THAN_HEADER',
      act: (g, ring, write) => g.offer(ring, [{ gpa: g.bufferGpa(ring), sizeBytes, flags: write }]),
    }),
  ),
  {
    what: 'a header in parts that the chain does not complete',
    fault: 'CHAIN_SHORTER_THAN_HEADER',
    act: (g, ring, write) =>
      g.offer(ring, [
        { gpa: g.bufferGpa(ring), sizeBytes: 5, flags: write | DESC_F_NEXT, next: 9 },
        { gpa: g.bufferGpa(ring), sizeBytes: 0, flags: write | DESC_F_NEXT, next: 10 },
        { gpa: g.bufferGpa(ring), sizeBytes: 6, flags: write },
      ]),
  },
  {
    what: 'a buffer that the device may write, in what the guest sends',
    fault: 'WRITABLE_FROM_GUEST',
    only: 'ingress',
    act: (g, ring) => g.offer(ring, [{ gpa: g.bufferGpa(ring), sizeBytes: 72, flags: DESC_F_WRITE }]),
  },
  {
    what: 'a later buffer that the device may write, in what the guest sends',
    fault: 'WRITABLE_FROM_GUEST',
    only: 'ingress',
    act: (g, ring) =>
      g.offer(ring, [
        { gpa: g.bufferGpa(ring), sizeBytes: 72, flags: DESC_F_NEXT, next: 9 },
        { gpa: g.bufferGpa(ring), sizeBytes: 1, flags: DESC_F_WRITE },
      ]),
  },
  {
    what: 'a buffer that the device may not write, to receive with',
    fault: 'READABLE_TO_GUEST',
    only: 'egress',
    act: (g, ring) => g.offer(ring, [{ gpa: g.bufferGpa(ring), sizeBytes: 512 }]),
  },
  {
    what: 'a later buffer that the device may not write, to receive with',
    fault: 'READABLE_TO_GUEST',
    only: 'egress',
    act: (g, ring) =>
      g.offer(ring, [
        { gpa: g.bufferGpa(ring), sizeBytes: 512, flags: DESC_F_WRITE | DESC_F_NEXT, next: 9 },
        { gpa: g.bufferGpa(ring), sizeBytes: 1 },
      ]),
  },
];

/** Common rows first. */
export const HOSTILE_ROWS: Readonly<Record<RingLayoutKind, readonly HostileRow[]>> = {
  split: [...COMMON_ROWS, ...SPLIT_ROWS],
  packed: [...COMMON_ROWS, ...PACKED_ROWS],
};
