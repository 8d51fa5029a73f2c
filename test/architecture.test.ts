/**
 * The rules between the folders, read from the sources: who may import whom, which packages are used where,
 * and that each file opens by saying why it exists.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { builtinModules } from 'node:module';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
/** Nothing imports from a folder of a higher rank than its own. */
const RANK: Readonly<Record<string, number>> = { protocol: 0, src: 1, switch: 2, bench: 3, test: 3 };

type Source = { readonly path: string; readonly text: string; readonly imports: readonly string[] };

const SOURCES: readonly Source[] = Object.keys(RANK)
  .filter((folder) => existsSync(join(ROOT, folder)))
  .flatMap((folder) =>
    readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' }).map((name) => join(folder, name)),
  )
  .filter((path) => path.endsWith('.ts'))
  .sort()
  .map((path) => {
    const text = readFileSync(join(ROOT, path), 'utf8');
    // This file's own sample is no import.
    return { path, text, imports: path === 'test/architecture.test.ts' ? [] : importsIn(text) };
  });

/** What a file imports, exports from elsewhere, loads later, or starts as a worker. */
function importsIn(text: string): string[] {
  const code = text.replace(/\/\*[\s\S]*?\*\//g, '').replace(/^\s*\/\/.*$/gm, '');
  const patterns = [
    /^\s*(?:import|export)\b[^;'"`]*?\bfrom\s*['"]([^'"]+)['"]/gm,
    /^\s*import\s*['"]([^'"]+)['"]/gm,
    /\bimport\s*\(\s*['"]([^'"]+)['"]/g,
    /\bnew URL\(\s*['"](\.[^'"]+\.ts)['"]/g,
    /\brequire\s*\(\s*['"]([^'"]+)['"]/g,
  ];
  return patterns.flatMap((pattern) => [...code.matchAll(pattern)].map((match) => match[1]));
}

const folderOf = (path: string): string => path.split('/')[0];
const isRelative = (name: string): boolean => name.startsWith('.');
const isNode = (name: string): boolean => name.startsWith('node:') || builtinModules.includes(name);
/** The package of an import such as `@hono/node-server/serve-static`. */
const packageOf = (name: string): string =>
  name
    .split('/')
    .slice(0, name.startsWith('@') ? 2 : 1)
    .join('/');

/** Files with an import that breaks a rule, as `file: import`. */
function breaking(isBad: (path: string, imported: string) => boolean): string[] {
  return SOURCES.flatMap(({ path, imports }) =>
    imports.filter((imported) => isBad(path, imported)).map((imported) => `${path}: ${imported}`),
  );
}

/** Path from the root of what a relative import names. */
const target = (path: string, imported: string): string =>
  relative(ROOT, resolve(ROOT, dirname(path), imported));

describe('imports', () => {
  it('are found in all their forms', () => {
    const text = `import a from './a.ts';
import { b,
  c } from "./b.ts";
import type { D } from './d.ts';
import './e.ts';
export * from './f.ts';
export { g } from './g.ts';
const h = await import('./h.ts');
const i = new URL('./i.ts', import.meta.url);
// import j from './j.ts';
/* import k from './k.ts'; */
const text = "from './l.ts'";`;
    expect(importsIn(text).sort()).toEqual(
      ['a', 'b', 'd', 'e', 'f', 'g', 'h', 'i'].map((name) => `./${name}.ts`),
    );
    expect(SOURCES.length).toBeGreaterThan(50);
  });

  it('never go from protocol to src to switch to bench and test', () => {
    const isUpward = (path: string, imported: string): boolean => {
      if (!isRelative(imported)) return false;
      const rank = RANK[folderOf(target(path, imported))];
      return rank === undefined ? false : rank > RANK[folderOf(path)];
    };
    expect(breaking(isUpward)).toEqual([]);
  });

  it('stay within the folders of the sources, and name files that exist', () => {
    const isLost = (path: string, imported: string): boolean => {
      if (!isRelative(imported)) return false;
      const to = target(path, imported);
      return to.startsWith('..') || !existsSync(join(ROOT, to));
    };
    expect(breaking(isLost)).toEqual([]);
  });

  it('carry the extension .ts', () => {
    const lacksIt = (_path: string, imported: string): boolean =>
      isRelative(imported) && !/\.(ts|json)$/.test(imported);
    expect(breaking(lacksIt)).toEqual([]);
  });

  it('of protocol are of protocol only: no I/O, no packages', () => {
    expect(breaking((path, imported) => folderOf(path) === 'protocol' && !isRelative(imported))).toEqual([]);
  });

  it('of koffi are in src/host only, where libc is declared', () => {
    const isOutside = (path: string, imported: string): boolean =>
      packageOf(imported) === 'koffi' && !path.startsWith('src/host/');
    expect(breaking(isOutside)).toEqual([]);
    expect(SOURCES.filter(({ imports }) => imports.includes('koffi')).length).toBeGreaterThan(0);
  });

  it('of the trial of plugins lead to no library: a thread that is ended while it loads one takes the process with it', () => {
    const loaded = new Set<string>();
    const load = (path: string): void => {
      if (loaded.has(path)) return;
      loaded.add(path);
      const source = SOURCES.find((each) => each.path === path);
      // Types alone load nothing.
      const code = (source?.text ?? '')
        .replace(/^import type\b[\s\S]*?;$/gm, '')
        .replace(/^export type\b.*?;$/gm, '');
      for (const imported of importsIn(code)) {
        if (isRelative(imported)) load(target(path, imported));
        else expect(isNode(imported) || packageOf(imported) === 'acorn', `${path}: ${imported}`).toBe(true);
      }
    };
    load('switch/plugin/trial-thread.ts');
    expect(loaded.size).toBeGreaterThan(15);
    expect([...loaded].filter((path) => path.startsWith('src/host/'))).toEqual([]);
  });

  it('of koffi come after the look at the version of Node, without which an older one ends in native code', () => {
    const isGuarded = (text: string): boolean =>
      text.includes("import './node-version.ts';\nimport koffi from 'koffi';\n");
    const loading = SOURCES.filter(({ imports }) => imports.includes('koffi'));
    expect(loading.filter(({ text }) => !isGuarded(text)).map(({ path }) => path)).toEqual([]);
  });

  it('of src are koffi and Node only, so that it can be used without the switch', () => {
    const isOther = (path: string, imported: string): boolean =>
      folderOf(path) === 'src' && !isRelative(imported) && !isNode(imported) && imported !== 'koffi';
    expect(breaking(isOther)).toEqual([]);
  });

  it('of guest-writes are few: whoever writes to a guest marks the page in its log (dirty-log.ts)', () => {
    const writers = SOURCES.filter(
      ({ path, imports }) =>
        !path.startsWith('test/') &&
        imports.some(
          (imported) => isRelative(imported) && target(path, imported) === 'src/vring/guest-writes.ts',
        ),
    ).map(({ path }) => path);
    expect(writers).toEqual([
      // Marks its answers.
      'src/device/net/control-queue.ts',
      // Marked by Ring: publish, armWake, disarmWake.
      'src/vring/packed/layout.ts',
      'src/vring/packed/mark-read.ts',
      // Mark the frames that they place.
      'src/vring/packed/place.ts',
      // Marked by Device, which has all of the guest marked then.
      'src/vring/packed/recovery.ts',
      // Marked by ToGuest, which knows the addresses.
      'src/vring/piece-cursor.ts',
      // Marked by Ring, as the layout.
      'src/vring/split/gather.ts',
      'src/vring/split/layout.ts',
      'src/vring/split/place.ts',
    ]);
  });

  it('of Node are written with node:', () => {
    expect(breaking((_path, imported) => builtinModules.includes(imported))).toEqual([]);
  });

  it('of packages are dependencies, at run time not only of development', () => {
    const { dependencies, devDependencies } = JSON.parse(
      readFileSync(join(ROOT, 'package.json'), 'utf8'),
    ) as Record<'dependencies' | 'devDependencies', Record<string, string>>;
    const isMissing = (path: string, imported: string): boolean => {
      if (isRelative(imported) || isNode(imported)) return false;
      // As a user's own plugin names it; the loader of plugins knows what that is.
      if (imported === 'ringway/plugin' && path.startsWith('switch/plugin/examples/')) return false;
      const name = packageOf(imported);
      const isTool = ['bench', 'test'].includes(folderOf(path)) && name in devDependencies;
      return !(name in dependencies) && !isTool;
    };
    expect(breaking(isMissing)).toEqual([]);
  });
});

describe('guest memory', () => {
  it('is written through src/vring/guest-writes.ts alone, where a dirty log can see it', () => {
    const written =
      /\b(i32|u8|u16|u64|desc|avail|used16|used32|driver|device)\[[^\]]*\]\s*([-+|&^]|<<|>>>?)?=(?!=)/;
    const writers = SOURCES.filter(
      ({ path }) => /^src\/(vring|device)\//.test(path) && path !== 'src/vring/guest-writes.ts',
    ).filter(({ text }) => written.test(text) || /\.(set|fill|copyWithin)\(.*\b(u8|i32|desc)\b/.test(text));
    expect(writers.map(({ path }) => path)).toEqual([]);
    expect(written.test('  used32[at] = head;')).toBe(true);
  });
});

describe('what is said', () => {
  const saying = (pattern: RegExp, ...allowed: string[]): string[] =>
    SOURCES.filter(({ path, text }) => /^(src|switch)\//.test(path) && pattern.test(text))
      .map(({ path }) => path)
      .filter((path) => !allowed.some((each) => path.startsWith(each)));

  it('by the switch goes through lines-out.ts, which never waits; only short-lived commands write by themselves', () => {
    const short = [
      'switch/cli/ports.ts',
      'switch/cli/fdb.ts',
      'switch/cli/mdb.ts',
      'switch/cli/trace.ts',
      'switch/cli/change-ports.ts',
      'switch/cli/plugin.ts',
      'switch/cli/install-service.ts',
      'switch/cli/completion.ts',
      'switch/cli/doctor.ts',
      'switch/cli/configuration.ts',
      'switch/cli/top.ts',
      'switch/cli/standard-output.ts',
      'switch/demo/',
    ];
    expect(saying(/\bprocess\.std(out|err)\.write\(|\bconsole\./, ...short)).toEqual([]);
    expect(saying(/\bprocess\.stdout\.write\(/)).toContain('switch/cli/ports.ts');
  });

  it('of a file that a peer sent has its name from describeFd, which makes it printable', () => {
    const own = ['src/host/descriptor.ts', 'src/dpdk/device.ts'];
    expect(saying(/\breadlink(Sync)?\(/, ...own)).toEqual([]);
  });
});

describe('sources', () => {
  it('open with a comment that says why they exist', () => {
    const opens = (text: string): boolean => /^(#!.*\n)?\/\*\*[\s\S]{10,}?\*\//.test(text);
    expect(SOURCES.filter(({ text }) => !opens(text)).map(({ path }) => path)).toEqual([]);
  });
});
