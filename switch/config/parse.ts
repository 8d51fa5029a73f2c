/**
 * From settings as text to values by a schema (schema.ts), and the one line that says what is wrong with all that
 * cannot be: where each stands, what it is, what is allowed. Main thread.
 */
import type { z } from 'zod';
import { kindOf } from './kinds/index.ts';
import { knownSettings, NAME_ALLOWED } from './schema.ts';
import {
  type ConfigError,
  faultsError,
  isSettingMap,
  type SettingFault,
  type SettingMap,
  type SettingSource,
  type SettingValue,
  sourceThatSet,
  valueAt,
} from './settings.ts';
import { nearestName } from './spelling.ts';

const VALUE_LENGTH_SHOWN = 200;

/** `values` are what the sources say together. @throws ConfigError with all settings that cannot be */
export function parseSettings<Result>(
  schema: z.ZodType<Result>,
  values: SettingMap,
  sources: readonly SettingSource[],
): Result {
  const parsed = schema.safeParse(values);
  if (parsed.success) return parsed.data;
  throw explain(parsed.error.issues, values, sources);
}

function explain(
  issues: readonly z.core.$ZodIssue[],
  values: SettingMap,
  sources: readonly SettingSource[],
): ConfigError {
  const sourceOf = (path: readonly string[]) => sourceThatSet(values, sources, path);
  const faults: SettingFault[] = [];
  const misspelledIn = new Set<string>();
  for (const issue of issues) {
    if (issue.code !== 'unrecognized_keys') continue;
    const path = issue.path.map(String);
    misspelledIn.add(path.join('.'));
    for (const key of issue.keys) {
      const source = sourceOf([...path, key]);
      const known = hint(source.keyName(key), path, kindOf(valueAt(values, path.slice(0, 2))), source);
      faults.push({ path: [...path, key], text: `unknown setting (${known})` });
    }
  }
  for (const issue of issues) {
    const path = issue.path.map(String);
    if (issue.code === 'unrecognized_keys') continue;
    // A misspelled key often makes another one missing: the misspelling is what helps.
    const isMissing = valueAt(values, path) === undefined;
    if (isMissing && misspelledIn.has(path.slice(0, -1).join('.'))) continue;
    faults.push({ path, text: wrongWith(issue, path, values) });
  }
  return faultsError((path) => sourceOf(path).subject(path), faults);
}

function wrongWith(issue: z.core.$ZodIssue, path: readonly string[], values: SettingMap): string {
  if (issue.code === 'invalid_key') return `not allowed (${NAME_ALLOWED})`;
  // A list may have been written as one text: its parts have no place of their own.
  const around = valueAt(values, path.slice(0, -1));
  const value = valueAt(values, path) ?? (typeof around === 'string' ? around : undefined);
  if (value === undefined) return `missing (${issue.message})`;
  return `${shown(value)} is not allowed (${issue.message})`;
}

function shown(value: SettingValue): string {
  if (value === '') return 'nothing';
  if (typeof value !== 'string') return isSettingMap(value) ? 'a map' : 'a list';
  const text = value.length > VALUE_LENGTH_SHOWN ? `${value.slice(0, VALUE_LENGTH_SHOWN)}…` : value;
  // Quotes, and no control characters, where the text could be taken for something else.
  return /^[\x21-\x7e]+$/.test(text) ? text : JSON.stringify(text);
}

/** The known setting nearest to `key`, or all of them. */
function hint(key: string, path: readonly string[], kind: string, source: SettingSource): string {
  const names = knownSettings(path, kind).map((name) => source.keyName(name));
  const nearest = nearestName(key, names);
  return nearest.distance <= 2 ? `did you mean ${nearest.name}?` : `there are ${names.join(', ')}`;
}
