/** `ringway install-service`: the unit file by which systemd runs the switch from the machine's start on. */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { Command } from 'commander';
import { UNIT_HEAD, UNIT_NAME, unitText } from '../service/unit-file.ts';
import { CliError, EXIT } from './cli-error.ts';
import { ownCommand } from './version.ts';

type Options = {
  readonly config: string;
  readonly folder: string;
  readonly print?: true;
  readonly now?: true;
  readonly uninstall?: true;
};

const FOLDER = '/etc/systemd/system';
/** Where packages have theirs. */
const PACKAGED = join('/usr/lib/systemd/system', UNIT_NAME);
const SERVICE = 'ringway';
/** There while systemd is the machine's first process. */
const MANAGED = '/run/systemd/system';

const DETAILS = `
What the unit allows is what Ringway needs with any kind of port; "systemctl
edit ringway" loosens it, or tightens it (docs/operating.md in Ringway's sources
has the list). Without --now, what comes next is said.

Examples:
  ringway install-service --config /etc/ringway.yaml --now
  ringway install-service --print
  ringway install-service --uninstall`;

export function addInstallService(program: Command): void {
  program
    .command('install-service')
    .description('Have systemd run the switch: write its unit file, or take it away.')
    .option('--config <file>', 'configuration that the service runs with', '/etc/ringway.yaml')
    .option('--folder <folder>', 'where the unit file goes', FOLDER)
    .option('--now', 'enable and start it as well')
    .option('--print', 'print the unit file, and do nothing')
    .option('--uninstall', 'stop and disable it, and remove the unit file')
    .addHelpText('after', DETAILS)
    .action((options: Options) => {
      const path = join(resolve(options.folder), UNIT_NAME);
      if (options.print) process.stdout.write(unitOf(options));
      else if (options.uninstall) uninstall(path);
      else install(path, options);
    });
}

/** @throws CliError */
function unitOf({ config }: Options): string {
  try {
    return unitText({ command: ownCommand(), config: resolve(config) });
  } catch (error) {
    throw new CliError((error as Error).message, EXIT.usage);
  }
}

/** @throws CliError */
function install(path: string, options: Options): void {
  const text = unitOf(options);
  refuseOthers(path);
  if (options.now && !existsSync(options.config))
    throw new CliError(`there is no ${options.config} for the service to run with`, EXIT.usage);
  if (isPackaged(options) && options.folder === FOLDER && !existsSync(path))
    say(`the package brought the same along: ${PACKAGED}`);
  else {
    try {
      writeFileSync(path, text);
    } catch (error) {
      throw new CliError(`${path} cannot be written: ${(error as Error).message}`, EXIT.usage);
    }
    say(`wrote ${path}`);
  }
  systemctl('daemon-reload');
  if (options.now) systemctl('enable', '--now', SERVICE);
  else {
    if (!existsSync(options.config))
      say(`write ${options.config} (ringway run --help has an example), and then:`);
    say(`systemctl enable --now ${SERVICE}`);
  }
}

/** @throws CliError */
function uninstall(path: string): void {
  if (!existsSync(path)) throw new CliError(`there is no ${path}`, EXIT.usage);
  refuseOthers(path);
  systemctl('disable', '--now', SERVICE);
  rmSync(path);
  systemctl('daemon-reload');
  say(`removed ${path}`);
}

/** A second one in /etc would hide what later packages bring. */
function isPackaged({ config }: Options): boolean {
  if (!existsSync(PACKAGED)) return false;
  const text = readFileSync(PACKAGED, 'utf8');
  const [, command = ''] = /^ExecStart=(\S+) run/m.exec(text) ?? [];
  if (!existsSync(command) || realpathSync(command) !== realpathSync(ownCommand())) return false;
  return text === unitText({ command, config: resolve(config) });
}

/** A unit that somebody wrote is neither written over nor removed. @throws CliError */
function refuseOthers(path: string): void {
  if (existsSync(path) && !readFileSync(path, 'utf8').startsWith(UNIT_HEAD))
    throw new CliError(`${path} was not made by this command: remove it yourself`, EXIT.usage);
}

/** Nothing is to be told where systemd does not run: in an image, or a folder elsewhere. @throws CliError */
function systemctl(...args: string[]): void {
  if (!existsSync(MANAGED)) return;
  const { status, error } = spawnSync('systemctl', args, { stdio: 'inherit' });
  if (error !== undefined) throw new CliError(`systemctl: ${error.message}`);
  if (status !== 0) throw new CliError(`systemctl ${args.join(' ')} failed`);
}

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}
