/**
 * The program of the installed package in few files: run after tsc, by `npm pack` (prepack). Some 300 modules, and all of
 * zod's languages, cost Node more time at the start than the rest of it; in a bundle they cost next to nothing. What only
 * some commands need stays apart and is loaded by those.
 *
 * Workers' threads and guests' processes are not in it: they run the compiled modules, so that what is measured and
 * tested in a checkout is, function by function, what forwards frames. Programs that import Ringway get those too.
 */
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { rolldown } from 'rolldown';
import { licenceOf, licenceTexts } from './licences.ts';

const ROOT = join(import.meta.dirname, '../..');
const PACKAGES = join(ROOT, 'node_modules');
const OUTPUT = join(ROOT, 'dist/program');
/** What code of the bundle looks for beside itself, and where it is. */
const BESIDE: Readonly<Record<string, string>> = {
  'thread.js': '../switch/worker/thread.js',
  'trial-thread.js': '../switch/plugin/trial-thread.js',
  'trace-thread.js': '../switch/trace/trace-thread.js',
  'interface.js': '../switch/plugin/interface.js',
  'guest.js': '../switch/demo/guest.js',
};
/** Brings a library of its own, which it looks for beside its files. */
const NATIVE = 'koffi';
/** Resolved where it is used, by `require`. */
const REQUIRED = 'pino-pretty';

rmSync(OUTPUT, { recursive: true, force: true });
const { dependencies } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'));
const bundle = await rolldown({
  input: { main: join(ROOT, 'dist/switch/cli/main.js') },
  platform: 'node',
  external: [NATIVE, REQUIRED],
  onLog(level, log) {
    if (level === 'warn') throw new Error(log.message);
  },
});
const { output } = await bundle.write({
  dir: OUTPUT,
  format: 'esm',
  entryFileNames: '[name].js',
  // All in one folder, as modules look for others beside themselves.
  chunkFileNames: '[name]-[hash].js',
});
await bundle.close();
for (const chunk of output) {
  const lost = chunk.type === 'chunk' ? chunk.imports.filter((name) => name in dependencies) : [];
  if (lost.some((name) => name !== NATIVE)) throw new Error(`${chunk.fileName} still imports ${lost}`);
}
mkdirSync(OUTPUT, { recursive: true });
// The web page's files that are no modules; all of it lies beside the code that serves it.
const page = { from: join(ROOT, 'switch/web/page'), to: join(ROOT, 'dist/switch/web/page') };
for (const name of readdirSync(page.from).filter((name) => /\.(html|css|svg)$/.test(name)))
  cpSync(join(page.from, name), join(page.to, name));
cpSync(page.to, join(OUTPUT, 'page'), { recursive: true, filter: (path) => !path.endsWith('.d.ts') });
for (const [name, path] of Object.entries(BESIDE))
  writeFileSync(
    join(OUTPUT, name),
    name === 'interface.js' ? `export * from '${path}';\n` : `import '${path}';\n`,
  );
writeFileSync(
  join(OUTPUT, 'LICENCES.txt'),
  licenceTexts(foldersOf(output).map((folder) => licenceOf(folder, PACKAGES))),
);

/** Of the packages that are in the bundle. */
function foldersOf(chunks: typeof output): string[] {
  const modules = chunks.flatMap((chunk) => (chunk.type === 'chunk' ? chunk.moduleIds : []));
  const folders = modules.flatMap((id) => /^.*\/node_modules\/(?:@[^/]+\/)?[^/]+/.exec(id)?.[0] ?? []);
  return [...new Set(folders)].sort();
}
