/**
 * Text that others made (the name of a memory file, a path, what a library said) made fit to be shown: a terminal obeys
 * control characters, and a reader is misled by those that are not seen or turn the direction of writing. What comes
 * from a peer passes through here where it enters a sentence, and again where a sentence leaves: report, log, terminal.
 */

/** Control, format (bidirectional marks, zero width), line and paragraph separators, lone halves of surrogate pairs. */
const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu;
/** JSON.stringify has escaped the others, and a line break between values is meant. */
const UNPRINTABLE_IN_JSON = /[\x7f-\x9f]|[\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu;

/** `text` in one line, what cannot be shown as `\x1b` or `\u202e`. */
export function printable(text: string): string {
  return text.replace(UNPRINTABLE, (character) => {
    const code = character.codePointAt(0) as number;
    if (code < 0x100) return `\\x${code.toString(16).padStart(2, '0')}`;
    return code < 0x10000 ? `\\u${hex4(code)}` : `\\u{${code.toString(16)}}`;
  });
}

/** The same of JSON text, which says the same value afterwards. */
export function printableJson(json: string): string {
  // Nearly always, and much faster to say.
  if (!/[^\n\x20-\x7e]/.test(json)) return json;
  return json.replace(UNPRINTABLE_IN_JSON, (character) =>
    character
      .split('')
      .map((unit) => `\\u${hex4(unit.charCodeAt(0))}`)
      .join(''),
  );
}

function hex4(code: number): string {
  return code.toString(16).padStart(4, '0');
}
