/**
 * `npm run bench`: measures Ringway and its peers in turn and tells how it compares with the project's goals.
 * Runs the scenarios one after the other, prints each one's table as it is done, writes the results and
 * draws the chart. Ends with code 1 when Ringway could not be measured in something that was asked for.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import {
  type BenchPlan,
  LOAD_NAMES,
  PEER_NAMES,
  readPlan,
  SCENARIO_NAMES,
  type ScenarioName,
} from './plan.ts';
import { mixedLines, throughputLines } from './report/comparison-table.ts';
import { commitOf, machineFacts } from './report/facts.ts';
import { goalLines, worstDisturbance } from './report/goals.ts';
import { endProgress } from './report/progress.ts';
import type { Results } from './report/results.ts';
import {
  collectionsLines,
  factLines,
  goalTable,
  idleLines,
  latencyLines,
  memoryLines,
  microLines,
  scaleLines,
} from './report/table.ts';
import { Rig } from './rig.ts';
import { measureCollections } from './scenarios/collections.ts';
import { measureCoreDistance } from './scenarios/core-distance.ts';
import { measureIdle } from './scenarios/idle.ts';
import { measureLatency } from './scenarios/latency.ts';
import { measureMemory } from './scenarios/memory.ts';
import { measureMicro } from './scenarios/micro.ts';
import { measureMixed } from './scenarios/mixed.ts';
import { measurePieces } from './scenarios/pieces.ts';
import { measureScale } from './scenarios/scale.ts';
import { measureThroughput } from './scenarios/throughput.ts';

const RESULTS_FOLDER = join(import.meta.dirname, 'results');

/** Share of a measurement from which on the reader is warned. */
const DISTURBANCE_TOLD = 0.1;

const SCENARIOS: Readonly<Record<ScenarioName, (rig: Rig, results: Results) => Promise<string[]>>> = {
  throughput: async (rig, results) => {
    results.throughput = await measureThroughput(rig);
    return throughputLines(results.throughput);
  },
  mixed: async (rig, results) => {
    results.mixed = await measureMixed(rig);
    return mixedLines(results.mixed);
  },
  latency: async (rig, results) => {
    results.latency = await measureLatency(rig);
    return latencyLines(results.latency);
  },
  scale: async (rig, results) => {
    results.scale = await measureScale(rig);
    return scaleLines(results.scale);
  },
  idle: async (rig, results) => {
    results.idle = await measureIdle(rig);
    return idleLines(results.idle);
  },
  memory: async (rig, results) => {
    results.memory = await measureMemory(rig);
    return memoryLines(results.memory);
  },
  gc: async (rig, results) => {
    results.collections = await measureCollections(rig);
    return collectionsLines(results.collections);
  },
  pieces: async (rig) => ['', await measurePieces(rig)],
  micro: async (rig, results) => {
    const { results: micro, text } = await measureMicro(rig);
    results.micro = micro;
    return [...microLines(micro), ...(text === '' ? [] : ['', text.trimEnd()])];
  },
};

async function main(): Promise<void> {
  const plan = readPlan(process.argv.slice(2));
  if (plan.piecesOnly) {
    const { runPieces } = await import('./pieces/main.ts');
    await runPieces({ json: plan.printsJson, quick: plan.quick });
    return;
  }
  // Children, mounts and folders are cleared away at exit, which a signal alone would skip.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => process.exit(1));
  const startMs = performance.now();
  const facts = await machineFacts();
  const otherCommit = plan.otherCheckout === null ? null : await commitOf(plan.otherCheckout);
  print(factLines(facts, otherCommit));
  const rig = await Rig.prepare(plan);
  const results: Results = {
    facts,
    otherCommit,
    quick: plan.quick,
    rounds: plan.rounds,
    coreRoundTripNs: [],
    goals: [],
    notes: rig.notes,
  };
  try {
    await lookAtDistance(plan, results);
    for (const name of plan.scenarios) {
      await runScenario(name, rig, results);
      await lookAtDistance(plan, results);
    }
  } finally {
    endProgress();
    await rig.end();
  }
  results.goals = goalLines(results);
  const disturbance = worstDisturbance(results);
  if (disturbance > DISTURBANCE_TOLD) {
    const percent = (disturbance * 100).toFixed(0);
    rig.note(`Others had a processor for up to ${percent} % of a measurement: see the columns "disturbed".`);
  }
  print(goalTable(results.goals));
  await writeResults(plan, results);
  print(['', `Took ${((performance.now() - startMs) / 1000).toFixed(0)} s.`]);
  process.exitCode = rig.isRingwayLeftOut ? 1 : 0;
}

async function runScenario(name: ScenarioName, rig: Rig, results: Results): Promise<void> {
  try {
    const lines = await SCENARIOS[name](rig, results);
    endProgress();
    print(lines);
  } catch (error) {
    endProgress();
    rig.leaveOut('ringway', name, error);
  }
}

async function lookAtDistance({ dutCpu, loadCpu }: BenchPlan, results: Results): Promise<void> {
  const ns = await measureCoreDistance(dutCpu, loadCpu);
  results.coreRoundTripNs.push(ns);
  if (ns !== null) print([`(cache line from processor ${dutCpu} to ${loadCpu} and back: ${ns} ns)`]);
}

async function writeResults(plan: BenchPlan, results: Results): Promise<void> {
  const path = plan.jsonPath ?? (isComplete(plan) ? join(RESULTS_FOLDER, 'latest.json') : null);
  if (path === null) return;
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, `${JSON.stringify(results, null, 2)}\n`);
  print(['', `Results: ${path}`]);
  // Loaded late: a run that writes no results needs no chart library.
  const { drawChart } = await import('./report/chart.ts');
  const svg = drawChart(results);
  if (svg === null) return;
  const chartPath = join(dirname(path), 'chart.svg');
  writeFileSync(chartPath, `${svg}\n`);
  print([`Chart: ${chartPath}`]);
}

/** Only a full run of everything replaces the results that the repository shows. */
function isComplete(plan: BenchPlan): boolean {
  const { quick, peers, otherCheckout, scenarios, loads } = plan;
  return (
    !quick &&
    otherCheckout === null &&
    PEER_NAMES.every((name) => peers.includes(name)) &&
    SCENARIO_NAMES.every((name) => scenarios.includes(name)) &&
    LOAD_NAMES.every((name) => loads.includes(name))
  );
}

function print(lines: readonly string[]): void {
  process.stdout.write(`${lines.join('\n')}\n`);
}

await main();
