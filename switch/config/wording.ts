/**
 * What a schema refuses in the words of whoever wrote the setting: beside the one message that zod has room for, an issue
 * carries how it is told. Main thread.
 */
import type { z } from 'zod';
import { MAP_SPELLING, type Worded } from './spelling.ts';

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
