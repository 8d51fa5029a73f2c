/** A named pipe in which hardly anything has room, for what happens when a reader is slow. */
import { spawnSync } from 'node:child_process';
import { constants, openSync } from 'node:fs';
import { libc } from '../src/host/libc.ts';

const F_SETPIPE_SZ = 1031;
const PIPE_BYTES = 4096;

/** Makes it at `path`; descriptors of both ends, of which the reader's does not wait. */
export function narrowPipe(path: string): { readonly reader: number; readonly writer: number } {
  spawnSync('mkfifo', [path]);
  const reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  libc.fcntl(reader, F_SETPIPE_SZ, PIPE_BYTES);
  return { reader, writer: openSync(path, constants.O_WRONLY) };
}
