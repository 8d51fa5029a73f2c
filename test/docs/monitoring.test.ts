/** The table of docs/monitoring.md, the dashboard and the alert rules beside it hold to the table of figures. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { FIGURES, type Figure, metricName } from '../../switch/figures/table.ts';

const docs = (name: string): string => readFileSync(new URL(`../../docs/${name}`, import.meta.url), 'utf8');
const BY_NAME = new Map(FIGURES.map((figure) => [metricName(figure), figure]));

/** Its line in docs/monitoring.md. */
function rowOf(figure: Figure): string {
  return `| \`${metricName(figure)}\` | ${figure.type} | ${figure.labels.join(', ')} | ${figure.help} |`;
}

describe('docs/monitoring.md', () => {
  it('has the whole table, and nothing else in it', () => {
    const rows = docs('monitoring.md')
      .split('\n')
      .filter((line) => /^\| `ringway_\w+` \| (counter|gauge|histogram) \|/.test(line));
    expect(rows).toEqual(FIGURES.map(rowOf));
  });
});

describe.each(['monitoring/dashboard.json', 'monitoring/alerts.yaml', 'monitoring.md'])('docs/%s', (file) => {
  const text = docs(file);

  it('names only figures that there are', () => {
    const named = [...text.matchAll(/\bringway_[a-z_]+[a-z]/g)].map(([name]) => name);
    expect(named.length).toBeGreaterThan(0);
    const parts = ['_bucket', '_sum', '_count'];
    const isThere = (name: string): boolean =>
      BY_NAME.has(name) ||
      parts.some(
        (part) => name.endsWith(part) && BY_NAME.get(name.slice(0, -part.length))?.type === 'histogram',
      );
    expect(named.filter((name) => !isThere(name))).toEqual([]);
  });

  it('selects by labels that they have', () => {
    const selections = [...text.matchAll(/\b(ringway_[a-z_]+[a-z])\{([^}]*)\}/g)];
    for (const [, name, selection] of selections) {
      const labels =
        BY_NAME.get(name.replace(/_(bucket|sum|count)$/, ''))?.labels ?? BY_NAME.get(name)?.labels;
      const asked = [...selection.matchAll(/(\w+)\s*(?:=~|!~|!=|=)/g)].map(([, label]) => label);
      for (const label of asked) expect(['job', 'instance', ...(labels ?? [])]).toContain(label);
    }
  });
});
