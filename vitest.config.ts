/**
 * How the tests run: first everything that needs only Node, then what starts real peers (virtual machines,
 * testpmd), one file after the other, because each of those fills the machine.
 */
import { defineConfig } from 'vitest/config';

const REAL_PEERS = ['test/real/**/*.test.ts', 'test/peers/**/*.test.ts'];

/** Before any file is loaded: what it skips it decides then. */
const INSTALL = './test/peers/install.ts';
/** Before each file: how long it waits for what it awaits. */
const PATIENCE = './test/patience.ts';
const KEEP_WASM_CODE = './test/keep-wasm-code.ts';

export default defineConfig({
  test: {
    reporters: ['default', './test/real-peer-reporter.ts'],
    projects: [
      {
        test: {
          name: 'unit',
          globalSetup: INSTALL,
          include: ['test/**/*.test.ts'],
          exclude: REAL_PEERS,
          setupFiles: [PATIENCE, KEEP_WASM_CODE],
          expect: { poll: { timeout: 20_000 } },
          // Longer than any wait has that ends by itself: it tells what it waited for, and the end of a test does not.
          testTimeout: 60_000,
          // They start switches, as tests do.
          hookTimeout: 60_000,
          // Most of them wait for other processes most of the time.
          maxWorkers: '100%',
          sequence: { groupOrder: 0 },
        },
      },
      {
        test: {
          name: 'real peers',
          globalSetup: INSTALL,
          include: REAL_PEERS,
          setupFiles: KEEP_WASM_CODE,
          maxWorkers: 1,
          testTimeout: 300_000,
          hookTimeout: 300_000,
          sequence: { groupOrder: 1 },
        },
      },
    ],
  },
});
