/** Why the process is to end: workers hold all rings, so none can go on alone. Owns nothing. */

/** A worker does not go on, by a fault of ours or because of a plugin; `message` is for the user. */
export class WorkerFailure extends Error {
  override name = 'WorkerFailure';

  /** That it ended is a bug, and where it happened is what helps. */
  static ofEnd(error: unknown): WorkerFailure {
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
    return new WorkerFailure(`a worker failed, which is a bug in ringway: ${text}`, { cause: error });
  }

  static ofPlugin(plugin: string, worker: number): WorkerFailure {
    return new WorkerFailure(`ended: plugin ${plugin} does not come back in worker ${worker}`);
  }
}
