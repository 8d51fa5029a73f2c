/** What the benchmark tells the process that plays embedded guests (guest-process.ts), and what it answers. */

import type { LatencyFigures } from '../statistics.ts';

export type GuestPlan = {
  readonly socketPath: string;
  readonly role: 'client' | 'server';
  readonly queuePairs: number;
  readonly ringSize: number;
};

export type GuestOrder =
  /** Connects guests, which are numbered in the order of all guests connected so far. */
  | {
      readonly kind: 'connect';
      readonly guests: readonly GuestPlan[];
      /** So many begin before the first is there; left out: 16. */
      readonly atOnce?: number;
    }
  | {
      /** Keeps frames in flight between guests 0 and 1, each way; answers what came through. */
      readonly kind: 'circulate';
      readonly frameBytes: number;
      readonly inFlight: number;
      readonly warmUpMs: number;
      readonly windowMs: number;
      /** Addresses behind each guest that frames are sent to at random; 0: to its first one, never rewritten. */
      readonly addressesPerGuest: number;
    }
  /** Guests 0 and 1 send one frame from each of their addresses. */
  | { readonly kind: 'learn'; readonly addressesPerGuest: number }
  /** Every guest sends one frame. */
  | { readonly kind: 'announce'; readonly frameBytes: number }
  | {
      /** Keeps frames in flight between all guests, each of which sends to the others in turn. */
      readonly kind: 'mix';
      readonly frameBytes: number;
      /** For each guest. */
      readonly inFlight: number;
      readonly warmUpMs: number;
      readonly windowMs: number;
    }
  /** One frame in flight: guest 0 to guest 1 and back. */
  | { readonly kind: 'roundTrips'; readonly samples: number; readonly frameBytes: number }
  /** Guest 0 sends one frame to guest 1 each `gapMs`. */
  | { readonly kind: 'firstFrames'; readonly samples: number; readonly gapMs: number };

export type GuestAnswers = {
  connect: { readonly elapsedMs: number };
  circulate: { readonly framesPerSecond: number; readonly framesLost: number };
  learn: { readonly framesSent: number };
  announce: { readonly framesSent: number };
  mix: {
    readonly framesPerSecond: number;
    /** Of the guests' looks at their rings, those that found nothing. */
    readonly emptyLookShare: number;
    readonly framesLost: number;
    /** Came to a guest that they were not for. */
    readonly framesStrayed: number;
  };
  roundTrips: LatencyFigures;
  firstFrames: LatencyFigures;
};

export type GuestReply =
  | { readonly kind: 'done'; readonly answer: GuestAnswers[keyof GuestAnswers] }
  | { readonly kind: 'failed'; readonly message: string };

/** Environment variable with the processor that the process pins itself to. */
export const GUEST_CPU_VARIABLE = 'RINGWAY_BENCH_CPU';
