/** What is done in a trial of a plugin (trial-thread.ts), and what comes of it. */
import { plainArena } from '../../src/memory/plain-arena.ts';
import { Batch } from '../../src/queue/batch.ts';
import { readHeads } from '../../src/queue/heads.ts';
import { HEAD_COPIES_SCRATCH_BYTES, HeadCopies } from '../l2/head-copies.ts';
import { COUNTS_FIRST, type PluginBundle, type PluginSpec } from './bundle.ts';
import { BatchFrames } from './frames.ts';
import {
  Context,
  checkAnswer,
  checkedPlugin,
  Declared,
  NamedPorts,
  PluginError,
  reasonOf,
} from './instance.ts';
import type { Plugin, PluginFactory } from './interface.ts';
import { guardLoops } from './loop-guard.ts';
import { loadModules, sourceReader, withoutRooms } from './modules.ts';
import { PlainFileError } from './plain-file.ts';
import { type PluginSettingFault, SettingReader } from './settings.ts';
import { trialBatches } from './trial-frames.ts';
import { allowTurns, CALL_TURNS_MAX, LOAD_TURNS_MAX } from './turn-budget.ts';

export type TrialInput = { readonly number: number; readonly spec: PluginSpec };
export type TrialResult =
  | { readonly bundle: PluginBundle }
  | { readonly faults: readonly PluginSettingFault[] };

/** Doubles for whatever a plugin declares; one with more is refused. */
const COUNTS_MAX = 1024;
const FRAMES_BYTES = 2 ** 20;
/** The least of so many calls for a whole burst counts. */
const MEASURED_CALLS = 10;

/** `texts`: contents of files by path that need not be read. */
export function runTrial(input: TrialInput, texts = new Map<string, string>()): TrialResult {
  try {
    return tried(input, texts);
  } catch (error) {
    return { faults: [{ name: '', text: explained(error, input.spec.file) }] };
  }
}

function tried({ number, spec }: TrialInput, texts: Map<string, string>): TrialResult {
  const modules: Record<string, string> = {};
  allowTurns(LOAD_TURNS_MAX);
  const module = loadModules(number, spec.file, sourceReader(modules, guardLoops));
  const factory = factoryOf(module);
  const declared = new Declared();
  const ports = new NamedPorts();
  const settings = new SettingReader(spec.settings, spec.folder, texts);
  const counts = new Float64Array(COUNTS_MAX);
  allowTurns(LOAD_TURNS_MAX);
  let made: unknown;
  try {
    made = factory(settings, new Context(spec.name, ports, declared, 0, counts));
  } catch (error) {
    // What is wrong with its settings may well be why.
    const faults = settings.wrong();
    if (faults.length > 0) return { faults };
    throw error;
  }
  const faults = settings.faults();
  if (faults.length > 0) return { faults };
  declared.isClosed = true;
  if (COUNTS_FIRST + declared.drops.length + declared.counters.length > COUNTS_MAX)
    throw new PluginError(`it declares more than ${COUNTS_MAX - COUNTS_FIRST} reasons and counters`);
  const plugin = checkedPlugin(made);
  const slowUs = callAll(plugin, ports, declared.drops.length);
  if (slowUs > spec.budgetUs)
    throw new PluginError(
      `it takes ${Math.round(slowUs)} µs for a burst of 64 frames (allowed: ${spec.budgetUs} µs)`,
    );
  return {
    bundle: {
      number,
      spec,
      modules,
      texts: [...texts],
      drops: declared.drops,
      counters: declared.counters,
      readsHeaders: plugin.reads === 'headers',
      onFault: spec.onFault ?? plugin.onFault ?? 'drop',
      hasTick: plugin.tick !== undefined,
    },
  };
}

/** @throws PluginError */
export function factoryOf(module: unknown): PluginFactory {
  const factory =
    typeof module === 'object' && module !== null && 'default' in module ? module.default : undefined;
  if (factory === undefined) throw new PluginError('it has no default export');
  if (typeof factory !== 'function') throw new PluginError('its default export is no function');
  return factory as PluginFactory;
}

/** Has it decide about bursts of all kinds. Answers how many microseconds it needs for the one of 64 frames that takes longest. */
function callAll(plugin: Plugin, ports: NamedPorts, reasonCount: number): number {
  const arena = plainArena(HEAD_COPIES_SCRATCH_BYTES + FRAMES_BYTES);
  const copies = new HeadCopies(arena, 0);
  const frames = new BatchFrames(arena, copies);
  const port = ports.add(0, 'trial0');
  const other = ports.add(1, 'trial1');
  const within = (of: Parameters<typeof checkAnswer>[0], call: () => unknown): void => {
    allowTurns(CALL_TURNS_MAX);
    checkAnswer(of, call());
  };
  for (const each of [port, other]) within('portAdded', () => plugin.portAdded?.(each));
  const decide = (fill: (batch: Batch) => void): number => {
    const batch = new Batch();
    fill(batch);
    if (batch.count > 0) readHeads(batch, arena.windows);
    frames.forget();
    frames.begin(batch, port, 1);
    if (plugin.reads === 'headers') copies.copy(batch);
    frames.mayReadHeaders = plugin.reads === 'headers';
    frames.reasonCount = reasonCount;
    const startMs = performance.now();
    within('decide', () => plugin.decide(frames));
    return (performance.now() - startMs) * 1000;
  };
  let slowestUs = 0;
  for (const { fill, isWhole } of trialBatches(arena.u8, HEAD_COPIES_SCRATCH_BYTES)) {
    let leastUs = decide(fill);
    if (!isWhole) continue;
    for (let call = 1; call < MEASURED_CALLS; call++) leastUs = Math.min(leastUs, decide(fill));
    slowestUs = Math.max(slowestUs, leastUs);
  }
  within('tick', () => plugin.tick?.(1));
  ports.remove(1);
  within('portRemoved', () => plugin.portRemoved?.(other));
  return slowestUs;
}

const FILE_REFUSALS: Readonly<Record<string, string>> = {
  ENOENT: 'no such file',
  EACCES: 'permission denied',
  EISDIR: 'it is a folder',
};

/** One line that says what is wrong and where. */
function explained(error: unknown, file: string): string {
  if (!(error instanceof Error)) return reasonOf(error);
  const code = 'code' in error ? String(error.code) : '';
  const why = error instanceof PlainFileError ? error.message : FILE_REFUSALS[code];
  if (why !== undefined) {
    const path = 'path' in error ? String(error.path) : file;
    return path === file ? why : `${path}: ${why}`;
  }
  if (
    code === 'ERR_INVALID_TYPESCRIPT_SYNTAX' ||
    code === 'ERR_UNSUPPORTED_TYPESCRIPT_SYNTAX' ||
    error instanceof SyntaxError
  )
    return `syntax error: ${withoutRooms(error.message).split('\n')[0]}`;
  return withoutRooms(reasonOf(error));
}
