/** `ringway add` and `ringway remove`: ports of the running process, without stopping it. */
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { resolveConfig, type SettingMap, type SettingSource } from '../config/resolve.ts';
import { askControl } from '../control/client.ts';
import { type AskOptions, addControlOption } from './ask-options.ts';
import { portSettings, subjectOf, toOptionKey } from './options.ts';
import { findControl } from './running.ts';

/** Settings that are paths: relative to where the command is given, not to where the switch was started. */
const PATH_SETTINGS = ['socket', 'file', 'peer'];

export function addChangePorts(program: Command): void {
  const add = program
    .command('add <name=socket,…>')
    .description('Add a port to the running ringway; the form is that of `ringway run --port`.');
  addControlOption(add).action(async (text: string, options: AskOptions) => {
    const source: SettingSource = {
      values: { ports: portSettings([text]) },
      subject: subjectOf,
      keyName: toOptionKey,
    };
    // Refused here, a mistake is answered in the words of the command line.
    const [port] = resolveConfig([source]).ports;
    const control = await findControl(options.control);
    const settings = (source.values.ports as SettingMap)[port!.name] as SettingMap;
    await askControl(control, pathOf(port!.name), { method: 'PUT', body: absolute(settings) });
  });
  const remove = program
    .command('remove <name>')
    .description('Remove a port from the running ringway; its guest sees the link go.');
  addControlOption(remove).action(async (name: string, options: AskOptions) => {
    await askControl(await findControl(options.control), pathOf(name), { method: 'DELETE' });
  });
}

function pathOf(name: string): string {
  return `/v1/ports/${encodeURIComponent(name)}`;
}

function absolute(settings: SettingMap): SettingMap {
  return Object.fromEntries(
    Object.entries(settings).map(([key, value]) => [
      key,
      PATH_SETTINGS.includes(key) && typeof value === 'string' ? resolve(value) : value,
    ]),
  );
}
