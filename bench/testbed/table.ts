/** The table of the field as aligned text. Pure: answers lines. */
import { type Column, formatCount, formatTable } from '../../switch/cli/table.ts';
import { type RowResult, titleOf } from './rows.ts';

const COLUMNS: readonly Column[] = [
  { title: 'row', align: 'left' },
  { title: 'between the guests', align: 'left' },
  { title: 'packets/s, 64 B', align: 'right' },
  { title: 'TCP', align: 'right' },
  { title: 'accelerator', align: 'left' },
];
const NOTHING = '-';

export function testbedLines(results: readonly RowResult[]): string[] {
  const rows = results.map((result) =>
    'notMeasured' in result
      ? [result.row, titleOf(result.row), NOTHING, NOTHING, `not measured: ${result.notMeasured}`]
      : [
          result.row,
          titleOf(result.row),
          formatCount(Math.round(result.framesPerSecond)),
          result.tcpBitsPerSecond === null ? NOTHING : formatBits(result.tcpBitsPerSecond),
          result.accelerator ?? NOTHING,
        ],
  );
  return formatTable(COLUMNS, rows);
}

/** 941234567 as "941 Mbit/s", 12345678901 as "12.35 Gbit/s". */
export function formatBits(bitsPerSecond: number): string {
  return bitsPerSecond >= 1e9
    ? `${(bitsPerSecond / 1e9).toFixed(2)} Gbit/s`
    : `${(bitsPerSecond / 1e6).toFixed(0)} Mbit/s`;
}
