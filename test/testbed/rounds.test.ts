/** The order in which rows are measured, paused and ended, and what becomes of one that fails. Rows of paper. */
import { describe, expect, it } from 'vitest';
import { measureRounds, type StandingRow } from '../../bench/testbed/rounds.ts';
import type { RowName, RowResult, Sample } from '../../bench/testbed/rows.ts';

type Fault = 'start' | 'measure' | 'pause' | 'resume';

class Stage {
  /** "start vhost-user", in the order in which it happened. */
  readonly events: string[] = [];
  readonly notes: string[] = [];
  readonly #faults: Map<string, number>;
  #figure = 0;

  /** `faults`: what fails at its nth time, counted from 1, such as ['measure vhost-user', 2]. */
  constructor(faults: readonly (readonly [`${Fault} ${RowName}`, number])[] = []) {
    this.#faults = new Map(faults);
  }

  measure(names: readonly RowName[], count: number): Promise<RowResult[]> {
    return measureRounds(names, {
      count,
      start: (row) => this.#start(row),
      measured: (round, row, { tcpBitsPerSecond }) => {
        this.events.push(`round ${round}: ${row} ${tcpBitsPerSecond}`);
      },
      note: (text) => this.notes.push(text),
    });
  }

  timesOf(event: string): number {
    return this.events.filter((other) => other === event).length;
  }

  async #start(row: RowName): Promise<StandingRow> {
    this.#does('start', row);
    return {
      accelerator: 'tcg',
      measure: async (): Promise<Sample> => {
        this.#does('measure', row);
        return { framesPerSecond: null, tcpBitsPerSecond: ++this.#figure, switchCpus: null };
      },
      pause: async () => this.#does('pause', row),
      resume: async () => this.#does('resume', row),
      end: async () => {
        this.events.push(`end ${row}`);
      },
    };
  }

  #does(what: Fault, row: RowName): void {
    const event = `${what} ${row}` as const;
    this.events.push(event);
    if (this.timesOf(event) === this.#faults.get(event)) throw new Error(`no ${event}\nand more`);
  }
}

const tcpOf = (result: RowResult): unknown =>
  'samples' in result ? result.samples.map((sample) => sample.tcpBitsPerSecond) : result.notMeasured;

describe('rounds', () => {
  it('measure one row after the other, each as often, and keep a row that waits paused', async () => {
    const stage = new Stage();
    const results = await stage.measure(['vhost-user', 'ovs-dpdk'], 3);
    expect(stage.events).toEqual([
      ...['start vhost-user', 'measure vhost-user', 'round 1: vhost-user 1', 'pause vhost-user'],
      ...['start ovs-dpdk', 'measure ovs-dpdk', 'round 1: ovs-dpdk 2', 'pause ovs-dpdk'],
      ...['resume vhost-user', 'measure vhost-user', 'round 2: vhost-user 3', 'pause vhost-user'],
      ...['resume ovs-dpdk', 'measure ovs-dpdk', 'round 2: ovs-dpdk 4', 'pause ovs-dpdk'],
      ...['resume vhost-user', 'measure vhost-user', 'round 3: vhost-user 5', 'end vhost-user'],
      ...['resume ovs-dpdk', 'measure ovs-dpdk', 'round 3: ovs-dpdk 6', 'end ovs-dpdk'],
    ]);
    expect(results.map(tcpOf)).toEqual([
      [1, 3, 5],
      [2, 4, 6],
    ]);
    expect(results[0]).toMatchObject({ row: 'vhost-user', accelerator: 'tcg', tcpBitsPerSecond: 3 });
    expect(stage.notes).toEqual([]);
  });

  it('end a row at once when there is one round only', async () => {
    const stage = new Stage();
    await stage.measure(['vhost-user', 'ovs-dpdk'], 1);
    expect(stage.events.indexOf('end vhost-user')).toBeLessThan(stage.events.indexOf('start ovs-dpdk'));
    expect(stage.events.some((event) => event.startsWith('pause'))).toBe(false);
  });

  it('measure a row that is named twice as two', async () => {
    const results = await new Stage().measure(['vhost-user', 'vhost-user'], 2);
    expect(results.map(tcpOf)).toEqual([
      [1, 3],
      [2, 4],
    ]);
  });
});

describe('a row that fails', () => {
  it('to start is not tried again, and the others are measured', async () => {
    const stage = new Stage([['start ovs-dpdk', 1]]);
    const results = await stage.measure(['ovs-dpdk', 'vhost-user'], 2);
    expect(results.map(tcpOf)).toEqual(['no start ovs-dpdk', [1, 2]]);
    expect(stage.timesOf('start ovs-dpdk')).toBe(1);
    expect(stage.timesOf('end ovs-dpdk')).toBe(0);
    expect(stage.notes).toEqual([]);
  });

  it.each([
    ['measure', [1, 2]],
    ['resume', [1, 2]],
    ['pause', [1, 2, 3]],
  ] as const)('to %s is started anew in the next round', async (what, samples) => {
    const stage = new Stage([[`${what} vhost-user`, what === 'measure' ? 2 : 1]]);
    const [result] = await stage.measure(['vhost-user'], 3);
    expect(tcpOf(result!)).toEqual(samples);
    expect(stage.timesOf('start vhost-user')).toBe(2);
    expect(stage.timesOf('end vhost-user')).toBe(2);
    const lost = 3 - samples.length;
    const note = `vhost-user: ${lost} of 3 rounds failed: no ${what} vhost-user`;
    expect(stage.notes).toEqual(lost === 0 ? [] : [note]);
  });

  it('in every round says why', async () => {
    const stage = new Stage([['measure vhost-user', 1]]);
    const [result] = await stage.measure(['vhost-user'], 1);
    expect(result).toEqual({ row: 'vhost-user', notMeasured: 'no measure vhost-user' });
    expect(stage.events.at(-1)).toBe('end vhost-user');
  });
});
