/**
 * The licences of what comes along: of packages, by the files in their folders, and of Node. Under each of them whoever
 * passes the code on passes on the notice too, also where a bundle has it inside.
 */
import { existsSync, globSync, readdirSync, readFileSync } from 'node:fs';
import { join, relative } from 'node:path';

export type Licence = {
  /** From the folder of all packages. */
  readonly path: string;
  readonly name: string;
  readonly version: string;
  /** As SPDX has it. */
  readonly id: string;
  readonly text: string;
};

/** Debian has its text on every machine. */
const COMMON = 'Apache-2.0';
const LICENCE_FILE = /^(licen[cs]e|copying|notice)(\.(md|txt))?$/i;
/** The binary of a package, which has the licence of that. */
const BINARIES: Readonly<Record<string, string>> = { '@koromix/': 'koffi' };

/** Of the package in `folder`, one of the folder `packages`. @throws Error if it has none */
export function licenceOf(folder: string, packages: string): Licence {
  const { name, version, license } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
  const owner = Object.entries(BINARIES).find(([prefix]) => name.startsWith(prefix))?.[1];
  const text = textIn(owner === undefined ? folder : join(packages, owner));
  if (text === null) throw new Error(`${name} has no file with its licence`);
  return { path: relative(packages, folder), name, version, id: license, text };
}

/** Of Node and all that is in it; `folder`: of the npm package `node`, which has a package with the binary beside or in it. */
export function licenceOfNode(folder: string): Licence {
  const { version } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
  const [path] = globSync(['node_modules/node-linux-*/LICENSE', '../node-linux-*/LICENSE'], { cwd: folder });
  if (path === undefined) throw new Error(`there is no licence of Node in or beside ${folder}`);
  return {
    path: 'node',
    name: 'node',
    version,
    id: 'MIT',
    text: readFileSync(join(folder, path), 'utf8').trim(),
  };
}

function textIn(folder: string): string | null {
  if (!existsSync(folder)) return null;
  const names = readdirSync(folder).filter((name) => LICENCE_FILE.test(name));
  if (names.length === 0) return null;
  return names.map((name) => readFileSync(join(folder, name), 'utf8').trim()).join('\n\n');
}

/** One after the other, to be read. */
export function licenceTexts(licences: readonly Licence[]): string {
  return licences
    .map(({ name, version, id, text }) => `${name} ${version} (${id})\n\n${text}\n`)
    .join(`\n${'-'.repeat(78)}\n\n`);
}

/** Debian's file `copyright` (copyright-format 1.0): of the whole, and a paragraph for each that comes along. */
export function copyrightFile(home: string, licences: readonly Licence[]): string {
  const paragraphs = licences.map(
    ({ path, name, version, id, text }) => `Files: ${home}/${path}/*
Copyright: ${holders(text) || `the authors of ${name}`}
${id === COMMON ? `License: ${COMMON}` : `License: ${id}-of-${name.replace(/[@/]/g, '')}-${version}\n${indented(text)}`}
`,
  );
  return `Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: ringway

Files: *
Copyright: the Ringway project
License: Apache-2.0
Comment: Parts of the packages below are in the files of
 ${home}/ringway/dist/program.

License: Apache-2.0
 The full text of the Apache License 2.0 is in
 /usr/share/common-licenses/Apache-2.0.

${paragraphs.join('\n')}`;
}

/** Whose it is, as far as lines say so. */
function holders(text: string): string {
  const lines = text
    .split('\n')
    .map((line) => /^\s*(?:copyright\s+)?(\(c\)|©|copyright \d{4}).*$/i.exec(line));
  const found = lines.flatMap((match) => (match === null ? [] : [match[0].trim()]));
  return [...new Set(found)].slice(0, 8).join('\n ');
}

/** As the continuation of a field. */
function indented(text: string): string {
  return text
    .split('\n')
    .map((line) => (line.trim() === '' ? ' .' : ` ${line.trimEnd()}`))
    .join('\n');
}
