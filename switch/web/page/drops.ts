/** Why frames were dropped, over time and since the start. In the browser. */
import { html } from 'htm/preact';
import type { VNode } from 'preact';
import { Chart } from './chart.ts';
import { grouped, short } from './format.ts';
import { Table } from './parts.ts';
import type { State } from './store.ts';

/** Reasons that get a line; the others are in the table. */
const LINES_MAX = 5;

type Row = { readonly name: string; readonly total: number; readonly rate: number; readonly ports: string };

export function Drops({ state }: { state: State }): VNode {
  const { figures, history } = state;
  const totals = Object.entries(figures?.drops ?? {}).filter(([, count]) => count > 0);
  const inHistory = new Map<string, number>();
  for (const { drops } of history)
    for (const [name, count] of Object.entries(drops))
      inHistory.set(name, (inHistory.get(name) ?? 0) + count);
  const shown = [...inHistory].toSorted(([, a], [, b]) => b - a).slice(0, LINES_MAX);
  const rows = totals.map(([name, total]): Row => {
    const ports = (figures?.ports ?? []).filter(({ drops }) => (drops[name as never] ?? 0) > 0);
    return {
      name,
      total,
      rate: history.at(-1)?.drops[name] ?? 0,
      ports: ports.map((port) => port.name).join(', '),
    };
  });
  const lines = shown.map(([name]) => ({
    label: name,
    values: history.map(({ drops }) => drops[name] ?? 0),
  }));
  return html`
    ${
      lines.length > 0 &&
      html`<section aria-labelledby="drops-time"><h3 id="drops-time">Frames dropped a second</h3>
      <${Chart} times=${history.map(({ atSeconds }) => atSeconds)} lines=${lines}
        summary=${`Dropped over the last minutes: ${shown.map(([name]) => name).join(', ')}`} /></section>`
    }
    <${Table} label="Drops by reason" rows=${rows} keyOf=${({ name }: Row) => name} empty="Nothing was dropped." columns=${[
      { title: 'Reason', of: ({ name }: Row) => html`<code>${name}</code>`, by: ({ name }: Row) => name },
      {
        title: 'Now, a second',
        isNumber: true,
        of: (row: Row) => short(row.rate),
        by: (row: Row) => row.rate,
      },
      {
        title: 'Since the start',
        isNumber: true,
        of: ({ total }: Row) => grouped(total),
        by: ({ total }: Row) => total,
      },
      { title: 'Ports', of: ({ ports }: Row) => ports },
    ]} />
    <p class="hint">What each name means, and what to do about it: <code>docs/operating.md</code>, “Why frames were dropped”; <code>ringway top</code> tells it too.</p>`;
}
