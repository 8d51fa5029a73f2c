/**
 * Garbage collections in the poll worker under load: Ringway runs with `--trace-gc`, and collections-probe.ts
 * makes each thread collect once at its start between two marks, which tells whose isolate is which.
 */
import { progress } from '../report/progress.ts';
import type { CollectionsResult } from '../report/results.ts';
import type { Rig } from '../rig.ts';

const PROBE = new URL('./collections-probe.ts', import.meta.url).href;
/** Until the code is compiled and what that left is collected. */
const WARM_UP_MS = 3000;
/** A line of --trace-gc starts with process and isolate: `[123:0x7f…]`. */
const TRACE_LINE = /^\[\d+:(0x[0-9a-f]+)(?::\d+)?\].*\bms: /;

export async function measureCollections(rig: Rig): Promise<CollectionsResult> {
  progress('garbage collections');
  const windowMs = rig.plan.collectionsWindowMs;
  const ringway = await rig.startRingway({
    nodeArgs: ['--trace-gc', '--expose-gc', '--import', PROBE],
    lineBuffered: true,
  });
  try {
    const load = await rig.startLoad(ringway, rig.loadKinds[0]);
    try {
      const warm = await load.measure({ frameBytes: 64, warmUpMs: 0, windowMs: WARM_UP_MS });
      if (warm.framesPerSecond === 0) throw new Error('no frame came through');
      const isolates = isolatesIn(ringway.output);
      const before = countByIsolate(ringway.output);
      const { framesPerSecond } = await load.measure({ frameBytes: 64, warmUpMs: 0, windowMs });
      const after = countByIsolate(ringway.output);
      const during = (names: readonly string[]): number =>
        names.reduce((sum, name) => sum + (after.get(name) ?? 0) - (before.get(name) ?? 0), 0);
      return {
        windowMs,
        framesPerSecond,
        inWorker: during(isolates.workers),
        inMainThread: during(isolates.main),
      };
    } finally {
      await load.stop();
    }
  } finally {
    await ringway.stop();
  }
}

function isolatesIn(output: string): { main: string[]; workers: string[] } {
  const isolates = { main: [] as string[], workers: [] as string[] };
  const blocks = output.matchAll(/^probe begins: (\w+)$([\s\S]*?)^probe ends$/gm);
  for (const [, thread, text] of blocks) {
    // Another thread may collect in between; only the probe asks for a collection.
    const line = text!.split('\n').find((candidate) => TRACE_LINE.test(candidate) && isRequested(candidate));
    const isolate = TRACE_LINE.exec(line ?? '')?.[1];
    if (isolate !== undefined) isolates[thread === 'main' ? 'main' : 'workers'].push(isolate);
  }
  if (isolates.main.length === 0 || isolates.workers.length === 0) {
    throw new Error(`cannot tell which isolate is the worker's:\n${output.slice(0, 2000)}`);
  }
  return isolates;
}

function isRequested(line: string): boolean {
  return line.includes('testing') || line.includes('requested');
}

function countByIsolate(output: string): Map<string, number> {
  const counts = new Map<string, number>();
  for (const line of output.split('\n')) {
    const isolate = TRACE_LINE.exec(line)?.[1];
    if (isolate !== undefined) counts.set(isolate, (counts.get(isolate) ?? 0) + 1);
  }
  return counts;
}
