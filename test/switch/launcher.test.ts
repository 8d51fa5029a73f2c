/** Which processes are launchers, whose end is ours. */
import { describe, expect, it } from 'vitest';
import { LAUNCHER_VARIABLE, launchersOf, type ProcessTable } from '../../switch/launcher.ts';

/** By process id: its parent and its command. */
type Processes = Readonly<Record<number, readonly [number, ...string[]]>>;

const tableOf = (processes: Processes): ProcessTable => ({
  parentOf: (pid) => processes[pid]?.[0] ?? null,
  commandOf: (pid) => processes[pid]?.slice(1).map(String) ?? null,
});

const NPM = { npm_lifecycle_event: 'npx' };
const SHELL: Processes[number] = [5, 'sh', '-c', 'ringway run'];

describe('launchers', () => {
  it.each<[string, Readonly<Record<string, string>>, Processes, number[] | null]>([
    ['a shell in a terminal is none', {}, { 9: [5, '-bash'] }, []],
    ['npx and its shell', NPM, { 9: SHELL, 5: [4, 'npm exec ringway run'] }, [9, 5]],
    [
      'npm that has not named itself yet',
      NPM,
      { 9: SHELL, 5: [4, 'node', '/usr/bin/npm', 'run', 'x'] },
      [9, 5],
    ],
    ['npx whose shell became ringway', NPM, { 9: [4, 'npm exec ringway run'] }, [9]],
    ['a shell that npm had started long ago is none', NPM, { 9: [5, 'bash'], 5: [4, 'npm run shell'] }, []],
    ['a test runner under npm is none', NPM, { 9: [5, 'node', 'vitest'], 5: [4, 'npm test'] }, []],
    ['ringway.js', { [LAUNCHER_VARIABLE]: '9' }, { 9: [5, 'node', 'ringway.js'], 5: [4, 'bash'] }, [9]],
    [
      'ringway.js under npx',
      { ...NPM, [LAUNCHER_VARIABLE]: '9' },
      { 9: [8, 'node', 'ringway.js'], 8: SHELL, 5: [4, 'npm exec ringway'] },
      [9, 8, 5],
    ],
    ['ringway.js that is gone already', { [LAUNCHER_VARIABLE]: '7' }, { 9: [1, 'init'] }, null],
  ])('%s', (_, environment, processes, launchers) => {
    expect(launchersOf(9, environment, tableOf(processes))).toEqual(launchers);
  });

  it('are not npm and its shell where that one does not wait', () => {
    const npm = tableOf({ 9: SHELL, 5: [4, 'npm run start'] });
    expect(launchersOf(9, NPM, npm, true)).toEqual([]);
    const both = tableOf({ 9: [8, 'node', 'ringway.js'], 8: SHELL, 5: [4, 'npm run start'] });
    expect(launchersOf(9, { ...NPM, [LAUNCHER_VARIABLE]: '9' }, both, true)).toEqual([9]);
  });
});
