/**
 * What a plugin has to be before frames meet it: files with something wrong are refused with one line that says what; one that
 * does not end is ended. In the trial's own thread.
 */
import { execFileSync } from 'node:child_process';
import { truncateSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import { tryPlugin } from '../../../switch/plugin/trial.ts';
import { PluginFolder, specOf } from './plugin-world.ts';

const folder = new PluginFolder();
afterAll(() => folder.close());

const EXAMPLES = fileURLToPath(new URL('../../../switch/plugin/examples', import.meta.url));
const HEAD = "import type { PluginFactory } from 'ringway/plugin';\n";
const factory = (body: string, rest = '{ version: 1, decide() {} }'): string =>
  `${HEAD}const factory: PluginFactory = (settings, context) => {\n${body}\nreturn ${rest};\n};\nexport default factory;\n`;

let files = 0;
/** Of those that end by themselves, on whatever machine. */
const PATIENT_MS = 25_000;
const tried = (text: string, settings = {}, change = {}, limitMs = PATIENT_MS) => {
  const file = folder.write(`rule${files++}.ts`, text);
  return tryPlugin(specOf(file, settings, change), limitMs);
};

describe('a plugin that can be', () => {
  it('is told with all that it declares', async () => {
    const text = factory(
      "context.dropReason('no', 'is not wanted'); context.counter('seen'); settings.number('limit');",
      "{ version: 1, reads: 'headers', onFault: 'pass', decide(frames) { frames.sizes; }, tick() {} }",
    );
    const bundle = await tried(text, { limit: '3' });
    expect(bundle).toMatchObject({
      drops: [{ name: 'no', text: 'is not wanted' }],
      counters: ['seen'],
      readsHeaders: true,
      onFault: 'pass',
      hasTick: true,
    });
    expect(Object.keys(bundle.modules)).toEqual([bundle.spec.file]);
  });

  it('may have files beside it, of TypeScript too, and use the interface', async () => {
    folder.write(
      'beside.ts',
      "import { mac } from 'ringway/plugin';\nexport const own: number = mac('02:00:00:00:00:01');\n",
    );
    const bundle = await tried(
      `import { own } from './beside.ts';\n${factory("if (own !== 0x020000000001) throw new Error('no');")}`,
    );
    expect(Object.keys(bundle.modules)).toHaveLength(2);
  });

  it('has files read for it once, and relative to its folder', async () => {
    const path = folder.write('list.txt', '# nothing\n\n  one  # first\ntwo\n');
    const text = factory(
      'const lines = settings.lines(\'list\');\nif (JSON.stringify(lines) !== \'[{"number":3,"text":"one"},{"number":4,"text":"two"}]\') throw new Error(JSON.stringify(lines));',
    );
    const bundle = await tried(text, { list: 'list.txt' }, { folder: folder.path });
    expect(bundle.texts).toEqual([[path, '# nothing\n\n  one  # first\ntwo\n']]);
  });

  it.each([
    ['access-list', { rules: 'rules' }],
    ['mac-binding', { bindings: 'bindings' }],
    ['load-balancer', { address: '02:00:00:00:00:01', ports: 'a+b' }],
    ['dhcp-recorder', {}],
  ])('is the example %s', async (name, settings) => {
    folder.write('rules', 'allow tcp any 10.0.0.0/8:80-443\ndeny any any any\n');
    folder.write('bindings', 'vm0 02:00:00:00:00:01 10.0.0.1\n');
    const spec = specOf(`${EXAMPLES}/${name}.ts`, settings, { folder: folder.path });
    await expect(tryPlugin(spec)).resolves.toBeDefined();
  });
});

describe('a plugin that cannot be', () => {
  it.each<[string, string, RegExp]>([
    ['a syntax error', 'export default (;\n', /: syntax error: /],
    [
      'TypeScript that is more than types',
      'enum A { B }\nexport default () => ({});\n',
      /: syntax error: .*enum/,
    ],
    ['no default export', 'export const a = 1;\n', /: it has no default export$/],
    ['one that is no function', 'export default 1;\n', /: its default export is no function$/],
    [
      'an import that is not there',
      "import './nothing.ts';\nexport default () => 1;\n",
      /nothing\.ts: no such file$/,
    ],
    ['no object', 'export default () => 1;\n', /: its factory answers no object$/],
    [
      'no version',
      factory('', '{ decide() {} }'),
      /: it names no version of the interface, and this Ringway has version 1$/,
    ],
    [
      'another version',
      factory('', '{ version: 2, decide() {} }'),
      /: it is for version 2 of the interface, and this Ringway has version 1$/,
    ],
    ['nothing to decide', factory('', '{ version: 1 }'), /: it has no function decide$/],
    [
      'a wrong reads',
      factory('', "{ version: 1, decide() {}, reads: 'all' }"),
      /: its reads is all \(ethernet or headers\)$/,
    ],
    [
      'a factory that throws',
      factory("throw new Error('not today');"),
      /: Error: not today \(\S*rule\d+\.ts:3:7\)$/,
    ],
    [
      'a reason twice',
      factory("context.dropReason('a', ''); context.dropReason('a', '');"),
      /: a is declared twice/,
    ],
    [
      'a throw at a frame',
      factory('', "{ version: 1, decide(frames) { if (frames.count === 64) throw new TypeError('oh'); } }"),
      /: TypeError: oh \(/,
    ],
    [
      'a throw in a hook',
      factory('', '{ version: 1, decide() {}, portRemoved() { null.a; } }'),
      /: TypeError: /,
    ],
    [
      'a factory that answers later',
      `${HEAD}export default async () => ({ version: 1, decide() {} });\n`,
      /: its factory answers a promise: it may be no async function$/,
    ],
    [
      'a decision later',
      factory('', '{ version: 1, async decide(frames) { await 1; frames.count; } }'),
      /: its decide answers an object: it has to be done when it returns/,
    ],
    [
      'a decision that nobody asks for',
      factory('', '{ version: 1, *decide(frames) { yield frames.count; } }'),
      /: its decide answers an object/,
    ],
    [
      'a hook that goes on',
      factory('', '{ version: 1, decide() {}, async portAdded() { throw new Error(); } }'),
      /: its portAdded answers an object/,
    ],
    [
      'a throw of what cannot be shown',
      factory('', '{ version: 1, decide() { throw Object.create(null); } }'),
      /: it threw what cannot be shown$/,
    ],
    [
      'a list that grows as it goes over it',
      factory('', '{ version: 1, decide() { const list = [1]; for (const each of list) list.push(each); } }'),
      /: TurnsError: a loop did not end/,
    ],
    [
      'headers without saying so',
      factory('', '{ version: 1, decide(frames) { frames.protocols; } }'),
      /: RangeError: it reads headers, without/,
    ],
    [
      'a frame that is none',
      factory(
        "const no = context.dropReason('no', '');",
        '{ version: 1, decide(frames) { frames.drop(frames.count, no); } }',
      ),
      /: RangeError: frame 0 of 0/,
    ],
    [
      'a loop without end',
      factory('', '{ version: 1, decide(frames) { for (;;); } }'),
      /: TurnsError: a loop did not end: more than 1,000,000 turns in one call/,
    ],
    ['one in the factory', factory('while (true) {}'), /: TurnsError: a loop did not end/],
    ['one in its module', `do {} while (1 < 2)\n${factory('')}`, /: TurnsError: a loop did not end/],
    ['an exit', factory('process.exit(0);'), /: it ended its thread when it was tried$/],
    ['code that waits', `await null;\n${factory('')}`, /await/],
  ])('has %s', async (_, text, message) => {
    const refusal = await tried(text).catch((error: Error) => error.message);
    expect(refusal).toMatch(message);
    expect(refusal).toMatch(/^plugin rule \(\/.*rule\d+\.ts\): [^\n]*$/);
  });

  it('has a wait without end', async () => {
    const text = factory('Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);');
    await expect(tried(text, {}, {}, 1000)).rejects.toThrow(
      /^plugin rule \(.*\): it did not come to an end within 1 s when it was tried$/,
    );
  });

  it('takes too long for a burst', async () => {
    const slow = factory(
      '',
      '{ version: 1, decide() { const end = performance.now() + 2; while (performance.now() < end) {} } }',
    );
    await expect(tried(slow, {}, { budgetUs: 1000 })).rejects.toThrow(
      /: it takes \d+ µs for a burst of 64 frames \(allowed: 1000 µs\)/,
    );
  });

  it('is no file, or a folder', async () => {
    await expect(tryPlugin(specOf('/nowhere/rule.ts'))).rejects.toThrow(
      'plugin rule (/nowhere/rule.ts): no such file',
    );
    await expect(tryPlugin(specOf(folder.path))).rejects.toThrow(
      `plugin rule (${folder.path}): it is a folder`,
    );
  });

  it('is none that may never come to its end', async () => {
    const pipe = join(folder.path, 'pipe.ts');
    execFileSync('mkfifo', [pipe]);
    const long = folder.write('long.ts', '');
    truncateSync(long, 2 ** 23 + 1);
    await expect(tryPlugin(specOf(pipe))).rejects.toThrow(`plugin rule (${pipe}): it is no plain file`);
    await expect(tryPlugin(specOf(long))).rejects.toThrow(/: it is longer than 8388608 bytes$/);
    await expect(tried("import './pipe.ts';\nexport default () => 1;\n")).rejects.toThrow(
      /\/pipe\.ts: it is no plain file$/,
    );
    const reading = factory("settings.lines('list');");
    await expect(tried(reading, { list: '/dev/zero' })).rejects.toThrow(
      'list: /dev/zero is not allowed (the path of a file that can be read: it is no plain file)',
    );
  });
});

describe('settings of a plugin', () => {
  const text = factory(
    `settings.number('limit', { min: 1, max: 10, default: 3 });
settings.choice('mode', ['soft', 'hard'], 'soft');
settings.text('label');
settings.flag('loud', false);
settings.list('names', []);
settings.lines('list');`,
  );

  it('that are wrong are told all at once, with what is allowed', async () => {
    const wrong = { limit: '11', mode: 'odd', loud: 'yes', lable: 'x', list: '/nowhere' };
    await expect(tried(text, wrong)).rejects.toThrow(
      /: limit: 11 is not allowed \(a number, 1 to 10\); .*: mode: odd is not allowed \(soft or hard\); .*: label: missing \(a text\); .*: loud: yes is not allowed \(on or off\); .*: list: \/nowhere is not allowed \(the path of a file that can be read: ENOENT\); .*: lable: unknown setting \(did you mean label\?\)$/,
    );
  });

  it.each([
    [
      "settings.text('a', { default: 'x' })",
      /: TypeError: the default of its setting a is not a text \(\S*rule\d+\.ts:/,
    ],
    [
      "settings.number('a', { default: '3' })",
      /: TypeError: the default of its setting a is not a number \(/,
    ],
    ["settings.flag('a', 'on')", /is not true or false/],
    ["settings.choice('a', ['x', 'y'], 'z')", /is not one of its choices/],
    ["settings.list('a', 'x+y')", /is not a list/],
  ])('whose default is wrong are told as a mistake of the plugin: %s', async (code, message) => {
    await expect(tried(factory(code))).rejects.toThrow(message);
  });

  it('that are right are taken', async () => {
    const list = folder.write('empty', '');
    await expect(
      tried(text, { limit: '10', mode: 'hard', label: 'x', loud: 'on', names: 'a+b', list }),
    ).resolves.toBeDefined();
  });
});
