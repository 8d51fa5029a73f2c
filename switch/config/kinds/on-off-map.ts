/** Settings that are a map of names to on or off in a file, and one text on the command line: `no-packed+no-in-order`. */
import { z } from 'zod';
import { onOff } from './values.ts';

/** Of these names, by what each is called in an option; what is not named is left out. */
export function onOffMap<Name extends string>(optionOf: Readonly<Record<Name, string>>) {
  const names = Object.keys(optionOf) as Name[];
  const allowed =
    `a map of ${names.join(', ')} to on or off, ` +
    `in an option ${names.map((name) => optionOf[name]).join(', ')} joined by +, with no- before what is off`;

  /** As the map in a file; null for a text that names something else, or something twice. */
  function mapOf(text: string): Record<string, string> | null {
    const named = new Map<string, string>();
    for (const word of text.split('+')) {
      const isOff = word.startsWith('no-');
      const option = isOff ? word.slice('no-'.length) : word;
      const name = names.find((each) => optionOf[each] === option);
      if (name === undefined || named.has(name)) return null;
      named.set(name, isOff ? 'off' : 'on');
    }
    return Object.fromEntries(named);
  }

  const shape = Object.fromEntries(names.map((name) => [name, onOff.exactOptional()]));
  return z.preprocess(
    (value) => (typeof value === 'string' ? mapOf(value) : value),
    z.strictObject(shape as Record<Name, ReturnType<typeof onOff.exactOptional>>, allowed),
  );
}
