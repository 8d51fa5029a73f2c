/**
 * From settings as text to values by a schema (schema.ts), and the one line that says what is wrong with all that
 * cannot be: where each stands, what it is, what is allowed. Main thread.
 */
import type { z } from 'zod';
import type { PortKind } from '../../src/port/contract.ts';
import { changeableFields, kindOf, knownPortSettings } from './kinds/index.ts';
import { PLUGIN_NAME_ALLOWED } from './plugins.ts';
import { knownSettings, NAME_ALLOWED } from './schema.ts';
import {
  type ConfigError,
  faultsError,
  type SettingFault,
  type SettingMap,
  type SettingSource,
  type SettingValue,
  sourceThatSet,
  valueAt,
} from './settings.ts';
import { nearestName, OPTION_SPELLING, type Spelling, type Worded } from './spelling.ts';
import { allowedBy, refusalText, shownSetting } from './wording.ts';

/** Told of at once; the others when these are mended. To word half a million takes a minute, and nobody reads them. */
const FAULTS_MAX = 100;
const KEPT = 'cannot be changed while the port runs (remove the port and add it again)';

/** A port that runs, whose settings are to change: its other settings are among the values too. */
export type RunningPort = {
  readonly kind: PortKind;
  /** The settings that are asked for; the others are as they were before. */
  readonly asked: ReadonlySet<string>;
};

/**
 * `values` are what the sources say together, of which `running` are one port's settings. @throws ConfigError with all
 * settings that cannot be, FAULTS_MAX at most, in the order in which they were written
 */
export function parseSettings<Result>(
  schema: z.ZodType<Result>,
  values: SettingMap,
  sources: readonly SettingSource[],
  running: RunningPort | null = null,
): Result {
  // With what was wrong: a part of a list that was written as one text stands nowhere else. And without compiling the schema first,
  // which takes longer than to go through it once.
  const parsed = schema.safeParse(values, { reportInput: true, jitless: true });
  if (parsed.success) return parsed.data;
  throw explain(parsed.error.issues, values, sources, running);
}

function explain(
  issues: readonly z.core.$ZodIssue[],
  values: SettingMap,
  sources: readonly SettingSource[],
  running: RunningPort | null,
): ConfigError {
  const sourceOf = (path: readonly string[]) => sourceThatSet(values, sources, path);
  const faults = new Map<string, SettingFault>();
  const add = (path: readonly string[], worded: Worded): void => {
    const text = worded(sourceOf(path));
    const optionText = worded(OPTION_SPELLING);
    // A part that stands twice in one text is told once.
    faults.set(`${rankKey(path)} ${text}`, { path, text, ...(optionText !== text && { optionText }) });
  };
  const isEnough = (): boolean => faults.size >= FAULTS_MAX;
  const misspelledIn = new Set<string>();
  for (const issue of issues) {
    if (isEnough()) break;
    if (issue.code !== 'unrecognized_keys') continue;
    const path = issue.path.map(String);
    const { kept, known, all } = settingsIn(path, values, running);
    for (const key of issue.keys) {
      if (isEnough()) break;
      const isKept = kept.includes(key);
      if (!isKept) misspelledIn.add(path.join('.'));
      add([...path, key], isKept ? () => KEPT : (spelling) => unknown(key, known, all, spelling));
    }
  }
  for (const issue of issues) {
    if (isEnough()) break;
    const path = issue.path.map(String);
    if (issue.code === 'unrecognized_keys') continue;
    // A misspelled key often makes another one missing: the misspelling is what helps.
    const isMissing = valueAt(values, path) === undefined;
    if (isMissing && misspelledIn.has(path.slice(0, -1).join('.'))) continue;
    const { place, value } = writtenAt(path, values, issue.input);
    const isOld = running !== null && path.length > 2 && !running.asked.has(path[2]);
    const worded = isOld && value !== undefined ? fromBefore(issue, path[2], value) : wrongWith(issue, value);
    add(place, worded);
  }
  return faultsError((path) => sourceOf(path).subject(path), inOrder([...faults.values()], values));
}

/** What may stand in the map at `path`, in words how that is introduced, and what only a port that runs may not change. */
function settingsIn(
  path: readonly string[],
  values: SettingMap,
  running: RunningPort | null,
): { kept: readonly string[]; known: readonly string[]; all: string } {
  if (running === null || path.length !== 2) {
    const kind = running?.kind ?? kindOf(valueAt(values, path.slice(0, 2)));
    return { kept: [], known: knownSettings(path, kind), all: 'there are' };
  }
  const known = Object.keys(changeableFields(running.kind));
  return { kept: knownPortSettings(running.kind), known, all: 'what can be changed is' };
}

/** The value at `path` and where it stands: a list may have been written as one text, whose parts have no place. */
function writtenAt(
  path: readonly string[],
  values: SettingMap,
  input: unknown,
): { place: readonly string[]; value: SettingValue | undefined } {
  const value = valueAt(values, path);
  const above = path.slice(0, -1);
  const around = valueAt(values, above);
  if (value !== undefined || typeof around !== 'string') return { place: path, value };
  return { place: above, value: typeof input === 'string' && input !== '' ? input : around };
}

function wrongWith(issue: z.core.$ZodIssue, value: SettingValue | undefined): Worded {
  if (issue.code === 'invalid_key') {
    const allowed = issue.path[0] === 'plugins' ? PLUGIN_NAME_ALLOWED : NAME_ALLOWED;
    return () => `not allowed (${allowed})`;
  }
  const allowed = allowedBy(issue);
  return (spelling) => refusalText(value, allowed(spelling));
}

/** It was right until now, and does not go with what is asked for. */
function fromBefore(issue: z.core.$ZodIssue, key: string, value: SettingValue): Worded {
  const allowed = allowedBy(issue);
  return (spelling) => {
    const name = spelling.keyName(key);
    const cure = spelling.isOption
      ? `the same command with ${name}= takes it back`
      : `the same request with "${name}":null takes it back`;
    return `${shownSetting(value)}, which the port has from before, is not allowed (${allowed(spelling)}): ${cure}`;
  };
}

/** Of every map, list and text, where it begins and ends when all are read in order; by its path. */
type Ranks = ReadonlyMap<string, { readonly first: number; readonly last: number }>;

const rankKey = (path: readonly string[]): string => JSON.stringify(path);

function ranksOf(values: SettingMap): Ranks {
  const ranks = new Map<string, { first: number; last: number }>();
  let rank = 0;
  const visit = (value: SettingValue, path: readonly string[]): void => {
    const first = rank++;
    if (typeof value !== 'string') {
      for (const [key, part] of Object.entries<SettingValue>(value)) visit(part, [...path, key]);
    }
    ranks.set(rankKey(path), { first, last: rank++ });
  };
  visit(values, []);
  return ranks;
}

/** As the settings were written. */
function inOrder(faults: readonly SettingFault[], values: SettingMap): SettingFault[] {
  const ranks = ranksOf(values);
  const ranked = faults.map((fault) => ({ fault, rank: rankIn(ranks, fault.path) }));
  return ranked.sort((a, b) => a.rank - b.rank).map(({ fault }) => fault);
}

/** What is missing comes after all that is there. */
function rankIn(ranks: Ranks, path: readonly string[]): number {
  const own = ranks.get(rankKey(path));
  if (own !== undefined) return own.first;
  for (let depth = path.length - 1; depth >= 0; depth--) {
    const around = ranks.get(rankKey(path.slice(0, depth)));
    if (around !== undefined) return around.last;
  }
  return ranks.size;
}

/** With the known setting nearest to `key`, or all of them, which `all` introduces. */
function unknown(key: string, known: readonly string[], all: string, { keyName }: Spelling): string {
  const names = known.map(keyName);
  const nearest = nearestName(keyName(key), names);
  const which = nearest.distance <= 2 ? `did you mean ${nearest.name}?` : `${all} ${names.join(', ')}`;
  return `unknown setting (${which})`;
}
