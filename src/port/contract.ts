/**
 * What a port of the switch is to the process around it, whatever its kind. The workers do not see this: they
 * see the queues that a port attaches to the data path. Main thread.
 */
import type { RingRecords } from '../device/ring-records.ts';
import type { Budget } from '../host/budgets.ts';
import type { Arena } from '../memory/arena.ts';
import type { ArenaView } from '../memory/arena-view.ts';
import type { AddressMiss } from '../memory/iotlb.ts';
import type { Direction } from '../queue/contract.ts';
import type { DataPath } from '../queue/data-path.ts';
import type { OffloadSettings } from '../queue/offloads.ts';
import type { PortCounters } from '../queue/state.ts';
import type { KeepPort } from './hand-over.ts';

export type PortKind = 'vhost-user' | 'tap' | 'unix' | 'pcap' | 'dpdk';

/** `waiting`: for its peer; `negotiating`: connected; `running`: a queue is in use; `stopped`: see `reason`. */
export type PortState = 'waiting' | 'negotiating' | 'running' | 'stopped';

export type PortStatus = {
  readonly state: PortState;
  /** One sentence on what it waits for or what went wrong, with the fix where one is known; null: all is well. */
  readonly reason: string | null;
};

/** One queue, as the user sees it. */
export type PortQueue = {
  readonly index: number;
  readonly direction: Direction | 'control';
  /** Descriptors, or frames that it holds at most. */
  readonly size: number;
  readonly started: boolean;
  readonly enabled: boolean;
  /** Frames may pass now, as far as the peer wants it: not so the pairs that a guest's driver leaves unused. */
  readonly inUse: boolean;
  /** Why the queue stopped or cannot start, otherwise null. */
  readonly reason: string | null;
};

/** What is said of a queue with a reason, as a port's reason and in a list of its queues: so twice is seen to be twice. */
export function queueStoppedText(index: number, reason: string): string {
  return `queue ${index} stopped: ${reason}`;
}

/** Where a port tells what happened; the process logs it with the port's name. */
export type PortEvents = {
  info(message: string): void;
  warn(message: string): void;
  /** The peer is gone and no worker uses anything of it any more. */
  disconnected(): void;
};

/** What a port is given to live in. */
export type PortContext = {
  readonly id: number;
  readonly name: string;
  readonly arena: Arena;
  readonly arenaView: ArenaView;
  readonly dataPath: DataPath;
  readonly events: PortEvents;
  /** Of all ports together; left out: that of the process. */
  readonly descriptors?: Budget;
  /** Where its rings are noted for the next process; left out: nowhere. */
  readonly records?: RingRecords | null;
  /** Notes it for who comes after a sudden end of this process; left out, or null: nobody does. */
  readonly keep?: KeepPort | null;
};

/** What of a port's settings may change while it runs and is no policy (src/queue/policy.ts); each kind takes what it has. */
export type PortTuning = {
  /** Null: as its other side has it. */
  readonly mtu: number | null;
  readonly offloads: OffloadSettings;
};

/** A port cannot be tuned so; `message` is one line that says why. */
export class TuningError extends Error {
  override name = 'TuningError';
}

export interface Port {
  readonly id: number;
  readonly name: string;
  readonly kind: PortKind;
  /** What it is attached to: the path of a socket or file, an interface, a device. */
  readonly endpoint: string;
  readonly status: PortStatus;
  /** As its other side has it; null: that says nothing. */
  readonly mtu: number | null;
  /** The largest one that it can be given while it runs: what it has room for. */
  readonly mtuMax: number;
  readonly queues: readonly PortQueue[];
  readonly counters: PortCounters;
  /** QueueState blocks of all its queues; they outlive the peer, so counters do too. */
  readonly states: SharedArrayBuffer;
  /** What only this kind has to tell, for the user: plain JSON. */
  readonly details: Readonly<Record<string, unknown>>;
  /**
   * Begins to serve, once. What the outside lacks now and may have later (a peer, an interface) is told by `status`,
   * and tried again; resolves after the first try, and does nothing when the port was stopped before.
   * Rejects with SocketPathError or HostError when the port cannot be as configured; then nothing of it is left.
   */
  start(): Promise<void>;
  /**
   * Lets go of its peer and of everything that it has, at any time, also while it starts; resolves when nothing is
   * left: no worker uses it, no socket file, descriptor, memory or timer. May be called again.
   */
  stop(): Promise<void>;
  /**
   * Takes on these settings; what was agreed on with its peer stays as it is. @throws TuningError, then nothing has
   * changed. One call at a time, and after `start`.
   */
  tune(tuning: PortTuning): Promise<void>;
  /**
   * Virtqueues in use: how many chains, or descriptors of a packed ring, its driver has made available that nobody has taken; null:
   * that cannot be said.
   */
  waitingIn?(queueIndex: number): number | null;
  /** A worker stopped one of its queues because of a fault of the other side; QueueState has the code. */
  queueFailed(queueIndex: number): void;
  /** Virtqueues: a worker parked one until these are translated, the first one before all. */
  queueWaits?(queueIndex: number, misses: readonly AddressMiss[]): void;
}
