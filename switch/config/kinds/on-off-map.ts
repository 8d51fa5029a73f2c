/** Settings that are a map of names to on or off in a file, and one text on the command line: `no-packed+no-in-order`. */
import { z } from 'zod';
import type { Worded } from '../spelling.ts';
import { wordedIssue } from '../wording.ts';
import { onOff } from './values.ts';

/** Of these names, by what each is called in an option; what is not named is left out. */
export function onOffMap<Name extends string>(optionOf: Readonly<Record<Name, string>>) {
  const names = Object.keys(optionOf) as Name[];
  const options = names.map((name) => optionOf[name]).join(', ');
  const allowed: Worded = ({ isOption }) =>
    isOption
      ? `${options} joined by +, with no- before what is off`
      : `a map of ${names.join(', ')} to on or off`;

  /** As the map in a file; the context is told of each word that names something else, or something twice. */
  function mapOf(text: string, context: z.core.$RefinementCtx): Record<string, string> {
    const named = new Map<string, string>();
    for (const [i, word] of text.split('+').entries()) {
      const isOff = word.startsWith('no-');
      const option = isOff ? word.slice('no-'.length) : word;
      const name = names.find((each) => optionOf[each] === option);
      if (name === undefined) context.issues.push(wordedIssue([i], allowed, word));
      else if (named.has(name)) context.issues.push(wordedIssue([i], () => 'it is named twice', word));
      else named.set(name, isOff ? 'off' : 'on');
    }
    return Object.fromEntries(named);
  }

  const shape = Object.fromEntries(names.map((name) => [name, onOff.exactOptional()]));
  return z.preprocess(
    (value, context) => {
      if (typeof value === 'string') return mapOf(value, context);
      if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value;
      context.issues.push(wordedIssue([], allowed, value));
      return z.NEVER;
    },
    z.strictObject(shape as Record<Name, ReturnType<typeof onOff.exactOptional>>),
  );
}
