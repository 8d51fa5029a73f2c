/** The table of the field: figures, rows that were not measured, and results that come as lines of JSON. */
import { describe, expect, it } from 'vitest';
import { parseRowResults, resultLines, type TestbedResults } from '../../bench/testbed/results.ts';
import { ROW_NAMES, type RowResult, titleOf } from '../../bench/testbed/rows.ts';
import { formatBits, testbedLines } from '../../bench/testbed/table.ts';

const MEASURED: RowResult = {
  row: 'vhost-user',
  framesPerSecond: 1_234_567.6,
  tcpBitsPerSecond: 941_234_567,
  accelerator: 'tcg',
};

describe('the table', () => {
  it('shows figures in columns', () => {
    const [titles, line] = testbedLines([MEASURED]);
    expect(line).toBe('vhost-user  vhost-user, 1 queue pair        1,234,568  941 Mbit/s  tcg');
    expect(titles).toBe('row         between the guests        packets/s, 64 B         TCP  accelerator');
  });

  it('shows a dash where there is no TCP and no guest', () => {
    const row: RowResult = {
      row: 'virtio-user',
      framesPerSecond: 5,
      tcpBitsPerSecond: null,
      accelerator: null,
    };
    expect(testbedLines([row])[1]).toMatch(/ 5 +- {2}-$/);
  });

  it('says why a row was not measured', () => {
    const lines = testbedLines([{ row: 'e1000', notMeasured: 'a bridge and taps need root.' }]);
    expect(lines[1]).toMatch(/^e1000 .* - +- {2}not measured: a bridge and taps need root\.$/);
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
    rows: [MEASURED],
    notes: ['A note.'],
  };

  it('names place, length, emulation and notes', () => {
    const text = resultLines(results).join('\n');
    expect(text).toContain('Testbed in containers, windows of 7 s');
    expect(text).toContain('tcg: the guests’ processors are emulated');
    expect(text).toMatch(/A note\.$/);
  });

  it('does not speak of emulation when the guests ran by KVM', () => {
    const lines = resultLines({ ...results, place: 'host', rows: [{ ...MEASURED, accelerator: 'kvm' }] });
    expect(lines.join('\n')).not.toContain('emulated');
    expect(lines.join('\n')).toContain('Testbed without containers');
  });
});

describe('results as lines', () => {
  it('come back as they were', () => {
    const rows: RowResult[] = [MEASURED, { row: 'e1000', notMeasured: 'no reason' }];
    expect(parseRowResults(`${rows.map((row) => JSON.stringify(row)).join('\n\n')}\n`)).toEqual(rows);
  });

  it.each([
    '{"row":"nothing","framesPerSecond":1}',
    '{"row":"e1000"}',
    '{"row":"e1000","framesPerSecond":"1"}',
  ])('refuses %s', (line) => {
    expect(() => parseRowResults(line)).toThrow('no result of a row');
  });
});
