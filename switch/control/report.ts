/** What the process tells about itself: the JSON of the control API, which `ringway ports` and `fdb` print. */
import type { NamedAdvice } from '../../src/advice.ts';
import type { PortKind, PortQueue, PortState } from '../../src/port/contract.ts';
import type { EffectiveSettings } from '../config/common-port.ts';
import type { DropReason } from '../l2/drop-reasons.ts';
import type { ShutReport } from '../loop-guard.ts';
import type { PortGroups } from '../snooping/report.ts';
import type { PortCounters } from './books.ts';

export type { PortKind, PortState };

export type QueueReport = PortQueue & {
  /** Worker that polls it (ingress), otherwise null. */
  readonly worker: number | null;
  readonly frames: number;
  readonly bytes: number;
  /** Times that the guest was signalled. */
  readonly calls: number;
};

export type PortReport = {
  readonly name: string;
  readonly kind: PortKind;
  /** What it is attached to: the path of a socket or file, an interface, a device. */
  readonly endpoint: string;
  readonly state: PortState;
  /** One sentence: what it waits for, what its peer did wrong, how to mend it; null when all is well. */
  readonly reason: string | null;
  /** What the reason means and what to do; null with it. */
  readonly advice: NamedAdvice | null;
  /** Not null: it is shut because of a loop, for so long from now on. */
  readonly shut: ShutReport | null;
  /** Queue pairs in use and well. */
  readonly queuePairs: number;
  readonly mtu: number | null;
  /** What every port can be set to, as it holds now. */
  readonly settings: EffectiveSettings;
  /** What only ports of this kind have to tell; vhost-user: role, features, protocolFeatures, memoryBytes. */
  readonly details: Readonly<Record<string, unknown>>;
  /** With snooping only. */
  readonly groups?: PortGroups;
  readonly queues: readonly QueueReport[];
  readonly counters: PortCounters;
  readonly drops: Readonly<Record<DropReason, number>>;
};

/** A worker's turns without a frame: with what such a turn costs, the difference of two reports tells how busy it was. */
export type WorkReport = {
  readonly index: number;
  /** When the counter was read, by a clock of the process. */
  readonly atMs: number;
  /** Turns of its loop that found no frame; starts again at 0 after 2^32 - 1. */
  readonly emptyTurns: number;
};

export type FdbReport = {
  readonly capacity: number;
  readonly ageSeconds: number;
  /** By port: how often an address that was known elsewhere was seen there. */
  readonly moved: Readonly<Record<string, number>>;
  readonly entries: readonly {
    readonly mac: string;
    readonly vlan: number;
    readonly port: string;
    readonly ageSeconds: number;
    /** It stays: by the port's settings, by `ringway fdb add`, or because it sticks. */
    readonly static: boolean;
  }[];
};
