/**
 * How long tests wait for what comes about by itself where they do not say: on a machine with much else to do, another
 * thread or process may well need longer than the second that Vitest waits. Who waited in vain is told for what. Loaded by
 * Vitest before each file.
 */
import { vi } from 'vitest';

/** Less than a test may take, so that it is this that is told. vitest.config.ts has it for `expect.poll`. */
const PATIENCE_MS = 20_000;

type Options = { interval?: number; timeout?: number };

const patient = (options: number | Options = {}): Options & { timeout: number } =>
  typeof options === 'number' ? { timeout: options } : { timeout: PATIENCE_MS, ...options };

const { waitFor, waitUntil } = vi;

// It fails by what was expected, and needs no more words.
vi.waitFor = (callback, options) => waitFor(callback, patient(options));

vi.waitUntil = async (callback, options) => {
  const all = patient(options);
  try {
    return await waitUntil(callback, all);
  } catch (error) {
    if (error instanceof Error && error.message.startsWith('Timed out')) {
      error.message = `not within ${all.timeout} ms: ${callback}`;
      // Whoever reads it looks for the place in the test.
      error.stack = (error.stack ?? '').replaceAll(/\n.*\/patience\.ts.*/g, '');
    }
    throw error;
  }
};
