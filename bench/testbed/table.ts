/** The table of the field as aligned text. Pure: answers lines. */
import { type Column, formatCount, formatTable } from '../../switch/cli/table.ts';
import { percent } from '../report/text.ts';
import { type RowResult, type Sample, titleOf } from './rows.ts';

const COLUMNS: readonly Column[] = [
  { title: 'row', align: 'left' },
  { title: 'between the guests', align: 'left' },
  { title: 'packets/s, 64 B', align: 'right' },
  { title: 'TCP', align: 'right' },
  { title: 'switch CPU', align: 'right' },
  { title: 'accelerator', align: 'left' },
];
const NOTHING = '-';

export function testbedLines(results: readonly RowResult[]): string[] {
  const rows = results.map((result) => {
    const names = [result.row, titleOf(result.row)];
    if ('notMeasured' in result) {
      return [...names, NOTHING, NOTHING, NOTHING, `not measured: ${result.notMeasured}`];
    }
    const { frames, tcp, switchShare } = figureTexts(result);
    return [...names, frames, tcp, switchShare, result.accelerator ?? NOTHING];
  });
  return formatTable(COLUMNS, rows);
}

/** A dash for what there is not. */
export function figureTexts({ framesPerSecond, tcpBitsPerSecond, switchCpus }: Sample): {
  readonly frames: string;
  readonly tcp: string;
  readonly switchShare: string;
} {
  return {
    frames: framesPerSecond === null ? NOTHING : formatCount(Math.round(framesPerSecond)),
    tcp: tcpBitsPerSecond === null ? NOTHING : formatBits(tcpBitsPerSecond),
    switchShare: switchCpus === null ? NOTHING : percent(switchCpus),
  };
}

/** 941234567 as "941 Mbit/s", 12345678901 as "12.35 Gbit/s". */
export function formatBits(bitsPerSecond: number): string {
  return bitsPerSecond >= 1e9
    ? `${(bitsPerSecond / 1e9).toFixed(2)} Gbit/s`
    : `${(bitsPerSecond / 1e6).toFixed(0)} Mbit/s`;
}
