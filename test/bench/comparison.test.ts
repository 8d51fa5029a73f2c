/** What the benchmark makes of its measurements: near and far, busy time, the limit, and the goals' verdicts. */
import { describe, expect, it } from 'vitest';
import { readCycles, shareBetween } from '../../bench/peers/ovs-cycles.ts';
import { busyNsPerFrame, isLimitedByGenerator } from '../../bench/report/busy.ts';
import { type GoalLine, goalLines } from '../../bench/report/goals.ts';
import { placeOf, placeOfAll } from '../../bench/report/place.ts';
import type { Comparison, ThroughputResult } from '../../bench/report/results.ts';

/** Three rounds: near, far, and one during which the machine changed. */
const THREE_ROUNDS: Comparison = {
  framesPerSecond: {
    ringway: [20e6, 8e6, 10e6],
    other: [10e6, 8e6, 10e6],
    ovs: [10e6, 8e6, 1e6],
  },
  busyShares: { ringway: [0.5, 1, 1], other: [null, null, null], ovs: [1, 1, 1] },
  emptyLookShares: { ringway: [0.2, 0.9, 0.3], ovs: [0.9, 0.9, 0.9] },
  disturbedShares: { ringway: [0, 0, 0], other: [0, 0, 0], ovs: [0, 0, 0] },
  coreRoundTripNs: [
    [105, 110],
    [550, 540],
    [105, 550],
  ],
};
const SMALL: ThroughputResult = { ...THREE_ROUNDS, load: 'macswap-vectorised', frameBytes: 64 };

function goalsOf(throughput: ThroughputResult[]): (wanted: string) => GoalLine | undefined {
  const lines = goalLines({ quick: false, rounds: 3, throughput });
  return (wanted) => lines.find(({ goal }) => goal === wanted);
}

describe('the place of the processors', () => {
  it('is near, far, or mixed when it changed or is unknown', () => {
    expect(THREE_ROUNDS.coreRoundTripNs.map(placeOf)).toEqual(['near', 'far', 'mixed']);
    expect(placeOf([null, null])).toBe('mixed');
  });

  it('is that of all rounds only when they are alike', () => {
    expect(
      placeOfAll([
        [105, 110],
        [100, 120],
      ]),
    ).toBe('near');
    expect(placeOfAll(THREE_ROUNDS.coreRoundTripNs)).toBe('mixed');
    expect(placeOfAll([])).toBe('mixed');
  });
});

describe('busy time', () => {
  it('is the share of the time over its frames', () => {
    expect(busyNsPerFrame(THREE_ROUNDS, 'ringway')).toEqual([25, 125, 100]);
    expect(busyNsPerFrame(THREE_ROUNDS, 'other')).toEqual([null, null, null]);
  });

  it('has the generator as limit when most rounds left it few empty looks', () => {
    expect(isLimitedByGenerator(THREE_ROUNDS, 'ringway')).toBe(true);
    expect(isLimitedByGenerator(THREE_ROUNDS, 'ovs')).toBe(false);
    expect(isLimitedByGenerator(THREE_ROUNDS, 'testpmd')).toBe(false);
  });

  it("comes from Open vSwitch's cycles, without those of its main thread", () => {
    const text = (idle: number, processing: number): string =>
      `pmd thread numa_id 0 core_id 0:\n  packets received: 12\n  avg. subtable lookups per megaflow hit: 0.00\n` +
      `  idle cycles: ${idle} (10.00%)\n  processing cycles: ${processing} (90.00%)\n` +
      `main thread:\n  packets received: 0\n  idle cycles: 7 (1.00%)\n  processing cycles: 9 (1.00%)\n`;
    expect(readCycles(text(100, 300))).toEqual({ idle: 100, processing: 300 });
    expect(shareBetween(readCycles(text(100, 300)), readCycles(text(200, 600)))).toBe(0.75);
    expect(() => readCycles('main thread:\n  packets received: 0\n')).toThrow('no PMD thread');
    expect(() => shareBetween(readCycles(text(1, 1)), readCycles(text(1, 1)))).toThrow('no cycles');
  });
});

describe('goals', () => {
  it('judge the busy time by the rounds of each place', () => {
    const goal = goalsOf([SMALL]);
    expect(goal('macswap, 64 bytes, busy time a frame, near, against OVS-DPDK')).toMatchObject({
      figure: '0.25×, 25.0 against 100.0 ns',
      met: true,
    });
    expect(goal('macswap, 64 bytes, busy time a frame, far, against OVS-DPDK')).toMatchObject({
      figure: '1.00×, 125.0 against 125.0 ns',
      met: false,
    });
  });

  it('ask less of 64-byte frames where the generator is the limit', () => {
    const far = 'macswap, 64 bytes, vectorised path, far, against the other checkout';
    expect(goalsOf([SMALL])(far)).toMatchObject({ target: '≥ 1.00×', met: true });
    const free = { ...SMALL, emptyLookShares: { ringway: [0.9, 0.9, 0.9] } };
    expect(goalsOf([free])(far)).toMatchObject({ target: '≥ 1.03×', met: false });
  });

  it('say nothing of another checkout where there was none', () => {
    const { other: _, ...framesPerSecond } = SMALL.framesPerSecond;
    const lines = goalLines({ quick: false, rounds: 3, throughput: [{ ...SMALL, framesPerSecond }] });
    expect(lines.filter(({ goal }) => goal.includes('other checkout'))).toEqual([]);
  });

  it('leave a goal for near processors unjudged where they were far', () => {
    const setUp = (
      rate: number,
    ): { title: string; framesPerSecond: number[]; disturbedShares: number[] } => ({
      title: '',
      framesPerSecond: [rate],
      disturbedShares: [0],
    });
    const addresses = {
      load: 'embedded' as const,
      coreRoundTripNs: [[550, 550]] as [number, number][],
      base: setUp(10e6),
      scaled: setUp(4e6),
    };
    const lines = goalLines({ quick: false, rounds: 1, scale: { addresses } });
    const goal = lines.find((entry) => entry.goal.startsWith('1,000,000'));
    expect(goal).toMatchObject({ figure: '0.40×, far', met: null });
  });
});
