/** Reads files that somebody names, on the trial's thread: none that may never come to its end. */
import { readFileSync, statSync } from 'node:fs';

/** The file is not one to be read whole; `message` says why. */
export class PlainFileError extends Error {
  override name = 'PlainFileError';
  readonly path: string;

  constructor(message: string, path: string) {
    super(message);
    this.path = path;
  }
}

/** @throws PlainFileError, and as readFileSync */
export function readPlainFile(path: string, bytesMax: number): string {
  const stat = statSync(path);
  // A pipe, a device; of a folder Node says so itself.
  if (!stat.isFile() && !stat.isDirectory()) throw new PlainFileError('it is no plain file', path);
  if (stat.size > bytesMax) throw new PlainFileError(`it is longer than ${bytesMax} bytes`, path);
  return readFileSync(path, 'utf8');
}
