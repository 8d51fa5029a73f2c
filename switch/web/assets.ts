/**
 * The files of the web page as a browser gets them: no build step, nothing from elsewhere. Modules are TypeScript beside this
 * file, whose types are taken out when they are asked for first; libraries come from their packages as they are. All of it is
 * small, so it is kept, compressed. Main thread; loaded only where there is a page.
 */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, extname, join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { withoutTypes } from '../strip-types.ts';

export type Asset = { readonly type: string; readonly gzip: Uint8Array; readonly bytes: number };

const HTML = 'text/html; charset=utf-8';
const CSS = 'text/css; charset=utf-8';
const SCRIPT = 'text/javascript; charset=utf-8';
const SVG = 'image/svg+xml';

/** `.ts` where the sources run, `.js` where they were compiled. */
const MODULE_ENDING = extname(import.meta.url);
const require = createRequire(import.meta.url);

/** The page's own files, by path; `.ts` stands for modules. */
const OWN: Readonly<Record<string, readonly [file: string, type: string]>> = {
  '/': ['index.html', HTML],
  '/login': ['login.html', HTML],
  '/style.css': ['style.css', CSS],
  '/icon.svg': ['icon.svg', SVG],
};
const MODULES = [
  'app',
  'store',
  'format',
  'parts',
  'chart',
  'overview',
  'ports',
  'drops',
  'addresses',
  'trace',
  'capture',
] as const;
/** Package, and the file in it. */
const LIBRARIES: Readonly<Record<string, readonly [name: string, file: string]>> = {
  '/lib/preact.js': ['preact', 'dist/preact.mjs'],
  '/lib/hooks.js': ['preact', 'hooks/dist/hooks.mjs'],
  '/lib/htm.js': ['htm', 'dist/htm.mjs'],
  '/lib/htm-preact.js': ['htm', 'preact/index.mjs'],
  '/lib/uplot.js': ['uplot', 'dist/uPlot.iife.min.js'],
  '/lib/uplot.css': ['uplot', 'dist/uPlot.min.css'],
};

const kept = new Map<string, Asset>();

/** Every path that there is. */
export const ASSET_PATHS: readonly string[] = [
  ...Object.keys(OWN),
  ...MODULES.map((name) => `/${name}${MODULE_ENDING}`),
  ...Object.keys(LIBRARIES),
];

/** Null: there is none at that path. */
export function assetAt(path: string): Asset | null {
  if (!ASSET_PATHS.includes(path)) return null;
  const known = kept.get(path);
  if (known !== undefined) return known;
  const [type, text] = read(path);
  const asset = { type, gzip: gzipSync(text), bytes: Buffer.byteLength(text) };
  kept.set(path, asset);
  return asset;
}

function read(path: string): [type: string, text: string] {
  const own = OWN[path];
  if (own !== undefined) {
    const text = ownText(own[0]);
    return [own[1], text.replace(/\.ts"/g, `${MODULE_ENDING}"`)];
  }
  const library = LIBRARIES[path];
  if (library !== undefined) {
    const text = readFileSync(join(folderOf(library[0]), library[1]), 'utf8');
    return [path.endsWith('.css') ? CSS : SCRIPT, text.replace(/^\/\/# sourceMappingURL=.*$/m, '')];
  }
  const text = ownText(path.slice(1));
  return [SCRIPT, MODULE_ENDING === '.ts' ? withoutTypes(text) : text];
}

function ownText(file: string): string {
  return readFileSync(new URL(`./page/${file}`, import.meta.url), 'utf8');
}

/** Of a package: where its package.json lies, which not every one lets be asked for. */
function folderOf(name: string): string {
  let folder = dirname(require.resolve(name));
  while (!folder.endsWith(`/node_modules/${name}`)) {
    const above = dirname(folder);
    if (above === folder) throw new Error(`the package ${name} has no folder of its name`);
    folder = above;
  }
  return folder;
}
