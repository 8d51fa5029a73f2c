/** V8 looks for unused WebAssembly code where types are stripped in threads, and does not any more once it is told so. */
import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

const WASM_CODE = fileURLToPath(new URL('../../switch/wasm-code.ts', import.meta.url));
/** Enough that V8 compiles the code that strips types better, and the first version of it is of no use any more. */
const PROGRAM = `
import { Worker } from 'node:worker_threads';
if (process.argv[1] === 'keep') (await import(${JSON.stringify(WASM_CODE)})).keepWasmCode();
const text = 'export function f<T>(x: T): T { return x as T }\\n'.repeat(2000);
const code = \`import { stripTypeScriptTypes } from 'node:module';
for (let i = 0; i < 30; i++) stripTypeScriptTypes(\${JSON.stringify(text)});\`;
await new Promise((resolve) => new Worker(code, { eval: true, stderr: true }).once('exit', resolve));
`;

const collections = (how: string): number => {
  const args = ['--trace-wasm-code-gc', '--input-type=module', '--eval', PROGRAM, how];
  return execFileSync(process.execPath, args, { encoding: 'utf8' }).match(/wasm-gc/g)?.length ?? 0;
};

it('stays where it is', { timeout: 120_000 }, () => {
  expect(collections('')).toBeGreaterThan(0);
  expect(collections('keep')).toBe(0);
});
