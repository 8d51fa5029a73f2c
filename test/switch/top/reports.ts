/** Made-up reports of figures, for the tests of `ringway top`. */
import { NO_BOOKS } from '../../../switch/control/books.ts';
import type { FiguresReport, PortFigures, WorkerFiguresReport } from '../../../switch/figures/report.ts';
import { NO_FDB } from '../figures/snapshots.ts';

const STILL = [0, 0, 0];

export function portFigures(name: string, changes: Partial<PortFigures> = {}): PortFigures {
  return {
    name,
    kind: 'vhost-user',
    state: 'running',
    isShut: false,
    totals: { rxPackets: 0, rxBytes: 0, txPackets: 0, txBytes: 0, dropped: 0 },
    drops: {},
    ...changes,
    rates: {
      rxPackets: STILL,
      rxBytes: STILL,
      txPackets: STILL,
      txBytes: STILL,
      dropped: STILL,
      ...changes.rates,
    },
  };
}

export function workerFigures(index: number, busyShare = 0): WorkerFiguresReport {
  return {
    index,
    totals: { packets: 10, sleeps: 0, bursts: [1, 0, 0, 0, 0, 1, 2], collections: 0 },
    rates: {
      packets: [1_000_000, 1, 1],
      busyShare: [busyShare, busyShare, busyShare],
      nsPerPacket: [52.3, null, null],
      packetsPerBurst: [31.6, null, null],
      sleeps: STILL,
    },
  };
}

export function figuresReport(changes: Partial<FiguresReport> = {}): FiguresReport {
  return {
    version: '1.2.3',
    upSeconds: 11_525,
    fdb: { ...NO_FDB, entries: 12 },
    drops: NO_BOOKS.drops,
    ports: [portFigures('vm0'), portFigures('vm1')],
    workers: [workerFigures(0)],
    ...changes,
  };
}
