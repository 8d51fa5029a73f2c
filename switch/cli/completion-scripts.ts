/**
 * Completion for bash, zsh and fish, made of the commands as `--help` knows them. A script has tables of its own, so that
 * a key costs no start of Node; only names of ports and plugins are asked of the running switch, by
 * `ringway completion --names`. Text alone.
 */
import { type CommandWords, type OptionWords, withAllBelow } from './command-tree.ts';

export const SHELLS = ['bash', 'zsh', 'fish'] as const;
export type Shell = (typeof SHELLS)[number];
/** What the running switch is asked for. */
export const NAME_KINDS = ['ports', 'plugins'] as const;
type NameKind = (typeof NAME_KINDS)[number];

/** Arguments and options that are names of what runs: `COMMAND ARGUMENT` and `COMMAND --OPTION`. */
export const RUNNING_NAMES: Readonly<Record<string, NameKind>> = {
  'ringway set name': 'ports',
  'ringway remove name': 'ports',
  'ringway capture port': 'ports',
  'ringway trace --in': 'ports',
  'ringway fdb add port': 'ports',
  'ringway fdb flush --port': 'ports',
  'ringway mdb add port': 'ports',
  'ringway mdb del port': 'ports',
  'ringway mdb flush --port': 'ports',
  'ringway plugin show name': 'plugins',
  'ringway plugin reload names': 'plugins',
  'ringway plugin remove name': 'plugins',
};
/** Values that are paths, by the name that help gives them. */
const PATHS = ['file', 'path', 'folder', 'fifo'];

/** What can stand at a place. */
type Values = {
  readonly words: readonly string[];
  readonly names: NameKind | null;
  readonly isPath: boolean;
};

function valuesOfOption(path: string, { long, value, choices }: OptionWords): Values {
  return {
    words: choices,
    names: RUNNING_NAMES[`${path} ${long}`] ?? null,
    isPath: PATHS.includes(value?.replace(/,.*/, '') ?? ''),
  };
}

function valuesOfArguments({ path, args, commands }: CommandWords): Values {
  const named = args.map(({ name }) => RUNNING_NAMES[`${path} ${name.replace(/[=,].*/, '')}`]);
  return {
    words: [...commands.map((child) => lastWord(child.path)), ...choicesOf(path)],
    names: named.find((kind) => kind !== undefined) ?? null,
    isPath: args.some(({ name }) => PATHS.includes(name.replace(/,.*/, ''))),
  };
}

/** Of arguments that commander knows no choices of. */
function choicesOf(path: string): readonly string[] {
  return path === 'ringway completion' ? SHELLS : [];
}

export function completionScript(shell: Shell, words: CommandWords): string {
  const all = withAllBelow(words);
  return { bash: bashScript, zsh: zshScript, fish: fishScript }[shell](all);
}

const HEAD = '# Made by "ringway completion": names of commands and options as of this version.\n';
const lastWord = (path: string): string => path.split(' ').at(-1) ?? path;
const quoted = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`;
/** `name` may be several in one pattern of a shell's `case`. */
const casePaths = (all: readonly CommandWords[]): string =>
  all
    .slice(1)
    .map(({ path }) => quoted(path))
    .join('|');
const takingValues = ({ options }: CommandWords): OptionWords[] =>
  options.filter(({ value }) => value !== null);

function bashScript(all: readonly CommandWords[]): string {
  const values = (each: Values): string =>
    [
      `words=${quoted(each.words.join(' '))}`,
      ...(each.names === null ? [] : [`words+=" $(ringway completion --names ${each.names} 2>/dev/null)"`]),
      ...(each.isPath ? ['files=1'] : []),
    ].join('; ');
  const options = all.flatMap((words) =>
    takingValues(words).map(
      (option) =>
        `    ${quoted(`${words.path} ${option.long}`)}) ${values(valuesOfOption(words.path, option))} ;;`,
    ),
  );
  const commands = all.map(
    (words) =>
      `    ${quoted(words.path)}) options=${quoted(words.options.map(({ long }) => long).join(' '))}; ${values(valuesOfArguments(words))} ;;`,
  );
  return `${HEAD}_ringway() {
  local current=\${COMP_WORDS[COMP_CWORD]} at=ringway i words= options= files=
  for ((i = 1; i < COMP_CWORD; i++)); do
    case "$at \${COMP_WORDS[i]}" in
    ${casePaths(all)}) at="$at \${COMP_WORDS[i]}" ;;
    esac
  done
  case "$at \${COMP_WORDS[COMP_CWORD - 1]}" in
${options.join('\n')}
    *)
  case $at in
${commands.join('\n')}
  esac
  if [[ $current == -* ]]; then words=$options; files=; fi ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  if [[ $files && \${#COMPREPLY[@]} -eq 0 ]]; then
    compopt -o filenames 2>/dev/null
    mapfile -t COMPREPLY < <(compgen -f -- "$current")
  fi
}
complete -F _ringway ringway
`;
}

function zshScript(all: readonly CommandWords[]): string {
  const described = (entries: readonly (readonly [string, string])[]): string =>
    entries.map(([word, text]) => quoted(`${word.replaceAll(':', '\\:')}:${text}`)).join(' ');
  const rest = ({ words, names, isPath }: Values): string[] => [
    ...(words.length === 0 ? [] : [`compadd -- ${words.map(quoted).join(' ')}`]),
    ...(names === null ? [] : [`compadd -- $(ringway completion --names ${names} 2>/dev/null)`]),
    ...(isPath ? ['_files'] : []),
  ];
  const options = all.flatMap((words) =>
    takingValues(words).map((option) => {
      const lines = rest(valuesOfOption(words.path, option));
      return `    ${quoted(`${words.path} ${option.long}`)}) ${lines.join('; ') || ':'}; return ;;`;
    }),
  );
  const commands = all.map((words) => {
    const own = words.options.map(({ long, description }) => [long, description] as const);
    const children = words.commands.map(({ path, description }) => [lastWord(path), description] as const);
    const values = valuesOfArguments(words);
    const others = rest({ ...values, words: choicesOf(words.path) });
    return `    ${quoted(words.path)})
      options=(${described(own)})
      commands=(${described(children)})
      if [[ \${words[CURRENT]} != -* ]]; then ${others.join('; ') || ':'}; fi ;;`;
  });
  return `#compdef ringway
${HEAD}_ringway() {
  local at=ringway i
  local -a options commands
  for ((i = 2; i < CURRENT; i++)); do
    case "$at \${words[i]}" in
    ${casePaths(all)}) at="$at \${words[i]}" ;;
    esac
  done
  case "$at \${words[CURRENT-1]}" in
${options.join('\n')}
  esac
  case $at in
${commands.join('\n')}
  esac
  if [[ \${words[CURRENT]} == -* ]]; then
    _describe option options
  elif (( $#commands )); then
    _describe command commands
  fi
}
if [ "\${funcstack[1]}" = _ringway ]; then _ringway "$@"; else compdef _ringway ringway; fi
`;
}

function fishScript(all: readonly CommandWords[]): string {
  const values = ({ words, names, isPath }: Values): string[] => [
    ...(words.length === 0 ? [] : [`-a ${quoted(words.join(' '))}`]),
    ...(names === null ? [] : [`-a '(ringway completion --names ${names} 2>/dev/null)'`]),
    ...(isPath ? ['-F'] : []),
  ];
  const line = (path: string, parts: readonly string[]): string =>
    `complete -c ringway -n ${quoted(`test (__ringway_at) = "${path}"`)} ${parts.join(' ')}`;
  const described = (text: string): string => `-d ${quoted(text)}`;
  const lines = all.flatMap((words) => [
    ...words.commands.map((child) =>
      line(words.path, [`-a ${quoted(lastWord(child.path))}`, described(child.description)]),
    ),
    ...words.options.map((option) => {
      const value = option.value === null ? [] : ['-r', ...values(valuesOfOption(words.path, option))];
      return line(words.path, [
        `-l ${quoted(option.long.replace(/^--/, ''))}`,
        ...value,
        described(option.description),
      ]);
    }),
    ...values({ ...valuesOfArguments(words), words: choicesOf(words.path) }).map((value) =>
      line(words.path, [value]),
    ),
  ]);
  return `${HEAD}function __ringway_at
  set -l at ringway
  for word in (commandline -opc)[2..-1]
    switch "$at $word"
      case ${all
        .slice(1)
        .map(({ path }) => quoted(path))
        .join(' ')}
        set at "$at $word"
    end
  end
  echo $at
end
complete -c ringway -f
${lines.join('\n')}
`;
}
