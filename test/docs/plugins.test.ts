/**
 * docs/plugins.md is true: its plugin can be, its tables have every field and call that the interface has, its rules and bindings
 * are taken by the examples, and each `ringway run` line of it is one that can be.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { type RunOptions, settingsOf } from '../../switch/cli/options.ts';
import { resolveConfig } from '../../switch/config/resolve.ts';
import { tryPlugin } from '../../switch/plugin/trial.ts';
import { PluginFolder, specOf } from '../switch/plugin/plugin-world.ts';

const REPOSITORY = join(import.meta.dirname, '../..');
const TEXT = readFileSync(join(REPOSITORY, 'docs/plugins.md'), 'utf8');
const INTERFACE = readFileSync(join(REPOSITORY, 'switch/plugin/interface.ts'), 'utf8');
const folder = new PluginFolder();
afterAll(() => folder.close());

const blocks = (language: string): string[] =>
  [...TEXT.matchAll(new RegExp(`\`\`\`${language}\\n([\\s\\S]*?)\`\`\``, 'g'))].map(([, block]) => block);

/** Fields and calls of a type of the interface. */
function membersOf(type: string): string[] {
  const body = new RegExp(`export type ${type} = [^{]*\\{\\n([\\s\\S]*?)\\n\\};`).exec(INTERFACE)?.[1] ?? '';
  return [...body.matchAll(/^ {2}(?:readonly )?(\w+)[?<(:]/gm)].map(([, name]) => name);
}

describe('docs/plugins.md', () => {
  it('has a first plugin that can be', async () => {
    const [text] = blocks('ts');
    const file = folder.write('quiet.ts', text);
    const bundle = await tryPlugin(specOf(file, { longest: '1000' }));
    expect(bundle.drops.map(({ name }) => name)).toEqual(['tooLong']);
  });

  it.each(['Plugin', 'Frames', 'FrameHeaders', 'PluginContext', 'PluginSettings'])(
    'names all of %s',
    (type) => {
      const members = membersOf(type);
      expect(members.length).toBeGreaterThan(4);
      const named = (member: string): boolean =>
        new RegExp(`\`(u8\`, \`u16\`, \`)?(settings\\.)?${member}\\b`).test(TEXT);
      expect(members.filter((member) => !named(member) && member !== 'name')).toEqual([]);
    },
  );

  const commands = blocks('sh').flatMap((block) =>
    [...block.replaceAll('\\\n', ' ').matchAll(/^ringway run .*/gm)].map(([line]) => line.split(/ +/)),
  );

  it('has a command for the first plugin and each example', () => expect(commands).toHaveLength(5));

  it.each(commands.map((words) => [words.join(' '), words]))(
    'has a command that can be: %s',
    async (_, words) => {
      const placed = words.map((word) => word.replaceAll('/tmp/', `${folder.path}/`));
      const given = (option: string): string[] =>
        placed.flatMap((word, i) => (word === option ? [placed[i + 1]] : []));
      for (const [, name, rules] of TEXT.matchAll(/cat > \/tmp\/(\S+) <<'RULES'\n([\s\S]*?)RULES\n/g))
        folder.write(name, rules);
      for (const [, line, name] of TEXT.matchAll(/^echo '(.*)' > \/tmp\/(\S+)$/gm))
        folder.write(name, `${line}\n`);
      const options: RunOptions = { port: given('--port'), plugin: given('--plugin'), control: 'none' };
      const { plugins } = resolveConfig([settingsOf(options)]);
      expect(plugins).toHaveLength(1);
      for (const spec of plugins) await expect(tryPlugin(spec)).resolves.toBeDefined();
    },
  );
});
