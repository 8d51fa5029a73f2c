/**
 * What a load generator is to the scenarios: connected to the ports of a switch, it keeps frames in flight and
 * tells how many came through. Main thread.
 */
import type { Peer } from '../peers/contract.ts';

/** 4 bursts of 32 frames each way. */
export const FRAMES_IN_FLIGHT = 128;
export const RING_SIZE = 256;

/**
 * What testpmd does with a frame and how it receives one. In macswap mode it exchanges the two addresses and sends
 * the frame back by the port that it came in by, so it reads and writes each frame as a guest does. In io mode the
 * frame leaves by the other port, and its bytes are never touched. The vectorised receive path is the fastest, the
 * default one takes mergeable buffers.
 */
export const TESTPMD_LOADS = {
  'macswap-vectorised': { mode: 'macswap', path: 'vectorised' },
  'macswap-default': { mode: 'macswap', path: 'default' },
  'io-vectorised': { mode: 'io', path: 'vectorised' },
  'io-default': { mode: 'io', path: 'default' },
} as const;

export type TestpmdLoadKind = keyof typeof TESTPMD_LOADS;

/** `embedded`: the embedded front-end, where there is no testpmd or where it cannot do what is asked. */
export type LoadKind = TestpmdLoadKind | 'embedded';

export type LoadTarget = Pick<Peer, 'sockets' | 'generatorRole'>;

export type Window = { readonly frameBytes: number; readonly warmUpMs: number; readonly windowMs: number };

/** Called just before and just after a window, while the same load flows as in it. */
export type WindowWatch = { begins(): Promise<void>; ends(): Promise<void> };

export type LoadFigures = {
  /** Received by all ports together. */
  readonly framesPerSecond: number;
  /** Share of the generator's looks at its queues that found nothing, 0 to 1; null: not counted. */
  readonly emptyLookShare: number | null;
};

export interface LoadGenerator {
  readonly pid: number;
  /** The addresses that the frames go from and to, one for each port. */
  readonly addresses: readonly string[];
  /** What came through. Quiet before and after. */
  measure(window: Window, watch?: WindowWatch): Promise<LoadFigures>;
  /** Ends it; the switch must not be paused, since it takes part in closing. */
  stop(): Promise<void>;
}
