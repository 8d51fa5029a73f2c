/** Parts that several views are made of. In the browser. */
import { html } from 'htm/preact';
import type { ComponentChildren, VNode } from 'preact';
import { useEffect, useState } from 'preact/hooks';
import { short } from './format.ts';

/** A number for a glance, with what it is. */
export function Figure({ label, value, unit = '' }: { label: string; value: string; unit?: string }): VNode {
  return html`<div class="figure"><dt>${label}</dt><dd>${value}<small>${unit === '' ? '' : ` ${unit}`}</small></dd></div>`;
}

const WORD_OF_STATE: Readonly<Record<string, string>> = {
  running: 'ok',
  waiting: 'wait',
  connecting: 'wait',
  failed: 'bad',
};

/** A state, told by a word and besides by a colour. */
export function Badge({ state, isShut = false }: { state: string; isShut?: boolean }): VNode {
  return html`<span class=${`badge ${isShut ? 'bad' : (WORD_OF_STATE[state] ?? 'wait')}`}>${isShut ? 'shut' : state}</span>`;
}

/** Text that is meant to be copied as it stands. */
export function Copyable({ text, label }: { text: string; label: string }): VNode {
  const [isCopied, setCopied] = useState(false);
  const copy = async (): Promise<void> => {
    await navigator.clipboard.writeText(text);
    setCopied(true);
    setTimeout(() => setCopied(false), 2000);
  };
  return html`<figure class="copyable">
    <figcaption>${label} <button type="button" onClick=${copy}>${isCopied ? 'Copied' : 'Copy'}</button></figcaption>
    <pre tabindex="0">${text}</pre>
  </figure>`;
}

export type Column<Row> = {
  readonly title: string;
  readonly isNumber?: boolean;
  readonly of: (row: Row) => ComponentChildren;
  /** What rows are sorted by; left out: they are not sorted by it. */
  readonly by?: (row: Row) => number | string;
};

/** A table that is sorted by a click on a title. */
export function Table<Row>(props: {
  readonly label: string;
  readonly columns: readonly Column<Row>[];
  readonly rows: readonly Row[];
  readonly keyOf: (row: Row) => string;
  readonly empty: string;
}): VNode {
  const { label, columns, rows, keyOf, empty } = props;
  const [sorting, setSorting] = useState<{ at: number; isUp: boolean }>({ at: -1, isUp: true });
  const by = columns[sorting.at]?.by;
  const sorted =
    by === undefined ? rows : rows.toSorted((a, b) => compare(by(a), by(b)) * (sorting.isUp ? 1 : -1));
  if (rows.length === 0) return html`<p class="hint">${empty}</p>`;
  const sort = (at: number): void =>
    setSorting((old) => ({ at, isUp: old.at === at ? !old.isUp : columns[at].isNumber !== true }));
  return html`<div class="scroll" tabindex="0" role="region" aria-label=${label}>
    <table>
      <thead><tr>${columns.map((column, at) => {
        const order = sorting.at !== at ? 'none' : sorting.isUp ? 'ascending' : 'descending';
        return html`<th scope="col" class=${column.isNumber === true ? 'number' : ''} aria-sort=${order}>
          ${column.by === undefined ? column.title : html`<button type="button" onClick=${() => sort(at)}>${column.title}</button>`}
        </th>`;
      })}</tr></thead>
      <tbody>${sorted.map(
        (row) =>
          html`<tr key=${keyOf(row)}>${columns.map(
            (column) =>
              html`<td class=${column.isNumber === true ? 'number' : ''} data-title=${column.title}>${column.of(row)}</td>`,
          )}</tr>`,
      )}</tbody>
    </table>
  </div>`;
}

function compare(a: number | string, b: number | string): number {
  if (typeof a === 'number' && typeof b === 'number') return a - b;
  return String(a).localeCompare(String(b), 'en', { numeric: true });
}

/** A part of a whole as a bar, with the number beside it. */
export function Meter({ label, share }: { label: string; share: number }): VNode {
  return html`<div class="meter"><span>${label}</span>
    <meter min="0" max="1" value=${share} aria-label=${label}></meter><span class="number">${Math.round(share * 100)} %</span></div>`;
}

export const rate = (list: readonly number[] | undefined): string => short(list?.[0] ?? 0);

/** As style.css has it. */
const NARROW = '(max-width: 640px)';

/** Whether there is room for one column only, as on a phone; also when that changes. */
export function useIsNarrow(): boolean {
  const [isNarrow, setNarrow] = useState(() => matchMedia(NARROW).matches);
  useEffect(() => {
    const query = matchMedia(NARROW);
    const look = (): void => setNarrow(query.matches);
    query.addEventListener('change', look);
    look();
    return () => query.removeEventListener('change', look);
  }, []);
  return isNarrow;
}
