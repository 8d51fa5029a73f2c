/** Manual pages, in the language of man(7), made of what `--help` says. Text alone. */
import { type CommandWords, type OptionWords, withAllBelow } from './command-tree.ts';

/** By file name: `ringway.1`, `ringway-plugin-add.1`. */
export function manPages(words: CommandWords, version: string): Readonly<Record<string, string>> {
  const pages = withAllBelow(words).map((each) => [`${dashed(each.path)}.1`, manPage(each, words, version)]);
  return Object.fromEntries(pages);
}

function manPage(words: CommandWords, root: CommandWords, version: string): string {
  const { path, description, usage, options, commands, details } = words;
  const others = [root, ...root.commands].filter((other) => other !== words);
  return [
    `.TH ${dashed(path).toUpperCase()} 1 "" "ringway ${roff(version)}" "Ringway"`,
    '.SH NAME',
    `${roff(dashed(path))} \\- ${roff(description.replace(/\.$/, ''))}`,
    '.SH SYNOPSIS',
    `.B ${roff(path)}`,
    roff(usage),
    '.SH DESCRIPTION',
    roff(description),
    ...(commands.length === 0 ? [] : ['.SH COMMANDS', ...commands.flatMap((child) => commandLines(child))]),
    '.SH OPTIONS',
    ...options.flatMap(optionLines),
    ...(details === '' ? [] : ['.SH DETAILS', '.nf', roff(details), '.fi']),
    '.SH SEE ALSO',
    others
      .map((other) => `.BR ${roff(dashed(other.path))} (1)`)
      .join(',\n')
      .replaceAll(',\n', ' ,\n'),
    '',
  ].join('\n');
}

function commandLines({ path, usage, description }: CommandWords): string[] {
  return ['.TP', `.B ${roff(`${path.split(' ').at(-1)} ${usage}`)}`, roff(description)];
}

function optionLines({ flags, description }: OptionWords): string[] {
  return ['.TP', `.B ${roff(flags)}`, roff(description)];
}

const dashed = (path: string): string => path.replaceAll(' ', '-');

/** A dash is one to copy, and no line is taken for a request. */
function roff(text: string): string {
  return text
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replaceAll('…', '...')
    .replace(/^(?=[.'])/gm, '\\&');
}
