/** The package's version, and its command. Also right in the compiled copy and the bundle under dist/, which lie deeper. */
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

const FOLDERS_UP_MAX = 4;

export function ringwayVersion(): string {
  return ownPackage().version;
}

/** Path of the command `ringway`, as whoever starts it by itself has to name it. */
export function ownCommand(): string {
  return join(ownPackage().folder, 'switch/cli/ringway.sh');
}

function ownPackage(): { readonly folder: string; readonly version: string } {
  let folder = import.meta.dirname;
  for (let i = 0; i < FOLDERS_UP_MAX; i++) {
    folder = dirname(folder);
    const version = versionIn(join(folder, 'package.json'));
    if (version !== null) return { folder, version };
  }
  throw new Error(`no package.json of ringway above ${import.meta.dirname}`);
}

function versionIn(packagePath: string): string | null {
  try {
    const { name, version } = JSON.parse(readFileSync(packagePath, 'utf8'));
    return name === 'ringway' ? version : null;
  } catch {
    return null;
  }
}
