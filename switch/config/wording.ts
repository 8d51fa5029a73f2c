/**
 * What a schema refuses in the words of whoever wrote the setting: beside the one message that zod has room for, an issue
 * carries how it is told. Main thread.
 */
import type { z } from 'zod';
import type { SettingValue } from './settings.ts';
import { MAP_SPELLING, type Worded } from './spelling.ts';

const VALUE_LENGTH_SHOWN = 200;

/** An issue for a context of zod; `allowed` says what is allowed. */
export function wordedIssue(path: readonly PropertyKey[], allowed: Worded, input: unknown) {
  const message = allowed(MAP_SPELLING);
  return { code: 'custom' as const, path: [...path], message, params: { allowed }, input };
}

/** What is allowed, by any issue. */
export function allowedBy(issue: z.core.$ZodIssue): Worded {
  const allowed: unknown = issue.code === 'custom' ? issue.params?.allowed : undefined;
  return typeof allowed === 'function' ? (spelling) => String(allowed(spelling)) : () => issue.message;
}

/** What a schema says is wrong of a setting: as it was written, or what was made of it. */
type Refused = SettingValue | number | boolean | null;

/** Of a setting that is missing or wrong. */
export function refusalText(value: Refused | undefined, allowed: string): string {
  return value === undefined ? `missing (${allowed})` : `${shownSetting(value)} is not allowed (${allowed})`;
}

/** Of a part of a request that is missing or wrong: there a text is not a number, and is told with its quotes. */
export function requestRefusalText(value: unknown, allowed: string): string {
  if (value === undefined) return `missing (${allowed})`;
  const isPlain = typeof value !== 'object' || value === null;
  const text = isPlain ? cut(JSON.stringify(value)) : Array.isArray(value) ? 'a list' : 'an object';
  return `${text} is not allowed (${allowed})`;
}

export function shownSetting(value: Refused): string {
  if (value === '') return 'nothing';
  if (Array.isArray(value)) return 'a list';
  if (typeof value === 'object' && value !== null) return 'a map';
  if (typeof value !== 'string') return String(value);
  const text = cut(value);
  // Quotes, and no control characters, where the text could be taken for something else.
  return /^[\x21-\x7e]+$/.test(text) ? text : JSON.stringify(text);
}

function cut(text: string): string {
  return text.length > VALUE_LENGTH_SHOWN ? `${text.slice(0, VALUE_LENGTH_SHOWN)}…` : text;
}
