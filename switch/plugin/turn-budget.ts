/**
 * How many turns of loops a plugin's code may take in one call; counted by what loop-guard.ts puts into its loops. One for each
 * thread that plugins run on.
 */

/** Of the functions that loops call, in the thread's global object: at each turn, or once with the number of their turns. */
export const TURN_NAME = '__ringwayTurn';
export const TURNS_NAME = '__ringwayTurns';
/** A burst has 64 frames; 15,000 turns for each take some milliseconds. */
export const CALL_TURNS_MAX = 1_000_000;
/** While the code is loaded and its factory runs, which may build tables. */
export const LOAD_TURNS_MAX = 200_000_000;

export class TurnsError extends Error {
  override name = 'TurnsError';
}

class Turns {
  left = 0;
  allowed = 0;
}

const turns = new Turns();

/** Of the next call, at most so many. */
export function allowTurns(count: number): void {
  turns.left = count;
  turns.allowed = count;
}

function turn(): boolean {
  if (--turns.left >= 0) return true;
  throw tooMany();
}

/** Also of what is no number. */
function turnsOf(count: number): void {
  if (count <= 0) return;
  if (!(count <= turns.left)) throw tooMany();
  turns.left = (turns.left - count) | 0;
}

function tooMany(): TurnsError {
  return new TurnsError(
    `a loop did not end: more than ${turns.allowed.toLocaleString('en')} turns in one call`,
  );
}

/** Before any guarded code is loaded in this thread. */
export function installTurns(): void {
  Object.defineProperty(globalThis, TURN_NAME, { value: turn, configurable: true });
  Object.defineProperty(globalThis, TURNS_NAME, { value: turnsOf, configurable: true });
}
