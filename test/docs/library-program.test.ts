/** The program of the README that uses Ringway as a library: it runs as it stands there, and prints what stands there. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';

const ROOT = new URL('../../', import.meta.url);

let folder = '';
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'ringway-library-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

it('prints what the README says', () => {
  const readme = readFileSync(new URL('README.md', ROOT), 'utf8');
  const [, program, printed] = /^```js\n([\s\S]*?)^```\n\nIt prints `([^`]*)`/m.exec(readme) ?? [];
  // The package is compiled when it is packed; here are its sources.
  const ofSources = program
    .replace("'ringway'", `'${new URL('src/index.ts', ROOT)}'`)
    .replace("'ringway/switch'", `'${new URL('switch/index.ts', ROOT)}'`);
  const file = join(folder, 'program.mjs');
  writeFileSync(file, ofSources);
  const text = execFileSync(process.execPath, [file], { encoding: 'utf8' });
  expect(text.replaceAll(/\s+/g, ' ').trim()).toBe(printed);
});
