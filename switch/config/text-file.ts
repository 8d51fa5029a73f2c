/** A file that a user names, and why it cannot be read in words. Main thread. */
import { readFileSync } from 'node:fs';
import { ConfigError } from './settings.ts';

const READ_REFUSALS: Readonly<Record<string, string>> = {
  ENOENT: 'no such file',
  ENOTDIR: 'no such file',
  EACCES: 'permission denied',
  EISDIR: 'it is a folder',
};

/** @throws ConfigError when the file cannot be read */
export function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : 'unknown error';
    throw new ConfigError(`cannot read ${path}: ${READ_REFUSALS[code] ?? code}`);
  }
}
