/** The results of a run as they are written to a file and drawn: measured values, round by round. */
import type { LoadKind } from '../load/contract.ts';
import type { PeerName } from '../plan.ts';
import type { LatencyFigures } from '../statistics.ts';
import type { MachineFacts } from './facts.ts';
import type { GoalLine } from './goals.ts';

export type ByPeer<T> = Partial<Record<PeerName, T>>;

/** Peers that were measured in turn, round by round. */
export type Comparison = {
  /** Received by all ports together. */
  readonly framesPerSecond: ByPeer<number[]>;
  /** Share of the time in which the forwarding thread was in turns with frames, 0 to 1; null: not told. */
  readonly busyShares: ByPeer<(number | null)[]>;
  /** Share of the generator's looks at its queues that found nothing, 0 to 1; null: not counted. */
  readonly emptyLookShares: ByPeer<(number | null)[]>;
  /** Share of each measurement in which others had one of the processors (scenarios/disturbance.ts). */
  readonly disturbedShares: ByPeer<number[]>;
  /** Distance of the processors before and after each round (scenarios/core-distance.ts). */
  readonly coreRoundTripNs: readonly [number | null, number | null][];
};

/** Two ports that send to each other, one frame size. */
export type ThroughputResult = Comparison & { readonly load: LoadKind; readonly frameBytes: number };

/** Every port sends to all others. */
export type MixedResult = ThroughputResult & { readonly portCount: number };

/** One entry a round. */
export type LatencyResult = ByPeer<(LatencyFigures & { readonly disturbedShare: number })[]>;

export type SetUpResult = {
  readonly title: string;
  readonly framesPerSecond: number[];
  readonly disturbedShares: number[];
};

/** Frames per second of the same load on two set-ups, round by round. */
export type PairResult = {
  readonly load: LoadKind;
  /** Distance of the processors before and after each round. */
  readonly coreRoundTripNs: readonly [number | null, number | null][];
  readonly base: SetUpResult;
  readonly scaled: SetUpResult;
};

export type ManyPortsResult = {
  readonly portCount: number;
  /** From the first connection to the last ring in use. */
  readonly connectMs: number;
  readonly load: LoadKind;
  /** Between two of the ports while all are connected. */
  readonly framesPerSecond: number;
  readonly residentMiB: number;
};

export type ScaleResult = {
  ports64?: PairResult;
  addresses?: PairResult;
  queuePairs?: PairResult;
  manyPorts?: ManyPortsResult;
};

export type IdleResult = {
  readonly portCount: number;
  readonly windowMs: number;
  /** Processor time of the whole process over time, 1 = one core. */
  readonly cpuShare: number;
  readonly firstFrames: LatencyFigures;
  /** Waking a thread of this machine without a switch: what no first frame can be faster than. */
  readonly bareWakeUps: LatencyFigures;
  /** While the first frames were sent. */
  readonly disturbedShare: number;
};

/** MiB of the whole process. */
export type MemoryResult = { readonly residentMiB: number; readonly guestSharedMiB: number };

export type CollectionsResult = {
  readonly windowMs: number;
  readonly framesPerSecond: number;
  readonly inWorker: number;
  readonly inMainThread: number;
};

/** Nanoseconds for one operation; the first entry of a group is Ringway's, the others are its twins. */
export type MicroResult = {
  readonly group: string;
  readonly entries: readonly { readonly name: string; readonly ns: number }[];
};

export type Results = {
  readonly facts: MachineFacts;
  /** Commit of the checkout that `--against` named; null: none, or not known. */
  readonly otherCommit: string | null;
  readonly quick: boolean;
  readonly rounds: number;
  /** Cache line from processor to processor and back, before the first and after each scenario; null: unknown. */
  coreRoundTripNs: (number | null)[];
  throughput?: ThroughputResult[];
  mixed?: MixedResult;
  latency?: LatencyResult;
  scale?: ScaleResult;
  idle?: IdleResult;
  memory?: MemoryResult;
  collections?: CollectionsResult;
  micro?: MicroResult[];
  goals: GoalLine[];
  notes: readonly string[];
};
