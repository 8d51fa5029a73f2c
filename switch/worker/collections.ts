/**
 * How often this thread's garbage was collected, and for how long it stood still meanwhile. V8 notes it as it happens, so a look
 * costs two microseconds and 300 bytes, and is for who looks once a second. Any thread, also one that never returns to its event
 * loop, as workers.
 */
import { GCProfiler } from 'node:v8';

const US_PER_MS = 1000;

export class Collections {
  #profiler = started();
  count = 0;
  spentMs = 0;

  /** Adds what there was since the last look. */
  look(): void {
    const { statistics = [] } = this.#profiler.stop() ?? {};
    this.#profiler = started();
    for (const { cost } of statistics) {
      this.count++;
      this.spentMs += cost / US_PER_MS;
    }
  }
}

function started(): GCProfiler {
  const profiler = new GCProfiler();
  profiler.start();
  return profiler;
}
