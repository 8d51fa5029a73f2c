/**
 * Plugins as settings: which file, what becomes of frames when one fails, and the plugin's own settings, of which only its code
 * knows what they may be (../plugin/trial.ts). Main thread.
 */
import { parse, resolve } from 'node:path';
import { z } from 'zod';
import { BUDGET_US_DEFAULT, type PluginSpec } from '../plugin/bundle.ts';
import { pathOf, wholeNumber } from './kinds/values.ts';
import { ConfigError, isSettingMap, type SettingFault, settingOfJson } from './settings.ts';
import { refusalText } from './wording.ts';

const NAME = /^[A-Za-z][A-Za-z0-9._-]{0,30}$/;
export const PLUGIN_NAME_ALLOWED =
  'plugin names are a letter and up to 30 letters, digits, dots, dashes and underscores';
const NAMES_ALLOWED = 'names of plugins: a list, in an option joined by +, or none';
const PLUGINS_ALLOWED = 'a map of plugins by name, each with its file, or a list of files';
const BUDGET_US_MIN = 10;
const BUDGET_US_MAX = 1_000_000;

/** Of all plugins; the others are the plugin's own. */
const PluginSettings = z
  .object(
    {
      file: pathOf('path of a file of TypeScript or JavaScript'),
      onFault: z.enum(['drop', 'pass'], 'drop or pass').optional(),
      budgetUs: wholeNumber(BUDGET_US_MIN, BUDGET_US_MAX).default(BUDGET_US_DEFAULT),
    },
    'a map of settings, with file at least',
  )
  .catchall(z.union([z.string(), z.array(z.string())], 'a text, or a list of them'));

/** All plugins of a configuration. */
export const pluginMap = z.preprocess(
  listed,
  z.record(z.string().regex(NAME, PLUGIN_NAME_ALLOWED), PluginSettings, PLUGINS_ALLOWED),
);

/** Names, in the setting of a port. */
export const pluginNames = z.preprocess(
  (value) => (typeof value !== 'string' ? value : value === 'none' ? [] : value.split('+')),
  z.array(z.string(NAMES_ALLOWED).regex(NAME, NAMES_ALLOWED), NAMES_ALLOWED),
);

/** A list of files: each has the name of its file, and no two the same, or one of them would be none without a word. */
function listed(value: unknown, context: z.RefinementCtx): unknown {
  if (!Array.isArray(value) || !value.every((file) => typeof file === 'string')) return value;
  const names = value.map(pluginNameOf);
  for (const [i, name] of names.entries()) {
    const first = names.indexOf(name);
    if (first === i) continue;
    const message = `a file with another name than ${value[first]}, or a map in which each has a name`;
    context.addIssue({ code: 'custom', path: [i], input: value[i], message });
  }
  return Object.fromEntries(value.map((file, i) => [names[i], { file }]));
}

/** What a plugin is called that nobody named: `access-list` of `/etc/ringway/access-list.ts`. */
export function pluginNameOf(file: string): string {
  return parse(file).name;
}

/** Paths are relative to `folder`. */
export function pluginSpecs(plugins: z.output<typeof pluginMap>, folder = process.cwd()): PluginSpec[] {
  return Object.entries(plugins).map(([name, { file, onFault, budgetUs, ...settings }]) => ({
    name,
    file: resolve(folder, file),
    settings,
    folder,
    onFault: onFault ?? null,
    budgetUs,
  }));
}

/** One plugin from JSON, as the control API has it: with `folder`, what its paths are relative to. @throws ConfigError */
export function resolvePlugin(name: string, settings: unknown): PluginSpec {
  const { folder = process.cwd(), ...own } = isSettingMap(settings) ? settings : {};
  if (!NAME.test(name)) throw new ConfigError(`plugin ${name}: not allowed (${PLUGIN_NAME_ALLOWED})`);
  const faults: string[] = [];
  if (typeof folder !== 'string') faults.push('folder: not allowed (a path, as text)');
  // Objects made of it would have none of that name, and nobody would say so.
  if (Object.hasOwn(own, '__proto__')) faults.push('__proto__: unknown setting');
  const parsed = pluginMap.safeParse({ [name]: settingOfJson(own, `plugin ${name}`) }, { reportInput: true });
  for (const { path, message, input } of parsed.error?.issues ?? []) {
    const key = path.slice(1).map(String).join('.');
    faults.push(
      `${key}${key === '' ? '' : ': '}${refusalText(input as Parameters<typeof refusalText>[0], message)}`,
    );
  }
  if (faults.length > 0 || parsed.data === undefined)
    throw new ConfigError(`plugin ${name}: ${faults.join('; ')}`);
  return pluginSpecs(parsed.data, String(folder))[0];
}

/** That a port names plugins which are not among those; null: it does not. */
export function pluginClash(
  port: { readonly name: string; readonly plugins?: readonly string[] | undefined },
  known: readonly string[],
): SettingFault | null {
  const missing = (port.plugins ?? []).filter((name) => !known.includes(name));
  if (missing.length === 0) return null;
  const there = known.length === 0 ? 'there are no plugins' : `there are ${known.join(', ')}`;
  return { path: ['ports', port.name, 'plugins'], text: `${missing.join('+')} is not allowed (${there})` };
}
