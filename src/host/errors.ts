/**
 * errno made readable: which call failed, with what code, and what was being done. Thrown for the host's
 * refusals; what a peer did wrong is a PeerError (src/vhost-user/peer-error.ts) instead.
 */
import { constants } from 'node:os';
import { lastErrno } from './libc.ts';

export const ERRNO = constants.errno;

/** Reversed, so that of two names for one number the first counts: EAGAIN, not EWOULDBLOCK. */
const CODE_BY_NUMBER = new Map<number, string>(
  Object.entries(ERRNO)
    .reverse()
    .map(([code, number]) => [number, code]),
);
const MEANINGS: Readonly<Record<string, string>> = {
  EACCES: 'permission denied',
  EADDRINUSE: 'address already in use',
  EAGAIN: 'would block',
  EBADF: 'bad file descriptor',
  ECONNREFUSED: 'connection refused',
  ECONNRESET: 'connection reset',
  EDQUOT: 'disk quota exceeded',
  EFBIG: 'file too large',
  EINVAL: 'invalid argument',
  EIO: 'input or output error',
  EMFILE: 'too many open files',
  ENFILE: 'too many open files in the system',
  ENOENT: 'no such file or directory',
  ENOMEM: 'out of memory',
  ENOSPC: 'no space left on device',
  ENOTDIR: 'not a directory',
  EPERM: 'operation not permitted',
  EPIPE: 'broken pipe',
};

export class HostError extends Error {
  override name = 'HostError';
  readonly call: string;
  readonly errno: number;
  /** `ENOENT` and so on; `E<number>` for one that Node has no name for. */
  readonly code: string;

  constructor(call: string, errno: number, doing: string) {
    super(`${doing}: ${call} failed with ${errnoText(errno)}`);
    this.call = call;
    this.errno = errno;
    this.code = codeOf(errno);
  }
}

function codeOf(errno: number): string {
  return CODE_BY_NUMBER.get(errno) ?? `E${errno}`;
}

/** `ENOENT (no such file or directory)`; the code alone where there is no more to say. */
export function errnoText(errno: number): string {
  const code = codeOf(errno);
  const meaning = MEANINGS[code];
  return meaning === undefined ? code : `${code} (${meaning})`;
}

/** `result` when it is not negative; otherwise throws what errno says. Call it right after the libc call. */
export function checked(result: number, call: string, doing: string): number {
  if (result < 0) throw new HostError(call, lastErrno(), doing);
  return result;
}
