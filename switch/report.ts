/** What the process tells about itself: the JSON of the control API, which `ringway ports` and `fdb` print. */
import type { PortState } from '../src/port/contract.ts';
import type { DropReason } from './drop-reasons.ts';

export type { PortState };

export type QueueReport = {
  readonly index: number;
  readonly direction: 'fromGuest' | 'toGuest' | 'control';
  readonly size: number;
  readonly started: boolean;
  readonly enabled: boolean;
  /** Worker that polls it (fromGuest), otherwise null. */
  readonly worker: number | null;
  readonly frames: number;
  readonly bytes: number;
  readonly calls: number;
  /** Why the queue stopped or cannot start, otherwise null. */
  readonly reason: string | null;
};

export type PortReport = {
  readonly name: string;
  readonly socket: string;
  readonly role: 'server' | 'client';
  readonly state: PortState;
  /** One sentence: what it waits for, what the last front-end did wrong, how to mend it; null when all is well. */
  readonly reason: string | null;
  /** Queue pairs started and enabled. */
  readonly queuePairs: number;
  readonly features: readonly string[];
  readonly protocolFeatures: readonly string[];
  readonly mtu: number | null;
  readonly memoryBytes: number;
  readonly queues: readonly QueueReport[];
  readonly counters: {
    readonly fromGuestFrames: number;
    readonly fromGuestBytes: number;
    readonly toGuestFrames: number;
    readonly toGuestBytes: number;
  };
  readonly drops: Readonly<Record<DropReason, number>>;
};

export type FdbReport = {
  readonly capacity: number;
  readonly ageSeconds: number;
  readonly entries: readonly {
    readonly mac: string;
    readonly vlan: number;
    readonly port: string;
    readonly ageSeconds: number;
  }[];
};
