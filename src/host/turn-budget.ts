/**
 * What peers may take of one turn of the event loop, all of them together: a millisecond, after which those who
 * still have work let the loop go round. Each of them may begin one piece of work a turn whatever the others took, so
 * none is starved, and a turn is as long as the budget and one piece of work of each. One instance a thread.
 */

/** So short because a hand-shake takes a hundred turns, and a question to the control API several. */
const TURN_MS = 1;

export class TurnBudget {
  /** Null: nobody has worked in this turn yet. */
  #endMs: number | null = null;

  /** Call before each further piece of work of a peer: whether it has to wait for the next turn. */
  isSpent(): boolean {
    const nowMs = performance.now();
    if (this.#endMs !== null) return nowMs >= this.#endMs;
    this.#endMs = nowMs + TURN_MS;
    // Before the work of those who wait for the next turn: they ask for theirs later.
    setImmediate(() => {
      this.#endMs = null;
    });
    return false;
  }
}

let budgetOfThread: TurnBudget | null = null;

/** This thread's budget. */
export function turnBudget(): TurnBudget {
  budgetOfThread ??= new TurnBudget();
  return budgetOfThread;
}
