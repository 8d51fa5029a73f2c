/** A worker that ends by itself, which is a bug: whoever starts a switch learns of it, and does not wait for its answer. Of stops: plugin/stuck.test.ts. */
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { settingsOf } from '../../../switch/cli/options.ts';
import { resolveConfig, type SwitchConfig } from '../../../switch/config/resolve.ts';
import { createLogger } from '../../../switch/log.ts';
import { Switch } from '../../../switch/switch.ts';
import { WorkerFailure } from '../../../switch/worker/failure.ts';

/** Of a set of processors: no machine has as many, and settings with it are refused long before. */
const NO_CPU = 1023;

let folder: string;
let socket: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'ringway-test-'));
  socket = join(folder, 'a.sock');
});
afterEach(() => rmSync(folder, { recursive: true }));

/** One of its workers cannot be where it is to be. */
function failing(): SwitchConfig {
  const config = resolveConfig([settingsOf({ port: [`a=${socket}`], control: 'none' })]);
  return { ...config, cpus: [0, NO_CPU] };
}

it('is told by the start, which leaves no socket', async () => {
  const started = Switch.start(failing(), createLogger('silent'));
  await expect(started).rejects.toThrow(WorkerFailure);
  await expect(started).rejects.toThrow(/^a worker failed, which is a bug in ringway: .*sched_setaffinity/s);
  expect(existsSync(socket)).toBe(false);
});
