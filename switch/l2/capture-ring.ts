/**
 * What the main thread and a worker agree on about a capture: which frames are wanted, and the ring in the arena that the
 * worker copies them to. One writer, the worker, and one reader, the main thread (switch/capture/session.ts), so there is no
 * lock: each moves an index of its own, after it has written or read.
 *
 * What stands in the ring are enhanced packet blocks of pcapng (protocol/pcapng-blocks.ts), one behind the other, all in
 * one piece; a word of 0 in place of a block's type: the next one is at the ring's beginning. In the word of a block's
 * flags, from bit REASON_SHIFT on, stands 1 + the index of the reason because of which the frame was dropped (drop-reasons.ts),
 * or 0: the main thread takes it out, and writes it as a comment. Any thread.
 */
import type { BpfProgram } from '../../src/filter/program.ts';

/** A power of two: bursts of some 40,000 short frames. */
export const CAPTURE_RING_BYTES = 2 ** 22;
/** A timespec comes first. */
export const CAPTURE_RING_OFFSET = 64;
/** Behind the ring: a block of any frame, for those that are looked at while there is no room. */
const ASIDE_BYTES = 2 ** 17;
/** Of the arena, for each worker. */
export const CAPTURE_AREA_BYTES = CAPTURE_RING_OFFSET + CAPTURE_RING_BYTES + ASIDE_BYTES;

/** Words (int32) of a ring's indices: bytes written and read so far, running; a cache line each. */
export const RING_HEAD = 0;
export const RING_TAIL = 16;
export const RING_WORDS = 32;

/** Doubles of an interface's counters, for each worker: frames that were wanted, and those of them that there was no room for. */
export const CAPTURE_WANTED = 0;
export const CAPTURE_LOST = 1;
export const CAPTURE_COUNTS = 2;

/** In the flags of a block, above all that pcapng has there. */
export const REASON_SHIFT = 16;
/** Of a block, from its end: the word of its flags. */
export const FLAGS_FROM_END_BYTES = 12;

export const CAPTURE_IN = 1;
export const CAPTURE_OUT = 2;

/** What is wanted; plain data that can be posted. */
export type CaptureSetup = {
  readonly id: number;
  /** By interface of the capture: the port's id; -1: it is gone. */
  readonly portIds: readonly number[];
  /** CAPTURE_IN: frames from the port, CAPTURE_OUT: to it. */
  readonly directions: number;
  /** Only frames of this VLAN; null: of all. */
  readonly vlan: number | null;
  /** Bytes kept of each frame at most. */
  readonly snapBytes: number;
  /** null: all frames. */
  readonly program: BpfProgram | null;
  /** Of CAPTURE_AREA_BYTES for each worker, one behind the other, each within one window; offset in the arena and address. */
  readonly areaOffsets: readonly number[];
  readonly areaAddresses: readonly number[];
  /** RING_WORDS for each worker. */
  readonly indices: SharedArrayBuffer;
  /** CAPTURE_COUNTS for each interface, for each worker. */
  readonly counts: SharedArrayBuffer;
};
