/** What is kept of counters: rates, busy time, and snapshots of made-up ports and workers. */
import { beforeEach, describe, expect, it } from 'vitest';
import type { Port, PortQueue } from '../../../src/port/contract.ts';
import {
  COUNT_BYTES,
  COUNT_CALLS,
  COUNT_FRAMES,
  COUNT_LOST,
  COUNT_SUPPRESSED,
  QueueState,
  queueStates,
} from '../../../src/queue/state.ts';
import { NO_BOOKS } from '../../../switch/control/books.ts';
import { FiguresKeeper } from '../../../switch/figures/keeper.ts';
import { droppedBy } from '../../../switch/figures/table.ts';
import { DROP } from '../../../switch/l2/drop-reasons.ts';
import { PORT_COUNTS } from '../../../switch/l2/port-counts.ts';
import type { WorkerCounts } from '../../../switch/worker/worker-figures.ts';
import { NO_FDB } from './snapshots.ts';

const states = queueStates(4);
const counts = new Float64Array(PORT_COUNTS);
let worker: WorkerCounts;
let keeper: FiguresKeeper;
let port: Pick<Port, 'id' | 'name' | 'kind' | 'states' | 'status' | 'queues' | 'waitingIn'>;

function queue(index: number, direction: PortQueue['direction']): PortQueue {
  return { index, direction, size: 256, started: true, enabled: true, inUse: true, reason: null };
}

function count(queueIndex: number, at: number, value: number): void {
  new QueueState(states, queueIndex).counts[at] = value;
}

beforeEach(() => {
  new Uint8Array(states).fill(0);
  counts.fill(0);
  worker = {
    atMs: 0,
    beganMs: -1,
    bursts: [0, 0, 0, 0, 0, 0, 0],
    frames: 0,
    sleeps: 0,
    sleptMs: 0,
    emptyTurns: 0,
    emptyTurnNs: 10,
    collections: 0,
    collectedMs: 0,
  };
  port = {
    id: 7,
    name: 'vm0',
    kind: 'vhost-user',
    states,
    status: { state: 'running', reason: null },
    queues: [
      queue(0, 'egress'),
      queue(1, 'ingress'),
      queue(2, 'egress'),
      queue(3, 'ingress'),
      queue(4, 'control'),
    ],
    waitingIn: (index) => (index === 1 ? 5 : null),
  };
  keeper = new FiguresKeeper({
    ports: () => [port as Port],
    isShut: () => false,
    mtuOf: () => 1500,
    countsOf: () => counts.slice(),
    workers: () => [worker],
    plugins: () => [],
    fdb: () => NO_FDB,
    gone: () => NO_BOOKS,
  });
});

describe('a snapshot', () => {
  it('has of a port the sum of its queues, and each of them', () => {
    count(1, COUNT_FRAMES, 10);
    count(3, COUNT_FRAMES, 1);
    count(3, COUNT_BYTES, 60);
    count(2, COUNT_FRAMES, 4);
    count(2, COUNT_CALLS, 3);
    count(2, COUNT_SUPPRESSED, 2);
    count(2, COUNT_LOST, 9);
    counts[DROP.noBuffer] = 1;
    counts[DROP.samePort] = 2;
    const { counters, drops } = keeper.snapshot('1').totals;
    expect(counters).toMatchObject({ ingressFrames: 11, ingressBytes: 60, egressFrames: 4 });
    expect([drops.notTaken, drops.noBuffer, drops.samePort]).toEqual([9, 1, 2]);
    const [{ queues, ...snapshot }] = keeper.snapshot('1').ports;
    expect(snapshot).toMatchObject({ rxPackets: 11, rxBytes: 60, txPackets: 4, txBytes: 0, mtu: 1500 });
    expect(snapshot.counts[DROP.notTaken]).toBe(9);
    expect(droppedBy({ ...snapshot, queues }, 'receiver')).toBe(10);
    expect(droppedBy({ ...snapshot, queues }, 'sender')).toBe(2);
    expect(queues.map(({ labels }) => `${labels.direction} ${labels.queue}`)).toEqual([
      'tx 0',
      'rx 0',
      'tx 1',
      'rx 1',
    ]);
    expect(queues[1]).toMatchObject({ frames: 10, waiting: 5 });
    expect(queues[2]).toMatchObject({ frames: 4, signals: 3, suppressed: 2, waiting: null, size: 256 });
  });

  it('has of a worker what is neither sleep nor turns without a frame as work, also when its counter starts again', () => {
    const busySeconds = (): number => keeper.snapshot('1').workers[0].busySeconds;
    worker = { ...worker, emptyTurns: 2 ** 32 - 1 };
    expect(busySeconds()).toBe(0);
    // A second, of which it slept 200 ms and turned 30 million times for nothing.
    worker = { ...worker, atMs: 1000, sleptMs: 200, emptyTurns: 29_999_999 };
    expect(busySeconds()).toBeCloseTo(0.5);
    expect(keeper.snapshot('1').workers[0].emptyTurns).toBe(30_000_000);
    // More idle than time: an empty turn was cheaper than it seemed.
    worker = { ...worker, atMs: 1001, emptyTurns: 30_999_999 };
    expect(busySeconds()).toBeCloseTo(0.5);
  });
});

it('does not take for work that a worker is started', () => {
  worker = { ...worker, beganMs: 0 };
  const busySeconds = (): number => keeper.snapshot('1').workers[0].busySeconds;
  busySeconds();
  worker = { ...worker, atMs: 500 };
  expect(busySeconds()).toBe(0);
  worker = { ...worker, beganMs: 900, atMs: 1000 };
  expect(busySeconds()).toBeCloseTo(0.1);
});

describe('the report', () => {
  it('has rates of ports, and the reasons of drops that there were', () => {
    keeper.tick();
    count(1, COUNT_FRAMES, 1000);
    counts[DROP.samePort] = 10;
    keeper.tick();
    const [figures] = keeper.report('1').ports;
    const [perSecond] = figures.rates.rxPackets;
    expect(perSecond).toBeGreaterThan(0);
    expect(figures.rates.dropped[0] / perSecond).toBeCloseTo(0.01);
    expect(figures.rates.txPackets).toEqual([0, 0, 0]);
    expect(figures.drops).toEqual({ samePort: 10 });
    expect(figures.totals).toMatchObject({ rxPackets: 1000, dropped: 10 });
  });

  it('has what a frame costs a worker, and nothing where there was none', () => {
    keeper.tick();
    worker = { ...worker, atMs: 1000, frames: 2_000_000, bursts: [0, 0, 0, 0, 0, 100_000, 0] };
    keeper.tick();
    const [{ rates }] = keeper.report('1').workers;
    expect(rates.nsPerPacket[0]).toBeCloseTo(500);
    expect(rates.packetsPerBurst[0]).toBeCloseTo(20);
    for (let i = 0; i < 2; i++) keeper.tick();
    expect(keeper.report('1').workers[0].rates.nsPerPacket[0]).toBeNull();
  });

  it('knows nothing more of a port that is gone', () => {
    keeper.tick();
    count(1, COUNT_FRAMES, 1000);
    keeper.tick();
    keeper.forgetPort(7);
    expect(keeper.report('1').ports[0].rates.rxPackets).toEqual([0, 0, 0]);
  });
});
