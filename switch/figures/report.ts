/** The figures of people and pages: totals and rates as JSON (GET /v1/figures). Rates are a second's, over each of RATE_SECONDS. */
import type { PortKind, PortState } from '../../src/port/contract.ts';
import type { DropReason } from '../l2/drop-reasons.ts';
import type { FdbSnapshot } from './snapshot.ts';

/** Over 1, 10 and 60 seconds, or as much of them as there was; empty: nothing is known yet. */
export type RateList = readonly number[];

export type PortFigures = {
  readonly name: string;
  readonly kind: PortKind;
  readonly state: PortState;
  readonly isShut: boolean;
  readonly totals: Readonly<Record<PortRated, number>>;
  readonly rates: Readonly<Record<PortRated, RateList>>;
  /** Those that there were. */
  readonly drops: { readonly [reason in DropReason]?: number };
};

export type PortRated = 'rxPackets' | 'rxBytes' | 'txPackets' | 'txBytes' | 'dropped';

export type WorkerFiguresReport = {
  readonly index: number;
  readonly totals: {
    readonly packets: number;
    readonly sleeps: number;
    /** By size, as in table.ts. */
    readonly bursts: readonly number[];
    readonly collections: number;
  };
  readonly rates: {
    readonly packets: RateList;
    /** 0 to 1. */
    readonly busyShare: RateList;
    /** Null: there was none. */
    readonly nsPerPacket: readonly (number | null)[];
    readonly packetsPerBurst: readonly (number | null)[];
    readonly sleeps: RateList;
  };
};

export type FiguresReport = {
  readonly version: string;
  readonly upSeconds: number;
  readonly fdb: FdbSnapshot;
  /** Of all ports, with those that were removed. */
  readonly drops: Readonly<Record<DropReason, number>>;
  readonly ports: readonly PortFigures[];
  readonly workers: readonly WorkerFiguresReport[];
};
