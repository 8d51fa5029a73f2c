/**
 * How the names of settings are written, in a file and JSON or on the command line, and which of them somebody may have
 * meant who wrote another word. Main thread.
 */

/** How settings are written in one kind of place. */
export type Spelling = {
  /** How a key of the schema is spelled there. */
  readonly keyName: (key: string) => string;
  /** A setting is one text, `key=value`, as on the command line; otherwise there are maps and lists. */
  readonly isOption?: true;
};

/** In a file, and in JSON. */
export const MAP_SPELLING: Spelling = { keyName: (key) => key };

export const OPTION_SPELLING: Spelling = { keyName: toOptionKey, isOption: true };

/** A text that may name settings, in the words of whoever is told. */
export type Worded = (spelling: Spelling) => string;

/**
 * `config-space` to `configSpace`. Each spelling has one of its own, which `toOptionKey` turns back: `configSpace`, as it
 * is written in a file, is no option, and comes out as no setting.
 */
export function toSettingKey(key: string): string {
  return swappedCase(key);
}

/** `configSpace` to `config-space`. */
export function toOptionKey(key: string): string {
  return swappedCase(key);
}

/** A dash with a small letter for a capital one, and a capital one for the two: its own inverse. */
function swappedCase(key: string): string {
  return key.replace(/-[a-z]|[A-Z]/g, (part) =>
    part.startsWith('-') ? part.slice(1).toUpperCase() : `-${part.toLowerCase()}`,
  );
}

/** Only so much of a word is looked at; no name is longer. */
const WORD_LENGTH_MAX = 64;

/** The name that takes the fewest changes to come from `word`, and how many. @throws when there are no names */
export function nearestName(word: string, names: readonly string[]): { name: string; distance: number } {
  const ranked = names.map((name) => ({ name, distance: editDistance(word, name) }));
  return ranked.reduce((best, candidate) => (candidate.distance < best.distance ? candidate : best));
}

/** Insertions, deletions and replacements between two words (Levenshtein); case does not count. */
function editDistance(from: string, to: string): number {
  let row = Array.from({ length: to.length + 1 }, (_, i) => i);
  for (let i = 1; i <= Math.min(from.length, WORD_LENGTH_MAX); i++) {
    const next = [i];
    for (let j = 1; j <= to.length; j++) {
      const same = from[i - 1].toLowerCase() === to[j - 1].toLowerCase();
      next[j] = Math.min(next[j - 1] + 1, row[j] + 1, row[j - 1] + (same ? 0 : 1));
    }
    row = next;
  }
  return row[to.length];
}
