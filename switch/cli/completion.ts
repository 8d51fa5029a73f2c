/** `ringway completion`: the script that has a shell complete what is typed, and the names that such a script asks for. */
import { type Command, Option } from 'commander';
import type { PortReport } from '../control/report.ts';
import type { PluginReport } from '../plugin/plugin-table.ts';
import { CliError, EXIT } from './cli-error.ts';
import { commandWords } from './command-tree.ts';
import { completionScript, NAME_KINDS, SHELLS } from './completion-scripts.ts';
import { findControl } from './running.ts';

type Options = { readonly names?: (typeof NAME_KINDS)[number] };

const DETAILS = `
Examples:
  # bash, zsh: for this shell
  source <(ringway completion bash)
  # bash, zsh, fish: for good
  ringway completion bash >/usr/share/bash-completion/completions/ringway
  ringway completion zsh >/usr/share/zsh/vendor-completions/_ringway
  ringway completion fish >/usr/share/fish/vendor_completions.d/ringway.fish`;

/** `whole` makes the tree of all commands. */
export function addCompletion(program: Command, whole: () => Promise<Command>): void {
  program
    .command('completion [shell]')
    .description(
      `Print what has a shell complete commands, options and names of ports: ${SHELLS.join(', ')}.`,
    )
    .addOption(new Option('--names <kind>', 'names of what runs').choices(NAME_KINDS).hideHelp())
    .addHelpText('after', DETAILS)
    .action(async (shell: string | undefined, { names }: Options) => {
      if (names !== undefined) {
        process.stdout.write((await runningNames(names)).map((name) => `${name}\n`).join(''));
        return;
      }
      const known = SHELLS.find((each) => each === shell);
      if (known === undefined) throw new CliError(`name a shell: ${SHELLS.join(', ')}`, EXIT.usage);
      const { settingKeys } = await import('./setting-keys.ts');
      process.stdout.write(completionScript(known, commandWords(await whole()), settingKeys()));
    });
}

/** A shell expands what it completes, and who answers may be another one than was there. */
const NAME = /^[\w.-]+$/;

/** None where nobody can be asked: whoever types is not to be disturbed. */
async function runningNames(kind: (typeof NAME_KINDS)[number]): Promise<string[]> {
  try {
    const { askControl } = await import('../control/client.ts');
    const reports = await askControl<readonly (PortReport | PluginReport)[]>(
      await findControl(undefined),
      `/v1/${kind}`,
    );
    return reports.map(({ name }) => name).filter((name) => NAME.test(name));
  } catch {
    return [];
  }
}
