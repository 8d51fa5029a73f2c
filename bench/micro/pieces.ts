/**
 * What the benchmarks of inner pieces share: groups of ways to do the same thing, timed by mitata, reported
 * for one operation. With `--json` the results go to standard output for bench/scenarios/micro.ts; with `--quick` only the first
 * piece is measured.
 */
import { bench, do_not_optimize, group, run } from 'mitata';
import type { MicroResult } from '../report/results.ts';
import { microLines } from '../report/table.ts';

export type Piece = {
  readonly title: string;
  /** Operations that one call of a way does. */
  readonly operations: number;
  /** By name, Ringway's way first. */
  readonly ways: Readonly<Record<string, () => unknown>>;
};

type Run = { readonly stats?: { readonly p50: number } };
type Trial = { readonly runs: readonly Run[] };

export async function measurePieces(all: readonly Piece[]): Promise<void> {
  const pieces = process.argv.includes('--quick') ? all.slice(0, 1) : all;
  for (const { title, ways } of pieces) {
    group(title, () => {
      for (const [name, way] of Object.entries(ways)) bench(name, () => do_not_optimize(way()));
    });
  }
  const { benchmarks } = (await run({ format: 'quiet', throw: true })) as unknown as { benchmarks: Trial[] };
  let next = 0;
  const results: MicroResult[] = pieces.map(({ title, operations, ways }) => ({
    group: title,
    entries: Object.keys(ways).map((name) => ({
      name,
      ns: benchmarks[next++].runs[0].stats!.p50 / operations,
    })),
  }));
  const text = process.argv.includes('--json') ? JSON.stringify(results) : microLines(results).join('\n');
  process.stdout.write(`${text}\n`);
}
