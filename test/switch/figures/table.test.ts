/** The table of figures holds to Prometheus' rules. */
import { describe, expect, it } from 'vitest';
import { FIGURES, metricName } from '../../../switch/figures/table.ts';
import { DROP_REASONS } from '../../../switch/l2/drop-reasons.ts';
import { PORT_COUNTS } from '../../../switch/l2/port-counts.ts';
import { portSnapshot, snapshot, workerSnapshot } from './snapshots.ts';

const NAMES = FIGURES.map(metricName);
const BY_NAME = new Map(FIGURES.map((figure) => [metricName(figure), figure]));

/** Everything counts. */
const FULL = snapshot({
  ports: [portSnapshot('vm0', { counts: new Float64Array(PORT_COUNTS).fill(2) })],
  workers: [workerSnapshot(0), workerSnapshot(1)],
});

describe('the table of figures', () => {
  it('has names as Prometheus wants them, each once', () => {
    expect(new Set(NAMES).size).toBe(NAMES.length);
    for (const [name, { type, unit }] of BY_NAME) {
      expect(name).toMatch(/^ringway(_[a-z]+)+$/);
      expect(name.endsWith('_total')).toBe(type === 'counter');
      if (unit !== null) expect(name).toContain(`_${unit}`);
    }
  });

  it('says of each in a sentence what it is', () => {
    for (const { help } of FIGURES) expect(help).toMatch(/^[A-Z].*\.$/);
    for (const { help } of FIGURES) expect(help).not.toMatch(/[\n\\]/);
  });

  it.each(FIGURES.map((figure) => [metricName(figure), figure] as const))(
    '%s has the labels that it names, in order',
    (_name, figure) => {
      const samples = [...figure.samples(FULL)];
      expect(samples.length).toBeGreaterThan(0);
      for (const sample of samples) {
        const last = 'label' in sample && sample.label !== undefined ? [sample.label[0]] : [];
        expect([...Object.keys(sample.labels), ...last]).toEqual(figure.labels);
      }
    },
  );

  it('tells of every reason of a drop, of all ports from the beginning and of each port once there is one', () => {
    const reasonsOf = (name: string, all = FULL): string[] => {
      const figure = BY_NAME.get(name);
      if (figure === undefined || figure.type === 'histogram') expect.fail(`there is no ${name}`);
      return [...figure.samples(all)].map(({ label }) => label?.[1] ?? '');
    };
    const all = DROP_REASONS.map(({ name }) => name);
    expect(reasonsOf('ringway_drops_packets_total')).toEqual(all);
    expect(reasonsOf('ringway_interface_drops_packets_total')).toEqual(all);
    expect(reasonsOf('ringway_interface_drops_packets_total', snapshot())).toEqual([]);
  });
});
