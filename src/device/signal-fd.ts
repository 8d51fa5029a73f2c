/**
 * Checks the descriptors by which front-end and back-end wake each other (`adoptChannelFd`: ask each other). They are
 * open files that the front-end shares and may make blocking at any moment, so only those are taken that can be used
 * without waiting for it: an eventfd, and for signals a UNIX socket (User-Mode Linux sends one end of a pair). How they
 * are used: src/host/peer-signal.ts and `EpollSet.addSignals`. Main thread.
 */
import { closeFd, describeFd, onlyNamesFile, unixSocketFd } from '../host/descriptor.ts';
import { PeerError } from '../vhost-user/peer-error.ts';

const EVENTFD = 'anon_inode:[eventfd]';

/** What came for a kick. */
export type KickFd = {
  readonly fd: number;
  /** Null: the descriptor tells of kicks. Otherwise what it is: one that is kept and left alone, the ring polled. */
  readonly polledBecause: string | null;
};

/**
 * Takes over `fd`, by which the driver kicks. A pipe or socket cannot be emptied without perhaps waiting for who else
 * reads it, and one that is not emptied tells of nothing, so its ring is polled. @throws PeerError (after closing it)
 */
export function adoptKickFd(fd: number): KickFd {
  const what = usableKind(fd);
  if (what === EVENTFD) return { fd, polledBecause: null };
  if (isPipe(what)) return { fd, polledBecause: 'a pipe' };
  if (unixSocketFd(fd)) return { fd, polledBecause: 'a socket' };
  return refuse(fd, `neither an eventfd nor a pipe or UNIX socket but ${what}`);
}

/** Takes over `fd`, by which we signal, and answers it. @throws PeerError (after closing it) */
export function adoptSignalFd(fd: number): number {
  const what = usableKind(fd);
  if (what === EVENTFD || unixSocketFd(fd)) return fd;
  if (isPipe(what)) {
    return refuse(fd, 'a pipe, and a write to it may wait for whoever else uses it; an eventfd cannot');
  }
  return refuse(fd, `neither an eventfd nor a UNIX socket but ${what}`);
}

/** Takes over `fd`, a connection, and answers it. @throws PeerError (after closing it) */
export function adoptChannelFd(fd: number): number {
  const what = usableKind(fd);
  return unixSocketFd(fd) ? fd : refuse(fd, `not a UNIX socket but ${what}`);
}

/** What the file is called. Asks nothing of the file itself: it may be one that never answers. */
function usableKind(fd: number): string {
  const what = describeFd(fd);
  return onlyNamesFile(fd) ? refuse(fd, `${what}, but only its name (O_PATH)`) : what;
}

function isPipe(what: string): boolean {
  return what.startsWith('pipe:');
}

function refuse(fd: number, why: string): never {
  closeFd(fd);
  throw new PeerError(`the descriptor is ${why}`);
}
