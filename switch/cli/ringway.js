#!/usr/bin/env node
/**
 * The program for `node switch/cli/ringway.js`; the command `ringway` is ringway.sh, which comes here too. Plain
 * JavaScript, because it must also start on a Node that is
 * too old for the program: it then starts itself again with the binary of the npm package `node`, if there, which ends
 * when this process does (switch/launcher.ts).
 * In a checkout it runs the source; in an installed package, where Node strips no types, the compiled copy.
 */
import { lstatSync, mkdirSync, readFileSync } from 'node:fs';
import module, { createRequire } from 'node:module';
import { constants } from 'node:os';
import { dirname, isAbsolute, join, sep } from 'node:path';
import { fileURLToPath } from 'node:url';

const NODE_MAJOR_MIN = 24;
const PASSED_ON_SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'];
const thisFile = fileURLToPath(import.meta.url);

// Node would open its debugger, in a process that may be root's.
process.on('SIGUSR1', () => {});

if (majorOf(process.versions.node) >= NODE_MAJOR_MIN) {
  const installed = thisFile.includes(`${sep}node_modules${sep}`);
  keepCompiled(installed);
  await import(installed ? '../../dist/program/main.js' : './main.ts');
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
    await runWith(binary);
  }
}

/**
 * Keeps what Node makes of the source, for this thread and the workers: from the second start on less is to be compiled,
 * and in a checkout the type stripper is not loaded at all, which spares 40 MB. Where nothing can be written, or what is
 * there is somebody else's, it is done without.
 * @param {boolean} installed
 */
function keepCompiled(installed) {
  const folder = compiledFolder(installed);
  if (folder === null) return;
  module.enableCompileCache(folder);
  process.env.NODE_COMPILE_CACHE = folder;
}

/**
 * Never a folder that others may write to, who could put code into it. A checkout's is beside its packages. Of an installed
 * package, which is often root's while another user runs it: the service's own (systemd's CacheDirectory=), else the user's.
 * @param {boolean} installed
 */
function compiledFolder(installed) {
  if (!installed) return join(dirname(thisFile), '../../node_modules/.cache/ringway/compiled');
  const { CACHE_DIRECTORY, XDG_CACHE_HOME, HOME } = process.env;
  const base = CACHE_DIRECTORY?.split(':')[0] || (XDG_CACHE_HOME ?? (HOME && join(HOME, '.cache')));
  if (!base || !isAbsolute(base)) return null;
  const folder = join(base, 'ringway');
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    const { uid, mode } = lstatSync(folder);
    return uid === process.getuid?.() && (mode & 0o022) === 0 ? folder : null;
  } catch {
    return null;
  }
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
async function runWith(binary) {
  const { spawn } = await import('node:child_process');
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
