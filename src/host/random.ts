/**
 * Random bytes that nobody can guess, from the kernel. Node's module for it brings all of OpenSSL's parts along, which costs each
 * thread as much of its start as a third of Node itself. Any thread.
 */
import { HostError } from './errors.ts';
import { lastErrno, libc } from './libc.ts';

/** So many are always given at once (getrandom(2)). */
const BYTES_MAX = 256;

export function randomBytes(count: number): Buffer {
  const bytes = Buffer.alloc(count);
  for (let at = 0; at < count; at += BYTES_MAX) {
    const part = bytes.subarray(at, at + BYTES_MAX);
    if (libc.getrandom(part, part.length, 0) !== part.length)
      throw new HostError('getrandom', lastErrno(), 'getting random bytes');
  }
  return bytes;
}
