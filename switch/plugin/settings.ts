/**
 * Settings of a plugin as its factory reads them (PluginSettings of interface.ts). Gathers what is wrong with them, all of it,
 * and which were never asked for. In the trial's thread files are read, once; in a worker what was read there is answered.
 */
import { resolve } from 'node:path';
import { nearestName } from '../config/spelling.ts';
import type { PluginSettings } from './interface.ts';
import { readPlainFile } from './plain-file.ts';

/** As they were given: text, or lists of it. */
export type PluginSettingValues = Readonly<Record<string, string | readonly string[]>>;

const TEXT_BYTES_MAX = 2 ** 24;

/** What is wrong, `name` is the setting's; '' of none. */
export type PluginSettingFault = { readonly name: string; readonly text: string };

export class SettingReader implements PluginSettings {
  readonly #values: PluginSettingValues;
  readonly #folder: string;
  readonly #asked = new Set<string>();
  readonly #faults: PluginSettingFault[] = [];
  /** Contents of files by absolute path; those that are missing are read. */
  readonly texts: Map<string, string>;

  /** Paths are relative to `folder`. */
  constructor(values: PluginSettingValues, folder: string, texts: Map<string, string>) {
    this.#values = values;
    this.#folder = folder;
    this.texts = texts;
  }

  text(name: string, fallback?: string): string {
    checkDefault(name, fallback, typeof fallback === 'string', 'a text');
    const value = this.#valueOf(name);
    if (value === undefined) return fallback ?? this.#missing(name, 'a text');
    if (typeof value === 'string') return value;
    this.#refuseValue(name, 'a list', 'a single text');
    return fallback ?? '';
  }

  number(
    name: string,
    {
      min = -Number.MAX_VALUE,
      max = Number.MAX_VALUE,
      default: fallback,
    }: { min?: number; max?: number; default?: number } = {},
  ): number {
    checkDefault(name, fallback, typeof fallback === 'number', 'a number');
    const value = this.#valueOf(name);
    const allowed =
      min === -Number.MAX_VALUE && max === Number.MAX_VALUE
        ? 'a number'
        : max === Number.MAX_VALUE
          ? `a number of at least ${min}`
          : min === -Number.MAX_VALUE
            ? `a number of at most ${max}`
            : `a number, ${min} to ${max}`;
    if (value === undefined) {
      if (fallback === undefined) this.#missing(name, allowed);
      return fallback ?? 0;
    }
    const number = typeof value === 'string' && /^-?\d+(\.\d+)?$/.test(value) ? Number(value) : Number.NaN;
    if (number >= min && number <= max) return number;
    this.refuse(name, allowed);
    return fallback ?? 0;
  }

  flag(name: string, fallback?: boolean): boolean {
    checkDefault(name, fallback, typeof fallback === 'boolean', 'true or false');
    const word = this.choice(
      name,
      ['on', 'off'],
      fallback === undefined ? undefined : fallback ? 'on' : 'off',
    );
    return word === 'on';
  }

  choice<const Choices extends readonly string[]>(
    name: string,
    choices: Choices,
    fallback?: Choices[number],
  ): Choices[number] {
    checkDefault(name, fallback, choices.includes(fallback ?? ''), 'one of its choices');
    const value = this.#valueOf(name);
    const allowed =
      choices.length === 1 ? choices[0] : `${choices.slice(0, -1).join(', ')} or ${choices.at(-1)}`;
    if (value === undefined) {
      if (fallback === undefined) this.#missing(name, allowed);
      return fallback ?? choices[0];
    }
    const choice = choices.find((each) => each === value);
    if (choice === undefined) this.refuse(name, allowed);
    return choice ?? fallback ?? choices[0];
  }

  list(name: string, fallback?: readonly string[]): readonly string[] {
    checkDefault(name, fallback, Array.isArray(fallback), 'a list');
    const value = this.#valueOf(name);
    if (value === undefined) {
      if (fallback === undefined) this.#missing(name, 'a list');
      return fallback ?? [];
    }
    return typeof value === 'string' ? value.split('+').filter((part) => part !== '') : value;
  }

  lines(name: string): readonly { readonly number: number; readonly text: string }[] {
    const path = this.text(name);
    if (path === '') return [];
    return this.#contents(name, resolve(this.#folder, path))
      .split('\n')
      .map((text, i) => ({ number: i + 1, text: text.replace(/#.*/, '').trim() }))
      .filter(({ text }) => text !== '');
  }

  refuse(name: string, allowed: string): void {
    const value = this.#valueOf(name);
    this.#refuseValue(
      name,
      typeof value === 'string' ? value : value === undefined ? 'nothing' : value.join('+'),
      allowed,
    );
  }

  /** What is wrong with those that were asked for so far. */
  wrong(): readonly PluginSettingFault[] {
    return this.#faults;
  }

  /** All that is wrong, once the factory is done. */
  faults(): readonly PluginSettingFault[] {
    const known = [...this.#asked];
    const unknown = Object.keys(this.#values)
      .filter((name) => !this.#asked.has(name))
      .map((name) => ({ name, text: `unknown setting (${instead(name, known)})` }));
    return [...this.#faults, ...unknown];
  }

  #valueOf(name: string): string | readonly string[] | undefined {
    this.#asked.add(name);
    return Object.hasOwn(this.#values, name) ? this.#values[name] : undefined;
  }

  #contents(name: string, path: string): string {
    const known = this.texts.get(path);
    if (known !== undefined) return known;
    let text = '';
    try {
      text = readPlainFile(path, TEXT_BYTES_MAX);
    } catch (error) {
      const code = error instanceof Error && 'code' in error ? String(error.code) : (error as Error).message;
      this.refuse(name, `the path of a file that can be read: ${code}`);
    }
    this.texts.set(path, text);
    return text;
  }

  #missing(name: string, allowed: string): '' {
    this.#faults.push({ name, text: `missing (${allowed})` });
    return '';
  }

  #refuseValue(name: string, value: string, allowed: string): void {
    this.#faults.push({ name, text: `${value} is not allowed (${allowed})` });
  }
}

function instead(name: string, known: readonly string[]): string {
  if (known.length === 0) return 'it has none';
  const nearest = nearestName(name, known);
  return nearest.distance <= 2 ? `did you mean ${nearest.name}?` : `there are ${known.join(', ')}`;
}

/** Nobody compiles a plugin: what its types would have said is said here. @throws TypeError */
function checkDefault(name: string, fallback: unknown, isRight: boolean, what: string): void {
  if (fallback !== undefined && !isRight)
    throw new TypeError(`the default of its setting ${name} is not ${what}`);
}
