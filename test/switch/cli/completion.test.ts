/** Completions and manual pages say what `--help` does, and the shells understand them. */
import { execFile, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { type CommandWords, commandWords, withAllBelow } from '../../../switch/cli/command-tree.ts';
import {
  completionScript,
  RUNNING_NAMES,
  SETTING_ARGUMENTS,
  SHELLS,
} from '../../../switch/cli/completion-scripts.ts';
import { manPages } from '../../../switch/cli/man-pages.ts';
import { changedSettings } from '../../../switch/cli/options.ts';
import { buildProgram } from '../../../switch/cli/program.ts';
import { settingKeys } from '../../../switch/cli/setting-keys.ts';
import { serveControl } from '../../../switch/control/serve.ts';
import { peersForTests } from '../../peers/index.ts';

const WORDS: CommandWords = commandWords(await buildProgram());
const ALL = withAllBelow(WORDS);
const KEYS = settingKeys();
const SETTINGS = KEYS.map((key) => `${key}=`);
const { available } = await peersForTests(['fish', 'zsh']);

/** As a shell that has the script gives them for what is typed so far; the running switch has ports vm0 and vm1. */
const RUNNING = `ringway() { [ "$*" = 'completion --names ports' ] && printf 'vm0\\nvm1\\n'; }`;

const RUNNING_FISH = `function ringway; test "$argv" = 'completion --names ports'; and printf 'vm0\\nvm1\\n'; end`;

function inBash(...typed: string[]): string[] {
  const script = `${RUNNING}\n${completionScript('bash', WORDS, KEYS)}
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _ringway; printf '%s\\n' "\${COMPREPLY[@]}"`;
  const { stdout, stderr } = spawnSync('bash', ['-c', script, 'bash', ...typed], { encoding: 'utf8' });
  expect(stderr).toBe('');
  return stdout.split('\n').filter((line) => line !== '');
}

describe('the completion of bash', () => {
  it('knows the commands, and those below them', () => {
    expect(inBash('ringway', '')).toEqual(WORDS.commands.map(({ path }) => path.slice('ringway '.length)));
    expect(inBash('ringway', 'ru')).toEqual(['run']);
    expect(inBash('ringway', 'plugin', 're')).toEqual(['reload', 'remove']);
    expect(inBash('ringway', '--control', 'x', 'fdb', 'f')).toEqual(['flush']);
  });

  it('knows every option of every command', () => {
    for (const { path, options } of ALL) {
      expect(inBash(...path.split(' '), '--').sort(), path).toEqual(options.map(({ long }) => long).sort());
    }
  });

  it('knows choices, names of what runs, and files', () => {
    expect(inBash('ringway', 'run', '--log-level', 'w')).toEqual(['warn']);
    expect(inBash('ringway', 'completion', '')).toEqual(SHELLS);
    expect(inBash('ringway', 'remove', '')).toEqual(['vm0', 'vm1']);
    expect(inBash('ringway', 'trace', '--in', 'vm1')).toEqual(['vm1']);
    expect(inBash('ringway', 'plugin', 'remove', '')).toEqual([]);
    expect(inBash('ringway', 'run', '--config', '/etc/pass')).toContain('/etc/passwd');
  });

  it('knows the settings of a port, behind its name', () => {
    expect(inBash('ringway', 'set', '')).toEqual(['vm0', 'vm1']);
    expect(inBash('ringway', 'set', '--control', 'x', '')).toEqual(['vm0', 'vm1']);
    expect(inBash('ringway', 'set', 'vm0', '')).toEqual(SETTINGS);
    expect(inBash('ringway', 'set', '--control', 'x', 'vm0', 'storm-b')).toEqual(['storm-broadcast=']);
    // Bash takes the = for a word of its own.
    expect(inBash('ringway', 'set', 'vm0', 'mtu', '=')).toEqual([]);
    expect(inBash('ringway', 'set', 'vm0', 'mtu', '=', '15')).toEqual([]);
    expect(inBash('ringway', 'set', 'vm0', 'mtu', '=', '1500', 'off')).toEqual(['offloads=']);
  });
});

describe.skipIf(!available.has('fish'))('the completion of fish', () => {
  it('knows commands, options and choices', () => {
    const complete = (typed: string): string[] => {
      const script = `${RUNNING_FISH}\n${completionScript('fish', WORDS, KEYS)}\ncomplete -C '${typed}'`;
      const { stdout, stderr } = spawnSync('fish', ['--no-config', '-c', script], { encoding: 'utf8' });
      expect(stderr).toBe('');
      return stdout.split('\n').flatMap((line) => (line === '' ? [] : [line.split('\t')[0]]));
    };
    expect(complete('ringway plugin re')).toEqual(['reload', 'remove']);
    expect(complete('ringway run --log-level w')).toEqual(['warn']);
    expect(complete('ringway run --con')).toEqual(['--config', '--control']);
    expect(complete('ringway set vm0 ').sort()).toEqual(SETTINGS.toSorted());
    expect(complete('ringway set --control x vm0 mtu=1500 storm-b')).toEqual(['storm-broadcast=']);
    expect(complete('ringway set ')).toEqual(['vm0', 'vm1']);
  });
});

describe.skipIf(!available.has('zsh'))('the completion of zsh', () => {
  it('is understood, and gives what is to be completed', () => {
    const script = `compdef() { :; }; compadd() { while [[ $1 != -- ]]; do shift; done; shift; print -l -- "$@"; }
_describe() { print -l -- "\${(P@)2}"; }
${RUNNING}\n${completionScript('zsh', WORDS, KEYS)}
words=("$@"); CURRENT=$#; _ringway`;
    const complete = (...typed: string[]): string[] => {
      const { stdout, stderr } = spawnSync('zsh', ['-f', '-c', script, 'zsh', ...typed], {
        encoding: 'utf8',
      });
      expect(stderr).toBe('');
      return stdout.split('\n').filter((line) => line !== '');
    };
    expect(complete('ringway', 'plugin', '').map((line) => line.split(':')[0])).toEqual(
      ALL.find(({ path }) => path === 'ringway plugin')?.commands.map(({ path }) => path.split(' ')[2]),
    );
    expect(complete('ringway', 'run', '--log-level', '')).toContain('warn');
    expect(complete('ringway', 'remove', '')).toEqual(['vm0', 'vm1']);
    expect(complete('ringway', 'set', '--control', 'x', '')).toEqual(['vm0', 'vm1']);
    expect(complete('ringway', 'set', 'vm0', '')).toEqual(SETTINGS);
    expect(complete('ringway', 'run', '--')).toContain(
      '--config:YAML configuration; options add to it and override it',
    );
  });
});

describe('names of what runs', () => {
  it('are none that do something to a shell, whoever answers', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'ringway-completion-'));
    const path = join(folder, 'c.sock');
    const names = ['vm0', '$(touch x)', '`touch x`', 'a b', "'", 'vm1\n;', '*', 'a.b_c-1'];
    const fetch = (): Response => Response.json(names.map((name) => ({ name })));
    const server = await serveControl(path, { fetch });
    try {
      const main = fileURLToPath(new URL('../../../switch/cli/main.ts', import.meta.url));
      const env = { ...process.env, RINGWAY_CONTROL: path };
      const asked = promisify(execFile)(process.execPath, [main, 'completion', '--names', 'ports'], { env });
      expect((await asked).stdout).toBe('vm0\na.b_c-1\n');
    } finally {
      await server.close();
      rmSync(folder, { recursive: true });
    }
  });
});

describe('what completes with names of what runs', () => {
  it('is there', () => {
    const places = ALL.flatMap(({ path, args, options }) => [
      ...args.map(({ name }) => `${path} ${name.replace(/[=,].*/, '')}`),
      ...options.map(({ long }) => `${path} ${long}`),
    ]);
    expect(Object.keys(RUNNING_NAMES).filter((place) => !places.includes(place))).toEqual([]);
    expect(SETTING_ARGUMENTS.filter((place) => !places.includes(place))).toEqual([]);
  });

  it('are settings that can be changed', () => {
    expect(KEYS).toEqual(expect.arrayContaining(['mtu', 'forward-bpdu', 'rate-in-burst', 'offloads']));
    expect(Object.keys(changedSettings(SETTINGS))).toHaveLength(KEYS.length);
  });
});

describe('what help says', () => {
  /** What is to be typed, or stands in a file, is not broken. */
  const isExample = (line: string): boolean => /^ +(ringway |[\w-]+: \{)/.test(line);

  it('fits a terminal', () => {
    for (const { path, options, details } of ALL) {
      const wide = details.split('\n').filter((line) => line.length > 82 && !isExample(line));
      expect(wide, path).toEqual([]);
      // Beside longer ones there is no room for what they mean.
      expect(options.map(({ flags }) => flags).filter((flags) => flags.length > 38)).toEqual([]);
    }
  });
});

describe('manual pages', () => {
  const pages = manPages(WORDS, '1.2.3');

  it('are there for each command, with all that its help says', () => {
    expect(Object.keys(pages)).toEqual(ALL.map(({ path }) => `${path.replaceAll(' ', '-')}.1`));
    for (const { path, options, description } of ALL) {
      const page = pages[`${path.replaceAll(' ', '-')}.1`].replaceAll('\\-', '-').replaceAll('\\e', '\\');
      for (const { flags } of options) expect(page, path).toContain(`.B ${flags.replace('…', '...')}\n`);
      expect(page).toContain(description.replace('…', '...'));
      // Nothing but what was meant is a request.
      const requests = [...page.matchAll(/^[.'](\w*)/gm)].map(([, name]) => name);
      expect(
        [...new Set(requests)].filter((name) => !['TH', 'SH', 'B', 'BR', 'TP', 'nf', 'fi'].includes(name)),
      ).toEqual([]);
    }
  });

  it('have the examples', () => {
    expect(pages['ringway-run.1']).toContain('ringway run \\-\\-config /etc/ringway.yaml');
  });
});
