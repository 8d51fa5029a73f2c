#!/usr/bin/env node
/**
 * The program for `node switch/cli/ringway.js`; the command `ringway` is ringway.sh, which comes here too. Plain
 * JavaScript, because it must also start on a Node that is
 * too old for the program: it then starts itself again with the binary of the npm package `node`, if there, which ends
 * when this process does (switch/launcher.ts).
 * In a checkout it runs the source; in an installed package, where Node strips no types, the compiled copy.
 */
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import module, { createRequire } from 'node:module';
import { constants } from 'node:os';
import { dirname, join, sep } from 'node:path';
import { fileURLToPath } from 'node:url';

const NODE_MAJOR_MIN = 24;
const PASSED_ON_SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'];
const thisFile = fileURLToPath(import.meta.url);

// Node would open its debugger, in a process that may be root's.
process.on('SIGUSR1', () => {});

if (majorOf(process.versions.node) >= NODE_MAJOR_MIN) {
  const installed = thisFile.includes(`${sep}node_modules${sep}`);
  if (!installed) keepCompiledSource();
  await import(installed ? '../../dist/switch/cli/main.js' : './main.ts');
} else {
  const binary = newerNode();
  if (binary === null) {
    process.stderr.write(
      `ringway: Node ${NODE_MAJOR_MIN} or later is needed, this is ${process.versions.node} ` +
        `(install it, or run npm install node@${NODE_MAJOR_MIN} beside ringway)\n`,
    );
    // As main.ts for what the user can mend before it starts.
    process.exitCode = 2;
  } else {
    runWith(binary);
  }
}

/**
 * Keeps what Node makes of the TypeScript source, for this thread and the workers. From the second start on
 * the type stripper is not loaded at all, which spares 40 MB. Beside the checkout's packages and not in a
 * shared folder, where somebody else could put code into it.
 */
function keepCompiledSource() {
  const folder = join(dirname(thisFile), '../../node_modules/.cache/ringway/compiled');
  module.enableCompileCache(folder);
  process.env.NODE_COMPILE_CACHE = folder;
}

/** @param {string} version */
function majorOf(version) {
  return Number.parseInt(version, 10);
}

/** Path of the npm package's binary, or null when it is not installed or too old itself. */
function newerNode() {
  try {
    const packagePath = createRequire(import.meta.url).resolve('node/package.json');
    const { version, bin } = JSON.parse(readFileSync(packagePath, 'utf8'));
    return majorOf(version) >= NODE_MAJOR_MIN ? join(dirname(packagePath), bin.node) : null;
  } catch {
    return null;
  }
}

/** @param {string} binary */
function runWith(binary) {
  const child = spawn(binary, ['--disable-sigusr1', thisFile, ...process.argv.slice(2)], {
    stdio: 'inherit',
    env: { ...process.env, RINGWAY_LAUNCHER: String(process.pid) },
  });
  for (const signal of PASSED_ON_SIGNALS) process.on(signal, () => child.kill(signal));
  child.on('error', (error) => {
    process.stderr.write(`ringway: cannot start ${binary}: ${error.message}\n`);
    process.exit(1);
  });
  child.on('exit', (code, signal) => process.exit(code ?? 128 + constants.signals[signal]));
}
