/**
 * The commands as plain data, read from commander's tree: what man pages (man-pages.ts) and completions (completion.ts)
 * are made from, so that they say what `--help` does.
 */
import type { Command } from 'commander';

export type OptionWords = {
  /** As help shows it: `-V, --version`, `--config <file>`. */
  readonly flags: string;
  readonly long: string;
  /** Name of its value, `file` of `--config <file>`; null: it has none. */
  readonly value: string | null;
  readonly choices: readonly string[];
  readonly description: string;
};

export type CommandWords = {
  /** `ringway`, `ringway plugin add`. */
  readonly path: string;
  readonly description: string;
  /** Behind the path. */
  readonly usage: string;
  readonly options: readonly OptionWords[];
  readonly args: readonly { readonly name: string; readonly isVariadic: boolean }[];
  readonly commands: readonly CommandWords[];
  /** What help says after its lists. */
  readonly details: string;
};

export function commandWords(command: Command, above = ''): CommandWords {
  const path = `${above} ${command.name()}`.trim();
  const help = command.createHelp();
  return {
    path,
    description: command.description(),
    usage: command.usage(),
    options: help.visibleOptions(command).map((option) => ({
      flags: option.flags,
      long: option.long ?? option.flags,
      value: /[<[]([^>\].]+)/.exec(option.flags)?.[1] ?? null,
      choices: option.argChoices ?? choicesIn(option.flags),
      description: help.optionDescription(option),
    })),
    args: command.registeredArguments.map((argument) => ({
      name: argument.name(),
      isVariadic: argument.variadic,
    })),
    commands: help
      .visibleCommands(command)
      .filter((child) => child.name() !== 'help')
      .map((child) => commandWords(child, path)),
    details: detailsOf(command),
  };
}

/** With all below it, itself first. */
export function withAllBelow(words: CommandWords): CommandWords[] {
  return [words, ...words.commands.flatMap(withAllBelow)];
}

/** Only the whole help has what was added to it. */
function detailsOf(command: Command): string {
  const { writeOut } = command.configureOutput();
  let text = '';
  command.configureOutput({
    writeOut: (part) => {
      text += part;
    },
  });
  command.outputHelp();
  command.configureOutput({ ...(writeOut !== undefined && { writeOut }) });
  const own = command.helpInformation();
  return text.slice(text.indexOf(own) + own.length).trim();
}

/** Of `--receive <on|off>`. */
function choicesIn(flags: string): string[] {
  const value = /<(\w+(?:\|\w+)+)>/.exec(flags)?.[1];
  return value?.split('|') ?? [];
}
