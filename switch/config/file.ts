/**
 * Reads a YAML configuration file into settings as text that know the line they stand on; what they mean and
 * which values are allowed is resolve.ts's business. Main thread, at start.
 */
import { statSync } from 'node:fs';
import { isMap, isScalar, isSeq, LineCounter, type Node, type Pair, parseDocument } from 'yaml';
import { ConfigError, type SettingSource, type SettingValue } from './settings.ts';
import { MAP_SPELLING } from './spelling.ts';
import { readText } from './text-file.ts';

/** @throws ConfigError when the file cannot be read or is not YAML of maps, lists and texts */
export function readConfigFile(path: string): SettingSource {
  return parseConfigText(path, readText(path));
}

/** Of a switch that runs: a pipe has said what it had, and whoever read it would wait. @throws ConfigError as `readConfigFile` */
export function readConfigFileAgain(path: string): SettingSource {
  const stat = statSync(path, { throwIfNoEntry: false });
  if (stat !== undefined && !stat.isFile() && !stat.isDirectory())
    throw new ConfigError(`cannot read ${path}: it is no plain file`);
  return readConfigFile(path);
}

/** The settings in `text`; `path` is what messages call the file. @throws ConfigError */
export function parseConfigText(path: string, text: string): SettingSource {
  const lineCounter = new LineCounter();
  // The failsafe schema leaves every scalar as it was written: 0660 must not become the number 660.
  const document = parseDocument(text, {
    schema: 'failsafe',
    lineCounter,
    prettyErrors: false,
    uniqueKeys: false,
  });
  const lineAt = (offset: number | undefined) => lineCounter.linePos(offset ?? 0).line;
  const syntaxError = document.errors[0];
  if (syntaxError !== undefined) {
    throw new ConfigError(`${path}:${lineAt(syntaxError.pos[0])}: not YAML: ${oneLine(syntaxError.message)}`);
  }
  const reader = new SettingReader(path, lineAt);
  const values = document.contents === null ? {} : reader.read(document.contents, []);
  if (typeof values === 'string' || Array.isArray(values)) {
    if (values !== '') throw new ConfigError(`${path}:1: a map of settings is needed, with ports at least`);
  }
  return {
    ...MAP_SPELLING,
    values: typeof values === 'string' ? {} : (values as SettingSource['values']),
    subject: (settingPath) => reader.subject(settingPath),
  };
}

/** Walks the parsed document once; keeps the line of every setting. */
class SettingReader {
  readonly #file: string;
  readonly #lineAt: (offset: number | undefined) => number;
  readonly #lineByPath = new Map<string, number>();

  constructor(file: string, lineAt: (offset: number | undefined) => number) {
    this.#file = file;
    this.#lineAt = lineAt;
  }

  /** `file:line: a.b.c`; the line of the nearest enclosing setting when `path` itself does not stand there. */
  subject(path: readonly string[]): string {
    let depth = path.length;
    while (depth > 0 && !this.#lineByPath.has(pathKey(path.slice(0, depth)))) depth--;
    const line = this.#lineByPath.get(pathKey(path.slice(0, depth))) ?? 1;
    return `${this.#file}:${line}: ${path.filter((key) => !/^\d+$/.test(key) || path[0] === 'ports').join('.')}`;
  }

  read(node: Node | null, path: readonly string[]): SettingValue {
    if (node === null) return '';
    if (!this.#lineByPath.has(pathKey(path)) && node.range) {
      this.#lineByPath.set(pathKey(path), this.#lineAt(node.range[0]));
    }
    if (isScalar(node)) return typeof node.value === 'string' ? node.value : '';
    if (isSeq<Node>(node)) return node.items.map((item, i) => this.read(item, [...path, String(i)]));
    if (isMap<Node, Node | null>(node)) return this.#readMap(node.items, path);
    throw new ConfigError(`${this.subject(path)}: aliases are not supported`);
  }

  #readMap(pairs: readonly Pair<Node, Node | null>[], path: readonly string[]): SettingValue {
    // Without a prototype, so that a key named __proto__ is a key like any other.
    const values: Record<string, SettingValue> = Object.create(null);
    for (const { key: keyNode, value } of pairs) {
      if (!isScalar(keyNode) || typeof keyNode.value !== 'string' || keyNode.value === '') {
        const line = this.#lineAt(keyNode.range?.[0]);
        throw new ConfigError(`${this.#file}:${line}: the name of a setting must be plain text`);
      }
      const key = keyNode.value;
      const settingPath = [...path, key];
      this.#lineByPath.set(pathKey(settingPath), this.#lineAt(keyNode.range?.[0]));
      // The schema would pass over it in silence.
      if (key === '__proto__') throw new ConfigError(`${this.subject(settingPath)}: unknown setting`);
      if (Object.hasOwn(values, key)) throw new ConfigError(`${this.subject(settingPath)}: given twice`);
      values[key] = this.read(value, settingPath);
    }
    return values;
  }
}

function pathKey(path: readonly string[]): string {
  return path.join('\0');
}

function oneLine(text: string): string {
  return text.replace(/\s+/g, ' ').trim();
}
