/** `ringway apply` and `ringway show`: the configuration of the running process, changed as a whole and told as a whole. */
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { stringify } from 'yaml';
import type { ApplyReport } from '../apply/configuration.ts';
import { readConfigFile } from '../config/file.ts';
import { faultsError, type SettingMap, type SettingSource, valueAt } from '../config/settings.ts';
import { askControl } from '../control/client.ts';
import { ControlError } from '../control/control-error.ts';
import { type AskOptions, addAskOptions, addControlOption } from './ask-options.ts';
import { findControl } from './running.ts';
import { jsonText } from './table.ts';

type ApplyOptions = AskOptions & { readonly dryRun?: true };

const DETAILS = `
What differs is changed while the switch runs, all of it or nothing; ports that
do not differ go on as if nothing had been. What is not in the file goes, also
what was added or set by hand. Options that the running ringway was started with
hold as they do at a start, but for --port and --plugin: those only where the
file is the one of its --config. Each difference is told in a line:
  + is added        ~ is changed
  - is removed      ! a port is removed and added again, because a running one
                    keeps that setting
  x of the whole switch: only another process can have it (ringway run --takeover)
Exit code 2 when the running one refuses it; nothing has changed then.`;

export function addConfiguration(program: Command): void {
  const apply = program
    .command('apply <file>')
    .description('Have the running ringway be as a configuration file says.')
    .option('--dry-run', 'only tell what would be done')
    .addHelpText('after', DETAILS);
  addAskOptions(apply).action(async (path: string, options: ApplyOptions) => {
    const file = readConfigFile(path);
    const body = { settings: file.values, path: resolve(path), dryRun: options.dryRun === true };
    const control = await findControl(options.control);
    try {
      const report = await askControl<ApplyReport>(control, '/v1/config', { method: 'POST', body });
      process.stdout.write(options.json ? jsonText(report) : textOf(report));
    } catch (error) {
      throw inFileWords(error, file);
    }
  });
  const show = program
    .command('show')
    .description('Show what runs as a configuration file, with what was added and set since.')
    .option('--yaml', 'as YAML, which is the default');
  addControlOption(show)
    .option('--json', 'as JSON')
    .action(async (options: AskOptions) => {
      const settings = await askControl<SettingMap>(await findControl(options.control), '/v1/config');
      process.stdout.write(options.json ? jsonText(settings) : stringify(settings, { schema: 'failsafe' }));
    });
}

function textOf({ lines }: ApplyReport): string {
  return lines.length === 0 ? 'It runs as the file says already.\n' : `${lines.join('\n')}\n`;
}

/** A refused setting is told with the line on which it stands. */
function inFileWords(error: unknown, file: SettingSource): unknown {
  if (!(error instanceof ControlError) || error.faults.length === 0) return error;
  const subject = (path: readonly string[]): string =>
    valueAt(file.values, path.slice(0, 2)) === undefined
      ? `an option of the running ringway: ${path.join('.')}`
      : file.subject(path);
  return faultsError(subject, error.faults);
}
