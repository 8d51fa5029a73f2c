/**
 * Loads a plugin's code into a thread: its file and what that imports by relative paths, anew each time. In the trial's thread
 * the files are read, their types stripped and their loops guarded; the result, a bundle, is what every worker runs, so what
 * was tried is what meets frames, whatever becomes of the files. Packages and Node's own modules are loaded as usual.
 *
 * Modules of plugins are known by names under /ringway-plugin@N, N being the bundle's number: V8 keeps a module for good
 * under its name, so each load has names of its own. Loading is synchronous, as a worker never returns to its event loop.
 */
import { createRequire, registerHooks } from 'node:module';
import { withoutTypes } from '../strip-types.ts';
import { readPlainFile } from './plain-file.ts';
import { installTurns } from './turn-budget.ts';

/** Path and JavaScript of each file; plain data. */
export type PluginModules = Readonly<Record<string, string>>;

const ROOM = /^file:\/\/\/ringway-plugin@(\d+)(\/.*)$/;
const INTERFACE = new URL(
  import.meta.url.endsWith('.ts') ? './interface.ts' : './interface.js',
  import.meta.url,
).href;

/** More than anybody writes. */
const FILE_BYTES_MAX = 2 ** 23;

const require = createRequire(import.meta.url);
/** By the bundle's number. */
const rooms = new Map<number, (path: string) => string>();
let isInstalled = false;

/** Path and what `import` of the file has; `sourceOf` answers the JavaScript of each file. @throws whatever the code does */
export function loadModules(number: number, path: string, sourceOf: (path: string) => string): unknown {
  install();
  rooms.set(number, sourceOf);
  try {
    return require(`/ringway-plugin@${number}${path}`);
  } finally {
    rooms.delete(number);
  }
}

/** Where a path of a plugin's module stands in a stack, as the user knows it. */
export function withoutRooms(text: string): string {
  return text.replace(/(file:\/\/)?\/ringway-plugin@\d+\//g, '/');
}

function install(): void {
  if (isInstalled) return;
  isInstalled = true;
  installTurns();
  registerHooks({
    resolve(specifier, context, next) {
      if (specifier.startsWith('/ringway-plugin@'))
        return { url: urlOf(specifier), format: 'module', shortCircuit: true };
      const room = ROOM.exec(context.parentURL ?? '');
      if (room === null) return next(specifier, context);
      if (specifier === 'ringway/plugin') return { url: INTERFACE, shortCircuit: true };
      if (/^\.\.?\//.test(specifier)) {
        return { url: new URL(specifier, context.parentURL).href, format: 'module', shortCircuit: true };
      }
      return next(specifier, { ...context, parentURL: `file://${room[2]}` });
    },
    load(url, context, next) {
      const room = ROOM.exec(url);
      if (room === null) return next(url, context);
      const source = rooms.get(Number(room[1]))?.(decodeURIComponent(room[2]));
      // Code that is loaded later was not tried.
      if (source === undefined) throw new Error('a plugin imports its files when it is loaded, not later');
      return { format: 'module', source, shortCircuit: true };
    },
  });
}

function urlOf(path: string): string {
  return new URL(`file://${path.split('/').map(encodeURIComponent).join('/').replace('%40', '@')}`).href;
}

/** Reads files for `loadModules`, and keeps the JavaScript of each in `modules`. */
export function sourceReader(
  modules: Record<string, string>,
  guard: (javaScript: string) => string,
): (path: string) => string {
  return (path) => {
    const text = readPlainFile(path, FILE_BYTES_MAX);
    const javaScript = /\.[cm]?ts$/.test(path) ? withoutTypes(text) : text;
    modules[path] = guard(javaScript);
    return modules[path];
  };
}
