/**
 * Notices that a worker does not come back from a plugin: what no count of loops' turns bounds (loop-guard.ts), as a regular
 * expression that goes back and forth for hours. Such a thread can only be ended, with all rings that it polls: so the process
 * ends, as after a fault of its own, and its service's manager starts the next one, for which guests' rings are kept. Main
 * thread.
 */

/** Looks, a second apart, that find the worker in the same call. */
const LOOKS_MAX = 3;

export class PluginWatch {
  #calls = 0;
  #looks = 0;

  /** `plugin`: the number of the plugin that is being called, 0 of none. Answers it once that has taken too long. */
  look(plugin: number, calls: number): number | null {
    this.#looks = plugin !== 0 && calls === this.#calls ? this.#looks + 1 : 0;
    this.#calls = calls;
    return this.#looks >= LOOKS_MAX ? plugin : null;
  }
}
