/** Text in columns, for people. */
import { printable, printableJson } from '../../src/host/printable.ts';

export type Column = { readonly title: string; readonly align: 'left' | 'right' };

/** The title line and one line for each row, without trailing blanks. */
export function formatTable(columns: readonly Column[], rows: readonly (readonly string[])[]): string[] {
  const titles = columns.map(({ title }) => title);
  const lines = [titles, ...rows].map((cells) => cells.map(printable));
  const widths = columns.map((_, i) => Math.max(...lines.map((cells) => cells[i].length)));
  return lines.map((cells) => {
    const padded = columns.map(({ align }, i) =>
      align === 'left' ? cells[i].padEnd(widths[i]) : cells[i].padStart(widths[i]),
    );
    return padded.join('  ').trimEnd();
  });
}

const COUNT_FORMAT = new Intl.NumberFormat('en');

/** 1234567 as 1,234,567. */
export function formatCount(count: number): string {
  return COUNT_FORMAT.format(count);
}

/** A value of the control API as JSON, on lines of its own. */
export function jsonText(value: unknown): string {
  return `${printableJson(JSON.stringify(value, null, 2))}\n`;
}
