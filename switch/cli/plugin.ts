/** `ringway plugin`: the plugins of the running process: what they do, and new code for them. */
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { printable } from '../../src/host/printable.ts';
import { askControl } from '../control/client.ts';
import type { PluginNotes, PluginReport } from '../plugin/plugin-table.ts';
import { type AskOptions, addAskOptions, addControlOption } from './ask-options.ts';
import { pluginSettings } from './options.ts';
import { findControl } from './running.ts';
import { type Column, formatCount, formatTable, jsonText } from './table.ts';

export function addPlugin(program: Command): void {
  const plugin = program
    .command('plugin')
    .description('Rules in TypeScript: show, reload, add and remove the plugins of the running ringway.');
  const list = plugin
    .command('list')
    .description('Show them: state, what they decided, and their own counters.');
  addAskOptions(list).action(async (options: AskOptions) => {
    const plugins = await askControl<PluginReport[]>(await findControl(options.control), '/v1/plugins');
    process.stdout.write(options.json ? jsonText(plugins) : formatPlugins(plugins));
  });
  const show = plugin
    .command('show <name>')
    .description('Show what a plugin has noted, as addresses that it saw.');
  addAskOptions(show).action(async (name: string, options: AskOptions) => {
    const notes = await askControl<PluginNotes>(await findControl(options.control), `${pathOf(name)}/notes`);
    process.stdout.write(options.json ? jsonText(notes) : formatNotes(notes));
  });
  const reload = plugin
    .command('reload [names...]')
    .description(
      'Exchange the code and the files of plugins, of all when none is named, without losing a frame; what cannot be is refused, and what was there goes on.',
    );
  addControlOption(reload).action(async (names: string[], options: AskOptions) => {
    const body = names.length === 0 ? {} : { plugins: names };
    await askControl(await findControl(options.control), '/v1/plugins', { method: 'POST', body });
  });
  const add = plugin
    .command('add <file,…>')
    .description(
      'Add a plugin behind those that are there, until it is removed; the form is that of `ringway run --plugin`.',
    );
  addControlOption(add).action(async (text: string, options: AskOptions) => {
    const [name, { file, ...settings }] = Object.entries(pluginSettings([text], 'plugin'))[0];
    const body = { ...settings, file: resolve(String(file)), folder: process.cwd() };
    await askControl(await findControl(options.control), pathOf(name), { method: 'PUT', body });
  });
  const remove = plugin.command('remove <name>').description('Remove a plugin that no port names.');
  addControlOption(remove).action(async (name: string, options: AskOptions) => {
    await askControl(await findControl(options.control), pathOf(name), { method: 'DELETE' });
  });
}

function pathOf(name: string): string {
  return `/v1/plugins/${encodeURIComponent(name)}`;
}

const COLUMNS: readonly Column[] = [
  { title: 'PLUGIN', align: 'left' },
  { title: 'STATE', align: 'left' },
  { title: 'FRAMES', align: 'right' },
  { title: 'DROPPED', align: 'right' },
  { title: 'FILE', align: 'left' },
];

/** The table of plugins; below each why it failed, what it dropped and what it counted. */
export function formatPlugins(plugins: readonly PluginReport[]): string {
  if (plugins.length === 0) return 'There are no plugins.\n';
  const [titles, ...rows] = formatTable(COLUMNS, plugins.map(rowOf));
  const lines = plugins.flatMap((plugin, i) => [
    rows[i],
    ...detailsOf(plugin).map((text) => `  ${printable(text)}`),
  ]);
  return `${[titles, ...lines].join('\n')}\n`;
}

function rowOf({ name, state, frames, drops, nowhere, file }: PluginReport): string[] {
  const dropped = drops.reduce((sum, drop) => sum + drop.frames, nowhere);
  return [name, state, formatCount(frames), formatCount(dropped), file];
}

function detailsOf(plugin: PluginReport): string[] {
  const { state, reason, onFault, redirected, mirrored, nowhere, unsaid, noteCount, name } = plugin;
  const fate = onFault === 'drop' ? 'what it was to decide on is dropped' : 'frames pass without it';
  const did: [number, string][] = [
    [redirected, 'redirected'],
    [mirrored, 'mirrored'],
    [nowhere, 'dropped, for the port that they were redirected to is not there'],
    [unsaid, 'notes and log lines left out, because they were too many'],
  ];
  return [
    ...(state === 'failed' ? [`${reason}; ${fate} until it is reloaded`] : []),
    ...plugin.drops
      .filter(({ frames }) => frames > 0)
      .map((drop) => `dropped ${formatCount(drop.frames)}: ${drop.text} (${drop.name})`),
    ...did.filter(([count]) => count > 0).map(([count, text]) => `${formatCount(count)} ${text}`),
    ...Object.entries(plugin.counters).map(([counter, count]) => `${counter} ${formatCount(count)}`),
    ...(noteCount > 0
      ? [`${formatCount(noteCount)} ${noteCount === 1 ? 'note' : 'notes'} (ringway plugin show ${name})`]
      : []),
  ];
}

const NOTE_COLUMNS: readonly Column[] = [
  { title: 'KEY', align: 'left' },
  { title: 'NOTE', align: 'left' },
];

export function formatNotes(notes: PluginNotes): string {
  if (notes.length === 0) return 'It has noted nothing.\n';
  return `${formatTable(
    NOTE_COLUMNS,
    notes.map(({ key, value }) => [key, value]),
  ).join('\n')}\n`;
}
