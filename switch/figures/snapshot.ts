/** What figures are made from: everything that is counted, at one moment. keeper.ts makes it, table.ts says what each means. */
import type { PortKind, PortState } from '../../src/port/contract.ts';
import type { Direction } from '../../src/queue/contract.ts';
import type { Books } from '../control/books.ts';
import type { FdbCounters } from '../l2/fdb/fdb.ts';
import type { PluginReport } from '../plugin/plugin-table.ts';

/** As a figure's samples have them, in this order. */
export type Labels = Readonly<Record<string, string>>;

export type QueueSnapshot = {
  readonly labels: Labels;
  readonly direction: Direction;
  readonly frames: number;
  readonly bytes: number;
  readonly signals: number;
  readonly suppressed: number;
  readonly size: number;
  /** Null: not of a ring in use. */
  readonly waiting: number | null;
};

export type PortSnapshot = {
  readonly name: string;
  readonly labels: Labels;
  readonly kind: PortKind;
  readonly state: PortState;
  readonly isShut: boolean;
  readonly mtu: number | null;
  readonly rxPackets: number;
  readonly rxBytes: number;
  readonly txPackets: number;
  readonly txBytes: number;
  /** As in l2/port-counts.ts, of all workers together, with what only its queues know (`notTaken`). */
  readonly counts: Float64Array;
  readonly queues: readonly QueueSnapshot[];
};

export type CollectionsSnapshot = { readonly count: number; readonly seconds: number };

export type WorkerSnapshot = {
  readonly index: number;
  readonly labels: Labels;
  /** Counts of bursts by size, BURST_CLASSES of them. */
  readonly bursts: readonly number[];
  readonly frames: number;
  readonly busySeconds: number;
  readonly sleptSeconds: number;
  readonly sleeps: number;
  readonly emptyTurns: number;
  readonly collections: CollectionsSnapshot;
};

export type FdbSnapshot = FdbCounters & { readonly entries: number; readonly capacity: number };

export type FiguresSnapshot = {
  readonly version: string;
  readonly startSeconds: number;
  readonly ports: readonly PortSnapshot[];
  readonly workers: readonly WorkerSnapshot[];
  readonly plugins: readonly PluginReport[];
  readonly fdb: FdbSnapshot;
  /** Of all ports, with those that were removed. */
  readonly totals: Books;
  /** Of the main thread. */
  readonly collections: CollectionsSnapshot;
};
