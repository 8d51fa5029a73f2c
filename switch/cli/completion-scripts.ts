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
/** Arguments that are `KEY=VALUE`, of keys that the caller of `completionScript` knows: `COMMAND ARGUMENT`. */
export const SETTING_ARGUMENTS: readonly string[] = ['ringway set key'];
/** Values that are paths, by the name that help gives them. */
const PATHS = ['file', 'path', 'folder', 'fifo'];

/** What can stand at a place. */
type Values = {
  readonly words: readonly string[];
  readonly names: NameKind | null;
  readonly isPath: boolean;
  /** From the second argument on settings stand, `KEY=`, and nothing of the above. */
  readonly hasSettings: boolean;
};

function valuesOfOption(path: string, { long, value, choices }: OptionWords): Values {
  return {
    words: choices,
    names: RUNNING_NAMES[`${path} ${long}`] ?? null,
    isPath: PATHS.includes(value?.replace(/,.*/, '') ?? ''),
    hasSettings: false,
  };
}

function valuesOfArguments({ path, args, commands }: CommandWords): Values {
  const named = args.map(({ name }) => RUNNING_NAMES[`${path} ${name.replace(/[=,].*/, '')}`]);
  return {
    words: [...commands.map((child) => lastWord(child.path)), ...choicesOf(path)],
    names: named.find((kind) => kind !== undefined) ?? null,
    isPath: args.some(({ name }) => PATHS.includes(name.replace(/,.*/, ''))),
    hasSettings: args.some(({ name }) => SETTING_ARGUMENTS.includes(`${path} ${name.replace(/[=,].*/, '')}`)),
  };
}

/** Of arguments that commander knows no choices of. */
function choicesOf(path: string): readonly string[] {
  return path === 'ringway completion' ? SHELLS : [];
}

/** `settingKeys`: what a port can be changed by while it runs, as it is typed. */
export function completionScript(shell: Shell, words: CommandWords, settingKeys: readonly string[]): string {
  const all = withAllBelow(words);
  const settings = settingKeys.map((key) => `${key}=`);
  return { bash: bashScript, zsh: zshScript, fish: fishScript }[shell](all, settings);
}

const HEAD = '# Made by "ringway completion": names of commands and options as of this version.\n';
const lastWord = (path: string): string => path.split(' ').at(-1) ?? path;
const quoted = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`;
/** Paths of all commands below the first, as patterns of a shell's `case`. */
const pathPatterns = (all: readonly CommandWords[]): string[] => all.slice(1).map(({ path }) => quoted(path));
const takingValues = ({ options }: CommandWords): OptionWords[] =>
  options.filter(({ value }) => value !== null);

/** Options of all commands that take a value, each behind the path of its command. */
const optionPatterns = (all: readonly CommandWords[]): string[] =>
  all.flatMap((words) => takingValues(words).map(({ long }) => quoted(`${words.path} ${long}`)));

function bashScript(all: readonly CommandWords[], settings: readonly string[]): string {
  const values = (each: Values): string =>
    [
      `words=${quoted(each.words.join(' '))}`,
      ...(each.names === null ? [] : [`words+=" $(ringway completion --names ${each.names} 2>/dev/null)"`]),
      ...(each.isPath ? ['files=1'] : []),
      ...(each.hasSettings ? [`if ((args > 0)); then words=${quoted(settings.join(' '))}; fi`] : []),
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
  local current=\${COMP_WORDS[COMP_CWORD]} at=ringway args=0 i words= options= files=
  for ((i = 1; i < COMP_CWORD; i++)); do
    case "$at \${COMP_WORDS[i]}" in
    ${pathPatterns(all).join('|')}) at="$at \${COMP_WORDS[i]}" ;;
    ${optionPatterns(all).join('|')}) ((i += 1)) ;;
    *\\ -*) ;;
    *) ((args += 1)) ;;
    esac
  done
  # What stands behind the = of a setting is for whoever types to know.
  if [[ $current == = || \${COMP_WORDS[COMP_CWORD - 1]} == = ]]; then return; fi
  case "$at \${COMP_WORDS[COMP_CWORD - 1]}" in
${options.join('\n')}
    *)
  case $at in
${commands.join('\n')}
  esac
  if [[ $current == -* ]]; then words=$options; files=; fi ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  if [[ \${COMPREPLY[0]} == *= ]]; then compopt -o nospace 2>/dev/null; fi
  if [[ $files && \${#COMPREPLY[@]} -eq 0 ]]; then
    compopt -o filenames 2>/dev/null
    mapfile -t COMPREPLY < <(compgen -f -- "$current")
  fi
}
complete -F _ringway ringway
`;
}

function zshScript(all: readonly CommandWords[], settings: readonly string[]): string {
  const described = (entries: readonly (readonly [string, string])[]): string =>
    entries.map(([word, text]) => quoted(`${word.replaceAll(':', '\\:')}:${text}`)).join(' ');
  const before = ({ words, names, isPath }: Omit<Values, 'hasSettings'>): string[] => [
    ...(words.length === 0 ? [] : [`compadd -- ${words.map(quoted).join(' ')}`]),
    ...(names === null ? [] : [`compadd -- $(ringway completion --names ${names} 2>/dev/null)`]),
    ...(isPath ? ['_files'] : []),
  ];
  const rest = ({ hasSettings, ...others }: Values): string[] => {
    const lines = before(others);
    if (!hasSettings) return lines;
    const keys = `compadd -S '' -- ${settings.map(quoted).join(' ')}`;
    return [`if (( args )); then ${keys}; else ${lines.join('; ') || ':'}; fi`];
  };
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
  local at=ringway args=0 i
  local -a options commands
  for ((i = 2; i < CURRENT; i++)); do
    case "$at \${words[i]}" in
    ${pathPatterns(all).join('|')}) at="$at \${words[i]}" ;;
    ${optionPatterns(all).join('|')}) ((i += 1)) ;;
    *\\ -*) ;;
    *) ((args += 1)) ;;
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

function fishScript(all: readonly CommandWords[], settings: readonly string[]): string {
  const values = ({ words, names, isPath }: Values): string[] => [
    ...(words.length === 0 ? [] : [`-a ${quoted(words.join(' '))}`]),
    ...(names === null ? [] : [`-a '(ringway completion --names ${names} 2>/dev/null)'`]),
    ...(isPath ? ['-F'] : []),
  ];
  const line = (path: string, parts: readonly string[]): string =>
    `complete -c ringway -n ${quoted(`test (__ringway_at) = "${path}"`)} ${parts.join(' ')}`;
  const argumentLines = (words: CommandWords): string[] => {
    const each = { ...valuesOfArguments(words), words: choicesOf(words.path) };
    if (!each.hasSettings) return values(each).map((value) => line(words.path, [value]));
    const where = (test: string): string =>
      `complete -c ringway -n ${quoted(`test (__ringway_at) = "${words.path}"; and test (__ringway_args) ${test}`)}`;
    return [
      ...values(each).map((value) => `${where('= 0')} ${value}`),
      `${where('!= 0')} -a ${quoted(settings.join(' '))}`,
    ];
  };
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
    ...argumentLines(words),
  ]);
  return `${HEAD}function __ringway_at
  set -l at ringway
  for word in (commandline -opc)[2..-1]
    switch "$at $word"
      case ${pathPatterns(all).join(' ')}
        set at "$at $word"
    end
  end
  echo $at
end
function __ringway_args
  set -l at ringway
  set -l args 0
  set -l skip
  for word in (commandline -opc)[2..-1]
    if test -n "$skip"
      set skip
      continue
    end
    switch "$at $word"
      case ${pathPatterns(all).join(' ')}
        set at "$at $word"
      case ${optionPatterns(all).join(' ')}
        set skip 1
      case '* -*'
      case '*'
        set args (math $args + 1)
    end
  end
  echo $args
end
complete -c ringway -f
${lines.join('\n')}
`;
}
