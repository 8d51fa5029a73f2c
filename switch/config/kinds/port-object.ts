/** How the schema of a kind of port is put together, and what the check of its settings against each other needs. */
import { z } from 'zod';
import { COMMON_PORT_FIELDS, commonClashes } from '../common-port.ts';
import { wordedIssue } from '../wording.ts';

/** A strict object of the kind's own fields and those that every port has; `needed` is the endpoint's key. */
export function portObject<Fields extends z.core.$ZodLooseShape>(needed: string, fields: Fields) {
  return z.strictObject({ ...fields, ...COMMON_PORT_FIELDS }, `a map of settings, with ${needed} at least`);
}

/** The settings of one port by its schema, with what does not go together: all that is wrong goes to the context. */
export function checkedPort<Settings>(
  schema: z.ZodType<Settings>,
  value: unknown,
  context: z.core.$RefinementCtx,
): Settings {
  // As in parse.ts, which calls this.
  const parsed = schema.safeParse(value, { reportInput: true, jitless: true });
  const clashes = commonClashes(value);
  if (parsed.success && clashes.length === 0) return parsed.data;
  // As they are: their paths lie within this port, and their messages say what is allowed.
  for (const issue of parsed.error?.issues ?? []) context.issues.push(issue as z.core.$ZodRawIssue);
  for (const { key, allowed } of clashes) context.issues.push(wordedIssue([key], allowed, value));
  return z.NEVER;
}

/** Refuses the setting `key`; `message` says what is allowed. */
export type Refuse = (key: string, message: string) => void;

/** For `.check`: refuses settings that do not go together. */
export function refusing<Settings>(rule: (settings: Settings, refuse: Refuse) => void) {
  return ({ value, issues }: z.core.ParsePayload<Settings>): void => {
    rule(value, (key, message) => issues.push({ code: 'custom', path: [key], message, input: value }));
  };
}
