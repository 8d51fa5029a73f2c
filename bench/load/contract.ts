/**
 * What a load generator is to the scenarios: connected to two ports of a switch, it keeps frames in flight
 * both ways and tells how many came through.
 */
import type { Peer } from '../peers/contract.ts';

/** 4 bursts of 32 frames each way. */
export const FRAMES_IN_FLIGHT = 128;
export const RING_SIZE = 256;

/**
 * How frames are received: by testpmd's vectorised receive path (the fastest generator), by its default one
 * (mergeable buffers), or by the embedded front-end where there is no testpmd.
 */
export type LoadKind = 'vectorised' | 'default' | 'embedded';

export type LoadTarget = Pick<Peer, 'sockets' | 'generatorRole'>;

export type Window = { readonly frameBytes: number; readonly warmUpMs: number; readonly windowMs: number };

export interface LoadGenerator {
  readonly pid: number;
  /** The addresses that the frames go from and to, one for each port. */
  readonly addresses: readonly [string, string];
  /** Frames per second that came through, both ways together. Quiet before and after. */
  measure(window: Window): Promise<number>;
  /** Ends it; the switch must not be paused, since it takes part in closing. */
  stop(): Promise<void>;
}
