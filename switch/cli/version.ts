/** The package's version. Also right in the compiled copy under dist/, which lies deeper. */
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

const FOLDERS_UP_MAX = 4;

export function ringwayVersion(): string {
  let folder = import.meta.dirname;
  for (let i = 0; i < FOLDERS_UP_MAX; i++) {
    folder = dirname(folder);
    const version = versionIn(join(folder, 'package.json'));
    if (version !== null) return version;
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
