/** What the library's entrances say on a Node that is too old, before any native code is called. */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';

const AS_IF_OLDER =
  "Object.defineProperty(process, 'versions', { value: { ...process.versions, node: '20.20.2' } })";

it.each(['src/index.ts', 'switch/index.ts', 'src/dpdk/index.ts'])(
  '%s says which Node is needed, on an older one',
  (entrance) => {
    const url = new URL(`../../${entrance}`, import.meta.url).href;
    const program = `await import(${JSON.stringify(url)}).catch((error) => console.log(error.message));`;
    const preload = ['--import', `data:text/javascript,${encodeURIComponent(AS_IF_OLDER)}`];
    const args = [...preload, '--input-type=module', '--eval', program];
    const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' });
    expect({ status, stdout, stderr }).toEqual({
      status: 0,
      stdout: expect.stringMatching(
        /^ringway: Node 24 or later is needed, this is 20\.20\.2 \([^\n]*npm install node@24[^\n]*\)\n$/,
      ),
      stderr: '',
    });
  },
);

it('is the version that package.json asks for', () => {
  const { engines } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'));
  const source = readFileSync(new URL('../../src/host/node-version.ts', import.meta.url), 'utf8');
  expect(source).toContain(`NODE_MAJOR_MIN = ${engines.node.replace('>=', '')};`);
});
