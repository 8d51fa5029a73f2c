/** Which of several names somebody may have meant who wrote another word. Main thread. */

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
