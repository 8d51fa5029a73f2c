/**
 * Says at the end of a test run how many tests ran against real peers and what was skipped, with the reason
 * that the suite's title gives; then the run's counts on a line of their own. Loaded by Vitest.
 */
import type { Reporter, TestCase, TestModule } from 'vitest/node';

import { REQUIRED } from './peers/packages.ts';
import { SOFTWARE_MISSING } from './peers/software.ts';

const REAL_PEERS_PROJECT = 'real peers';

export default class RealPeerReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[]): void {
    const real = modules.filter((module) => module.project.name === REAL_PEERS_PROJECT);
    const { passed, failed, skipped } = count(real);
    console.log(`Tests with real peers (QEMU, testpmd): ${passed + failed} ran, ${skipped} skipped`);
    for (const title of skippedTitles(real)) console.log(`  skipped: ${title}`);
    const missed = [...skippedTitles(modules)].filter((title) => title.includes(SOFTWARE_MISSING));
    if (process.env.RINGWAY_INSTALL_PEERS === REQUIRED && missed.length > 0) {
      for (const title of missed) console.log(`  must not be skipped: ${title}`);
      process.exitCode = 1;
    }
    const all = count(modules);
    // A file that could not even be loaded has no tests to count, and must not pass for nothing.
    const broken = modules.filter(
      (module) => module.state() === 'failed' && module.errors().length > 0,
    ).length;
    console.log(`${all.passed} passed, ${all.failed + broken} failed, ${all.skipped} skipped`);
  }
}

type Counts = { readonly passed: number; readonly failed: number; readonly skipped: number };

function count(modules: readonly TestModule[]): Counts {
  const states = modules.flatMap((module) => [...module.children.allTests()].map(stateOf));
  const of = (state: string): number => states.filter((each) => each === state).length;
  return { passed: of('passed'), failed: of('failed'), skipped: of('skipped') + of('pending') };
}

function stateOf(test: TestCase): string {
  return test.result().state;
}

function skippedTitles(modules: readonly TestModule[]): Set<string> {
  const titles = new Set<string>();
  for (const module of modules) {
    for (const suite of module.children.suites()) if (suite.state() === 'skipped') titles.add(suite.name);
    for (const test of module.children.allTests('skipped')) {
      if (test.name.includes(SOFTWARE_MISSING)) titles.add(test.name);
    }
  }
  return titles;
}
