/** How the tables write titles, columns and figures. Pure. */
import type { Column } from '../../switch/cli/table.ts';
import { type Spread, spreadOf } from '../statistics.ts';

export const NOTHING = '-';

/** Median of the ratios, with their spread. */
export function formatRatio({ median, min, max }: Spread): string {
  return min === max
    ? `${median.toFixed(2)}×`
    : `${median.toFixed(2)}× (${min.toFixed(2)} to ${max.toFixed(2)})`;
}

/** Columns from titles that start with `<` (left) or `>` (right). */
export function columnsOf(...titles: string[]): Column[] {
  return titles.map((text) => ({ title: text.slice(1), align: text.startsWith('>') ? 'right' : 'left' }));
}

export function title(text: string): string[] {
  return ['', text, '='.repeat(text.length)];
}

/** The worst of the rounds: time that the switch or the generator had to wait for its processor. */
export function percent(share: number): string {
  return `${(share * 100).toFixed(1)} %`;
}

export function range(values: readonly number[]): string {
  if (values.length === 0) return NOTHING;
  const { min, max } = spreadOf(values);
  return `${min} to ${max}`;
}

export function mpps(framesPerSecond: number): string {
  return (framesPerSecond / 1e6).toFixed(2);
}
