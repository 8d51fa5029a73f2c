/** A lock on a whole file for as long as this process has it open; it goes with the process, however that ends. */
import { checked, ERRNO } from './errors.ts';
import { lastErrno, libc } from './libc.ts';

const LOCK_EX = 2;
const LOCK_NB = 4;

/** False: another process has it. @throws HostError */
export function lockFile(fd: number): boolean {
  const result = libc.flock(fd, LOCK_EX | LOCK_NB);
  if (result < 0 && lastErrno() === ERRNO.EAGAIN) return false;
  checked(result, 'flock', `locking descriptor ${fd}`);
  return true;
}
