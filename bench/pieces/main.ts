/**
 * Nanoseconds a frame through the forwarder, in one process without any peer: rings, both lookups and the copy, with
 * faked drivers (world.ts). The figure of a case is the minimum of many short samples, so it is the same to 2 or 3 per
 * cent however busy the machine is. Each case has a process of its own, for V8 compiles a loop for all that it has met.
 */
import { fileURLToPath } from 'node:url';
import { setWorkerFlags } from '../../switch/worker/v8-flags.ts';
import { runProgram } from '../../test/peers/child.ts';
import { PIECES_CASES, piecesCases } from './cases.ts';
import { type PiecesCase, PiecesWorld } from './world.ts';

export type PiecesResult = { readonly name: string; readonly nsPerFrame: number; readonly medianNs: number };

const WARM_UP_LAPS = 6000;
const LAPS_PER_SAMPLE = 12;
const SAMPLES = 3000;
const SAMPLES_QUICK = 500;
const TIMEOUT_MS = 120_000;

/** Measures one case in this process. */
function measure(plan: PiecesCase, samples: number): PiecesResult {
  setWorkerFlags();
  const world = new PiecesWorld(plan);
  const laps = (count: number): number => {
    let spentMs = 0;
    for (let lap = 0; lap < count; lap++) {
      world.offer();
      const startMs = performance.now();
      world.lap();
      spentMs += performance.now() - startMs;
    }
    return spentMs;
  };
  laps(WARM_UP_LAPS);
  const framesPerSample = LAPS_PER_SAMPLE * world.framesPerLap;
  const ns = Array.from({ length: samples }, () => (laps(LAPS_PER_SAMPLE) * 1e6) / framesPerSample);
  world.close();
  ns.sort((a, b) => a - b);
  return { name: plan.name, nsPerFrame: ns[0], medianNs: ns[samples >> 1] };
}

/** Measures all cases, or one of each kind, and prints them. */
export async function runPieces({ json, quick }: { json: boolean; quick: boolean }): Promise<void> {
  const results: PiecesResult[] = [];
  for (const { name } of piecesCases(quick)) {
    const args = [fileURLToPath(import.meta.url), name, String(quick ? SAMPLES_QUICK : SAMPLES)];
    const { code, output } = await runProgram(process.execPath, args, { timeoutMs: TIMEOUT_MS, env: {} });
    if (code !== 0) throw new Error(`the case ${name} failed: ${output}`);
    const result = JSON.parse(output) as PiecesResult;
    results.push(result);
    if (!json) process.stdout.write(`${lineOf(result)}\n`);
  }
  if (json) process.stdout.write(`${JSON.stringify(results, null, 2)}\n`);
}

function lineOf({ name, nsPerFrame, medianNs }: PiecesResult): string {
  return `${name.padEnd(32)}${nsPerFrame.toFixed(2).padStart(8)} ns a frame (median ${medianNs.toFixed(2)})`;
}

if (import.meta.main) {
  const plan = PIECES_CASES.find(({ name }) => name === process.argv[2]);
  if (plan === undefined) await runPieces({ json: false, quick: false });
  else process.stdout.write(JSON.stringify(measure(plan, Number(process.argv[3]))));
}
