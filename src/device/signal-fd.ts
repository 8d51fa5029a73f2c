/**
 * Checks and owns the descriptors by which front-end and back-end wake each other. Only eventfds and pipes
 * are taken: writing to anything else could block a worker or change a file.
 */
import { closeFd, describeFd, setNonBlocking } from '../host/descriptor.ts';
import { PeerError } from '../vhost-user/peer-error.ts';

/** Takes over `fd`, makes it non-blocking and answers it. @throws PeerError, HostError (after closing it) */
export function adoptSignalFd(fd: number): number {
  const kind = describeFd(fd);
  const isSignal = kind === 'anon_inode:[eventfd]' || kind.startsWith('pipe:');
  if (!isSignal) {
    closeFd(fd);
    throw new PeerError(`the descriptor is neither an eventfd nor a pipe but ${kind}`);
  }
  try {
    setNonBlocking(fd);
  } catch (error) {
    // Opened with O_PATH: it names an eventfd but cannot be used.
    closeFd(fd);
    throw error;
  }
  return fd;
}
