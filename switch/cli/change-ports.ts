/** `ringway add`, `ringway set` and `ringway remove`: ports of the running process, without stopping it. */
import type { Command } from 'commander';
import { withWholePaths } from '../config/kinds/index.ts';
import { resolvePort } from '../config/resolve.ts';
import { ConfigError, faultsError, type SettingMap } from '../config/settings.ts';
import { askControl } from '../control/client.ts';
import { ControlError } from '../control/control-error.ts';
import { type AskOptions, addControlOption } from './ask-options.ts';
import { guestLineText } from './guest-line.ts';
import { CHANGE_WORDS, changedSettings, portSettings } from './options.ts';
import { findControl } from './running.ts';

export function addChangePorts(program: Command): void {
  const add = program
    .command('add <name=socket,…>')
    .description(
      'Add a port to the running ringway; the form is that of `ringway run --port` (see `ringway run --help`). Prints the line that plugs a guest in.',
    );
  addControlOption(add).action(async (text: string, options: AskOptions) => {
    const [name, settings] = Object.entries(portSettings([text], 'port'))[0];
    const control = await findControl(options.control);
    const body = withWholePaths(settings);
    try {
      await askControl(control, pathOf(name), { method: 'PUT', body });
    } catch (error) {
      throw inOptionWords(error);
    }
    process.stdout.write(lineFor(name, body));
  });
  const set = program
    .command('set <name> <key=value...>')
    .description(
      'Change settings of a running port: those that every port has, and offloads; `key=` takes one back.',
    );
  addControlOption(set).action(async (name: string, pairs: string[], options: AskOptions) => {
    const body = changedSettings(pairs);
    try {
      await askControl(await findControl(options.control), pathOf(name), { method: 'PATCH', body });
    } catch (error) {
      throw inOptionWords(error);
    }
  });
  const remove = program
    .command('remove <name>')
    .description('Remove a port from the running ringway; its guest sees the link go.');
  addControlOption(remove).action(async (name: string, options: AskOptions) => {
    await askControl(await findControl(options.control), pathOf(name), { method: 'DELETE' });
  });
}

/** As `ringway run` prints it, of a port that was added. */
function lineFor(name: string, settings: SettingMap): string {
  try {
    return guestLineText(resolvePort(name, settings));
  } catch (error) {
    // The switch has taken them: it knows an owner that is not known here, in another container.
    if (!(error instanceof ConfigError)) throw error;
    return '';
  }
}

/** A refused setting is told in the words of the command line, as `ringway run` does. */
export function inOptionWords(error: unknown): unknown {
  if (!(error instanceof ControlError) || error.faults.length === 0) return error;
  const faults = error.faults.map(({ path, text, optionText = text }) => ({ path, text: optionText }));
  return faultsError(CHANGE_WORDS.subject, faults);
}

function pathOf(name: string): string {
  return `/v1/ports/${encodeURIComponent(name)}`;
}
