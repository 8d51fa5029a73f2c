/** The table of the field: figures, rows that were not measured, and results that come as lines of JSON. */
import { describe, expect, it } from 'vitest';
import { parseRowResults, resultLines, type TestbedResults } from '../../bench/testbed/results.ts';
import { measuredRow, ROW_NAMES, type RowResult, type Sample, titleOf } from '../../bench/testbed/rows.ts';
import { formatBits, testbedLines } from '../../bench/testbed/table.ts';

const SAMPLE: Sample = { framesPerSecond: 1_234_567.6, tcpBitsPerSecond: 941_234_567, switchCpus: 0.254 };
const MEASURED = measuredRow('vhost-user', 'tcg', [SAMPLE]);

describe('the table', () => {
  it('shows figures in columns', () => {
    const [titles, line] = testbedLines([MEASURED]);
    expect(line).toBe('vhost-user  vhost-user, 1 queue pair        1,234,568  941 Mbit/s      25.4 %  tcg');
    expect(titles).toBe(
      'row         between the guests        packets/s, 64 B         TCP  switch CPU  accelerator',
    );
  });

  it('shows a dash where there is no TCP and no guest', () => {
    const sample: Sample = { framesPerSecond: 5, tcpBitsPerSecond: null, switchCpus: null };
    expect(testbedLines([measuredRow('virtio-user', null, [sample])])[1]).toMatch(/ 5 +- +- {2}-$/);
  });

  it('says why a row was not measured', () => {
    const lines = testbedLines([{ row: 'e1000', notMeasured: 'a bridge and taps need root.' }]);
    expect(lines[1]).toMatch(/^e1000 .* - +- +- {2}not measured: a bridge and taps need root\.$/);
  });

  it('has a title of its own for every row', () => {
    expect(new Set(ROW_NAMES.map(titleOf)).size).toBe(ROW_NAMES.length);
  });

  it.each([
    [0, '0 Mbit/s'],
    [1_499_999, '1 Mbit/s'],
    [999_400_000, '999 Mbit/s'],
    [1e9, '1.00 Gbit/s'],
    [12_345_678_901, '12.35 Gbit/s'],
  ])('%d bit/s is %s', (bits, text) => {
    expect(formatBits(bits)).toBe(text);
  });
});

describe('what is printed', () => {
  const results: TestbedResults = {
    facts: {
      date: '2026-01-02',
      ringway: '1.0.0',
      cpu: 'CPU',
      cores: 2,
      memoryGiB: 4,
      hypervisor: 'none seen',
      kernel: '6.1.0',
      node: 'v24',
      dpdk: null,
      openVSwitch: null,
      qemu: '7.2',
    },
    place: 'containers',
    seconds: 7,
    rounds: 1,
    rows: [MEASURED],
    notes: ['A note.'],
  };

  it('names place, length, emulation and notes', () => {
    const text = resultLines(results).join('\n');
    expect(text).toMatch(/^Testbed in containers, windows of 7 s$/m);
    expect(text).toContain('tcg: the guests’ processors are emulated');
    expect(text).toMatch(/A note\.$/);
  });

  it('says that figures are medians when there was more than one round', () => {
    const text = resultLines({ ...results, rounds: 5 }).join('\n');
    expect(text).toMatch(/^Testbed in containers, windows of 7 s, medians of 5 rounds$/m);
  });

  it('does not speak of emulation when the guests ran by KVM', () => {
    const lines = resultLines({ ...results, place: 'host', rows: [{ ...MEASURED, accelerator: 'kvm' }] });
    expect(lines.join('\n')).not.toContain('emulated');
    expect(lines.join('\n')).toContain('Testbed without containers');
  });
});

describe('the figures of a row', () => {
  it('are the medians of its samples, each by itself', () => {
    const of = (framesPerSecond: number, tcpBitsPerSecond: number): Sample => ({
      ...SAMPLE,
      framesPerSecond,
      tcpBitsPerSecond,
    });
    const samples = [of(1, 30), of(3, 10), of(2, 20)];
    expect(measuredRow('vhost-user', 'kvm', samples)).toEqual({
      row: 'vhost-user',
      accelerator: 'kvm',
      framesPerSecond: 2,
      tcpBitsPerSecond: 20,
      switchCpus: 0.254,
      samples,
    });
  });

  it('are none where no sample has one', () => {
    const samples = [SAMPLE, SAMPLE].map((sample) => ({ ...sample, framesPerSecond: null }));
    expect(measuredRow('vhost-user', 'kvm', samples)).toMatchObject({
      framesPerSecond: null,
      tcpBitsPerSecond: 941_234_567,
    });
  });
});

describe('results as lines', () => {
  it('come back as they were', () => {
    const rows: RowResult[] = [MEASURED, { row: 'e1000', notMeasured: 'no reason' }];
    expect(parseRowResults(`${rows.map((row) => JSON.stringify(row)).join('\n\n')}\n`)).toEqual(rows);
  });

  it.each(['{"row":"nothing","samples":[]}', '{"row":"e1000"}', '{"row":"e1000","samples":"1"}'])(
    'refuses %s',
    (line) => {
      expect(() => parseRowResults(line)).toThrow('no result of a row');
    },
  );
});
